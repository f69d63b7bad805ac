"""mIoU and FB-IoU over few-shot episodes: the mmengine metric."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
from mmengine.dist import is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmseg.registry import METRICS

from mmfss.datasets.folds import FoldSplit
from mmfss.evaluation.counts import (
    EpisodeCounts,
    count_episode,
    each_once,
    few_shot_iou,
    sum_per_class,
)
from mmfss.evaluation.episode_csv import episodes_csv
from mmfss.files import check_writable, write_text


@METRICS.register_module()
class FewShotIoUMetric(BaseMetric):
    """mIoU, FB-IoU and IoU per class of a fold, in percent.

    Every result is one episode's integer counts with its number, so that batch size, process
    count and repeated episodes (padding of the last batch) change nothing.

    Reads from each data sample ``pred_sem_seg`` (1, h, w) of {0, 1}, ``gt_sem_seg`` (1, h, w)
    of {0, 1, 255}, ``class_id`` and ``episode``, and if they are there ``img_path`` and
    ``support_paths``; from the dataset's metainfo ``split`` and ``role``. Results: 'mIoU',
    'FB-IoU', 'IoU/<class>' of each class with episodes, and how many 'classes' and 'episodes'
    the means are of. Where classes are excluded there is also 'mIoU (absent as 0)', the mean
    with IoU 0 for them.

    ``counts`` holds the :class:`~mmfss.evaluation.counts.EpisodeCounts` of the last evaluation,
    sorted by episode, each episode once; on the main process, elsewhere it is empty.

    Args:
        absent_classes: What to do when a class of the fold has no episode, or none with a
            foreground pixel in prediction or truth: 'error'; 'exclude' it from the mean, with a
            warning; or 'zero', which counts it as IoU 0 in the mean as published code does, with a
            warning. FB-IoU is the same under each.
        csv_file: Write each evaluation's episodes there, over those of the one before, see
            :func:`~mmfss.evaluation.episode_csv.episodes_csv`. That it can be written is found
            out at the start. If it fails at the end all the same (a full disk), that is
            logged as an error and the results are returned.
        collect_device: 'cpu' or 'gpu', for collecting among processes.
        prefix: Put before the names of the results.

    Raises:
        ValueError: Wrong shapes, values or classes; an absent class with 'error'; metainfo
            without a split; a csv_file that cannot be written.
    """

    def __init__(
        self,
        absent_classes: str = 'error',
        collect_device: str = 'cpu',
        prefix: str | None = None,
        csv_file: str | None = None,
    ) -> None:
        if absent_classes not in ('error', 'exclude', 'zero'):
            raise ValueError(
                f"absent_classes must be 'error' or 'exclude', or 'zero' as published code has "
                f'it, got {absent_classes!r}'
            )
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.absent_classes = absent_classes
        self.csv_file = csv_file
        self.counts: tuple[EpisodeCounts, ...] = ()
        if csv_file is not None and is_main_process():
            check_writable(csv_file, 'csv_file of FewShotIoUMetric')

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
            paths = sample.get('img_path') or '', tuple(sample.get('support_paths') or ())
            self.results.append(
                EpisodeCounts(int(sample['episode']), int(sample['class_id']), *counts, *paths)
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
        self.counts = tuple(each_once(results))
        if self.csv_file is not None:  # first, so that it is there even if a class is absent
            try:
                write_text(self.csv_file, episodes_csv(self.counts, split.name))
            except OSError as error:
                text = f'the episodes could not be written to csv_file={self.csv_file}: {error}'
                print_log(text, 'current', logging.ERROR)
        ious, miou, fb_iou = few_shot_iou(sums)
        figures = {'mIoU': miou, 'FB-IoU': fb_iou}
        classes = len(ious)
        absent = [split.name(c) for c in split.ids(role) if c not in ious]
        if absent:
            as_zero = sum(ious.values()) / (len(ious) + len(absent))
            self._report_absent(absent, len(ious), split, miou, as_zero)
            if self.absent_classes == 'zero':
                figures['mIoU'], classes = as_zero, len(ious) + len(absent)
            else:
                figures['mIoU (absent as 0)'] = as_zero
        figures.update({f'IoU/{split.name(c)}': iou for c, iou in ious.items()})
        figures.update(classes=classes, episodes=len(self.counts))
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

    def _report_absent(
        self, names: list[str], evaluated: int, split: FoldSplit, miou: float, as_zero: float
    ) -> None:
        text = (
            f'{split.benchmark} fold {split.fold}: no episode of {len(names)} of '
            f'{len(names) + evaluated} classes: {", ".join(names)}'
        )
        if self.absent_classes == 'error' or not evaluated:
            raise ValueError(
                f'{text}; test more episodes, or leave these classes out visibly '
                "with absent_classes='exclude', or count them as 0 as published code does "
                "with 'zero'"
            )
        if self.absent_classes == 'zero':
            text += f'; mIoU counts them as 0, the mean of the other {evaluated} is {miou:.2f}'
        else:
            text += (
                f'; mIoU is the mean of the other {evaluated}, with 0 for those left out it '
                f'would be {as_zero:.2f}'
            )
        print_log(text, 'current', logging.WARNING)


def _map(field: object) -> np.ndarray:
    """(h, w) of a PixelData or its dict form, which hold (1, h, w)."""
    data = field['data'] if isinstance(field, Mapping) else field.data
    array = data.detach().cpu().numpy() if hasattr(data, 'detach') else np.asarray(data)
    if array.ndim != 3 or array.shape[0] != 1:
        raise ValueError(f'a segmentation map must be of shape (1, h, w), got {array.shape}')
    return array[0]
