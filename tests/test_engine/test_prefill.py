"""Images are encoded once in all, by two processes that share a cache."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from tiny_runs import write_config, write_shapes
from two_processes import in_two_processes

from mmfss import compat
from mmfss.commands.caching import set_loaders
from mmfss.commands.preparation import set_evaluation_amp
from mmfss.datasets import EpisodicDataset
from mmfss.engine.prefill import PrefillFeaturesHook
from mmfss.features.images import DeferredImage


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp('data') / 'shapes')


@pytest.fixture
def cfg(tmp_path, shapes):
    found = Config.fromfile(write_config(tmp_path / 'prefill.py', shapes))
    found.work_dir, found.experiment_name = str(tmp_path / 'work'), f'prefill{time.time_ns()}'
    cache = dict(type='FeatureCache', directory=str(tmp_path / 'kept'))
    found.model.feature_cache = cache
    found.train_dataloader = found.train_cfg = found.optim_wrapper = found.param_scheduler = None
    found.default_hooks.fold_guard.allow_unverified = True
    found.default_hooks.checkpoint = None
    found.custom_hooks = []
    for name in ('val', 'test'):
        found[f'{name}_dataloader'].dataset.update(num_episodes=12, shots=2)
    return found


def run(cfg, kind='test'):
    """Metrics, images read before the first episode, and in all."""
    compat.set_cpu_model_wrapper(cfg)
    torch.manual_seed(0)
    read, original = [], DeferredImage.read
    DeferredImage.read = lambda file: read.append(file.path) or original(file)
    try:
        runner = Runner.from_cfg(cfg)
        model = getattr(runner.model, 'module', runner.model)
        before = []
        model.register_forward_pre_hook(lambda *args: before.append(len(read)))
        metrics = getattr(runner, kind)()
    finally:
        DeferredImage.read = original
    return dict(metrics=metrics, first=read[: before[0]], read=read)


def work(cfg, kind='test'):
    """What one of two processes does."""
    rank = str(torch.distributed.get_rank())
    os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE='2')
    cfg.launcher = 'pytorch'
    return run(cfg, kind)


def in_two(cfg, kind='test'):
    results = in_two_processes(work, cfg, kind)
    assert all(isinstance(result, dict) for result in results), results
    return results


@pytest.mark.parametrize(('kind', 'amp'), [('test', False), ('val', True)])
def test_each_image_is_read_once_in_all(cfg, tmp_path, kind, amp):
    if amp:
        set_evaluation_amp(cfg, kind)
    set_loaders(cfg)
    assert cfg.default_hooks.prefill == dict(type='PrefillFeaturesHook')
    one, other = in_two(cfg, kind)
    for result in (one, other):
        assert result['first'] == result['read']  # nothing is left to the evaluation
    shares = set(one['read']), set(other['read'])
    assert not shares[0] & shares[1] and abs(len(shares[0]) - len(shares[1])) <= 1
    assert len(one['read']) + len(other['read']) == len(shares[0] | shares[1]) > 10
    cfg.launcher, cfg.model_wrapper_cfg = 'none', None
    alone = run(cfg, kind)
    assert alone['read'] == [] and alone['metrics'] == one['metrics'] == other['metrics']
    cfg.model.feature_cache = None
    assert run(cfg, kind)['metrics'] == one['metrics']


def test_warm_cache_and_loop_that_watches_the_novel_classes(cfg):
    cfg.val_cfg = dict(type='ValLoopWatchingNovel')
    cfg.val_dataloader.dataset.seed = 7
    set_loaders(cfg)
    one, other = in_two(cfg, 'val')
    assert one['first'] == one['read'] and len(one['read']) > 5
    again = in_two(cfg, 'val')
    assert again[0]['read'] == again[1]['read'] == []
    assert again[0]['metrics'] == one['metrics'] == other['metrics']
    assert 'novel/mIoU' in one['metrics']


def test_a_directory_that_takes_no_more_is_left_to_the_evaluation(cfg):
    cfg.model.feature_cache.disk_bytes = 1
    set_loaders(cfg)
    one, other = in_two(cfg)
    assert len(one['first']) == len(other['first']) == 1  # each found out
    assert len(set(one['read']) | set(other['read'])) > 10
    cfg.launcher, cfg.model_wrapper_cfg, cfg.model.feature_cache = 'none', None, None
    assert run(cfg)['metrics'] == one['metrics'] == other['metrics']


def test_damaged_image_ends_all_processes(cfg, shapes, tmp_path):
    set_loaders(cfg)
    images = sorted((shapes / 'JPEGImages').glob('val_*.png'))
    contents = [image.read_bytes() for image in images]
    try:
        for image, content in zip(images, contents, strict=True):
            image.write_bytes(content[:-100])
        results = in_two_processes(work, cfg)
    finally:
        for image, content in zip(images, contents, strict=True):
            image.write_bytes(content)
    for text in results:
        assert 'ValueError: images could not be encoded before the evaluation: process 0: ' in text
        assert 'cannot read image file' in text


def test_one_process_only_says_what_the_cache_did(cfg, monkeypatch):
    lines = []
    monkeypatch.setattr('mmfss.engine.prefill.print_log', lambda text, _: lines.append(text))
    set_loaders(cfg)
    result = run(cfg)
    assert result['first'] == [] and len(result['read']) > 10
    (told,) = lines
    assert told.startswith('feature cache (an entry per image and encoder), so far: ')
    assert f' {2 * len(result["read"])} computed (0 of them damaged' in told


class Reached(Exception):
    """The hook began."""


class Episodes(EpisodicDataset):
    """Nothing but a switch."""

    def __init__(self, defer_images: bool) -> None:
        self.defer_images = defer_images

    def deferred_images(self):
        raise Reached


@pytest.mark.parametrize('missing', ['directory', 'deferral', 'cache', None])
def test_nothing_without_a_shared_directory_or_deferred_images(monkeypatch, missing):
    monkeypatch.setattr('mmfss.engine.prefill.get_dist_info', lambda: (0, 2))
    cache = SimpleNamespace(directory=None if missing == 'directory' else 'there')
    encoding = SimpleNamespace(cache=None if missing == 'cache' else cache)
    dataset = Episodes(defer_images=missing != 'deferral')
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset))
    runner = SimpleNamespace(model=SimpleNamespace(encoding=encoding), test_loop=loop)
    with nullcontext() if missing else pytest.raises(Reached):
        PrefillFeaturesHook().before_test_epoch(runner)
