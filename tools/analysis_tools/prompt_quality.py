"""How good the masks are that prompts give: IoU of box, point and scribble prompts, drawn from the
true masks of novel classes, against taking the box itself as the mask.

    python tools/analysis_tools/prompt_quality.py --objects 60
    python tools/analysis_tools/prompt_quality.py CONFIG WEIGHTS --checkpoint official

Without arguments: the model of `make demo`, fold 0, on the validation images of its
novel classes. ``--checkpoint model`` measures the model's own heads, whatever lies beside its
weights.
"""

from __future__ import annotations

import argparse

import numpy as np
from mmengine.config import Config
from mmseg.registry import DATASETS

from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.prompts import Proposer
from mmfss.commands.prompt_training import KINDS, draw_prompt, largest_object
from mmfss.configs import DEMO_CONFIG, find_config
from mmfss.evaluation.report_text import table_lines


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def measure(proposer: Proposer, dataset, objects: int, seed: int) -> dict[str, list[float]]:
    """IoUs by kind of prompt, on the queries of the first episodes."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {'box as mask': [], **{kind: [] for kind in KINDS}}
    for index in range(objects):
        item = dataset[index]
        image = item['inputs']['query'].permute(1, 2, 0).numpy()  # BGR
        truth = largest_object(item['data_samples'].gt_sem_seg.data[0].numpy() == 1)
        rows, columns = (np.flatnonzero(truth.any(axis)) for axis in (1, 0))
        box = np.zeros_like(truth)
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        found['box as mask'].append(iou(box, truth))
        for kind in KINDS:
            try:
                mask = proposer.propose(image, draw_prompt(truth, kind, rng)).mask
            except ValueError:  # an empty mask
                mask = np.zeros_like(truth)
            found[kind].append(iou(mask, truth))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', nargs='?', default=DEMO_CONFIG)
    parser.add_argument('weights', nargs='?')
    parser.add_argument('--checkpoint', help='as for mmfss.apis.prompts.Proposer, or "model"')
    parser.add_argument('--objects', type=int, default=60)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    cfg = Config.fromfile(find_config(args.config))
    inferencer = FewShotInferencer(cfg, args.weights)
    own = args.checkpoint == 'model'
    proposer = Proposer(inferencer.model if own else inferencer, None if own else args.checkpoint)
    options = dict(cfg.test_dataloader.dataset, num_episodes=args.objects)
    dataset = DATASETS.build(options)
    rows = []
    for kind, values in measure(proposer, dataset, args.objects, args.seed).items():
        figures = np.mean(values), np.median(values), np.percentile(values, 10)
        rows.append([kind, *(f'{figure:.3f}' for figure in figures)])
    print(f'{args.objects} objects\n')
    print('\n'.join(table_lines([['prompt', 'mean IoU', 'median', 'worst tenth'], *rows], True)))


if __name__ == '__main__':
    main()
