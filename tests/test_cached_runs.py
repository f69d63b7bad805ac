"""Runs with a feature cache through the real Runner: equal results, images not read again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from tiny_runs import write_config, write_shapes

from mmfss.commands import test as testing
from mmfss.commands import train as launch
from mmfss.features.images import DeferredImage
from mmfss.safe_load import load_checkpoint


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp('data') / 'shapes')


class Watch:
    """Counts images that are read from files and images that each encoder sees."""

    def __init__(self, monkeypatch) -> None:
        self.read: list[str] = []
        self.encoded = 0
        original = DeferredImage.read

        def read(file):
            self.read.append(file.path)
            return original(file)

        monkeypatch.setattr(DeferredImage, 'read', read)

    def model(self, model) -> None:
        def count(module, args):
            self.encoded += len(args[0])

        for encoder in (model.prior_encoder, model.sam2.image_encoder.trunk):
            encoder.register_forward_pre_hook(count)


def evaluate(path, work_dir, cache=None, watch=None, batch=1, shots=1, seed=0):
    """Metrics and the logits of all episodes."""
    cfg = Config.fromfile(path)
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f'{work_dir.name}'
    cfg.model.feature_cache = cache and dict(type='FeatureCache', **cache)
    cfg.test_dataloader.batch_size = batch
    cfg.test_dataloader.dataset.update(num_episodes=12, shots=shots, defer_images=cache is not None)
    cfg.train_dataloader = cfg.train_cfg = cfg.optim_wrapper = cfg.param_scheduler = None
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.default_hooks.fold_guard.allow_unverified = True
    cfg.custom_hooks = []
    torch.manual_seed(seed)
    runner = Runner.from_cfg(cfg)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in runner.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    runner.model.eval()
    if watch is not None:
        watch.model(runner.model)
    found = []
    runner.model.register_forward_hook(
        lambda module, args, output: found.extend(s.seg_logits.data.clone() for s in output)
    )
    metrics = runner.test()
    return metrics, found, runner.model.encoding.cache


def same(one, other) -> bool:
    return one[0] == other[0] and all(
        torch.equal(a, b) for a, b in zip(one[1], other[1], strict=True)
    )


@pytest.fixture
def config(tmp_path, shapes):
    return write_config(tmp_path / 'cached.py', shapes)


@pytest.mark.parametrize(('batch', 'shots'), [(1, 1), (5, 2)])
def test_equal_to_a_run_without_it_and_nothing_is_read_twice(
    config, tmp_path, monkeypatch, batch, shots
):
    cache = dict(directory=str(tmp_path / 'kept'))
    options = dict(batch=batch, shots=shots)
    plain = evaluate(config, tmp_path / 'plain', **options)
    cold, warm = Watch(monkeypatch), None
    first = evaluate(config, tmp_path / 'cold', cache, cold, **options)
    assert (
        len(cold.read) == len(set(cold.read)) == cold.encoded / 2 == first[2].stats.written / 2 > 0
    )
    warm = Watch(monkeypatch)
    second = evaluate(config, tmp_path / 'warm', cache, warm, **options)
    assert warm.read == [] and warm.encoded == 0
    assert second[2].stats.disk_hits == cold.encoded and second[2].stats.misses == 0
    assert same(plain, first) and same(plain, second)


def test_without_memory_everything_comes_from_the_disk(config, tmp_path, monkeypatch):
    cache = dict(directory=str(tmp_path / 'kept'), memory_bytes=0)
    plain = evaluate(config, tmp_path / 'plain')
    first = evaluate(config, tmp_path / 'cold', cache)
    watch = Watch(monkeypatch)
    second = evaluate(config, tmp_path / 'warm', cache, watch)
    assert watch.read == [] and second[2].stats.memory_hits == 0
    assert same(plain, first) and same(plain, second)


def test_an_image_that_changed_on_disk_is_encoded_anew(config, tmp_path, monkeypatch):
    cache = dict(directory=str(tmp_path / 'kept'))
    watch = Watch(monkeypatch)
    before = evaluate(config, tmp_path / 'cold', cache, watch)
    changed, other = (Path(path) for path in watch.read[:2])
    old, times = changed.read_bytes(), changed.stat()
    try:
        changed.write_bytes(other.read_bytes())
        os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))  # as if nothing had happened
        watch = Watch(monkeypatch)
        after = evaluate(config, tmp_path / 'changed', cache, watch)
        assert watch.read == [str(changed)]
        assert not same(before, after)
        assert same(after, evaluate(config, tmp_path / 'plain'))
    finally:
        changed.write_bytes(old)


def test_damaged_files_are_mended(config, tmp_path, monkeypatch):
    cache = dict(directory=str(tmp_path / 'kept'), memory_bytes=0)
    first = evaluate(config, tmp_path / 'cold', cache)
    entries = sorted((tmp_path / 'kept').rglob('*.safetensors'))
    entries[0].write_bytes(entries[0].read_bytes()[:1000])
    flipped = bytearray(entries[1].read_bytes())
    flipped[-100] ^= 1
    entries[1].write_bytes(flipped)
    watch = Watch(monkeypatch)
    again = evaluate(config, tmp_path / 'again', cache, watch)
    assert again[2].stats.damaged == 2 and watch.encoded == 2 and same(first, again)
    watch = Watch(monkeypatch)
    mended = evaluate(config, tmp_path / 'mended', cache, watch)
    assert mended[2].stats.damaged == 0 and watch.encoded == 0 and same(first, mended)


def test_option_of_the_commands(tmp_path, shapes, monkeypatch):
    """Training and tests with and without ``--feature-cache``: the same figures; the second
    test reads no image."""
    monkeypatch.setenv('FOLD', '1')
    (tmp_path / 'configs').mkdir()
    found = {}
    for kept in ('none', str(tmp_path / 'kept')):
        name = Path(kept).name
        path, work = write_config(tmp_path / f'configs/option_{name}.py', shapes), tmp_path / name
        options = ['--feature-cache', kept, '--work-dir', str(work / 'work')]
        launch.train([path, *options, '--cfg-options', 'train_cfg.max_epochs=1'])
        watch = Watch(monkeypatch)
        checkpoint = str(work / 'work/epoch_1.pth')
        metrics = testing.test([path, checkpoint, *options])
        found[name] = metrics, load_checkpoint(checkpoint)['state_dict']
        assert watch.read == []  # validation met the same images, or loaders read them
    assert found['none'][0] == found['kept'][0]
    one, other = (weights for _, weights in found.values())
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert len(list((tmp_path / 'kept').rglob('*.safetensors'))) > 3
