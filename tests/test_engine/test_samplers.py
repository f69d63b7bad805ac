"""The stream of episodes: nothing twice, nothing lost but the remainder, equal shares."""

from __future__ import annotations

import pytest

from mmfss.engine import samplers
from mmfss.engine.samplers import EpisodeSampler


class Stream:
    num_images = 11

    def __init__(self, length=1000):
        self.length = length

    def __len__(self):
        return self.length


def walk(monkeypatch, world_size, epochs, **options):
    """[epoch][rank] -> indices."""
    out = []
    for epoch in epochs:
        row = []
        for rank in range(world_size):
            monkeypatch.setattr(samplers, 'get_dist_info', lambda r=rank: (r, world_size))
            sampler = EpisodeSampler(Stream(), **options)
            sampler.set_epoch(epoch)
            indices = list(sampler)
            assert len(indices) == len(sampler)
            row.append(indices)
        out.append(row)
    return out


def test_one_process_walks_the_stream_once(monkeypatch):
    epochs = walk(monkeypatch, 1, range(4), episodes_per_epoch=5)
    assert [i for (indices,) in epochs for i in indices] == list(range(20))


def test_epoch_does_not_depend_on_those_before(monkeypatch):
    assert walk(monkeypatch, 1, [7], episodes_per_epoch=5) == [[[35, 36, 37, 38, 39]]]


@pytest.mark.parametrize('passes, length', [(0.5, 5), (1, 11), (2.0, 22)])
def test_length_in_passes(monkeypatch, passes, length):
    ((indices,),) = walk(monkeypatch, 1, [0], passes=passes)
    assert indices == list(range(length))


def test_processes_share_an_epoch_in_turn(monkeypatch):
    epochs = walk(monkeypatch, 3, [0, 1], episodes_per_epoch=10)
    assert epochs[0] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert epochs[1] == [[10, 13, 16], [11, 14, 17], [12, 15, 18]]


def test_seed_of_mmengine_changes_nothing(monkeypatch):
    one, two = (walk(monkeypatch, 1, [3], passes=1, seed=seed) for seed in (0, 1))
    assert one == two


@pytest.mark.parametrize('options', [{}, dict(passes=1, episodes_per_epoch=5)])
def test_length_is_given_once(options):
    with pytest.raises(ValueError, match='either passes or episodes_per_epoch'):
        EpisodeSampler(Stream(), **options)


def test_empty_epoch_is_refused(monkeypatch):
    monkeypatch.setattr(samplers, 'get_dist_info', lambda: (0, 8))
    with pytest.raises(ValueError, match='5 episodes gives none to some of the 8 processes'):
        EpisodeSampler(Stream(), passes=0.5)


def test_end_of_the_dataset_is_named():
    sampler = EpisodeSampler(Stream(12), episodes_per_epoch=5)
    sampler.set_epoch(2)
    with pytest.raises(ValueError, match='epoch 2 ends at episode 15, but the dataset has 12'):
        iter(sampler)
