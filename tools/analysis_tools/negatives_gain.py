"""What it gains to mark what is not the class, with a method that takes it.

    python tools/analysis_tools/negatives_gain.py configs/fss.py --method prototype --benchmark ...

Each class gets K random supports. What a person would do next is done by the truth, in a random
half of the other images of the config's test data. ``--mark look-alike``: the class of which most
pixels are taken for it is found, and in M random images that show this look-alike its objects are
marked as not the class; tested are the images of the other half that show one of the two.
``--mark errors``: in the M images with most wrong pixels all that is wrong is marked; tested are
all images of the other half.

They are labelled with and without the negatives, and, for comparison, with M further supports
instead. IoU, precision and recall of pixels are pooled over images, each of them marked whatever
its object score; then the IoU where images that score less than the best threshold, which the
truth tells, are left out, and the area under the ROC curve of the score. All are means over
classes and draws, in percent. FOLD and DATA_ROOT in the environment as for tools/test.py.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config, DictAction
from object_scores import Images

from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.nway import ClassState, encode_class, segment_classes
from mmfss.batching import cat
from mmfss.configs import find_config
from mmfss.evaluation.presence import roc_auc
from mmfss.evaluation.report_text import table_lines
from mmfss.files import write_text
from mmfss.methods.base import check_takes_negatives

COLUMNS = ('IoU', 'precision', 'recall', 'IoU at the best threshold', 'ROC AUC')


def looked_for(images: Images, state: ClassState, i: int) -> tuple[np.ndarray, float]:
    """Mask bool (S, S) of a class in an image, and its object score."""
    found = segment_classes(images.inferencer.model, images.features[i], [state])
    return (found.logits[0, 0] >= 0).numpy(), float(found.scores[0, 0])


def figures_of(images: Images, state: ClassState, label: int, rows: list[int]) -> list[float]:
    """The columns for a class in images, in percent."""
    counts, scores = [], []
    for i in rows:
        mask, score = looked_for(images, state, i)
        truth = images.small[i].numpy()
        known, own = truth != 255, truth == label
        counts.append(((mask & own).sum(), (mask & known).sum(), own.sum()))
        scores.append(score)
    real = np.array(counts)[:, 2]
    # pooled over the images of the best score, the two best, ...
    pooled = np.cumsum(np.array(counts)[np.argsort(scores)[::-1], :2], 0)
    ious = pooled[:, 0] / (pooled[:, 1] + real.sum() - pooled[:, 0])
    hits, marked = pooled[-1]
    parts = ious[-1], hits / max(marked, 1), hits / real.sum(), ious.max()
    area = roc_auc(np.array(scores), real > 0) if (real == 0).any() else np.nan
    return [100 * float(x) for x in (*parts, area)]


def errors_in(
    images: Images, state: ClassState, label: int, rows: list[int]
) -> dict[int, np.ndarray]:
    """What is wrongly marked in images, bool (S, S)."""
    found = {}
    for i in rows:
        truth = images.small[i].numpy()
        found[i] = looked_for(images, state, i)[0] & (truth != label) & (truth != 255)
    return found


def marked_errors(errors: dict[int, np.ndarray], most: int) -> dict[int, np.ndarray]:
    """All errors of the images that have most of them."""
    chosen = sorted(errors, key=lambda i: -int(errors[i].sum()))[:most]
    return {i: errors[i] for i in chosen if errors[i].any()}


def marked_look_alike(
    images: Images, errors: dict[int, np.ndarray], most: int, area: int
) -> tuple[int, dict[int, np.ndarray]]:
    """The class that most errors lie on, and its objects in the first images that show it."""
    counts = np.zeros(256, int)
    for i, wrong in errors.items():
        counts += np.bincount(images.small[i].numpy()[wrong], minlength=256)
    other = int(counts[1:255].argmax()) + 1
    chosen = [i for i in errors if images.areas[i][other] >= area][:most]
    return other, {i: images.small[i].numpy() == other for i in chosen}


def compare(
    images: Images, label: int, shots: int, most: int, seed: int, args: argparse.Namespace
) -> dict | None:
    """Figures by what is shown to the method; None where too few images show the class."""
    rng = np.random.default_rng([seed, shots, label])
    can = rng.permutation(images.showing(label, args.min_area)).tolist()
    if len(can) < shots + most + 2:
        return None
    chosen, further = can[:shots], can[shots : shots + most]
    rest = [i for i in rng.permutation(len(images.labels)).tolist() if i not in can[: shots + most]]
    looked_at, tested = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    plain = images.state(label, chosen)
    errors = errors_in(images, plain, label, looked_at)
    if args.mark == 'errors':
        wrong = marked_errors(errors, most)
    else:
        other, wrong = marked_look_alike(images, errors, most, args.min_area)
        tested = [i for i in tested if images.areas[i][label] or images.areas[i][other]]
    if not wrong or not any(images.areas[i][label] for i in tested):
        return None
    masks = torch.from_numpy(np.stack(list(wrong.values())).astype(np.uint8))
    negatives = cat([images.supports[i] for i in wrong]), masks
    own = torch.stack([(images.small[i] == label).to(torch.uint8) for i in chosen])
    features = cat([images.supports[i] for i in chosen])
    told = encode_class(images.inferencer.model, features, own, negatives)
    states = {
        f'K = {shots}': plain,
        f'K = {shots}, M = {most}': told,
        f'K = {shots + most}': images.state(label, chosen + further),
    }
    return {name: figures_of(images, state, label, tested) for name, state in states.items()}


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='name or path of a config with test data of a benchmark')
    parser.add_argument('weights', nargs='?', help='checkpoint')
    parser.add_argument('--mark', choices=['look-alike', 'errors'], default='look-alike')
    parser.add_argument('--shots', type=int, nargs='+', default=[1, 5])
    parser.add_argument('--negatives', type=int, nargs='+', default=[1, 3])
    parser.add_argument('--sets', type=int, default=3, help='draws of each class')
    parser.add_argument('--min-area', type=int, default=200, help='pixels of a supported object')
    parser.add_argument('--all-classes', action='store_true', help='not the novel ones alone')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    parser.add_argument('--out', type=Path, help='JSON file for the figures')
    args = parser.parse_args(argv)
    cfg = Config.fromfile(find_config(args.config))
    cfg.merge_from_dict(args.cfg_options)
    inferencer = FewShotInferencer(cfg, args.weights, device='cpu', threshold=0.0)
    check_takes_negatives(inferencer.model)
    split, images = Images.of_test(cfg, inferencer)
    labels = [
        label for role in ('novel', 'base')[: 1 + args.all_classes] for label in split.ids(role)
    ]
    figures: dict[str, list[list[float]]] = defaultdict(list)
    for shots in args.shots:
        for most in args.negatives:
            for label in labels:
                for seed in range(args.sets):
                    found = compare(images, label, shots, most, seed, args)
                    for name, values in (found or {}).items():
                        figures[f'{most} | {name}'].append(values)
    rows, pairs = [], {}
    for name, values in figures.items():
        pairs[name] = dict(zip(COLUMNS, np.nanmean(values, 0).tolist()), runs=len(values))
        shown = (f'{x:.1f}' for x in np.nanmean(values, 0))
        rows.append([name.partition(' | ')[2], f'{len(values)}', *shown])
    print('\n'.join(table_lines([['shown', 'runs', *COLUMNS], *rows], True)))
    if args.out is not None:
        write_text(args.out, json.dumps(pairs, indent=1) + '\n')
    return pairs


if __name__ == '__main__':
    main()
