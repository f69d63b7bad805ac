"""The short form of tools/analysis_tools/reliability.py: a trial or two of each kind."""

from __future__ import annotations

import random
import sys

import pytest
import tiny_models
from mmengine.logging import MMLogger
from reliability.labelling import Cache, Labelling
from reliability.malformed import try_all
from reliability.running import Bad, files_of, flip, run, same
from reliability.training import Preparing

from mmfss.apis import FewShotInferencer


@pytest.fixture(scope='module')
def labelling(tmp_path_factory):
    return Labelling(tmp_path_factory.mktemp('label'), images=4)


@pytest.mark.parametrize(
    'trial',
    ['kill_at_a_change', 'kill_while_overwriting', 'full_disk', 'flip_a_bit', 'two_writers'],
)
def test_labelling(labelling, trial):
    getattr(labelling, trial)(random.Random(1))


def test_cache(labelling):
    Cache(labelling).flip_a_bit(random.Random(1))


@pytest.mark.parametrize('trial', ['kill', 'full_disk', 'flip_a_mask', 'checkpoint_with_code'])
def test_preparation(tmp_path, trial):
    getattr(Preparing(tmp_path), trial)(random.Random(2))


def test_malformed_supports():
    """A hundred seeds, of which some were tracebacks once."""
    inferencer = FewShotInferencer(tiny_models.build())
    assert try_all(inferencer, 100, 1100) == (100, [])
    for seed in (1040, 1095, 1147, 1185, 2136, 2157, 2162, 3107):
        assert try_all(inferencer, 1, seed) == (1, [])


def test_a_logger_with_a_closed_stream_of_the_parent_writes_to_the_file(tmp_path, monkeypatch):
    """As of a logger that was made in an earlier test, whose captured output is gone."""
    closed = open(tmp_path / 'earlier', 'w')  # noqa: SIM115
    monkeypatch.setattr(sys, 'stdout', closed)
    logger = MMLogger('of_an_earlier_test')
    monkeypatch.setitem(MMLogger._instance_dict, logger.name, logger)
    closed.close()
    ended = run(lambda: logger.warning('said'), tmp_path / 'log')
    assert ended.status == 0 and ended.last.endswith('said')
    assert 'Traceback' not in ended.said


def test_a_broken_promise_is_seen(tmp_path):
    (tmp_path / 'a').write_bytes(b'abc')
    before = files_of(tmp_path)
    same(files_of(tmp_path), before, 'as it was')
    assert flip(tmp_path / 'a', random.Random(0)).startswith('bit ')
    with pytest.raises(Bad, match='1 files differ'):
        same(files_of(tmp_path), before, 'flipped')
