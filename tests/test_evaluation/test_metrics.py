from __future__ import annotations

import csv
import logging

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import METRICS
from mmseg.structures import SegDataSample

from mmfss.datasets.folds import get_split
from mmfss.evaluation import FewShotIoUMetric, metrics
from mmfss.evaluation.counts import EpisodeCounts, count_episode

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
    assert result['mIoU (absent as 0)'] == pytest.approx(sum(ious.values()) / 5)
    assert 'IoU/bicycle' not in result and len(ious) == 3
    assert 'mIoU (absent as 0)' not in run(random_samples(), absent_classes='exclude')
    assert said == [
        (
            'pascal-5i fold 0: no episode of 2 of 5 classes: bicycle, boat; mIoU is the mean of '
            f'the other 3, with 0 for those left out it would be {0.6 * miou:.2f}',
            'current',
            logging.WARNING,
        )
    ]


def test_absent_class_counts_as_zero(monkeypatch):
    """By hand: IoU 1/2, 1/3 and 1 of three of five classes; (50 + 100/3 + 100 + 0 + 0) / 5."""
    said = []
    monkeypatch.setattr(metrics, 'print_log', lambda text, *where: said.append((text, *where)))
    samples = [
        sample([[1, 1, 0]], [[1, 0, 0]], 1, 0),  # foreground 1 of 2, background 1 of 2
        sample([[1, 1, 1]], [[1, 0, 0]], 3, 1),  # 1 of 3, 0 of 2
        sample([[1, 0, 0]], [[1, 0, 0]], 5, 2),  # 1 of 1, 2 of 2
    ]
    result = run(samples, absent_classes='zero')
    assert result.pop('mIoU') == pytest.approx((50 + 100 / 3 + 100) / 5)
    assert result.pop('FB-IoU') == pytest.approx(100 * (3 / 6 + 3 / 6) / 2)
    assert result == {
        'IoU/aeroplane': 50,
        'IoU/bird': pytest.approx(100 / 3),
        'IoU/bottle': 100,
        'classes': 5,  # of which mIoU is the mean
        'episodes': 3,
    }
    left_out = run(samples, absent_classes='exclude')
    assert left_out['mIoU'] == pytest.approx((50 + 100 / 3 + 100) / 3)
    assert left_out['mIoU (absent as 0)'] == run(samples, absent_classes='zero')['mIoU']
    assert said[0] == (
        'pascal-5i fold 0: no episode of 2 of 5 classes: bicycle, boat; mIoU counts them as 0, '
        'the mean of the other 3 is 61.11',
        'current',
        logging.WARNING,
    )


def test_rules_agree_where_no_class_is_absent(monkeypatch):
    monkeypatch.setattr(metrics, 'print_log', lambda *said: pytest.fail(str(said)))
    samples = random_samples()
    zero, exclude = (run(samples, absent_classes=rule) for rule in ('zero', 'exclude'))
    assert zero == exclude == run(samples)


def test_class_that_is_all_ignored_counts_as_zero():
    samples = [sample([[1]], [[1]], c, c) for c in SPLIT.novel[1:]]
    samples.append(sample([[0, 1]], np.array([[0, 255]], np.uint8), 1, 99))
    result = run(samples, absent_classes='zero')
    assert result['mIoU'] == 80 and result['classes'] == 5 and 'IoU/aeroplane' not in result


@pytest.mark.parametrize('rule', ['exclude', 'zero'])
def test_no_episode_at_all(rule):
    with pytest.raises(ValueError, match='no episode of 5 of 5 classes'):
        run([], absent_classes=rule)


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


# ------------------------------------------------------------------------- episodes on their own
def test_counts_of_the_last_evaluation():
    samples = random_samples(9)
    metric = FewShotIoUMetric(absent_classes='exclude')
    metric.dataset_meta = META
    assert metric.counts == ()
    for part in (samples, samples[:4]):
        metric.process(None, part[::-1] + part[:2])
        metric.evaluate(len(part))
        assert [row.episode for row in metric.counts] == list(range(len(part)))
        assert {row.query for row in metric.counts} == {'q.jpg'}
    assert (
        metric.counts[3].union
        == count_episode(
            *(samples[3][key]['data'][0].numpy() for key in ('pred_sem_seg', 'gt_sem_seg'))
        )[1]
    )


def test_csv_of_the_episodes(tmp_path):
    path = tmp_path / 'new/episodes.csv'
    samples = random_samples()
    for s in samples:
        s['support_paths'] = ['a.jpg', f'b, {s["episode"]}.jpg']
    result = run(samples[::-1] + samples[:5], batch=4, csv_file=str(path))
    assert result == run(samples)
    assert [file.name for file in path.parent.iterdir()] == ['episodes.csv']
    with path.open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [int(row['episode']) for row in rows] == list(range(30))
    inter, union = {}, {}
    for row, s in zip(rows, samples, strict=True):
        ious = by_loop([s])[0]  # none where prediction and truth are empty
        found = [float(row['IoU'])] if row['IoU'] else []
        assert found == pytest.approx(list(ious.values()))
        assert (row['class_id'], row['class']) == (
            str(s['class_id']), SPLIT.name(s['class_id']))  # fmt: skip
        assert (row['query'], row['supports']) == ('q.jpg', f'a.jpg;b, {s["episode"]}.jpg')
        for sums, name in ((inter, 'intersection'), (union, 'union')):
            pair = sums.setdefault(row['class'], [0, 0])
            pair[0] += int(row[f'{name}_bg'])
            pair[1] += int(row[f'{name}_fg'])
    for name, (_, both) in inter.items():
        assert 100 * both / union[name][1] == result[f'IoU/{name}']
    back, front = (sum(i[k] for i in inter.values()) / sum(u[k] for u in union.values())
                   for k in (0, 1))  # fmt: skip
    assert 50 * (back + front) == pytest.approx(result['FB-IoU'])


def test_csv_of_a_map_that_is_all_ignored(tmp_path):
    empty = sample([[0]], np.array([[255]], np.uint8), 1, 7)
    path = tmp_path / 'episodes.csv'
    run([*random_samples(7), empty], absent_classes='exclude', csv_file=str(path))
    assert path.read_text().splitlines()[-1] == '7,1,aeroplane,,0,0,0,0,q.jpg,'


def test_csv_is_there_even_if_a_class_is_absent(tmp_path):
    path = tmp_path / 'episodes.csv'
    with pytest.raises(ValueError, match='no episode of 1 of 5'):
        run([s for s in random_samples() if s['class_id'] != 3], csv_file=str(path))
    assert len(path.read_text().splitlines()) > 20


def test_csv_that_cannot_be_written_is_found_at_the_start(tmp_path):
    with pytest.raises(
        ValueError, match=r'csv_file of FewShotIoUMetric: .*it is a folder[)]; give'
    ):
        FewShotIoUMetric(csv_file=str(tmp_path))
    (tmp_path / 'file').write_text('')
    with pytest.raises(ValueError, match='cannot be written'):
        FewShotIoUMetric(csv_file=str(tmp_path / 'file/episodes.csv'))


def test_disk_that_is_full_at_the_end_loses_no_figure(tmp_path, monkeypatch):
    def full(path, text):
        raise OSError(28, 'No space left on device')

    said = []
    monkeypatch.setattr(metrics, 'write_text', full)
    monkeypatch.setattr(metrics, 'print_log', lambda text, *where: said.append((text, *where)))
    path = str(tmp_path / 'episodes.csv')
    assert run(random_samples(), csv_file=path) == run(random_samples())
    assert len(said) == 1 and 'No space left' in said[0][0] and said[0][2] == logging.ERROR


def test_registered_and_arguments():
    metric = METRICS.build(dict(type='FewShotIoUMetric', prefix='fold0'))
    metric.dataset_meta = META
    metric.process(None, random_samples())
    assert set(metric.evaluate(30)) == {f'fold0/{k}' for k in run(random_samples())}
    with pytest.raises(ValueError, match="absent_classes must be 'error' or 'exclude', .* 'none'"):
        FewShotIoUMetric(absent_classes='none')
