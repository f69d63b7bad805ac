"""The metric through mmengine's samplers, test loop and a real process group."""

from __future__ import annotations

import pytest
import torch
from mmengine.dataset import DefaultSampler, pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.utils.data import DataLoader
from two_processes import in_two_processes

from mmfss.datasets.folds import get_split
from mmfss.evaluation import FewShotIoUMetric

SPLIT = get_split('pascal-5i', 0)
NUMBER = 23  # odd: two processes need padding


class Episodes(torch.utils.data.Dataset):
    """Random predictions and truths."""

    def __len__(self):
        return NUMBER

    def __getitem__(self, index):
        g = torch.Generator().manual_seed(index)
        sample = SegDataSample(metainfo=dict(class_id=1 + index % 5, episode=index))
        sample.set_metainfo(dict(img_path=f'{index}.jpg', support_paths=['a.jpg', 'b.jpg']))
        sample.pred_sem_seg = PixelData(data=torch.randint(0, 2, (1, 9, 7), generator=g))
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 2, (1, 9, 7), generator=g))
        return sample


def evaluate(batch_size, csv_file, collect_dir=None):
    """What mmengine's test loop does, in each process."""
    metric = FewShotIoUMetric(csv_file=csv_file)
    metric.collect_dir = collect_dir
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = dict(split=SPLIT.to_dict(), role='novel')
    data = Episodes()
    loader = DataLoader(
        data,
        batch_size,
        sampler=DefaultSampler(data, shuffle=False, seed=0),
        collate_fn=pseudo_collate,
    )
    for batch in loader:
        evaluator.process(batch)
    figures = evaluator.evaluate(len(data))
    return figures, [row.episode for row in metric.counts]


@pytest.mark.parametrize('batch_size', [1, 4])
def test_two_processes_equal_one(tmp_path, batch_size):
    expected, episodes = evaluate(1, str(tmp_path / 'one.csv'))
    assert expected['episodes'] == NUMBER and expected['classes'] == 5
    folder = str(tmp_path)
    results = in_two_processes(evaluate, batch_size, f'{folder}/two.csv', f'{folder}/collect')
    assert all(isinstance(result, tuple) for result in results), results
    assert [figures for figures, _ in results] == [expected, expected]
    # the main process alone has the counts of all episodes
    assert sorted(counted for _, counted in results) == [[], episodes]
    assert episodes == list(range(NUMBER))
    one, two = ((tmp_path / f'{name}.csv').read_text() for name in ('one', 'two'))
    assert one == two and len(one.splitlines()) == NUMBER + 1
