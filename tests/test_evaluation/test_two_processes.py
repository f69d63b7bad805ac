"""The metric through mmengine's samplers, test loop and a real process group."""

from __future__ import annotations

import multiprocessing
import socket
import traceback
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from mmengine.dataset import DefaultSampler, pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.utils.data import DataLoader

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


def work(rank, port, batch_size, folder, queue):
    try:
        dist.init_process_group(
            'gloo',
            f'tcp://127.0.0.1:{port}',
            rank=rank,
            world_size=2,
            timeout=timedelta(seconds=30),
        )
        queue.put(evaluate(batch_size, f'{folder}/two.csv', f'{folder}/collect'))
        dist.destroy_process_group()
    except BaseException:
        queue.put(traceback.format_exc())
        raise


@pytest.mark.skipif('fork' not in multiprocessing.get_all_start_methods(), reason='needs fork')
@pytest.mark.parametrize('batch_size', [1, 4])
def test_two_processes_equal_one(tmp_path, batch_size):
    expected, episodes = evaluate(1, str(tmp_path / 'one.csv'))
    assert expected['episodes'] == NUMBER and expected['classes'] == 5
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    processes = [
        context.Process(target=work, daemon=True, args=(r, port, batch_size, str(tmp_path), queue))
        for r in range(2)
    ]
    for process in processes:
        process.start()
    results = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(30)
    assert [figures for figures, _ in results] == [expected, expected]
    # the main process alone has the counts of all episodes
    assert sorted(counted for _, counted in results) == [[], episodes]
    assert episodes == list(range(NUMBER))
    one, two = ((tmp_path / f'{name}.csv').read_text() for name in ('one', 'two'))
    assert one == two and len(one.splitlines()) == NUMBER + 1
