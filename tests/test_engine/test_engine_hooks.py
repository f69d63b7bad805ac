"""The hooks one by one, on a runner that is only as real as they need."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny_models
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop
from mmengine.runner.base_loop import BaseLoop
from torch import nn

from mmfss.checkpoints.record import META_KEY
from mmfss.datasets.folds import get_split
from mmfss.engine import (
    BFloat16OptimWrapper,
    FoldGuardHook,
    RepeatableNoiseHook,
    StopWithoutProgressHook,
    StrictLoadHook,
)
from mmfss.engine.guards import built_loops


class Loop(BaseLoop):
    def run(self):
        raise NotImplementedError


def loop_on(benchmark='pascal-5i', fold=0, role='base', **dropped):
    split = get_split(benchmark, fold)
    info = dict(benchmark=benchmark, fold=fold, role=role, shots=1, split=split.to_dict())
    info = {key: value for key, value in info.items() if key not in dropped}
    loop = Loop(None, SimpleNamespace(dataset=SimpleNamespace(metainfo=info)))
    loop.stop_training = False
    return loop


def make_runner(train=None, val=None, test=None, **entries):
    model = nn.Linear(2, 1)
    model.arch = dict(type='FSSAM', sam2='sam2_small')
    entries = dict(dict(_resume=False, model=model, seed=3, epoch=0, iter=0), **entries)
    runner = SimpleNamespace(_train_loop=train, _val_loop=val, _test_loop=test, **entries)
    runner.train_loop = train
    return runner


# ------------------------------------------------------------------------------ fold guard
def test_loops_that_are_not_built_are_left_alone():
    runner = make_runner(train=loop_on(), test=dict(type='TestLoop'))
    assert list(built_loops(runner)) == ['train']


def test_guard_passes_a_proper_run():
    FoldGuardHook().before_run(make_runner(train=loop_on(), val=loop_on(role='novel')))
    FoldGuardHook().before_run(make_runner(test=loop_on(fold=3, role='novel')))


def test_guard_compares_the_datasets_that_were_built():
    runner = make_runner(train=loop_on(fold=0), val=loop_on(fold=2, role='novel'))
    with pytest.raises(ValueError, match='train: pascal-5i fold 0, val: pascal-5i fold 2'):
        FoldGuardHook().before_run(runner)


def test_guard_needs_an_episodic_dataset():
    runner = make_runner(test=loop_on(split=True, role=True))
    with pytest.raises(ValueError, match='test_dataloader.dataset must be an EpisodicDataset'):
        FoldGuardHook().before_run(runner)


def save(hook, runner):
    checkpoint = dict(meta={})
    hook.before_save_checkpoint(runner, checkpoint)
    return checkpoint


def test_classes_of_the_checkpoint_that_training_started_from_are_inherited():
    first = save(FoldGuardHook(), make_runner(train=loop_on('shapes-5i', 0)))
    hook, runner = FoldGuardHook(), make_runner(train=loop_on('pascal-5i', 1))
    hook.after_load_checkpoint(runner, first)
    second = save(hook, runner)['meta'][META_KEY]
    assert (second['benchmark'], second['fold']) == ('pascal-5i', 1)
    assert set(second['trained_classes']) == {
        *get_split('shapes-5i', 0).base_names,
        *get_split('pascal-5i', 1).base_names,
    }
    with pytest.raises(ValueError, match='novel classes of shapes-5i fold 2'):
        test = make_runner(test=loop_on('shapes-5i', 2, 'novel'))
        FoldGuardHook().after_load_checkpoint(test, dict(meta={META_KEY: second}))


def test_resuming_on_another_benchmark_is_refused():
    first = save(FoldGuardHook(), make_runner(train=loop_on('shapes-5i', 0)))
    runner = make_runner(train=loop_on('pascal-5i', 1), _resume=True)
    with pytest.raises(ValueError, match='cannot be resumed on pascal-5i fold 1'):
        FoldGuardHook().after_load_checkpoint(runner, first)


@pytest.mark.parametrize(
    'train, val, message',
    [
        ('base', 'novel', 'trained on .*, and this config has .*cat.*Resume with the SELECTION'),
        ('base_train', 'novel', 'chosen on cat, horse, sofa, .* has aeroplane, bicycle, .*bottle'),
        ('base_train', 'base_val', None),
    ],
)
def test_resuming_under_another_rule_of_selection_is_refused(train, val, message):
    """The best figure so far would be that of other classes."""
    began = make_runner(train=loop_on(role='base_train'), val=loop_on(role='base_val'))
    first = {**save(FoldGuardHook(), began), 'optimizer': {}}
    first['meta'].update(epoch=3, iter=9)
    runner = make_runner(train=loop_on(role=train), val=loop_on(role=val), _resume=True)
    if message is None:
        FoldGuardHook().after_load_checkpoint(runner, first)
    else:
        with pytest.raises(ValueError, match=f'the checkpoint cannot be resumed: it was {message}'):
            FoldGuardHook().after_load_checkpoint(runner, first)
        runner._resume = False  # starting from it is another training
        FoldGuardHook().after_load_checkpoint(runner, first)


def test_recorded_figures_are_those_of_the_weights():
    """epoch_N.pth is saved before epoch N is validated: not with the figures of epoch N - 1."""
    hook, runner = FoldGuardHook(), make_runner(train=loop_on(), val=loop_on(role='novel'))

    def figures():
        return save(hook, runner)['meta'][META_KEY]['selection']['figures']

    hook.after_val_epoch(runner, {'mIoU': 3.0, 'IoU/cat': 3.0})
    assert figures() == {'mIoU': 3.0}  # best_*.pth
    hook.before_train_iter(runner, 0)
    assert figures() == {}


def test_absent_classes_that_are_watched_are_found_at_the_start():
    kind = type('Data', (SimpleNamespace,), dict(__len__=lambda self: 5))
    data = kind(absent_classes=('cat',), shots=1, role='novel')
    data.metainfo = loop_on(role='novel').dataloader.dataset.metainfo
    data.split = get_split('pascal-5i', 0)
    evaluator = SimpleNamespace(metrics=[SimpleNamespace(absent_classes='error')])
    val = loop_on(role='base_val')
    val.watched = SimpleNamespace(dataloader=SimpleNamespace(dataset=data), evaluator=evaluator)
    with pytest.raises(ValueError, match='episodes for test have none of cat.*test_evaluator'):
        FoldGuardHook().before_run(make_runner(train=loop_on(role='base_train'), val=val))
    for rule in ('exclude', 'zero'):
        evaluator.metrics[0].absent_classes = rule
        FoldGuardHook().before_run(make_runner(train=loop_on(role='base_train'), val=val))


@pytest.mark.parametrize('depth', [18, 34])
def test_size_of_a_backbone_is_part_of_its_arch(depth):
    encoder = dict(type='BackboneEncoder', backbone=dict(type='ResNet', depth=depth))
    model = tiny_models.build(prior_encoder=encoder)
    prior = dict(type='BackboneEncoder', arch=dict(type='ResNet', depth=depth))
    sam2 = tiny_models.tiny_arch()
    assert {**model.arch, 'parts': {}} == dict(
        type='FSSAM', sam2=sam2, prior_encoder=prior, parts={}
    )


@pytest.mark.parametrize('content', [[1], torch.zeros(1), dict(meta=[1]), dict(meta={META_KEY: 1})])
def test_checkpoint_of_another_form_is_named(content):
    runner = make_runner(test=loop_on(role='novel'), _load_from='a.pth')
    with pytest.raises(ValueError, match='checkpoint a.pth must be a dict, got (list|Tensor|int)'):
        FoldGuardHook().after_load_checkpoint(runner, content)


# ----------------------------------------------------------------------------- strict load
def test_weights_to_start_from_are_spared_where_a_checkpoint_is_loaded(tmp_path):
    def start(load_from):
        sam2 = dict(tiny_models.FULL['sam2'], checkpoint=str(tmp_path / 'absent.pt'))
        model = tiny_models.build(sam2=sam2)
        StrictLoadHook().before_run(make_runner(_load_from=load_from, model=model))
        model.init_weights()

    start('epoch_3.pth')
    with pytest.raises(FileNotFoundError, match='absent.pt'):
        start(None)


def test_prefix_of_a_distributed_model_is_no_difference():
    runner = make_runner()
    state = {f'module.{key}': value for key, value in runner.model.state_dict().items()}
    StrictLoadHook().after_load_checkpoint(runner, dict(state_dict=state))


def test_weights_that_do_not_fit_are_named():
    runner = make_runner()
    with pytest.raises(ValueError, match='1 missing keys: bias; 1 unexpected keys: scale'):
        state = dict(weight=torch.zeros(1, 2), scale=torch.zeros(1))
        StrictLoadHook().after_load_checkpoint(runner, dict(state_dict=state))


def test_file_without_weights_is_refused():
    with pytest.raises(ValueError, match=r"no state dict: \['epoch'\] are no tensors"):
        StrictLoadHook().after_load_checkpoint(make_runner(), dict(epoch=3))


# ------------------------------------------------------------------------ repeatable noise
def test_noise_depends_on_seed_and_iteration_alone():
    def noise(**entries):
        RepeatableNoiseHook().before_train_iter(make_runner(**entries), batch_idx=0)
        return torch.rand(4).tolist()

    assert noise(iter=5) == noise(iter=5, epoch=2)
    assert len({tuple(noise(seed=s, iter=i)) for s in range(3) for i in range(3)}) == 9


# -------------------------------------------------------------------------------- stopping
def validate(hook, scores, start=1, loop=None):
    """Epoch at which training would end, None if it goes on."""
    for epoch, score in enumerate(scores, start):
        loop = loop or loop_on()
        runner = make_runner(train=loop, epoch=epoch)
        runner.message_hub = MessageHub.get_current_instance()
        hook.after_val_epoch(runner, dict(mIoU=score))
        if loop.stop_training:
            return epoch
    return None


@pytest.fixture
def _hub():
    MessageHub.get_instance('progress').update_info('best_progress', None)


@pytest.mark.usefixtures('_hub')
@pytest.mark.parametrize(
    'scores, end',
    [
        ([1, 2, 3, 4, 5, 6, 7], None),
        ([9, 1, 1, 1, 1, 1, 1], 4),
        ([9, 1, 1, 9.5, 1, 1, 1, 1], 7),
        ([9, 9, 9, 9], 4),  # as good is not better
        ([0, 0, 0, 0], 4),
    ],
)
def test_training_ends_after_patience(scores, end):
    assert validate(StopWithoutProgressHook(patience=3), scores) == end


@pytest.mark.usefixtures('_hub')
def test_a_resumed_run_goes_on_counting():
    assert validate(StopWithoutProgressHook(patience=3), [9, 1, 1]) is None
    assert validate(StopWithoutProgressHook(patience=3), [1], start=4) == 4


@pytest.mark.usefixtures('_hub')
def test_state_survives_in_the_message_hub_of_a_checkpoint():
    validate(StopWithoutProgressHook(patience=3), [9, 1])
    hub = MessageHub('copy')
    hub.load_state_dict(MessageHub.get_current_instance().state_dict())
    assert hub.get_info('best_progress') == [9.0, 1]


def test_testing_alone_is_not_counted():
    runner = make_runner(test=loop_on(role='novel'))
    StopWithoutProgressHook(patience=1).after_val_epoch(runner, dict(mIoU=0.0))


def test_missing_metric_is_named():
    with pytest.raises(ValueError, match=r"watches 'mIuO', but validation gave \['mIoU'\]"):
        hook = StopWithoutProgressHook(monitor='mIuO')
        hook.after_val_epoch(
            make_runner(train=loop_on(), message_hub=MessageHub.get_current_instance()),
            dict(mIoU=1.0),
        )


def test_loop_without_epochs_is_refused():
    runner = make_runner()
    runner.train_loop = object.__new__(IterBasedTrainLoop)
    with pytest.raises(ValueError, match='IterBasedTrainLoop has none'):
        StopWithoutProgressHook().before_train(runner)


def test_patience_is_checked():
    with pytest.raises(ValueError, match='at least 1 epoch, got 0'):
        StopWithoutProgressHook(patience=0)


# ------------------------------------------------------------------------------- precision
def test_forward_in_bfloat16_weights_in_float32():
    model = nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    wrapper = BFloat16OptimWrapper(optimizer)
    before = model.weight.detach().clone()
    with wrapper.optim_context(model):
        out = model(torch.randn(2, 4))
    assert out.dtype == torch.bfloat16 and not torch.is_autocast_enabled('cpu')
    wrapper.update_params(out.float().square().mean())
    assert model.weight.dtype == torch.float32 and not torch.equal(before, model.weight)
    plain = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=0.1))
    assert wrapper.state_dict().keys() == plain.state_dict().keys()
