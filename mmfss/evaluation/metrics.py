"""mIoU and FB-IoU over few-shot episodes: pure counting functions and the mmengine metric.

[bg, fg] pairs are int64 arrays (2,): background first.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmseg.registry import METRICS

from mmfss.datasets.folds import FoldSplit

IGNORE = 255


@dataclass(frozen=True)
class EpisodeCounts:
    """What one episode adds to the metric.

    Args:
        episode: Number of the episode.
        class_id: Label value of its class.
        intersection: Pixels that are [bg, fg] in both prediction and truth.
        union: Pixels that are [bg, fg] in either.
    """

    episode: int
    class_id: int
    intersection: tuple[int, int]
    union: tuple[int, int]


def count_episode(pred: np.ndarray, truth: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    """Intersection and union of background and foreground, ignored pixels left out.

    Args:
        pred: (h, w), values 0 and 1.
        truth: (h, w), values 0, 1 and 255 (ignored).

    Returns:
        ([bg, fg] intersection, [bg, fg] union) as exact integers.

    Raises:
        ValueError: Shapes differ, or other values.
    """
    if pred.ndim != 2 or pred.shape != truth.shape:
        raise ValueError(
            f'prediction and truth must be of one (h, w), got {pred.shape} and '
            f'{truth.shape}; resize the logits to the size of the label first'
        )
    one, other = (pred == 1), (truth == 1)
    if not (one | (pred == 0)).all():
        raise ValueError(
            f'a prediction may hold 0 and 1, got {_values(pred)}; threshold the '
            'probabilities at 0.5'
        )
    zero = truth == 0
    if not (other | zero | (truth == IGNORE)).all():
        raise ValueError(
            f'a truth mask may hold 0, 1 and {IGNORE}, got {_values(truth)}; '
            'binarise the label for the class of the episode'
        )
    both_fg = int(np.count_nonzero(one & other))
    false_fg = int(np.count_nonzero(one & zero))
    missed = int(np.count_nonzero(other)) - both_fg
    both_bg = int(np.count_nonzero(zero)) - false_fg
    wrong = false_fg + missed
    return (both_bg, both_fg), (both_bg + wrong, both_fg + wrong)


def _values(array: np.ndarray, limit: int = 8) -> list:
    return np.unique(array)[:limit].tolist()


def sum_per_class(counts: Iterable[EpisodeCounts]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """``{class id: ([bg, fg] intersection, [bg, fg] union)}``, each episode number once."""
    seen: set[int] = set()
    sums: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for row in counts:
        if row.episode in seen:
            continue
        seen.add(row.episode)
        inter, union = sums.setdefault(row.class_id, (np.zeros(2, np.int64), np.zeros(2, np.int64)))
        inter += row.intersection
        union += row.union
    return sums


def few_shot_iou(sums: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> tuple[dict, float, float]:
    """Class IoUs, their mean, and FB-IoU, in percent.

    A class's IoU is that of its foreground summed over its episodes; FB-IoU is the mean of
    background and foreground IoU summed over all episodes. A class without a foreground
    pixel in prediction and truth has no IoU and is not among the results.

    Returns:
        ``{class id: IoU}``, mIoU, FB-IoU; the means are nan where there is nothing to average.
    """
    ious = {
        c: 100.0 * float(inter[1]) / float(union[1])
        for c, (inter, union) in sorted(sums.items())
        if union[1]
    }
    miou = float(np.mean(list(ious.values()))) if ious else float('nan')
    inter, union = (sum((pair[i] for pair in sums.values()), np.zeros(2, np.int64)) for i in (0, 1))
    with np.errstate(invalid='ignore', divide='ignore'):
        return ious, miou, float(100.0 * np.mean(inter / union))


@METRICS.register_module()
class FewShotIoUMetric(BaseMetric):
    """mIoU, FB-IoU and IoU per class of a fold, in percent.

    Every result is one episode's integer counts with its number, so that batch size, process
    count and repeated episodes (padding of the last batch) change nothing.

    Reads from each data sample ``pred_sem_seg`` (1, h, w) of {0, 1}, ``gt_sem_seg`` (1, h, w)
    of {0, 1, 255}, ``class_id`` and ``episode``; from the dataset's metainfo ``split`` and
    ``role``. Results: 'mIoU', 'FB-IoU', 'IoU/<class>', and how many 'classes' and 'episodes'
    they are of.

    Args:
        absent_classes: What to do when a class of the fold has no episode: 'error', or
            'exclude' it from the mean, with a warning.
        collect_device: 'cpu' or 'gpu', for collecting among processes.
        prefix: Put before the names of the results.

    Raises:
        ValueError: Wrong shapes, values or classes; an absent class with 'error'; metainfo
            without a split.
    """

    def __init__(
        self, absent_classes: str = 'error', collect_device: str = 'cpu', prefix: str | None = None
    ) -> None:
        if absent_classes not in ('error', 'exclude'):
            raise ValueError(f"absent_classes must be 'error' or 'exclude', got {absent_classes!r}")
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.absent_classes = absent_classes

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        """Count a batch of episodes."""
        del data_batch
        for sample in data_samples:
            missing = [
                key
                for key in ('pred_sem_seg', 'gt_sem_seg', 'class_id', 'episode')
                if key not in sample
            ]
            if missing:
                raise ValueError(
                    f'a data sample of FewShotIoUMetric lacks {missing}; it is '
                    'for episodes of EpisodicDataset with predictions'
                )
            try:
                counts = count_episode(_map(sample['pred_sem_seg']), _map(sample['gt_sem_seg']))
            except ValueError as error:
                raise ValueError(
                    f"episode {sample['episode']} ({sample.get('img_path', 'no path')}): {error}"
                ) from error
            self.results.append(
                EpisodeCounts(int(sample['episode']), int(sample['class_id']), *counts)
            )

    def compute_metrics(self, results: list[EpisodeCounts]) -> dict[str, float]:
        """Figures of all episodes of all processes."""
        split, role = self._split()
        sums = sum_per_class(results)
        foreign = sorted(set(sums) - set(split.ids(role)))
        if foreign:
            raise ValueError(
                f'episodes of class ids {foreign} were evaluated, which are not '
                f'{role} classes of {split.benchmark} fold {split.fold} '
                f'({list(split.ids(role))})'
            )
        ious, miou, fb_iou = few_shot_iou(sums)
        self._report_absent(
            [split.name(c) for c in split.ids(role) if c not in ious], len(ious), split
        )
        figures = {'mIoU': miou, 'FB-IoU': fb_iou}
        figures.update({f'IoU/{split.name(c)}': iou for c, iou in ious.items()})
        figures.update(classes=len(ious), episodes=len({row.episode for row in results}))
        return figures

    def _split(self) -> tuple[FoldSplit, str]:
        meta = self.dataset_meta or {}
        if 'split' not in meta or 'role' not in meta:
            raise ValueError(
                'FewShotIoUMetric needs the split and role of the fold in the '
                f"dataset's metainfo, got {sorted(meta)}; evaluate on an "
                'EpisodicDataset'
            )
        split = meta['split']
        if not isinstance(split, FoldSplit):
            split = FoldSplit.from_dict(split)
        return split, meta['role']

    def _report_absent(self, names: list[str], evaluated: int, split: FoldSplit) -> None:
        if not names:
            return
        text = (
            f'{split.benchmark} fold {split.fold}: no episode of {len(names)} of '
            f'{len(names) + evaluated} classes: {", ".join(names)}'
        )
        if self.absent_classes == 'error' or not evaluated:
            raise ValueError(
                f'{text}; test more episodes, or leave these classes out visibly '
                "with absent_classes='exclude'"
            )
        print_log(f'{text}; mIoU is the mean of the other {evaluated}', 'current', logging.WARNING)


def _map(field: object) -> np.ndarray:
    """(h, w) of a PixelData or its dict form, which hold (1, h, w)."""
    data = field['data'] if isinstance(field, Mapping) else field.data
    array = data.detach().cpu().numpy() if hasattr(data, 'detach') else np.asarray(data)
    if array.ndim != 3 or array.shape[0] != 1:
        raise ValueError(f'a segmentation map must be of shape (1, h, w), got {array.shape}')
    return array[0]
