"""Episodes in a real process group with data workers: those of one process, from one index."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import socket
import traceback
from datetime import timedelta

import pytest
import torch.distributed as dist
from episode_cases import build, digest
from mmengine.dataset import DefaultSampler, pseudo_collate
from torch.utils.data import DataLoader

from mmfss.datasets import class_index
from mmfss.engine import EpisodeSampler

NUMBER = 12


def fingerprints(root, split, sampler, workers, cache):
    """``{episode: hash of everything in it}`` of this process, and how many masks it read."""
    reads = []
    read_mask = class_index.read_mask
    class_index.read_mask = lambda path: (reads.append(path), read_mask(path))[1]
    try:
        dataset = build(root, split, sampler=sampler, class_index_file=cache, num_episodes=NUMBER)
    finally:
        class_index.read_mask = read_mask
    order = DefaultSampler(dataset, shuffle=False, seed=0)
    if split == 'base':
        order = EpisodeSampler(dataset, episodes_per_epoch=NUMBER)
    loader = DataLoader(dataset, 2, sampler=order, num_workers=workers, collate_fn=pseudo_collate)
    found = {}
    for batch in loader:
        for b, sample in enumerate(batch['data_samples']):
            item = dict(inputs={k: v[b] for k, v in batch['inputs'].items()}, data_samples=sample)
            found[sample.episode] = hashlib.sha256(repr(digest(item)).encode()).hexdigest()
    return found, len(reads)


def work(rank, port, queue, *args):
    try:
        dist.init_process_group(
            'gloo',
            f'tcp://127.0.0.1:{port}',
            rank=rank,
            world_size=2,
            timeout=timedelta(seconds=60),
        )
        queue.put((rank, *fingerprints(*args)))
        dist.destroy_process_group()
    except ValueError as error:
        queue.put((rank, f'{type(error).__name__}: {error}', None))
    except BaseException:
        queue.put((rank, traceback.format_exc(), None))


def in_two_processes(*args):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    processes = [context.Process(target=work, args=(r, port, queue, *args)) for r in (0, 1)]
    for process in processes:
        process.start()
    results = sorted((queue.get(timeout=120) for _ in processes), key=lambda result: result[0])
    for process in processes:
        process.join(timeout=60)
    return results


@pytest.mark.parametrize('split', ['base', 'novel'])
@pytest.mark.parametrize('sampler', ['image_list', 'uniform_class', 'balanced'])
def test_one_and_two_processes_with_and_without_workers(big_voc, split, sampler):
    expected, reads = fingerprints(big_voc, split, sampler, 0, None)
    assert len(set(expected.values())) == len(expected) == NUMBER and reads == 150
    assert fingerprints(big_voc, split, sampler, 2, None)[0] == expected
    (_, first, reads_first), (_, second, reads_second) = in_two_processes(
        big_voc, split, sampler, 2 if sampler == 'balanced' else 0, None
    )
    assert isinstance(first, dict) and isinstance(second, dict), (first, second)
    assert set(first).isdisjoint(second) and {**first, **second} == expected
    assert (reads_first, reads_second) == (150, 0)  # the second takes the index of the first


def test_a_broken_mask_ends_both_processes(voc):
    mask = voc / 'SegmentationClassAug/im007.png'
    mask.write_bytes(mask.read_bytes()[:40])
    results = in_two_processes(voc, 'novel', 'image_list', 0, None)
    assert all('ValueError: cannot read mask file' in result[1] for result in results), results
    assert all(os.path.basename(mask) in result[1] for result in results)
