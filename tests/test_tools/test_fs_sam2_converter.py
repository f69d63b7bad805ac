"""From FS-SAM2's best_model.pt to a checkpoint of mmfss, and LoRA folded into the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from mmseg.registry import MODELS
from tiny_models import METHODS, episodes, inputs_of, randomised
from tiny_runs import write_config, write_shapes

from mmfss.apis.loading import load_model
from mmfss.checkpoints.peft_names import check_lora, from_peft
from mmfss.commands import convert_fs_sam2, fold_lora
from mmfss.commands import test as testing
from mmfss.datasets.folds import get_split

PARTS = ('image_encoder', 'memory_attention', 'memory_encoder')


@pytest.fixture(autouse=True)
def fold_of_the_environment(monkeypatch):
    """The tool sets FOLD for its own process."""
    monkeypatch.setenv('FOLD', '0')


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('fs_sam2')
    base = write_config(folder / 'base_convert.py', write_shapes(folder / 'shapes', val=12))
    path = folder / 'convert_fs_sam2.py'
    model = dict(METHODS['FSSAM2'], data_preprocessor=dict(type='EpisodeDataPreprocessor'))
    path.write_text(f'_base_ = {base!r}\nmodel = {dict(model, _delete_=True)!r}\n')
    return str(path)


@pytest.fixture(scope='module')
def model(config):
    torch.manual_seed(0)
    return randomised(MODELS.build(Config.fromfile(config).model), scale=0.05).eval()


def published(model) -> dict[str, torch.Tensor]:
    """Under the names of PEFT, written down by hand: which layers are wrapped is told by ours."""
    state = model.sam2.state_dict()
    wrapped = {key.partition('.lora.')[0] for key in state if '.lora.' in key}
    named = {}
    for key, value in state.items():
        part, _, rest = key.partition('.')
        layer, _, leaf = rest.rpartition('.')
        if '.lora.' in key:
            layer = layer.removesuffix('.lora')
            rest = f'{layer}.lora_{"A" if leaf == "down" else "B"}.default.weight'
        elif f'{part}.{layer}' in wrapped:
            rest = f'{layer}.base_layer.{leaf}'
        start = f'model.{part}.base_model.model.' if part in PARTS else f'model.{part}.'
        named[start + rest if rest else f'model.{part}'] = value
    return named


@pytest.fixture
def src(tmp_path, model):
    content = dict(state_dict=published(model), epoch=np.int64(7), val_miou=np.float64(51.5))
    torch.save(content, tmp_path / 'best_model.pt')
    return tmp_path / 'best_model.pt'


def convert(*args) -> None:
    convert_fs_sam2.main([str(arg) for arg in args])


def refused(*args) -> str:
    with pytest.raises(SystemExit) as error:
        convert(*args)
    assert str(error.value).startswith('error: ')
    return str(error.value)


def test_names_as_peft_writes_them(model):
    names = set(published(model))
    assert 'model.no_mem_embed' in names
    start = 'model.image_encoder.base_model.model.trunk.'
    assert f'{start}patch_embed.proj.base_layer.weight' in names
    assert f'{start}blocks.0.attn.qkv.lora_A.default.weight' in names
    assert f'{start}blocks.0.mlp.layers.0.weight' in names
    assert 'model.memory_encoder.base_model.model.out_proj.lora_B.default.weight' in names


def test_every_weight_arrives_and_the_result_is_tested(model, config, src, tmp_path, capsys):
    dst = tmp_path / 'new/fs_sam2.pth'
    convert(src, dst, '--config', config, '--fold', 1)
    split = get_split('shapes-5i', 1)
    out = capsys.readouterr().out
    assert f'and chosen on its novel classes: {", ".join(split.novel_names)}' in out
    assert f'test it: FOLD=1 python tools/test.py {config} {dst}' in out
    content = CheckpointLoader.load_checkpoint(str(dst), 'cpu')
    state = content['state_dict']
    assert list(state) == list(model.state_dict())
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    record = content['meta']['mmfss']
    assert record['arch'] == model.arch and record['trained_classes'] == sorted(split.base_names)
    assert record['selection']['rule'] == 'novel' and record['novel_images'] == 'left_out'
    report = testing.main([config, str(dst), '--folds', '1', '--work-dir', str(tmp_path / 'work')])
    assert 0 < report.runs[0].metrics['FB-IoU'] < 100
    assert 'exists; give another path' in refused(src, dst, '--config', config, '--fold', 1)


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        (
            'model.lora.memory_encoder.rank=8',
            'LoRA of rank 32 in memory_encoder, where the config has 8; set '
            'model.lora.memory_encoder.rank',
        ),
        (
            'model.lora.image_encoder.targets=["qkv"]',
            'LoRA on layers of image_encoder which the config leaves alone: '
            'image_encoder.trunk.blocks.0.attn.proj',
        ),
        (
            'model.lora.memory_encoder.targets=["out_proj","fuser.layers.0.pwconv1"]',
            'no LoRA on layers of memory_encoder which the config adapts: '
            'memory_encoder.fuser.layers.0.pwconv1; set model.lora.memory_encoder.targets',
        ),
        ('model.lora=None', '--config must be one of FS-SAM2 with LoRA'),
        ('model.sam2.arch.memory_attention.num_layers=3', 'memory_attention.layers.2.'),
    ],
)
def test_another_rank_or_list_of_layers_is_refused_by_name(config, src, tmp_path, option, message):
    lora = {part: dict(options) for part, options in METHODS['FSSAM2'].get('lora', {}).items()}
    assert not lora  # the default, which options of the command line cannot change in part
    full = tmp_path / 'full.py'
    text = (
        f'_base_ = {config!r}\nfrom mmfss.methods.fs_sam2 import LORA\n'
        'model = dict(lora={k: dict(v, targets=list(v["targets"])) for k, v in LORA.items()})\n'
        'del LORA\n'
    )
    full.write_text(text)
    args = (src, tmp_path / 'dst.pth', '--config', full, '--fold', 0, '--cfg-options', option)
    assert message in refused(*args)
    assert not (tmp_path / 'dst.pth').exists()


def test_files_of_other_kinds(model, config, src, tmp_path):
    state = published(model)
    none, nan = 'is no checkpoint of FS-SAM2', torch.full((1, 1, 32), float('nan'))

    def renamed(old: str, new: str) -> dict:
        return {key.replace(old, new): value for key, value in state.items()}

    def without(word: str) -> dict:
        return {key: value for key, value in state.items() if word not in key}

    for content, message in (
        (renamed('model.', ''), none),
        (without('lora'), none),
        (renamed('.default.', '.other.'), 'which is no weight of one plain LoRA'),
        (without('no_mem_embed'), 'missing keys: no_mem_embed'),
        ({**state, 'model.no_mem_embed': nan}, 'NaN or infinity'),
    ):
        path = tmp_path / 'other.pt'
        torch.save(dict(state_dict=content), path)
        assert message in refused(path, tmp_path / 'dst.pth', '--config', config, '--fold', 0)
    torch.save(dict(state_dict=state, loss=print), tmp_path / 'code.pt')  # wants to run code
    message = refused(tmp_path / 'code.pt', tmp_path / 'dst.pth', '--config', config, '--fold', 0)
    assert 'code.pt' in message and not (tmp_path / 'dst.pth').exists()


def test_lora_that_fits_passes(model):
    theirs = from_peft(published(model), 'the file')
    check_lora(model.sam2.state_dict(), theirs, 'the file')
    assert theirs.keys() == model.sam2.state_dict().keys()


def test_folded_checkpoint(model, config, src, tmp_path, capsys):
    whole, folded = tmp_path / 'whole.pth', tmp_path / 'folded.pth'
    convert(src, whole, '--config', config, '--fold', 1)
    fold_lora.main([config, str(whole), str(folded)])
    assert 'LoRA of 31 layers is in their weights' in capsys.readouterr().out
    deployed = Config.fromfile(config)
    deployed.model.lora = None
    data = inputs_of(episodes(2, 3))
    with torch.no_grad():
        expected = model.run(data).logits
        found = load_model(deployed, folded, 'cpu').run(data).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    with pytest.raises(ValueError, match='is of another arch: .*the configured model has'):
        load_model(Config.fromfile(config), folded, 'cpu')
    record = CheckpointLoader.load_checkpoint(str(folded), 'cpu')['meta']['mmfss']
    assert record['fold'] == 1 and record['arch']['lora'] == {}
    for args, message in (
        ([config, str(whole), str(folded)], 'exists; give another path'),
        ([config, str(tmp_path / 'none.pth'), str(tmp_path / 'x.pth')], 'none.pth not found'),
        (
            [config, str(folded), str(tmp_path / 'x.pth'), '--cfg-options', 'model.lora=None'],
            'has a FSSAM2 without LoRA: there is nothing to fold',
        ),
    ):
        with pytest.raises(SystemExit, match=message):
            fold_lora.main(args)
