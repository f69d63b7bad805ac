"""A part of one's own in a method of mmfss: it learns, starts anew, and is told from others."""

from __future__ import annotations

import pytest
import torch
from mmseg.registry import MODELS
from tiny_models import build, episodes, inputs_of, samples_of
from tiny_runs import write_config, write_shapes
from torch import nn

from mmfss.checkpoints.record import META_KEY
from mmfss.commands import test as testing
from mmfss.commands import train as training
from mmfss.methods.fssam.refinement import IterativeMemoryRefinement


class ScaledRefinement(IterativeMemoryRefinement):
    """With a weight for each channel of the memory."""

    def __init__(self, channels: int, **options) -> None:
        super().__init__(**options)
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))
        self.drop = nn.Dropout(0.1)

    def forward(self, memory_fg, *others):
        return super().forward(self.drop(memory_fg * self.scale), *others)


@pytest.fixture(autouse=True, scope='module')
def registered():
    """For these tests alone."""
    MODELS.register_module(module=ScaledRefinement)
    yield
    MODELS.module_dict.pop('ScaledRefinement')


OWN = dict(type='ScaledRefinement', channels=8)
SAM2 = ('sam2.memory_encoder', 'sam2.memory_attention')


@pytest.mark.parametrize('options', [{}, dict(trainable=SAM2), dict(trainable=['sam2.memory_*'])])
def test_it_learns_without_being_asked_for(options):
    model = build(memory_refinement=OWN, **options).train()
    assert model.memory_refinement.drop.training
    model.loss(inputs_of(episodes()), samples_of(episodes()))['loss_dice'].backward()
    assert model.memory_refinement.scale.grad.abs().sum() > 0
    said = model.what_learns()
    assert 'memory_refinement 8' in said.split('; frozen')[0]
    number = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert said.startswith(f'trained are {number:,} parameters: ')
    assert 'frozen are ' in said and 'prior_encoder.' in said.split('; frozen')[1]


def test_it_is_frozen_where_it_is_said():
    model = build(memory_refinement=OWN, frozen=['memory_refinement']).train()
    assert not model.memory_refinement.scale.requires_grad
    assert not model.memory_refinement.drop.training and model.sam2.memory_encoder.training
    only = build(memory_refinement=OWN, trainable=['memory_refinement.scale'])
    assert [n for n, p in only.named_parameters() if p.requires_grad] == ['memory_refinement.scale']
    part = build(memory_refinement=OWN, frozen=['sam2.memory_encoder.fuser.*'])
    frozen = {n for n, p in part.named_parameters() if not p.requires_grad and '.fuser.' in n}
    assert frozen and part.sam2.memory_encoder.out_proj.weight.requires_grad
    with pytest.raises(ValueError, match=r"frozen names 'refinement', and FSSAM has no parameter"):
        build(frozen=['refinement'])
    with pytest.raises(ValueError, match='model.frozen must be a list of names'):
        build(frozen='memory_refinement')


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A tiny benchmark, a config, and a checkpoint of an epoch without a part of one's own."""
    folder = tmp_path_factory.mktemp('parts')
    config = write_config(folder / 'own_parts.py', write_shapes(folder / 'shapes'))
    training.train([config, '--work-dir', str(folder / 'first'), '--cfg-options',
                   'train_cfg.max_epochs=1'])  # fmt: skip
    return folder


def arguments(place, name, *options):
    own = ('model.memory_refinement.type=ScaledRefinement', 'model.memory_refinement.channels=64')
    return [str(place / 'own_parts.py'), '--work-dir', str(place / name), '--cfg-options', *own,
            'train_cfg.max_epochs=1', f'load_from={place}/first/epoch_1.pth', *options]  # fmt: skip


def test_it_starts_anew_where_that_is_said(place, capsys):
    with pytest.raises(ValueError) as error:
        training.train(arguments(place, 'refused'))
    assert 'has no weights of memory_refinement (memory_refinement.scale)' in str(error.value)
    remedy = 'default_hooks.strict_load.new_keys=[memory_refinement.*]'
    assert remedy in str(error.value)
    with pytest.raises(ValueError, match=r'new_keys refinement\.\* fit no weight of the model'):
        training.train(
            arguments(place, 'idle', 'default_hooks.strict_load.new_keys=[refinement.*]')
        )
    capsys.readouterr()
    training.train(arguments(place, 'own', remedy))
    said = capsys.readouterr().out
    assert '1 weights start anew: memory_refinement.scale' in said
    assert said.count('trained are ') == 1 and 'memory_refinement 64' in said
    saved = torch.load(place / 'own/epoch_1.pth', weights_only=False)
    assert not torch.equal(saved['state_dict']['memory_refinement.scale'], torch.ones(64, 1, 1))
    parts = saved['meta'][META_KEY]['arch']['parts']
    assert parts['memory_refinement'] == dict(type='ScaledRefinement', channels=64)
    assert set(parts) == {'prompt_generator', 'memory_refinement', 'memory_attention'}

    # its checkpoint under the config without the part, and the other way round
    config, own = str(place / 'own_parts.py'), str(place / 'own/epoch_1.pth')
    with pytest.raises(ValueError) as error:
        testing.main([config, own, '--work-dir', str(place / 'test')])
    assert "memory_refinement {'type': 'ScaledRefinement', 'channels': 64}, the configured" in str(
        error.value
    )
    assert "the configured model has {'type': 'IterativeMemoryRefinement'}" in str(error.value)
    report = testing.main([config, own, '--work-dir', str(place / 'test'), '--cfg-options',
                           *arguments(place, '')[4:6]])  # fmt: skip
    assert report.runs[0].metrics['episodes'] == 5


def test_parts_that_differ_in_an_option_are_refused(place):
    options = ['model.memory_attention.strength=3.0']
    with pytest.raises(
        ValueError, match="memory_attention {'type': 'SupportCalibratedMemoryAttent"
    ):
        testing.main([str(place / 'own_parts.py'), str(place / 'first/epoch_1.pth'), '--work-dir',
                      str(place / 'test'), '--cfg-options', *options])  # fmt: skip
