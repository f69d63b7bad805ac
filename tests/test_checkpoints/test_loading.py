"""Weights go in strictly, from files that cannot run code, and every refusal says why."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from mmseg.registry import MODELS
from tiny_models import DIM, SIZE, TINY_DINO, build, tiny_arch
from torch import nn

from mmfss.checkpoints.weights import check_state_dict, load_strict
from mmfss.encoders.dinov2 import DINOv2
from mmfss.encoders.sam2.archs import ARCHS
from mmfss.encoders.sam2.model import build_sam2


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def saved(path: Path, content: object) -> str:
    torch.save(content, path)
    return str(path)


def changed(**entries) -> dict:
    """A state dict of ``net()`` with entries set (None: removed); ``_`` stands for a dot."""
    state = net().state_dict()
    for key, value in entries.items():
        key = key.replace('_', '.', 1)
        state.pop(key) if value is None else state.update({key: value})
    return state


def test_loads_plain_and_nested_state_dicts(tmp_path):
    source = net()
    for i, content in enumerate((source.state_dict(), {'model': source.state_dict(), 'epoch': 3})):
        target = net()
        load_strict(target, saved(tmp_path / f'{i}.pth', content), 'a net', key='model')
        assert all(torch.equal(v, source.state_dict()[k]) for k, v in target.state_dict().items())


def test_half_precision_files_are_loaded_as_float32(tmp_path):
    source = net()
    half = {k: v.half() if v.is_floating_point() else v for k, v in source.state_dict().items()}
    target = net()
    load_strict(target, saved(tmp_path / 'half.pth', half), 'a net')
    assert target[0].weight.dtype == torch.float32
    assert target[1].num_batches_tracked.dtype == torch.int64
    torch.testing.assert_close(target[0].weight, source[0].weight.half().float())


@pytest.mark.parametrize(
    ('entries', 'message'),
    [
        ({'0_weight': None}, r'1 missing keys: 0\.weight\. Use the checkpoint that belongs'),
        ({'7_weight': torch.ones(1)}, r'1 unexpected keys: 7\.weight'),
        ({'0_weight': torch.ones(4, 2)}, r'shapes differ: 0\.weight \(4, 2\) instead of \(3, 2\)'),
        ({'1_bias': torch.tensor([0, float('nan'), 0])}, r'1 tensors hold NaN .*: 1\.bias'),
        ({'0_bias': torch.tensor([0, float('inf'), 0])}, r'NaN or infinity: 0\.bias'),
        ({'0_bias': None, '9_b': torch.ones(1)}, r'missing keys: 0\.bias; 1 unexpected keys: 9\.b'),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, entries, message):
    path = saved(tmp_path / 'odd.pth', changed(**entries))
    target = net()
    before = copy.deepcopy(target.state_dict())
    with pytest.raises(ValueError, match=rf'a net from {path}: the weights do not fit.*{message}'):
        load_strict(target, path, 'a net')
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())  # untouched


def test_a_long_list_of_keys_is_cut():
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(6)))
    with pytest.raises(ValueError, match=r'12 missing keys: 0\.bias, .*, \.\.\. \(4 more\)'):
        check_state_dict(model.state_dict(), {}, 'a net')


@pytest.mark.parametrize('content', [[1, 2], {'model': {'a': 1}}, {'a': 'text'}, torch.ones(2)])
def test_a_file_without_a_state_dict(tmp_path, content):
    with pytest.raises(ValueError, match='odd.pth holds no state dict of a net'):
        load_strict(net(), saved(tmp_path / 'odd.pth', content), 'a net', key='model')


class Malicious:
    """Would create a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize('container', ['torch', 'pickle'])
def test_a_checkpoint_that_wants_to_run_code_is_refused(tmp_path, container):
    trace, path = tmp_path / 'trace', tmp_path / 'evil.pth'
    content = {'model': Malicious(trace)}
    if container == 'torch':
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match=r'evil\.pth was refused: it needs .* could run code'):
        load_strict(net(), str(path), 'a net', key='model')
    assert not trace.exists()


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.pth'):
        load_strict(net(), str(tmp_path / 'none.pth'), 'a net')


@pytest.mark.parametrize('kept', [0, 10, 300])
def test_a_truncated_file(tmp_path, kept):
    path = tmp_path / 'cut.pth'
    torch.save(net().state_dict(), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=rf'cut\.pth, {kept} bytes cannot be read'):
        load_strict(net(), str(path), 'a net')


# ---------------------------------------------------------------- the encoders


def sam2_of(arch, checkpoint=None):
    return build_sam2(arch, SIZE, checkpoint=checkpoint)


def test_sam2_from_a_file_of_official_form(tmp_path):
    source = sam2_of(tiny_arch())
    path = saved(tmp_path / 'sam2.pt', {'model': source.state_dict()})
    target = sam2_of(tiny_arch(), path)
    target.load_pretrained()
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in target.state_dict().items())


def test_sam2_of_another_version(tmp_path):
    newer = sam2_of(tiny_arch('sam2.1_small'))
    path = saved(tmp_path / 'newer.pt', {'model': newer.state_dict()})
    with pytest.raises(ValueError, match='unexpected keys: no_obj_embed_spatial, obj_ptr_tpos'):
        sam2_of(tiny_arch(), path).load_pretrained()
    newer.checkpoint = saved(tmp_path / 'older.pt', {'model': sam2_of(tiny_arch()).state_dict()})
    with pytest.raises(ValueError, match=r"SAM 2 \(.*'sam2.1_small'.*\) from .*3 missing keys"):
        newer.load_pretrained()


def test_sam2_of_another_size(tmp_path):
    path = saved(tmp_path / 'one.pt', {'model': sam2_of(tiny_arch(num_layers=1)).state_dict()})
    with pytest.raises(ValueError, match=r'missing keys: memory_attention\.layers\.1\.'):
        sam2_of(tiny_arch(num_layers=2), path).load_pretrained()


def test_official_weights_need_a_name():
    message = "'official' needs an arch by name.*Give a path, or None to start from random weights"
    with pytest.raises(ValueError, match=message):
        sam2_of(tiny_arch(), 'official').load_pretrained()


def test_the_official_file_is_that_of_the_arch(monkeypatch):
    asked = []
    monkeypatch.setattr(
        'mmfss.encoders.sam2.model.load_strict',
        lambda _, path, what, **options: asked.append((path, options)),
    )
    monkeypatch.setattr('mmfss.checkpoints.official.official_file', lambda *of: '/'.join(of))
    model = sam2_of(tiny_arch(), 'official')
    for model.arch in ARCHS:
        model.load_pretrained()
    assert [path for path, _ in asked] == [f'sam2/{name}' for name in ARCHS]
    assert all(options['key'] == 'model' for _, options in asked)


def test_dinov2_from_a_file(tmp_path):
    source = DINOv2(TINY_DINO, 70, checkpoint=None)
    path = saved(tmp_path / 'dino.pth', source.vit.state_dict())
    target = DINOv2(TINY_DINO, 70, checkpoint=path)
    assert not torch.equal(target.vit.pos_embed, source.vit.pos_embed)
    target.init_weights()
    assert all(
        torch.equal(v, source.vit.state_dict()[k]) for k, v in target.vit.state_dict().items()
    )
    deeper = DINOv2(dict(TINY_DINO, depth=2), 70, checkpoint=path)
    with pytest.raises(ValueError, match=r'DINOv2 \(.*14 missing keys: blocks\.1\.'):
        deeper.init_weights()


def test_backbone_from_a_file(tmp_path):
    one_stage = dict(num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,))
    backbone = dict(type='ResNet', depth=18, **one_stage)
    cfg = dict(type='BackboneEncoder', backbone=backbone, image_size=32)
    source = MODELS.build(cfg)
    path = saved(tmp_path / 'resnet.pth', {'state_dict': source.backbone.state_dict()})
    target = MODELS.build(dict(cfg, checkpoint=path))
    target.init_weights()
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in target.state_dict().items())
    broken = source.backbone.state_dict()
    broken['conv1.weight'] = broken['conv1.weight'][:, :1]
    saved(tmp_path / 'resnet.pth', {'state_dict': broken})
    with pytest.raises(ValueError, match=r'ResNet from .*conv1\.weight \(64, 1, 7, 7\) instead of'):
        target.init_weights()


def test_fssam_loads_both_encoders_before_training_and_nothing_when_built(tmp_path):
    source = build()
    paths = (
        saved(tmp_path / 'sam2.pt', {'model': source.sam2.state_dict()}),
        saved(tmp_path / 'dino.pth', source.prior_encoder.vit.state_dict()),
    )
    changes = dict(
        sam2=dict(arch=tiny_arch(), image_size=SIZE, checkpoint=paths[0]),
        prior_encoder=dict(type='DINOv2', arch=TINY_DINO, image_size=70, checkpoint=paths[1]),
    )
    target = build(seed=1, **changes)
    assert target.sam2.no_mem_embed.shape == (1, 1, DIM)
    assert not torch.equal(target.sam2.no_mem_embed, source.sam2.no_mem_embed)
    target.init_weights()
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in target.state_dict().items())
    Path(paths[0]).unlink()
    build(**changes)  # built for testing: needs no file
    with pytest.raises(FileNotFoundError, match=r'sam2\.pt'):
        target.init_weights()
