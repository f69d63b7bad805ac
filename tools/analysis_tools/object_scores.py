"""How well object scores tell classes that are there from absent ones, and which threshold to take.

    python tools/analysis_tools/object_scores.py fss_sam2_shapes_1shot CHECKPOINT --shots 1 5

Each class gets K random supports; it is then looked for in all other images of the config's test
data, most of which do not show it. The threshold of the object score is the one with the largest
mean of recall and specificity on the classes that the model was trained on (base), all K together.
At it, recall, specificity, and the precision that follows from how many images show a class are
given for both kinds. Other scores that could decide are listed beside it by the area
under their ROC curves. All novel classes at once give the mIoU (background included) of label
maps, with the threshold and without, for three ways to resolve overlaps, and how much of what is
wrong lies in the least certain images. FOLD and DATA_ROOT in the environment as for tools/test.py.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmseg.registry import DATASETS

from mmfss.apis.images import as_bgr, mask_to_model_size, to_model_size
from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.nway import as_input, encode_class, object_score_of
from mmfss.apis.prediction import Prediction
from mmfss.batching import cat
from mmfss.configs import find_config
from mmfss.datasets.folds import FoldSplit, get_split
from mmfss.datasets.io import read_mask
from mmfss.evaluation.label_maps import label_ious
from mmfss.evaluation.presence import best_threshold, precision_recall, roc_auc
from mmfss.evaluation.report_text import table_lines
from mmfss.files import write_text
from mmfss.methods.base import FewShotModel
from mmfss.methods.fssam.model import Trace

OWN, AREA = 'object score', 'mean probability'
"""Scores of any method; FSSAM has SAM 2's between them."""


class Images:
    """Labelled images, each encoded once.

    Args:
        inferencer: whose model encodes.
        data_list: ``img_path`` and ``seg_map_path`` of each.
    """

    def __init__(self, inferencer: FewShotInferencer, data_list: list[dict]) -> None:
        self.inferencer = inferencer
        side = inferencer.image_size
        self.labels = [read_mask(entry['seg_map_path']) for entry in data_list]
        self.small = [torch.from_numpy(mask_to_model_size(x, side)) for x in self.labels]
        how = inferencer.resize
        pixels = [to_model_size(as_bgr(entry['img_path']), side, how) for entry in data_list]
        self.features = self.supports = [inferencer.encode(image) for image in pixels]
        model = inferencer.model
        if model.support_encoders != model.query_encoders:
            self.supports = [encode_as_support(model, image) for image in pixels]
        self.areas = [np.bincount(x.ravel(), minlength=256) for x in self.labels]

    @classmethod
    def of_test(
        cls, cfg: Config, inferencer: FewShotInferencer, most: int | None = None
    ) -> tuple[FoldSplit, Images]:
        """The classes of a config's fold, and the (first) images of its test data."""
        episodes = cfg.test_dataloader.dataset
        split, data = get_split(episodes.benchmark, episodes.fold), DATASETS.build(episodes.dataset)
        infos = [data.get_data_info(i) for i in range(len(data))]
        return split, cls(inferencer, infos[:most])

    def showing(self, label: int, at_least: int) -> list[int]:
        """Images with that many pixels of a class."""
        return [i for i, areas in enumerate(self.areas) if areas[label] >= at_least]

    def state(self, label: int, chosen: list[int]):
        """Encoded supports of a class."""
        masks = torch.stack([(self.small[i] == label).to(torch.uint8) for i in chosen])
        features = cat([self.supports[i] for i in chosen])
        return encode_class(self.inferencer.model, features, masks)


@torch.no_grad()
def encode_as_support(model: FewShotModel, image: np.ndarray):
    """Features of a uint8 (S, S, 3) BGR image."""
    return model.encode_image(as_input(image, torch.device('cpu')), 'support')


@torch.no_grad()
def look_for(images: Images, state, i: int) -> tuple[np.ndarray, dict[str, float]]:
    """Logits (S, S) of a class in an image, and its scores by name."""
    model, features = images.inferencer.model, images.features[i]
    found = model.segment(features, state.support)
    logits = found.logits[0].float()
    inside = logits[logits >= 0].sigmoid()
    scores = {OWN: object_score_of(model, features, logits, state)}
    if isinstance(found.trace, Trace):
        decoded = found.trace.decoded
        scores['SAM 2 object score'] = decoded.object_score[0, 0].sigmoid()
        scores['predicted IoU'] = decoded.ious.max()
    scores[AREA] = inside.mean() if len(inside) else 0.0
    return logits[0].numpy(), {name: float(score) for name, score in scores.items()}


def run_set(images: Images, labels: dict[str, int], shots: int, seed: int, min_area: int) -> dict:
    """Draw supports of each class, look for it everywhere else.

    Returns:
        ``there`` (M,), ``scores`` ``{name: (M,)}`` and, by image, ``found`` ``{image: {class:
        (logits, object score)}}``.
    """
    rng = np.random.default_rng([seed, shots])
    there, scores, found = [], defaultdict(list), defaultdict(dict)
    for name, label in labels.items():
        can = images.showing(label, min_area)
        if len(can) <= shots:
            print(f'{name}: only {len(can)} images show it, left out', file=sys.stderr)
            continue
        chosen = rng.choice(can, shots, replace=False).tolist()
        state = images.state(label, chosen)
        for i in range(len(images.labels)):
            if i in chosen:
                continue
            logits, one = look_for(images, state, i)
            there.append(bool(images.areas[i][label]))
            for score, value in one.items():
                scores[score].append(np.float32(value))
            found[i][name] = (logits, scores[OWN][-1])
    arrays = {score: np.array(values) for score, values in scores.items()}
    return dict(there=np.array(there), scores=arrays, found=found)


def label_maps(result: dict, images: Images, labels: dict[str, int], threshold: float) -> list:
    """(image, Prediction, truth) of images in which every class was looked for."""
    names = tuple(labels)
    value = np.zeros(256, np.uint8)
    for n, name in enumerate(names, 1):
        value[labels[name]] = n
    value[255] = 255
    rows = []
    for i, by_name in sorted(result['found'].items()):
        if len(by_name) < len(names):
            continue
        logits = np.stack([by_name[name][0] for name in names])
        scores = np.array([by_name[name][1] for name in names], np.float32)
        thresholds = np.full(len(names), threshold, np.float32)
        truth = value[images.labels[i]]
        made = Prediction.make(names, scores, thresholds, logits, truth.shape, str(i))
        rows.append((i, made, truth))
    return rows


def overlaps(rows: list, threshold: float) -> dict[str, float]:
    """mIoU of three ways to resolve overlaps: by the product, by score alone, by logit alone."""
    ways = {'score x logit': [], 'score': [], 'logit': []}
    for _, made, truth in rows:
        out = np.where(made.scores[:, None, None] >= threshold, made.logits, -1.0)
        ones = np.ones_like(made.scores)
        ways['score x logit'].append((made.labels, truth))
        for name, logits, scores in (
            ('score', np.sign(out), made.scores),
            ('logit', out, ones),
        ):
            other = Prediction.make(
                made.classes, scores, 0 * ones, np.float32(logits), truth.shape, ''
            )
            ways[name].append((other.labels, truth))
    classes = len(rows[0][1].classes)
    return {name: float(np.nanmean(label_ious(pairs, classes))) for name, pairs in ways.items()}


def in_least_certain(rows: list, part: float) -> float:
    """Part of the wrong pixels that lies in the least certain ``part`` of the images, percent."""
    wrong = np.array([((m.labels != t) & (t != 255)).mean() for _, m, t in rows])
    order = np.argsort([m.certainty for _, m, _ in rows], kind='stable')
    return 100 * float(wrong[order[: round(part * len(rows))]].sum() / wrong.sum())


def report(results: dict, images: Images, novel: dict[str, int]) -> dict:
    """All figures, printed and returned.

    Raises:
        ValueError: no base class has enough images.
    """

    def joined(same: list[dict], name: str | None = None) -> np.ndarray:
        parts = [r['there'] if name is None else r['scores'][name] for r in same if len(r['there'])]
        return np.concatenate(parts)

    base = [r for (role, _, _), r in results.items() if role == 'base' and len(r['there'])]
    if not base:
        raise ValueError('no base class is in more images than it has supports; give more --images')
    threshold = best_threshold(joined(base, OWN), joined(base))
    print(f'best threshold on base classes: {threshold:.2f}\n')
    figures, names, rows = dict(threshold=threshold, rows=[]), list(base[0]['scores']), []
    for role, shots in sorted({(role, shots) for role, shots, _ in results}):
        same = [r for (a, b, _), r in results.items() if (a, b) == (role, shots)]
        there, scores = joined(same), joined(same, OWN)
        precision, recall = precision_recall(scores, there, threshold)
        rejected = float((scores[~there] < threshold).mean())
        areas = [roc_auc(joined(same, name), there) for name in names]
        figures['rows'].append(
            dict(
                role=role,
                shots=shots,
                precision=precision,
                recall=recall,
                specificity=rejected,
                auc=areas,
            )
        )
        rows.append([
            role, f'{shots}', f'{there.sum()} / {(~there).sum()}', f'{recall:.2f}',
            f'{rejected:.2f}', f'{precision:.2f}', *(f'{x:.3f}' for x in areas),
        ])  # fmt: skip
    head = ['classes', 'K', 'images with / without', 'recall', 'specificity', 'precision']
    print(
        '\n'.join(table_lines([[*head, f'ROC AUC: {names[0]}', *names[1:]], *rows], True)),
        end='\n\n',
    )
    rows = []
    for shots in sorted({shots for _, shots, _ in results}):
        same = [r for (a, b, _), r in results.items() if (a, b) == ('novel', shots)]
        with_it = [row for r in same for row in label_maps(r, images, novel, threshold)]
        without = [row for r in same for row in label_maps(r, images, novel, 0.0)]
        ways = overlaps(with_it, threshold)
        plain = overlaps(without, 0.0)['score x logit']
        least = in_least_certain(with_it, 0.2)
        figures['rows'].append(dict(shots=shots, miou=ways, without=plain, least_certain=least))
        shown = (ways['score x logit'], plain, ways['score'], ways['logit'])
        rows.append([f'{len(novel)}', f'{shots}', *(f'{x:.1f}' for x in shown), f'{least:.0f} %'])
    head = ['novel classes', 'K', 'mIoU, threshold', 'without', 'overlaps by score', 'by logit']
    print('\n'.join(table_lines([[*head, 'wrong pixels in the least certain 20 %'], *rows], True)))
    return figures


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='name or path of a config with test data of a benchmark')
    parser.add_argument('weights', nargs='?', help='checkpoint')
    parser.add_argument('--shots', type=int, nargs='+', default=[1, 5])
    parser.add_argument('--sets', type=int, default=3, help='draws of supports (novel classes)')
    parser.add_argument('--base-sets', type=int, default=1, help='the same for base classes')
    parser.add_argument('--min-area', type=int, default=200, help='pixels of a supported object')
    parser.add_argument('--images', type=int, help='only the first N images')
    parser.add_argument('--out', type=Path, help='JSON file for the figures')
    args = parser.parse_args(argv)
    cfg = Config.fromfile(find_config(args.config))
    inferencer = FewShotInferencer(cfg, args.weights, device='cpu', threshold=0.0)
    split, images = Images.of_test(cfg, inferencer, args.images)
    labels = {role: dict(zip(split.names(role), split.ids(role))) for role in ('base', 'novel')}
    results = {
        (role, shots, seed): run_set(images, labels[role], shots, seed, args.min_area)
        for role, sets in (('base', args.base_sets), ('novel', args.sets))
        for shots in args.shots
        for seed in range(sets)
    }
    print(f'{args.config}, fold {split.fold}, {len(images.labels)} images; FOLD='
          f'{os.environ.get("FOLD", "not set")}')  # fmt: skip
    figures = report(results, images, labels['novel'])
    if args.out is not None:
        write_text(args.out, json.dumps(figures, indent=1) + '\n')
    return figures


if __name__ == '__main__':
    main()
