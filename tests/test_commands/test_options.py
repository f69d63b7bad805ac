"""Overrides that nothing reads are refused with what to write instead."""

from __future__ import annotations

import inspect

import pytest
from mmengine.config import Config

from mmfss.commands.options import _of_builder, check_options, runner_entries
from mmfss.encoders.sam2.model import build_sam2

COMMAND = 'python tools/train.py configs/fss_sam2_pascal_1shot.py'


@pytest.fixture(scope='module')
def cfg(repo_root):
    return Config.fromfile(str(repo_root / 'configs/fss_sam2_pascal_1shot.py'))


def refusal(cfg, key, value=2):
    with pytest.raises(ValueError) as error:
        check_options(cfg, {key: value}, COMMAND)
    return str(error.value)


@pytest.mark.smoke
def test_fold_is_refused_with_the_right_command(cfg):
    text = refusal(cfg, 'fold')
    assert text.startswith('--cfg-options fold=2 would do nothing')
    assert text.endswith(f'Run: FOLD=2 {COMMAND}')


def test_other_variables_from_the_environment_too(cfg):
    assert refusal(cfg, 'data_root', '/voc').endswith(f'Run: DATA_ROOT=/voc {COMMAND}')


def test_copied_variable_names_the_entries_that_hold_it(cfg):
    text = refusal(cfg, 'train_pipeline', [])
    assert 'already copied' in text
    for part in ('query', 'support'):
        assert f'train_dataloader.dataset.{part}_pipeline' in text
    assert 'test_dataloader' not in text


def test_copies_are_found_by_name_and_by_value(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(
        'size = 512\nshots = 1\nmodel = dict(sam2=dict(image_size=size))\n'
        'train_dataloader = dict(dataset=dict(shots=shots, crops=[dict(side=size)]))\n'
    )
    cfg = Config.fromfile(str(path))
    assert refusal(cfg, 'size', 64).endswith(
        'Set those that you mean: model.sam2.image_size, train_dataloader.dataset.crops.0.side'
    )
    assert refusal(cfg, 'shots', 5).endswith('mean: train_dataloader.dataset.shots')


@pytest.mark.parametrize(
    'key, message',
    [
        ('shots', "'shots' is no entry that the runner reads"),
        ('train_dataloder.batch_size', 'did you mean train_dataloader?'),
        ('launcher', 'use --launcher'),
        ('resume', 'use --resume'),
        ('env_cfg.cudnn_benchmrk', 'did you mean cudnn_benchmark?'),
        ('default_hooks.checkpoint.intervall', 'CheckpointHook has no .* did you mean interval?'),
        ('train_cfg.max_epoch', 'EpochBasedTrainLoop has no .* did you mean max_epochs?'),
        ('model.prior_encoder.imagesize', 'DINOv2 has no .* did you mean image_size?'),
        ('model.sam2.archx', 'model.sam2 has no .* did you mean arch?'),
        ('model.sam.arch', 'FSSAM has no .* did you mean sam2?'),
        ('train_dataloader.dataset.shot', 'EpisodicDataset has no .* did you mean shots?'),
        ('optim_wrapper.optimizer.learning_rate', "AdamW has no 'learning_rate'"),
        ('param_scheduler.powr', 'PolyLR has no .* did you mean power?'),
    ],
)
def test_refused(cfg, key, message):
    with pytest.raises(ValueError, match=message):
        check_options(cfg, {key: 2}, COMMAND)


@pytest.mark.parametrize(
    'key',
    [
        'train_dataloader.batch_size',
        'train_dataloader.pin_memory',
        'train_dataloader.dataset.min_area',
        'train_dataloader.sampler.episodes_per_epoch',
        'model.sam2.image_size',
        'model.sam2.checkpoint',
        'model.sam2.same_place',
        'model.memory_attention.strength',
        'model.prior_encoder',
        'optim_wrapper.clip_grad.max_norm',
        'optim_wrapper.optimizer.betas',
        'optim_wrapper.paramwise_cfg.norm_decay_mult',
        'param_scheduler.convert_to_iter_based',
        'default_hooks.checkpoint.interval',
        'default_hooks.checkpoint.published_keys',
        'default_hooks.fold_guard.allow_unverified',
        'custom_hooks.0.patience',
        'env_cfg.cudnn_benchmark',
        'randomness.seed',
        'model_wrapper_cfg.type',
        'work_dir',
        'load_from',
    ],
)
def test_accepted(cfg, key):
    check_options(cfg, {key: 2}, COMMAND)


@pytest.mark.parametrize(
    'options',
    [
        {'param_scheduler.type': 'CosineAnnealingLR', 'param_scheduler.T_max': 2,
         'param_scheduler._delete_': True},
        {'train_cfg.max_iters': 6, 'train_cfg.type': 'IterBasedTrainLoop',
         'train_cfg._delete_': True},
        {'optim_wrapper.type': 'AmpOptimWrapper'},
    ],
)  # fmt: skip
def test_entries_of_another_type_are_taken(cfg, options):
    check_options(cfg, options, COMMAND)


def test_entries_that_another_type_does_not_take_are_named(cfg):
    options = {'param_scheduler.type': 'CosineAnnealingLR', 'param_scheduler.t_max': 2}
    with pytest.raises(ValueError, match='CosineAnnealingLR has no .* did you mean T_max'):
        check_options(cfg, options, COMMAND)
    # mmengine would raise a TypeError of the constructor
    message = (
        r'param_scheduler\.type=CosineAnnealingLR: power of PolyLR would stay, and '
        r'CosineAnnealingLR has no such entries\. Add param_scheduler\._delete_=True'
    )
    options = {'param_scheduler.type': 'CosineAnnealingLR', 'param_scheduler.T_max': 2}
    with pytest.raises(ValueError, match=message):
        check_options(cfg, options, COMMAND)


def test_entries_of_sam2_are_those_that_the_model_takes():
    built = set(inspect.signature(build_sam2).parameters)
    assert _of_builder('FSSAM', 'sam2') == built - {'memory_attention'}
    assert {'arch', 'checkpoint', 'same_place'} < built
    assert _of_builder('FSSAM', 'sam3') is None and _of_builder('PrototypeMatcher', 'sam2') is None


def test_runner_entries_are_those_of_the_installed_mmengine():
    entries = runner_entries()
    assert {'model', 'work_dir', 'train_dataloader', 'test_evaluator', 'randomness'} <= entries
    assert {'find_unused_parameters', 'model_wrapper_cfg', 'compile'} <= entries
    assert not {'self', 'cfg', 'launcher', 'resume', 'fold'} & entries
