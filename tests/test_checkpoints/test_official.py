"""Which weights are published, where they are looked for, and what is said where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmfss.checkpoints.official import (
    WEIGHTS,
    fault_of,
    folders,
    need,
    official,
    official_file,
    official_in,
)
from mmfss.encoders.dinov2 import ARCHS, DINOv2

DINO = WEIGHTS['dinov2_base']


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The folder of weights, and torch.hub's."""
    monkeypatch.setenv('MMFSS_WEIGHTS', str(tmp_path / 'weights'))
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    found = [tmp_path / 'weights', tmp_path / 'torch/hub/checkpoints']
    for place in found:
        place.mkdir(parents=True)
    return found


def put(path: Path) -> str:
    torch.save({'w': torch.ones(2)}, path)
    return str(path)


@pytest.mark.smoke
def test_addresses_names_and_checksums():
    files = 'https://dl.fbaipublicfiles.com'
    for name, url in (
        ('sam2_small', f'{files}/segment_anything_2/072824/sam2_hiera_small.pt'),
        ('sam2.1_base_plus', f'{files}/segment_anything_2/092824/sam2.1_hiera_base_plus.pt'),
        ('dinov2_small', f'{files}/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth'),
        ('dinov2_giant', f'{files}/dinov2/dinov2_vitg14/dinov2_vitg14_pretrain.pth'),
        ('sam1_vit_h', f'{files}/segment_anything/sam_vit_h_4b8939.pth'),
        ('dinov3_large', ''),
    ):
        assert WEIGHTS[name].url == url
    assert len(WEIGHTS) == 18
    for name, one in WEIGHTS.items():
        assert one.name == name and official(one.kind, one.arch) is one
        assert not one.url or one.url.endswith(f'/{one.file}') and one.bytes > 80_000_000
        # a checksum is one that the file's own name states
        assert one.digest is None or one.digest[1] in one.file
    assert len({one.file for one in WEIGHTS.values()}) == 18


def test_the_variable_comes_before_the_folder_of_torch(places, monkeypatch):
    assert folders() == places
    in_hub = put(places[1] / DINO.file)
    assert official_file('dinov2', 'base') == in_hub
    own = put(places[0] / DINO.file)
    assert official_file('dinov2', 'base') == own
    monkeypatch.delenv('MMFSS_WEIGHTS')
    assert folders() == places[1:] and official_file('dinov2', 'base') == in_hub


def test_what_is_not_there_is_one_command(places):
    with pytest.raises(FileNotFoundError) as caught:
        official_file('dinov2', 'base')
    said = str(caught.value)
    assert 'Run `mmfss weights fetch dinov2_base`; or, without a network, put into ' in said
    assert said.startswith(
        f'official weights are not there: dinov2_base (looked in {places[0]} and {places[1]}). '
    )
    assert f'put into {places[0]} what is at {DINO.url}' in said and 'goes on' not in said
    (places[0] / f'{DINO.file}.part').touch()
    with pytest.raises(FileNotFoundError, match=r'b14_pretrain\.pth\.part is of a fetch that goes'):
        official_file('dinov2', 'base')


def test_several_are_one_command_and_gated_ones_have_their_page(places):
    wanted = [WEIGHTS[name] for name in ('dinov2_base', 'sam2_large', 'dinov3_small', 'sam2_large')]
    put(places[1] / DINO.file)
    with pytest.raises(FileNotFoundError) as caught:
        need(wanted)
    said = str(caught.value)
    assert 'not there: sam2_large, dinov3_small (' in said
    assert '`mmfss weights fetch sam2_large`;' in said
    assert 'dinov3_small is gated: ask for it at https://ai.meta.com/' in said
    for one in wanted:
        put(places[0] / one.file)
    need(wanted)


@pytest.mark.parametrize(
    'content, fault',
    [
        (None, 'is cut off: its end is missing'),
        (b'', 'is empty'),
        (b'\n <!DOCTYPE html><html>Sign in</html>', 'is a web page that was saved under this name'),
        (b'version https://git-lfs', 'is no file of torch.save'),
    ],
)
def test_what_lies_there_and_is_no_whole_file(places, content, fault):
    path = Path(put(places[0] / DINO.file))
    assert fault_of(path) == ''
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    with pytest.raises(ValueError, match=f'{fault}. Run `mmfss weights fetch dinov2_base`'):
        official_file('dinov2', 'base')


def test_the_older_form_of_torch_is_taken(tmp_path):
    torch.save({'w': torch.ones(2)}, tmp_path / 'x', _use_new_zipfile_serialization=False)
    assert fault_of(tmp_path / 'x') == ''


@pytest.mark.parametrize('arch', [dict(embed_dim=3), None])
def test_an_arch_of_ones_own_has_none(arch):
    with pytest.raises(ValueError, match="'official' needs an arch by name.*Give a path, or None"):
        official_file('dinov2', arch)
    with pytest.raises(ValueError, match=r"of sam1 is for an arch out of \['vit_b', 'vit_l', 'vi"):
        official_file('sam1', 'tiny')


def test_what_a_config_asks_for(repo_root, monkeypatch):
    monkeypatch.delenv('SAM2', raising=False)
    path = repo_root / 'configs/fss_sam2_pascal_1shot.py'
    names = [one.name for one in official_in(Config.fromfile(path).model)]
    assert names == ['sam2_small', 'dinov2_base']
    listed = dict(encoders=[dict(type='DINOv3', arch='large', checkpoint='official')], other=None)
    assert [one.name for one in official_in(listed)] == ['dinov3_large']
    assert not list(official_in(dict(type='DINOv2', arch='base', checkpoint='a.pth')))


def test_other_weights_under_an_official_name(places, monkeypatch):
    """What is wrong, and which file is to go: a fetch would take it for what it is called."""
    monkeypatch.setitem(ARCHS, 'base', dict(embed_dim=16, depth=1, num_heads=2))
    path = put(places[0] / DINO.file)
    with pytest.raises(ValueError) as caught:
        DINOv2('base', 70).load_pretrained()
    assert 'the weights do not fit the model' in str(caught.value)
    assert (
        f'{path} has the name of dinov2_base and is not it: remove it. Run `mmfss weights fet'
        in (str(caught.value))
    )
    with pytest.raises(ValueError) as caught:
        DINOv2('base', 70, checkpoint=path).load_pretrained()
    assert 'remove it' not in str(caught.value)


def test_half_of_a_file_of_the_older_form(places):
    """Its end says nothing, its size does."""
    path = Path(places[0] / DINO.file)
    torch.save({'w': torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match='dinov2_base, is cut off. Run `mmfss weights fetch dino'):
        official_file('dinov2', 'base')
