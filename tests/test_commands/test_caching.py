"""The switches of the feature cache and of bfloat16 in configs, and what tables make of them."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from tiny_runs import write_config, write_shapes

from mmfss.checkpoints import record as agreement
from mmfss.commands.caching import log_loaders, set_feature_cache, set_loaders
from mmfss.commands.command_lines import Request
from mmfss.commands.evaluation_plan import _job, read_configs
from mmfss.commands.preparation import set_amp, set_evaluation_amp
from mmfss.engine.loops import EpisodeTestLoop, EpisodeValLoop, ValLoopWatchingNovel


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp('data') / 'shapes')


@pytest.fixture
def path(tmp_path, shapes, monkeypatch):
    monkeypatch.delenv('FOLD', raising=False)
    return write_config(tmp_path / 'caching.py', shapes)


@pytest.fixture
def cfg(path):
    found = Config.fromfile(path)
    found.model.feature_cache = dict(type='FeatureCache', memory_bytes=5)
    return found


def deferring(cfg):
    names = ('train', 'val', 'test')
    return {n: cfg[f'{n}_dataloader'].dataset.get('defer_images') for n in names}


# ------------------------------------------------------------------------------------- switch
def test_option_sets_and_removes(cfg, tmp_path):
    set_feature_cache(cfg, None)
    assert cfg.model.feature_cache == dict(type='FeatureCache', memory_bytes=5)
    set_feature_cache(cfg, str(tmp_path))
    expected = dict(type='FeatureCache', memory_bytes=5, directory=str(tmp_path))
    assert cfg.model.feature_cache == expected
    set_loaders(cfg)
    assert deferring(cfg)['test'] is True
    set_feature_cache(cfg, 'none')
    assert cfg.model.feature_cache is None and not any(deferring(cfg).values())
    set_feature_cache(cfg, 'there')
    assert cfg.model.feature_cache == dict(type='FeatureCache', directory='there')


@pytest.mark.parametrize(
    ('directory', 'key', 'fits'),
    [
        ('here', 'model.feature_cache', False),
        ('here', 'model.feature_cache.directory', False),
        ('here', 'model.feature_cache.memory_bytes', True),
        ('none', 'model.feature_cache.memory_bytes', False),
        (None, 'model.feature_cache.directory', True),
    ],
)
def test_option_and_override_must_not_contradict(cfg, directory, key, fits):
    if fits:
        return set_feature_cache(cfg, directory, {key: 'there'})
    wanted = f'--feature-cache {directory} and --cfg-options {key}=there both say where'
    with pytest.raises(ValueError, match=wanted):
        set_feature_cache(cfg, directory, {key: 'there'})


def test_option_and_override_on_the_command_line(path):
    options = {'model.feature_cache': dict(type='FeatureCache')}
    with pytest.raises(ValueError, match='both say where features are kept; give one of them'):
        settings(path, feature_cache='a', cfg_options=options)


def test_option_for_another_model(cfg):
    cfg.model.type = 'EncoderDecoder'
    with pytest.raises(ValueError, match='--feature-cache x: EncoderDecoder has no feature_cache'):
        set_feature_cache(cfg, 'x')


def test_only_loaders_that_can(cfg):
    set_loaders(cfg)
    assert deferring(cfg) == dict(train=None, val=True, test=True)


def test_training_without_augmentation(cfg):
    load = cfg.test_dataloader.dataset.query_pipeline
    cfg.train_dataloader.dataset.update(query_pipeline=load, support_pipeline=load)
    set_loaders(cfg)
    assert deferring(cfg) == dict(train=True, val=True, test=True)


def test_processes_share_the_images_also_where_the_config_defers_them(cfg):
    cfg.train_dataloader = cfg.val_dataloader = None
    cfg.test_dataloader.dataset.defer_images = True
    set_loaders(cfg)
    assert cfg.default_hooks.prefill == dict(type='PrefillFeaturesHook')


def test_a_dataset_without_pipelines_is_left_to_complain_itself(cfg):
    del cfg.test_dataloader.dataset['support_pipeline']
    set_loaders(cfg)
    assert deferring(cfg)['test'] is None


def test_config_has_the_last_word(cfg):
    cfg.test_dataloader.dataset.defer_images = False
    set_loaders(cfg)
    assert deferring(cfg) == dict(train=None, val=True, test=False)


@pytest.mark.parametrize('change', ['no cache', 'no loaders', 'other dataset'])
def test_nothing_to_defer(cfg, change):
    if change == 'no cache':
        cfg.model.feature_cache = None
    elif change == 'no loaders':
        cfg.train_dataloader = cfg.val_dataloader = cfg.test_dataloader = None
    else:
        for name in ('train', 'val', 'test'):
            cfg[f'{name}_dataloader'].dataset.type = 'ShapesDataset'
    set_loaders(cfg)
    if change != 'no loaders':
        assert not any(deferring(cfg).values())


@pytest.mark.parametrize('trained', ['sam2.image_encoder', 'sam2.*', '*', 'sam2.memory_encoder'])
def test_a_trained_encoder_needs_the_pixels_of_training_alone(cfg, trained):
    cfg.train_dataloader.dataset.update(
        query_pipeline=cfg.test_dataloader.dataset.query_pipeline,
        support_pipeline=cfg.test_dataloader.dataset.support_pipeline,
    )
    cfg.model.trainable = (trained,)
    set_loaders(cfg)
    needs = trained != 'sam2.memory_encoder'
    assert deferring(cfg) == dict(train=None if needs else True, val=True, test=True)


def test_log_says_which_and_why(cfg, tmp_path):
    cfg.val_dataloader.dataset.defer_images = False
    set_loaders(cfg)
    logger, lines = MMLogger.get_instance('caching', logger_name='caching'), []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    log_loaders(cfg)
    logger.removeHandler(handler)
    lines = [line for line in lines if '_dataloader: ' in line]
    assert len(lines) == 3
    assert lines[0].startswith('train_dataloader: all images are read: images cannot be deferred: ')
    assert 'RandomFlip in query_pipeline may be random' in lines[0]
    assert lines[1] == 'val_dataloader: all images are read: the config sets defer_images=False'
    assert lines[2].startswith('test_dataloader: images are read only where the cache has no')


def test_log_says_what_is_left_unread_in_vain(cfg, monkeypatch):
    cfg.model.feature_cache = None
    cfg.test_dataloader.dataset.defer_images = True
    lines = []
    monkeypatch.setattr('mmfss.commands.caching.print_log', lambda *args: lines.append(args))
    log_loaders(cfg)
    ((text, _, level),) = lines
    assert text.startswith('test_dataloader: defer_images=True without a model.feature_cache')
    assert 'set defer_images=False' in text and level == logging.WARNING


def test_memory_is_pinned_where_there_is_a_gpu(cfg, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    cfg.val_dataloader.pin_memory = False
    cfg.train_dataloader.update(num_workers=2, persistent_workers=True)
    cfg.test_dataloader.update(num_workers=0, persistent_workers=True)
    set_loaders(cfg)
    pinned = [cfg[f'{n}_dataloader'].pin_memory for n in ('train', 'val', 'test')]
    assert pinned == [True, False, True]
    assert cfg.train_dataloader.persistent_workers and not (
        cfg.test_dataloader.get('persistent_workers')
    )


# ------------------------------------------------------------------------------------- tables
def settings(path, **options):
    request = Request(config=path, checkpoints=['x.pth'], folds=[0], **options)
    (cfg,) = read_configs(request).values()
    return _job(request, cfg, 'x', 1, 0, 0, 'x.pth').settings


def test_settings_of_a_table_do_not_tell_caches_apart(path, tmp_path, monkeypatch):
    plain = settings(path)
    assert settings(path, feature_cache='a') == settings(path, feature_cache='none') == plain
    options = {'test_dataloader.num_workers': 2, 'test_dataloader.persistent_workers': True}
    assert settings(path, cfg_options=options) == plain
    limited = {'model.feature_cache.memory_bytes': 3}
    assert settings(path, feature_cache='a', cfg_options=limited) == plain
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert settings(path) == plain


def test_settings_of_a_table_tell_precision_and_batches_apart(path):
    batch = settings(path, cfg_options={'test_dataloader.batch_size': 2})
    found = [settings(path)['config'], settings(path, amp=True)['config'], batch['config']]
    differ = [{k for k in found[0] if found[0][k] != other[k]} for other in found[1:]]
    assert differ == [{'test_cfg'}, {'test_dataloader'}]


def test_archs_do_not_tell_caches_apart():
    arch = dict(sam2=dict(base='a', cache_bytes=1), feature_cache=dict(directory='x'))
    assert agreement.deciding(arch) == dict(sam2=dict(base='a'))


# --------------------------------------------------------------------------------------- amp
def test_amp_of_training_and_validation(cfg):
    set_amp(cfg)
    set_evaluation_amp(cfg, 'val')
    assert cfg.optim_wrapper.type == 'BFloat16OptimWrapper'
    assert cfg.val_cfg == dict(type='EpisodeValLoop', bf16=True) and cfg.test_cfg == {}
    cfg.test_cfg = dict(type='TestLoop', fp16=False)
    set_evaluation_amp(cfg, 'test')
    assert cfg.test_cfg == dict(type='EpisodeTestLoop', fp16=False, bf16=True)
    cfg.val_cfg = dict(type='ValLoopWatchingNovel')
    set_evaluation_amp(cfg, 'val')
    assert cfg.val_cfg == dict(type='ValLoopWatchingNovel', bf16=True)
    cfg.val_cfg = cfg.val_dataloader = None
    set_evaluation_amp(cfg, 'val')
    assert cfg.val_cfg is None


@pytest.mark.parametrize('loop', [dict(fp16=True), dict(type='EpochBasedTrainLoop')])
def test_loops_that_cannot(cfg, loop):
    cfg.test_cfg = loop
    with pytest.raises(ValueError, match='--amp needs a loop that takes bf16 as test_cfg, ValLoop'):
        set_evaluation_amp(cfg, 'test')


@HOOKS.register_module()
class SeenPrecision(Hook):
    """Which autocast the model ran under."""

    seen: list = []

    def before_run(self, runner):
        SeenPrecision.seen = []
        runner.model.register_forward_pre_hook(lambda *args: SeenPrecision.seen.append(autocast()))


def autocast():
    return torch.get_autocast_dtype('cpu') if torch.is_autocast_enabled('cpu') else None


def runner_of(cfg, tmp_path, name):
    cfg = copy.deepcopy(cfg)
    cfg.work_dir, cfg.experiment_name = str(tmp_path / name), name
    cfg.default_hooks.fold_guard.allow_unverified = True
    cfg.default_hooks.checkpoint = None
    cfg.custom_hooks = [dict(type='SeenPrecision')]
    torch.manual_seed(0)
    return Runner.from_cfg(cfg)


def test_test_runs_under_bfloat16_with_and_without_cache(cfg, tmp_path):
    cfg.train_dataloader = cfg.train_cfg = cfg.optim_wrapper = cfg.param_scheduler = None
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    plain = runner_of(cfg, tmp_path, 'plain')
    full = plain.test()
    assert set(SeenPrecision.seen) == {None}
    set_evaluation_amp(cfg, 'test')
    first = runner_of(cfg, tmp_path, 'read')
    figures = first.test()
    assert isinstance(first.test_loop, EpisodeTestLoop)
    assert set(SeenPrecision.seen) == {torch.bfloat16} and autocast() is None
    set_loaders(cfg)
    cfg.model.feature_cache.memory_bytes = 2**26
    second = runner_of(cfg, tmp_path, 'cached')
    assert second.test() == figures
    assert second.model.encoding.cache.stats.memory_hits > 0
    assert figures['episodes'] == full['episodes'] and figures['mIoU'] >= 0


@pytest.mark.parametrize('kind', ['EpisodeValLoop', 'ValLoopWatchingNovel'])
def test_validation_runs_under_bfloat16(cfg, tmp_path, kind):
    cfg.val_cfg = dict(type=kind, bf16=True)
    cfg.test_dataloader.dataset.num_episodes = cfg.val_dataloader.dataset.num_episodes = 2
    runner = runner_of(cfg, tmp_path, kind)
    metrics = runner.val()
    assert (
        type(runner.val_loop)
        is dict(EpisodeValLoop=EpisodeValLoop, ValLoopWatchingNovel=ValLoopWatchingNovel)[kind]
    )
    assert SeenPrecision.seen == [torch.bfloat16] * (2 if kind == 'EpisodeValLoop' else 4)
    assert ('novel/mIoU' in metrics) == (kind == 'ValLoopWatchingNovel')


def test_one_precision(cfg, tmp_path):
    cfg.val_cfg = dict(type='EpisodeValLoop', bf16=True, fp16=True)
    with pytest.raises(ValueError, match='fp16 and bf16 of a loop cannot both be True'):
        runner_of(cfg, tmp_path, 'both').val_loop  # noqa: B018
