"""Train heads for box, point and scribble prompts on the base classes of a config.

For models whose SAM 2 has no official weights, as the embedded default; others take
``checkpoint='official'``. The file is taken by itself where it lies beside the weights as
prompts.pth. Nothing of the model changes.

    python tools/train_prompts.py                       the embedded default (make demo), fold 0
    FOLD=1 python tools/train_prompts.py CONFIG WEIGHTS
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from mmengine.config import Config
from mmseg.registry import DATASETS

from mmfss.apis.loading import find_weights, load_model
from mmfss.apis.prompts import PROMPT_WEIGHTS
from mmfss.commands.prompt_training import encode_objects, train_prompts
from mmfss.configs import DEFAULT_CONFIG, find_config
from mmfss.encoders.sam2.model import SAM2
from mmfss.files import atomic, check_writable

ITERATIONS, OBJECTS, BATCH, RATE = 500, 1600, 16, 1e-3  # two to three minutes on a CPU core


def main(argv: list[str] | None = None) -> None:
    """The command; see the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', nargs='?', default=DEFAULT_CONFIG)
    parser.add_argument('weights', nargs='?')
    parser.add_argument('--out', type=Path, help=f'default: {PROMPT_WEIGHTS} beside the weights')
    parser.add_argument('--iterations', type=int, default=ITERATIONS)
    parser.add_argument('--objects', type=int, default=OBJECTS, help='to train on')
    parser.add_argument('--batch-size', type=int, default=BATCH)
    parser.add_argument('--lr', type=float, default=RATE)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--device', help='default: the first GPU, else the CPU')
    args = parser.parse_args(argv)
    if min(args.iterations, args.objects, args.batch_size) < 1:
        raise SystemExit('--iterations, --objects and --batch-size must be at least 1')
    try:
        print(run(args))
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error


def run(args: argparse.Namespace) -> Path:
    """Train and write the file; returns its path.

    Raises:
        FileNotFoundError, ValueError: No such config, weights or data; the file cannot be written.
    """
    cfg = Config.fromfile(find_config(args.config))
    weights = find_weights(cfg, args.weights)
    if args.out is None and weights is None:
        raise ValueError('--out must say where to write: the config has no weights to lie beside')
    out = check_writable(args.out or Path(str(weights)).with_name(PROMPT_WEIGHTS), '--out')
    sam2 = getattr(load_model(cfg, weights, args.device), 'sam2', None)
    if not isinstance(sam2, SAM2):
        raise ValueError(
            f'{cfg.filename} has a {cfg.model.type}, which has no SAM 2 whose heads could be '
            'trained for prompts; give a config of a method on SAM 2, such as FSSAM'
        )
    torch.manual_seed(args.seed)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    start, mean = time.time(), 0.0
    objects = encode_objects(sam2, dataset, args.objects, args.batch_size)
    print(f'{args.objects} objects encoded  {time.time() - start:.0f} s', flush=True)
    training = train_prompts(sam2, objects, args.iterations, args.batch_size, args.lr, args.seed)
    for step, (trained, loss) in enumerate(training, 1):
        heads, mean = trained, loss if step == 1 else 0.98 * mean + 0.02 * loss
        if step % 100 == 0 or step == args.iterations:
            spent = time.time() - start
            print(f'{step}/{args.iterations}  loss {mean:.3f}  {spent:.0f} s', flush=True)
    with atomic(out) as part:
        torch.save(heads.state_dict(), part)
    return out


if __name__ == '__main__':
    main()
