"""Whether a second pass gains: confident predictions of a first one join the supports.

    METHOD=prototype BENCHMARK=shapes_5i python tools/analysis_tools/second_pass.py configs/fss.py

All novel classes of the fold get K random supports each and are looked for together in all other
images of the config's test data. Of each class the J predictions with the largest product of object
score and confidence join its supports with their masks, and all images are labelled again; for
comparison the same images join with their true masks, where they show the class at all. mIoU with
background, percent: at the config's threshold of the object score, and at the best one in steps of
0.02, which the truth tells, of each pass for itself. Means over draws with the standard error of
the gain. FOLD and DATA_ROOT in the environment as for tools/test.py.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config, DictAction
from object_scores import Images

from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.nway import ClassState, decide, encode_class, segment_classes
from mmfss.batching import cat
from mmfss.configs import find_config
from mmfss.evaluation.report_text import table_lines
from mmfss.files import write_text

Shots = list[tuple[int, torch.Tensor]]
"""Images of a class by number, with masks uint8 (S, S)."""


class Labelling:
    """All classes in all images that are no supports.

    Args:
        images: encoded ones.
        labels: of the classes.
        shots: of each class.
        rows: numbers of the images to label.
    """

    def __init__(self, images: Images, labels: list[int], shots: list[Shots], rows: list[int]):
        self.images, self.labels, self.rows = images, labels, rows
        states = [self._state(some) for some in shots]
        found = [segment_classes(images.inferencer.model, images.features[i], states) for i in rows]
        self.logits = torch.cat([one.logits for one in found])
        self.scores = torch.cat([one.scores for one in found])

    def _state(self, shots: Shots) -> ClassState:
        features = cat([self.images.supports[i] for i, _ in shots])
        masks = torch.stack([mask for _, mask in shots])
        return encode_class(self.images.inferencer.model, features, masks)

    def maps(self, threshold: float) -> list[np.ndarray]:
        """Labels uint8 (S, S) of 0..N."""
        size = tuple(self.logits.shape[-2:])
        pairs = zip(self.logits, self.scores)
        return [decide(logits, scores, threshold, size).numpy() for logits, scores in pairs]

    def mious(self, thresholds: list[float]) -> list[float]:
        """Against the truth, in percent, at each threshold."""
        count = len(self.labels) + 1
        values = np.full(256, 0)
        values[self.labels], values[255] = np.arange(1, count), count
        total = np.zeros((len(thresholds), count + 1, count), int)
        for i, logits, scores in zip(self.rows, self.logits, self.scores):
            truth, by_classes = values[self.images.small[i].numpy()], {}
            for confusion, threshold in zip(total, thresholds):
                there = tuple((scores >= threshold).tolist())
                if there not in by_classes:
                    labels = decide(logits, scores, threshold, truth.shape).numpy()
                    pairs = np.bincount((count * truth + labels).ravel(), minlength=total[0].size)
                    by_classes[there] = pairs.reshape(confusion.shape)
                confusion += by_classes[there]
        found = total[:, :count]  # without what the truth leaves open
        hits = np.diagonal(found, axis1=1, axis2=2)
        ious = hits / np.maximum(found.sum(1) + found.sum(2) - hits, 1)
        return (100 * ious.mean(1)).tolist()

    def confident(self, most: int, threshold: float) -> list[Shots]:
        """Of each class the predictions that are surest, ties by the order of the images."""
        maps, chosen = self.maps(threshold), []
        for n in range(len(self.labels)):
            sure = {}
            for place, labels in enumerate(maps):
                inside = self.logits[place, n][torch.from_numpy(labels == n + 1)]
                if len(inside):
                    sure[place] = float(self.scores[place, n] * inside.sigmoid().mean())
            best = sorted(sure, key=lambda place: (-sure[place], place))[:most]
            masks = [torch.from_numpy((maps[p] == n + 1).astype(np.uint8)) for p in best]
            chosen.append([(self.rows[p], mask) for p, mask in zip(best, masks)])
        return chosen


def compare(
    images: Images, labels: list[int], threshold: float, shots: int, joins: list[int], seed: int,
    min_area: int,
) -> dict[str, tuple[float, float]]:  # fmt: skip
    """mIoU at the threshold and at the best one, by what was shown."""
    rng = np.random.default_rng([seed, shots])
    given = []
    for label in labels:
        chosen = rng.permutation(images.showing(label, min_area))[:shots].tolist()
        given.append([(i, (images.small[i] == label).to(torch.uint8)) for i in chosen])
    used = {i for some in given for i, _ in some}
    rows = [i for i in range(len(images.labels)) if i not in used]
    grid = [threshold, *np.arange(0, 1, 0.02).tolist()]
    figures = {}

    def measured(name: str, shown: list[Shots]) -> tuple[Labelling, float]:
        made = Labelling(images, labels, shown, rows)
        values = made.mious(grid)
        figures[name] = (values[0], max(values))
        return made, grid[int(np.argmax(values))]

    first, best = measured('first pass', given)
    for most in joins:
        joined = first.confident(most, best)
        measured(f'{most} joined', [a + b for a, b in zip(given, joined)])
        true = [
            [(i, (images.small[i] == label).to(torch.uint8)) for i, _ in some]
            for label, some in zip(labels, joined)
        ]
        kept = [[(i, mask) for i, mask in some if mask.any()] for some in true]
        measured(f'{most} joined, true masks', [a + b for a, b in zip(given, kept)])
    return figures


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='name or path of a config with test data of a benchmark')
    parser.add_argument('weights', nargs='?', help='checkpoint')
    parser.add_argument('--shots', type=int, nargs='+', default=[1, 5])
    parser.add_argument('--joined', type=int, nargs='+', default=[1, 5, 10], help='of each class')
    parser.add_argument('--sets', type=int, default=5, help='draws of supports')
    parser.add_argument('--min-area', type=int, default=200, help='pixels of a supported object')
    parser.add_argument('--all-classes', action='store_true', help='not the novel ones alone')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    parser.add_argument('--out', type=Path, help='JSON file for the figures')
    args = parser.parse_args(argv)
    cfg = Config.fromfile(find_config(args.config))
    cfg.merge_from_dict(args.cfg_options)
    inferencer = FewShotInferencer(cfg, args.weights, device='cpu')
    split, images = Images.of_test(cfg, inferencer)
    roles = ('novel', 'base')[: 1 + args.all_classes]
    labels = [label for role in roles for label in split.ids(role)]
    rows, found = [], {}
    for shots in args.shots:
        some = [n for n in labels if len(images.showing(n, args.min_area)) > shots]
        if not some:
            continue
        runs = [
            compare(images, some, inferencer.threshold, shots, args.joined, seed, args.min_area)
            for seed in range(args.sets)
        ]
        for name in runs[0]:
            values = np.array([run[name] for run in runs])
            gain = values - [run['first pass'] for run in runs]
            error = gain.std(0, ddof=1) / len(runs) ** 0.5 if len(runs) > 1 else [np.nan] * 2
            found[f'{shots} | {name}'] = dict(
                miou=values.mean(0).tolist(), gain=gain.mean(0).tolist()
            )
            cells = [f'{m:.1f}' for m in values.mean(0)]
            gains = [f'{g:+.1f} ± {e:.1f}' for g, e in zip(gain.mean(0), error)]
            rows.append([f'{shots}', f'{len(some)}', name, cells[0], gains[0], cells[1], gains[1]])
    head = ['K', 'classes', 'shown', 'mIoU', 'gain', 'mIoU at the best threshold', 'gain']
    print('\n'.join(table_lines([head, *rows], True)))
    if args.out is not None:
        write_text(args.out, json.dumps(found, indent=1) + '\n')
    return found


if __name__ == '__main__':
    main()
