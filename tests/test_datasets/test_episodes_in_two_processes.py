"""Episodes in a real process group with data workers: those of one process, from one index."""

from __future__ import annotations

import hashlib
import os

import pytest
from episode_cases import build, digest
from mmengine.dataset import DefaultSampler, pseudo_collate
from torch.utils.data import DataLoader
from two_processes import in_two_processes

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


@pytest.mark.parametrize('split', ['base', 'novel'])
@pytest.mark.parametrize('sampler', ['image_list', 'uniform_class', 'balanced'])
def test_one_and_two_processes_with_and_without_workers(big_voc, split, sampler):
    expected, reads = fingerprints(big_voc, split, sampler, 0, None)
    assert len(set(expected.values())) == len(expected) == NUMBER and reads == 150
    assert fingerprints(big_voc, split, sampler, 2, None)[0] == expected
    workers = 2 if sampler == 'balanced' else 0
    results = in_two_processes(fingerprints, big_voc, split, sampler, workers, None)
    assert all(isinstance(result, tuple) for result in results), results
    (first, reads_first), (second, reads_second) = results
    assert set(first).isdisjoint(second) and {**first, **second} == expected
    assert (reads_first, reads_second) == (150, 0)  # the second takes the index of the first


def test_a_broken_mask_ends_both_processes(voc):
    mask = voc / 'SegmentationClassAug/im007.png'
    mask.write_bytes(mask.read_bytes()[:40])
    results = in_two_processes(fingerprints, voc, 'novel', 'image_list', 0, None)
    for result in results:
        assert 'ValueError: cannot read mask file' in result and os.path.basename(mask) in result
