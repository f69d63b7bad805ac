"""What ``mmfss train-prompts`` does: it trains heads for box, point and scribble prompts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmseg.registry import DATASETS

from mmfss.apis.loading import find_weights, load_model
from mmfss.apis.prompts import PROMPT_WEIGHTS
from mmfss.checkpoints.conversion import save_whole
from mmfss.commands.command_lines import PromptArguments, parse
from mmfss.commands.prompt_training import encode_objects, train_prompts
from mmfss.configs import find_config
from mmfss.encoders.sam2.model import SAM2
from mmfss.files import check_writable


def main(argv: Sequence[str] | None = None) -> None:
    """:func:`run` with a command line, by default the process's."""
    run(parse(PromptArguments, argv))


def run(args: PromptArguments) -> None:
    """Train and say where the file is.

    Raises:
        SystemExit: With what is wrong with the arguments.
    """
    if min(args.iterations, args.objects, args.batch_size) < 1:
        raise SystemExit('--iterations, --objects and --batch-size must be at least 1')
    try:
        print(write_heads(args))
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error


def write_heads(args: PromptArguments) -> Path:
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
    save_whole(heads.state_dict(), out, overwrite=True)
    return out
