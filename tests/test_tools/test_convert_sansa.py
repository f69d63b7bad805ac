"""``mmfss convert-sansa``: published adapters become a checkpoint; and runs of a tiny SANSA."""

from __future__ import annotations

import argparse
import os
import re

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from tiny_models import METHODS, randomised
from tiny_runs import write_config, write_shapes

from mmfss.checkpoints.adapters import describe, read_published
from mmfss.checkpoints.trained_only import BASE
from mmfss.commands import convert_sansa
from mmfss.commands import test as testing
from mmfss.commands.train import train
from mmfss.safe_load import load_checkpoint

PARTS = dict(norm='adapter_layer_norm_before', down='down_proj', up='up_proj')


@pytest.fixture(autouse=True)
def fold_of_the_environment(monkeypatch):
    """The tool sets FOLD for its own process."""
    monkeypatch.setenv('FOLD', '0')


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """A config of SANSA that starts from a file of SAM 2."""
    folder = tmp_path_factory.mktemp('sansa')
    base = write_config(folder / 'base_of_sansa.py', write_shapes(folder / 'shapes'))
    sam2 = dict(METHODS['SANSA']['sam2'], checkpoint=str(folder / 'sam2.pth'))
    model = dict(METHODS['SANSA'], sam2=sam2, shots_in_order=True, _delete_=True)
    model['data_preprocessor'] = dict(type='EpisodeDataPreprocessor')
    (folder / 'tiny_sansa.py').write_text(f'_base_ = {base!r}\nmodel = {model!r}\n')
    network = build(str(folder / 'tiny_sansa.py'), seed=2).sam2
    scores = {'no_obj_ptr': torch.zeros(1, 32)}  # of official files, left out
    weights = {k: v for k, v in network.state_dict().items() if '.adapter.' not in k}
    torch.save({'model': {**weights, **scores}}, folder / 'sam2.pth')
    return str(folder / 'tiny_sansa.py')


def build(config: str, seed: int = 0):
    torch.manual_seed(seed)
    return randomised(MODELS.build(Config.fromfile(config).model), seed)


def publish(model, path, module: str = 'module.', zipped: bool = False, **more) -> str:
    """Adapters as the training program saves them."""
    state = {}
    for key, value in model.state_dict().items():
        if '.mlp.adapter.' in key:
            start, _, rest = key.partition('.mlp.adapter.')
            part, kind = rest.split('.')
            state[f'{module}{start.replace("sam2.", "sam.", 1)}.adapter.{PARTS[part]}.{kind}'] = (
                value
            )
    state[f'{module}sam.image_encoder.total_ops'] = torch.zeros(1)
    options = argparse.Namespace(lr=1e-4, stages=[2, 3], nested=argparse.Namespace(seed=0))
    content = dict(model=state, optimizer={}, lr_scheduler={}, epoch=4, args=options, **more)
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return str(path)


def convert(*args) -> None:
    convert_sansa.main([str(arg) for arg in args])


def refused(*args) -> str:
    with pytest.raises(SystemExit) as error:
        convert(*args)
    assert str(error.value).startswith('error: ')
    return str(error.value)


@pytest.mark.parametrize(('module', 'zipped'), [('module.', False), ('', True)])
def test_a_published_file_becomes_a_checkpoint(config, tmp_path, capsys, module, zipped):
    theirs = build(config, seed=5)
    src = publish(theirs, tmp_path / 'adapter.pth', module, zipped)
    if not zipped:
        with pytest.raises(ValueError, match='was refused: it needs argparse.Namespace'):
            load_checkpoint(src)
    convert(src, tmp_path / 'a.pth', '--config', config, '--fold', 1)
    said = capsys.readouterr().out
    own = {key: v for key, v in theirs.state_dict().items() if '.adapter.' in key}
    assert f'{len(own)} tensors of {src}' in said and 'test it: FOLD=1' in said
    content = load_checkpoint(tmp_path / 'a.pth')
    assert set(content['state_dict']) == {*own, BASE}
    assert all(torch.equal(content['state_dict'][key], value) for key, value in own.items())
    assert content['meta']['mmfss']['fold'] == 1 and content['meta']['converted_from']['file']
    assert os.path.getsize(tmp_path / 'a.pth') < 0.2 * os.path.getsize(config.replace(
        'tiny_sansa.py', 'sam2.pth'))  # fmt: skip
    if zipped:
        return
    convert(src, tmp_path / 'whole.pth', '--config', config, '--fold', 1, '--whole')
    os.environ['FOLD'] = '1'
    figures = [
        testing.test([config, str(tmp_path / name), '--work-dir', str(tmp_path / 'w')])
        for name in ('a.pth', 'whole.pth')
    ]
    assert figures[0] == figures[1]
    os.environ['FOLD'] = '0'
    with pytest.raises(ValueError, match='was trained on shapes-5i fold 1'):
        testing.test([config, str(tmp_path / 'a.pth'), '--work-dir', str(tmp_path / 'w')])


def test_what_has_seen_all_classes_is_tested_on_none(config, tmp_path, capsys):
    src = publish(build(config), tmp_path / 'adapter.pth')
    convert(src, tmp_path / 'a.pth', '--config', config, '--fold', 0, '--all-classes')
    assert 'any test on its classes refuses it' in capsys.readouterr().out
    with pytest.raises(ValueError, match='include novel classes of shapes-5i fold 0'):
        testing.test([config, str(tmp_path / 'a.pth'), '--work-dir', str(tmp_path / 'w')])


@pytest.mark.parametrize(
    ('adapters', 'message'),
    [
        (
            dict(stages=[3], channel_factor=0.5),
            r'It has 1 in blocks 4 to 4 .*the model has 3 in blo',
        ),
        (
            dict(stages=[2, 3], channel_factor=0.8),
            r'It has 3 in blocks 2 to 4 of widths \[32, 64\] with bottlenecks \[12, 25\]; the '
            r'model has 3 .*bottlenecks \[8, 16\]. Add --cfg-options .*channel_factor=0.79',
        ),
    ],
)
def test_adapters_of_other_stages_or_width(config, tmp_path, adapters, message):
    other = copy_with(config, tmp_path, adapters)
    src = publish(build(other), tmp_path / 'adapter.pth')
    assert_matches(message, refused(src, tmp_path / 'a.pth', '--config', config, '--fold', 0))
    assert not (tmp_path / 'a.pth').exists()


def copy_with(config: str, folder, adapters: dict) -> str:
    path = folder / 'other_sansa.py'
    path.write_text(f'_base_ = {config!r}\nmodel = dict(sam2=dict(adapters={adapters!r}))\n')
    return str(path)


def assert_matches(pattern: str, text: str) -> None:
    assert re.search(pattern, text), text


@pytest.mark.parametrize(
    ('arch', 'widths', 'blocks'),
    [('large', 144, (2, 6, 36, 4)), ('base_plus', 112, (2, 3, 16, 3)), ('tiny', 96, (1, 2, 7, 2))],
)
@pytest.mark.parametrize('factor', [0.3, 0.8])
def test_options_are_told_by_the_shapes_of_published_adapters(arch, widths, blocks, factor):
    shapes = {}
    for i in range(sum(blocks[:2]), sum(blocks)):
        stage = 2 if i < sum(blocks[:3]) else 3
        first = i in (sum(blocks[:2]), sum(blocks[:3]))
        width = widths * 2**stage
        shapes[i] = (width, int(factor * (width // 2 if first else width)))
    found = describe(shapes)
    assert found['model.sam2.arch'] == f'sam2_{arch}'
    assert found['model.sam2.adapters.stages'] == '[2,3]'
    assert found['model.sam2.adapters.channel_factor'] == factor


def test_bad_files(config, tmp_path):
    args = (tmp_path / 'a.pth', '--config', config, '--fold', 0)
    model = build(config)
    src = tmp_path / 'adapter.pth'
    with torch.no_grad():
        model.sam2.image_encoder.trunk.blocks[3].mlp.adapter.up.bias[0] = float('nan')
    publish(model, src)
    assert 'blocks.3.mlp.adapter.up.bias' in refused(src, *args)
    publish(model, src, hook=print)
    assert_matches(r'was refused: it needs \S*print', refused(src, *args))
    torch.save({'model': model.sam2.state_dict()}, src)
    assert 'is no file of SANSA adapters' in refused(src, *args)
    torch.save([1, 2], src)
    assert 'holds no adapters of SANSA: expected a dict' in refused(src, *args)
    src.write_bytes(src.read_bytes()[:-100])
    assert 'cannot be read' in refused(src, *args)
    src.unlink()
    assert 'adapter.pth does not exist' in refused(src, *args)
    with pytest.raises(ValueError, match='is no file of SANSA adapters.*has none: no key'):
        torch.save({'model': {}}, src)
        read_published(src)
    publish(build(config), src)
    gone = ('--cfg-options', 'model.sam2.checkpoint=no.pth')
    assert 'no.pth' in refused(src, *args, *gone)
    none = ('--cfg-options', 'model.sam2.checkpoint=None')
    assert 'adapters belong to SAM 2' in refused(src, *args, *none)


# ----------------------------------------------------------------------------------------- runs
OPTIONS = ['train_cfg.max_epochs=1', 'param_scheduler.0.end=1', 'val_cfg=None',
           'val_dataloader=None', 'val_evaluator=None',
           'default_hooks.checkpoint.trained_only=True']  # fmt: skip


def test_amp_and_resume(config, tmp_path):
    """Half of a run and the rest of it is the run, bit by bit, under bfloat16."""

    def run(folder, epochs, *more):
        args = [config, '--work-dir', str(tmp_path / folder), '--amp', *more, '--cfg-options',
                *OPTIONS, f'train_cfg.max_epochs={epochs}', 'param_scheduler.0.end=2']  # fmt: skip
        train(args)
        return load_checkpoint(tmp_path / folder / f'epoch_{epochs}.pth')['state_dict']

    whole = run('whole', 2)
    run('parts', 1)
    again = run('parts', 2, '--resume')
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert all('.adapter.' in key for key in whole if key != BASE)
