"""How much a self-check of the supports says: does the expected IoU predict the true one, what do
the chosen thresholds gain, are wrong supports named, and right ones not?

    METHOD=prototype BENCHMARK=shapes_5i python tools/analysis_tools/selfcheck_quality.py \
        data/shapes5i --config fss
    python tools/analysis_tools/selfcheck_quality.py data/VOCdevkit/VOC2012 --method prototype_lite

The data is in VOC's layout. In each draw some classes get K supports each; the check is made of
these alone. The truth comes from other images: some that show the class, some that do not. Every
image is encoded once. Then one support of a random class is made wrong in three ways, each in a set
of its own: an object of a class that is not in the set, one of a class that is, or the right image
with the mask of another one.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from mmfss.apis.check_result import SelfCheck
from mmfss.apis.images import as_bgr, mask_to_model_size, to_model_size
from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.nway import segment_classes
from mmfss.apis.self_check import EncodedClass, EncodedShot, check_encoded, mask_iou
from mmfss.configs import EMBEDDED_METHOD, find_method
from mmfss.datasets.io import read_mask
from mmfss.evaluation.report_text import table_lines
from mmfss.files import write_text

WRONG = 'other class', 'class of the set', 'mask of another image'
MIN_SHARE = 0.012
"""Part of an image that a supported object fills at least."""


class Photos:
    """All images of a folder in VOC's layout, each encoded once."""

    def __init__(self, inferencer: FewShotInferencer, root: Path) -> None:
        self.model, side = inferencer.model, inferencer.image_size
        lists = sorted((root / 'ImageSets/Segmentation').glob('*.txt'))
        stems = {
            Path(line.split()[0]).stem
            for file in lists
            for line in file.read_text().split('\n')
            if line
        }
        self.names, self.features, self.labels = sorted(stems), [], []
        for name in self.names:
            (photo,) = (root / 'JPEGImages').glob(f'{name}.*')
            image = to_model_size(as_bgr(photo), side, inferencer.resize)
            self.features.append(inferencer.encode(image))
            label = mask_to_model_size(read_mask(root / f'SegmentationClassAug/{name}.png'), side)
            self.labels.append(torch.from_numpy(label))
        self.areas = np.stack([np.bincount(x.numpy().ravel(), minlength=256) for x in self.labels])
        self.least = MIN_SHARE * side * side
        usable = (self.areas >= self.least).sum(0)
        self.classes = [c for c in range(1, 255) if usable[c] >= 4]

    def showing(self, c: int, but: Iterable[int] = ()) -> np.ndarray:
        """Images that show a class well enough for a support."""
        return np.setdiff1d(np.flatnonzero(self.areas[:, c] >= self.least), list(but))

    def mask(self, i: int, c: int) -> torch.Tensor:
        label = self.labels[i]
        return torch.where(label == 255, 255, (label == c).int()).to(torch.uint8)

    def shot(self, i: int, c: int, mask: torch.Tensor | None = None) -> EncodedShot:
        own = self.mask(i, c) if mask is None else mask
        return EncodedShot(self.features[i], self.features[i], own, self.names[i], self.names[i])


def check(photos: Photos, shots: dict[int, list[EncodedShot]]) -> tuple[SelfCheck, dict]:
    encoded = {str(c): EncodedClass(some) for c, some in shots.items()}
    found, _ = check_encoded(photos.model, encoded, lambda name: [])
    return found, {c: encoded[str(c)].state(photos.model) for c in shots}


def truth(photos: Photos, state, c: int, used: set[int], rng, images: int) -> dict:
    """What all supports of a class give in other images: with the class IoU and score, without it
    the score; and the pixels of the mask, of the truth and of both."""
    areas = photos.areas[:, c]
    there = np.setdiff1d(np.flatnonzero(areas >= photos.least / 4), list(used))
    absent = np.setdiff1d(np.flatnonzero(areas == 0), list(used))
    rows = []
    for i in (*rng.permutation(there)[:images], *rng.permutation(absent)[:images]):
        found = segment_classes(photos.model, photos.features[i], [state])
        predicted, mask = found.logits[0, 0] >= 0, photos.mask(i, c)
        known = mask != 255
        both = int((predicted & (mask == 1)).sum())
        pixels = int((predicted & known).sum()), int((mask == 1).sum()), both
        iou = mask_iou(predicted, mask) if areas[i] else None
        rows.append((bool(areas[i]), float(found.scores[0, 0]), iou, pixels))
    return rows


def draw(photos: Photos, rng, shots: int, count: int) -> dict[int, list[int]]:
    chosen = rng.choice(photos.classes, min(count, len(photos.classes)), replace=False)
    return {
        int(c): rng.choice(can, min(shots, len(can) - 2), replace=False).tolist()
        for c in chosen
        for can in [photos.showing(c)]
    }


def spoilt(photos: Photos, rng, images: dict[int, list[int]], kind: str):
    """Shots of all classes with one that is wrong, and its class and place; None where the data has
    nothing for that kind."""
    shots = {c: [photos.shot(i, c) for i in some] for c, some in images.items()}
    c = int(rng.choice(list(images)))
    place = int(rng.integers(len(images[c])))
    if kind == 'mask of another image':
        here = photos.mask(images[c][place], c) == 1
        for j in rng.permutation(photos.showing(c, [images[c][place]])):
            mask = photos.mask(j, c)
            if ((mask == 1) & here).sum() < 0.1 * (mask == 1).sum():
                shots[c][place] = photos.shot(images[c][place], c, mask)
                return shots, c, place
        return None
    others = [d for d in photos.classes if (d in images) == (kind == 'class of the set') and d != c]
    for d in rng.permutation(others):
        used = set(images[c]) | set(images.get(int(d), ()))
        can = [j for j in photos.showing(d, used) if photos.areas[j, c] == 0]
        if can:
            shots[c][place] = photos.shot(int(rng.choice(can)), int(d))
            return shots, c, place
    return None


def run(photos: Photos, args: argparse.Namespace) -> list[dict]:
    rows = []
    for number in range(args.draws):
        for shots in args.shots:
            rng = np.random.default_rng([number, shots])
            images = draw(photos, rng, shots, args.classes)
            clean = {c: [photos.shot(i, c) for i in some] for c, some in images.items()}
            found, states = check(photos, clean)
            used = {i for some in images.values() for i in some}
            row = dict(shots=shots, supports=len(used), classes=[], named=[], spoilt=[])
            for one in found.classes:
                c = int(one.name)
                row['named'] += [dict(name=one.name, source=s.source) for s in one.spoilers]
                row['classes'].append(
                    dict(
                        name=one.name, expected=one.expected, interval=one.interval,
                        threshold=one.threshold, separation=one.separation,
                        truth=truth(photos, states[c], c, used, rng, args.images),
                    )
                )  # fmt: skip
            for kind in WRONG if shots > 2 else ():
                made = spoilt(photos, rng, images, kind)
                if made is not None:
                    wrong, c, place = made
                    named = check(photos, wrong)[0].spoilers
                    right = [s.source for s in named.get(str(c), ())] or [None]
                    hit = wrong[c][place].source in right
                    total = sum(len(some) for some in named.values())
                    row['spoilt'].append(dict(kind=kind, named=hit, others=total - hit))
            rows.append(row)
        print(f'draw {number + 1} of {args.draws}', flush=True)
    return rows


def report(rows: list[dict], fixed: float) -> str:
    first, second, third = [], [], []
    for shots in sorted({row['shots'] for row in rows}):
        same = [row for row in rows if row['shots'] == shots]
        classes = [c for row in same for c in row['classes']]
        classes = [c for c in classes if sum(t[0] for t in c['truth']) >= 3]
        expected = np.array([c['expected'] for c in classes])
        true = np.array([np.mean([t[2] for t in c['truth'] if t[0]]) for c in classes])
        inside = [c['interval'][0] <= t <= c['interval'][1] for c, t in zip(classes, true)]
        wide = np.mean([c['interval'][1] - c['interval'][0] for c in classes])
        first.append([
            f'{shots}', f'{len(classes)}', f'{100 * expected.mean():.1f}',
            f'{100 * true.mean():.1f}', f'{np.corrcoef(expected, true)[0, 1]:.2f}',
            f'{100 * np.abs(expected - true).mean():.1f}', f'{100 * np.mean(inside):.0f}',
            f'{100 * wide:.0f}', f'{100 * true.std():.1f}',
        ])  # fmt: skip
        steps = np.arange(101) / 100
        curves = np.array([[balanced(c['truth'], t) for t in steps] for c in classes])
        at = [fixed if c['threshold'] is None else c['threshold'] for c in classes]
        best = int(curves.mean(0).argmax())
        ways = {
            f'fixed, {fixed:g}': [fixed] * len(classes),
            'best fixed': [steps[best]] * len(classes),
            'self-check': at,
            'best of each': steps[curves.argmax(1)],
        }
        for way, thresholds in ways.items():
            accuracy = [balanced(c['truth'], t) for c, t in zip(classes, thresholds)]
            ious = [iou(c['truth'], t) for c, t in zip(classes, thresholds)]
            second.append([
                f'{shots}', way, f'{np.mean(thresholds):.2f}', f'{100 * np.mean(accuracy):.1f}',
                f'{100 * np.mean(ious):.1f}',
            ])  # fmt: skip
        if shots > 2:
            alarms = np.mean([bool(row['named']) for row in same])
            each = np.mean([len(row['named']) / row['supports'] for row in same])
            by = defaultdict(list)
            for row in same:
                for one in row['spoilt']:
                    by[one['kind']].append((one['named'], one['others'] > 0))
            cells = [
                f'{100 * np.mean([n for n, _ in by[kind]]):.0f} of {len(by[kind])}' if by[kind]
                else '-' for kind in WRONG
            ]  # fmt: skip
            third.append([
                f'{shots}', f'{len(same)}', f'{100 * alarms:.0f}', f'{100 * each:.1f}', *cells,
            ])  # fmt: skip
    head = ['K', 'classes x draws', 'expected IoU', 'true IoU', 'correlation', 'mean error']
    head += ['in the interval %', 'its width', 'spread of the true']
    parts = [table_lines([head, *first], True)]
    head = ['K', 'threshold', 'mean', 'balanced accuracy', 'IoU with absent images']
    parts.append(table_lines([head, *second], True))
    if third:
        head = ['K', 'clean sets', 'with one named %', 'supports named %']
        head += [f'named %: {kind}' for kind in WRONG]
        parts.append(table_lines([head, *third], True))
    return '\n\n'.join('\n'.join(lines) for lines in parts)


def balanced(rows: list, threshold: float) -> float:
    """Mean of recall and specificity."""
    there, absent = ([t[1] for t in rows if t[0] == kind] for kind in (True, False))
    return (np.mean(np.array(there) >= threshold) + np.mean(np.array(absent) < threshold)) / 2


def iou(rows: list, threshold: float) -> float:
    """Of all pixels of all images, the mask of those that score below the threshold being empty."""
    marked = sum(p[0] for _, score, _, p in rows if score >= threshold)
    both = sum(p[2] for _, score, _, p in rows if score >= threshold)
    true = sum(p[1] for _, _, _, p in rows)
    return both / max(1, marked + true - both)


def main(argv: list[str] | None = None) -> str:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('root', type=Path, help='JPEGImages, SegmentationClassAug, ImageSets')
    parser.add_argument('--method', help='name of a method (default: the embedded one)')
    parser.add_argument('--config', help='in its place')
    parser.add_argument('--weights', help='checkpoint')
    parser.add_argument('--shots', type=int, nargs='+', default=[2, 3, 5, 10])
    parser.add_argument('--draws', type=int, default=20)
    parser.add_argument('--classes', type=int, default=5, help='of a set')
    parser.add_argument('--images', type=int, default=40, help='with and without each class')
    parser.add_argument('--out', type=Path, help='JSON file of all that was measured')
    args = parser.parse_args(argv)
    if min(args.shots) < 2:
        parser.error('--shots must be 2 or more: one support has no others')
    config = args.config or find_method(args.method or EMBEDDED_METHOD)
    inferencer = FewShotInferencer(config, args.weights, device='cpu')
    photos = Photos(inferencer, args.root)
    print(f'{len(photos.names)} images, {len(photos.classes)} classes', flush=True)
    with torch.no_grad():
        rows = run(photos, args)
    if args.out is not None:
        write_text(args.out, json.dumps(rows) + '\n')
    text = report(rows, float(inferencer.threshold))
    print(text)
    return text


if __name__ == '__main__':
    main()
