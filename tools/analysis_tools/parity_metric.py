"""The metric against ``metric.npz`` of reference tensors, whatever method it lies beside.

Of episode NN the file has ``NN.logits`` (1, S, S), ``NN.label`` and ``NN.pred`` (h, w), and in row
NN of ``subcls``, ``intersection``, ``union`` and ``target`` its class, from 0 on, and pixels of
[background, foreground]. ``expected.class_iou`` has all classes of the fold: published code counts
one without an episode as IoU 0, and ``expected.miou`` is the mean with it.
"""

from __future__ import annotations

import re

import numpy as np
import torch
from mmseg.registry import METRICS
from parity_reference import Reference, Row

from mmfss.datasets.folds import FoldSplit
from mmfss.evaluation.counts import count_episode
from mmfss.functional import logits_to_mask

CASE = 'metric'
COUNTS = ('intersection', 'union', 'target')


def check_metric(ref: Reference) -> list[Row]:
    """Predictions, counts, IoUs of the metric episodes: exact, IoUs within 1e-6.

    Raises:
        FileNotFoundError, ValueError: the file is missing, damaged, or lacks what is needed.
    """
    data = ref.npz('metric.npz')
    stems = {m[1] for key in data if (m := re.fullmatch(r'(\d+)\.(logits|label|pred)', key))}
    stems = sorted(stems, key=int)  # '100' comes after '99'
    if not stems or len(stems) != len(data['subcls']):
        raise ValueError(
            f"{data.where} must have the arrays of some episodes and a row of 'subcls' for each, "
            f'got {len(stems)} and {len(data["subcls"])}'
        )
    names = tuple(f'class{i}' for i in range(len(data['expected.class_iou'])))
    metric = METRICS.build(dict(type='FewShotIoUMetric', absent_classes='zero'))
    split = FoldSplit('reference', 0, names, tuple(range(1, len(names) + 1)), ())
    metric.dataset_meta = dict(split=split.to_dict(), role='novel')
    wrong, counts = 0, []
    for i, stem in enumerate(stems):
        label = torch.from_numpy(data[f'{stem}.label'])
        logits = torch.from_numpy(data[f'{stem}.logits'])[None]
        pred = logits_to_mask(logits, tuple(label.shape))[0]
        wrong += int((pred[0].numpy() != data[f'{stem}.pred']).sum())
        inter, union = count_episode(pred[0].numpy(), label.numpy())
        counts.append((inter, union, [int((label == value).sum()) for value in (0, 1)]))
        sample = dict(
            pred_sem_seg=dict(data=pred),
            gt_sem_seg=dict(data=label[None]),
            class_id=int(data['subcls'][i]) + 1,
            episode=i,
        )
        metric.process({}, [sample])
    rows = [Row(CASE, 'predictions that differ', wrong, 0)]
    counted = np.array(counts)  # (episodes, 3, 2)
    for j, kind in enumerate(COUNTS):
        error = np.abs(counted[:, j] - data[kind]).max()
        rows.append(Row(CASE, f'{kind} of each episode', float(error), 0))
    pooled = counted[:, 0].sum(0) / counted[:, 1].sum(0)
    result = metric.evaluate(len(stems))
    ours = {'fg_bg_iou': ('fg_bg_iou', pooled), 'piou': ('piou', pooled[1])}
    for i, name in enumerate(names):
        ours[f'class_iou.{i}'] = (f'IoU/{name}', result.get(f'IoU/{name}', 0.0) / 100)
    ours.update(miou=('mIoU', result['mIoU'] / 100), fbiou=('FB-IoU', result['FB-IoU'] / 100))
    for key, (stage, value) in ours.items():
        array, _, place = key.partition('.')
        want = data.get(f'expected.{array}')
        if want is None:
            rows.append(Row.failed(CASE, stage, f'expected.{array} is absent from the file'))
            continue
        error = np.abs(value - (want[int(place)] if place else want)).max()
        rows.append(Row(CASE, stage, float(error), 1e-6))
    known = {'subcls', *COUNTS, *(f'expected.{key.partition(".")[0]}' for key in ours)}
    others = [key for key in data if key not in known and key.split('.')[0] not in stems]
    return rows + [Row.failed(CASE, key, 'not compared') for key in others]
