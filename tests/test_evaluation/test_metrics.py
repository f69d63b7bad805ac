from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import METRICS
from mmseg.structures import SegDataSample

from mmfss.datasets.folds import get_split
from mmfss.evaluation import FewShotIoUMetric, metrics
from mmfss.evaluation.metrics import EpisodeCounts, count_episode

SPLIT = get_split('pascal-5i', 0)
META = dict(split=SPLIT.to_dict(), role='novel')


def sample(pred, truth, class_id, episode):
    data = SegDataSample(metainfo=dict(class_id=class_id, episode=episode, img_path='q.jpg'))
    data.pred_sem_seg = PixelData(data=torch.as_tensor(np.array(pred))[None])
    data.gt_sem_seg = PixelData(data=torch.as_tensor(np.array(truth))[None])
    return data.to_dict()


def random_samples(number=30, seed=0):
    rng = np.random.default_rng(seed)
    samples = []
    for episode in range(number):
        shape = tuple(rng.integers(1, 12, 2))
        truth = rng.choice(np.array([0, 1, 255], np.uint8), size=shape)
        samples.append(
            sample(
                rng.integers(0, 2, shape).astype(np.uint8), truth, int(rng.integers(1, 6)), episode
            )
        )
    return samples


def run(samples, batch=1, meta=META, **options):
    metric = FewShotIoUMetric(**options)
    metric.dataset_meta = meta
    for i in range(0, len(samples), batch):
        metric.process(None, samples[i : i + batch])
    return metric.evaluate(len(samples))


def by_loop(samples):
    """mIoU and FB-IoU by counting single pixels."""
    inter, union = {}, {}
    both = {0: [0, 0], 1: [0, 0]}
    for s in samples:
        pred, truth = (s[k]['data'][0].tolist() for k in ('pred_sem_seg', 'gt_sem_seg'))
        for p_row, t_row in zip(pred, truth, strict=True):
            for p, t in zip(p_row, t_row, strict=True):
                if t == 255:
                    continue
                for value in (0, 1):
                    both[value][0] += p == t == value
                    both[value][1] += value in (p, t)
                c = s['class_id']
                inter[c] = inter.get(c, 0) + (p == t == 1)
                union[c] = union.get(c, 0) + (1 in (p, t))
    ious = {c: 100 * inter[c] / union[c] for c in union if union[c]}
    return ious, sum(ious.values()) / len(ious), 50 * sum(i / u for i, u in both.values())


def test_reference_episodes(shared_dir):
    file = shared_dir / 'parity/golden/metric.npz'
    ref = np.load(file)
    samples = []
    for i, subclass in enumerate(ref['subcls']):
        pred, truth = ref[f'{i:02d}.pred'], ref[f'{i:02d}.label']
        inter, union = count_episode(pred, truth)
        np.testing.assert_array_equal(inter, ref['intersection'][i])
        np.testing.assert_array_equal(union, ref['union'][i])
        samples.append(sample(pred, truth, int(subclass) + 1, i))
    result = run(samples, batch=3)
    for i, name in enumerate(SPLIT.novel_names):
        assert result[f'IoU/{name}'] / 100 == pytest.approx(ref['expected.class_iou'][i], abs=1e-6)
    assert result['mIoU'] / 100 == pytest.approx(float(ref['expected.miou']), abs=1e-6)
    assert result['FB-IoU'] / 100 == pytest.approx(float(ref['expected.fbiou']), abs=1e-6)


def test_plain_loop():
    samples = random_samples()
    ious, miou, fb_iou = by_loop(samples)
    result = run(samples)
    assert {n: result[f'IoU/{n}'] for n in SPLIT.novel_names} == pytest.approx(
        {SPLIT.name(c): iou for c, iou in ious.items()}
    )
    assert result['mIoU'] == pytest.approx(miou) and result['FB-IoU'] == pytest.approx(fb_iou)
    assert result['classes'] == 5 and result['episodes'] == 30


def test_independent_of_batches_order_and_repeats():
    samples = random_samples()
    result = run(samples)
    assert run(samples, batch=7) == run(samples, batch=30) == run(samples[::-1]) == result
    assert run(samples + samples[:5], batch=4) == result


def test_ranks_with_padding_equal_one_process(monkeypatch):
    samples = random_samples(7)
    result = run(samples, absent_classes='exclude')
    ranks = [FewShotIoUMetric(absent_classes='exclude') for _ in range(2)]
    for rank, metric in enumerate(ranks):
        metric.dataset_meta = META
        metric.process(None, (samples + samples[:1])[rank::2])
    collected = [row for pair in zip(*(m.results for m in ranks), strict=True) for row in pair]
    assert len(collected) == 8
    assert ranks[0].compute_metrics(collected) == result


def test_perfect_and_empty_predictions():
    truth = np.array([[1, 1, 0, 255]], np.uint8)
    meta = dict(split=SPLIT, role='novel')
    perfect = run([sample(truth == 1, truth, c, c) for c in SPLIT.novel], meta=meta)
    assert perfect['mIoU'] == perfect['FB-IoU'] == 100
    nothing = run([sample(np.zeros_like(truth), truth, c, c) for c in SPLIT.novel])
    assert nothing['mIoU'] == 0 and nothing['FB-IoU'] == pytest.approx(100 / 3 / 2)


def test_counts_are_exact_for_large_sums():
    metric = FewShotIoUMetric(absent_classes='exclude')
    metric.dataset_meta = META
    big = 2**25 + 1
    rows = [EpisodeCounts(i, 1, (1, big), (1, 3 * big)) for i in range(4001)]
    assert metric.compute_metrics(rows)['IoU/aeroplane'] == 100 / 3


def test_absent_class_is_an_error():
    samples = [s for s in random_samples() if s['class_id'] not in (2, 4)]
    with pytest.raises(ValueError, match=r"no episode of 2 of 5 classes: bicycle, boat; .*exclude"):
        run(samples)


def test_absent_class_left_out_visibly(monkeypatch):
    said = []
    monkeypatch.setattr(metrics, 'print_log', lambda text, *where: said.append((text, *where)))
    samples = [s for s in random_samples() if s['class_id'] not in (2, 4)]
    ious, miou, _ = by_loop(samples)
    result = run(samples, absent_classes='exclude')
    assert result['classes'] == 3 and result['mIoU'] == pytest.approx(miou)
    assert 'IoU/bicycle' not in result and len(ious) == 3
    assert said == [
        (
            'pascal-5i fold 0: no episode of 2 of 5 classes: bicycle, boat; mIoU is the '
            'mean of the other 3',
            'current',
            logging.WARNING,
        )
    ]


def test_no_episode_at_all():
    with pytest.raises(ValueError, match='no episode of 5 of 5 classes'):
        run([], absent_classes='exclude')


def test_class_that_is_all_ignored_counts_as_absent():
    samples = [sample([[1]], [[1]], c, c) for c in SPLIT.novel[1:]]
    samples.append(sample([[0, 1]], np.array([[0, 255]], np.uint8), 1, 99))
    with pytest.raises(ValueError, match='1 of 5 classes: aeroplane'):
        run(samples)


@pytest.mark.parametrize('meta', [None, {}, dict(classes=('a',)), dict(split=SPLIT)])
def test_metainfo_without_split(meta):
    with pytest.raises(ValueError, match='needs the split and role .* EpisodicDataset'):
        run(random_samples(), meta=meta)


def test_episodes_of_other_classes():
    with pytest.raises(ValueError, match=r'class ids \[7\] .* not novel classes of pascal-5i'):
        run([*random_samples(), sample([[1]], [[1]], 7, 99)])


@pytest.mark.parametrize(
    'pred, truth, message',
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), r'one \(h, w\), got \(2, 3\) and \(3, 2\)'),
        (np.full((2, 2), 2), np.zeros((2, 2)), r'prediction may hold 0 and 1, got \[2\]'),
        (np.full((2, 2), 0.4), np.zeros((2, 2)), r'prediction may hold 0 and 1, got \[0\.4\]'),
        (np.zeros((2, 2)), np.full((2, 2), 7), r'truth mask may hold 0, 1 and 255, got \[7'),
    ],
)
def test_bad_maps_name_the_episode(pred, truth, message):
    with pytest.raises(ValueError, match=r'episode 3 \(q\.jpg\): .*' + message):
        run([sample(pred, truth, 1, 3)])


def test_map_of_several_channels():
    bad = sample([[1]], [[1]], 1, 3)
    bad['pred_sem_seg'] = dict(data=torch.zeros(2, 1, 1))
    with pytest.raises(ValueError, match=r'episode 3 .*shape \(1, h, w\), got \(2, 1, 1\)'):
        run([bad])


def test_incomplete_data_sample():
    with pytest.raises(ValueError, match=r"lacks \['pred_sem_seg'\]"):
        run([dict(gt_sem_seg={}, class_id=1, episode=0)])


def test_registered_and_arguments():
    metric = METRICS.build(dict(type='FewShotIoUMetric', prefix='fold0'))
    metric.dataset_meta = META
    metric.process(None, random_samples())
    assert set(metric.evaluate(30)) == {f'fold0/{k}' for k in run(random_samples())}
    with pytest.raises(ValueError, match="absent_classes must be 'error' or 'exclude'"):
        FewShotIoUMetric(absent_classes='zero')
