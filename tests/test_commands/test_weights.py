"""``mmfss weights``: the list, which weights are meant, and what is fetched."""

from __future__ import annotations

import re

import pytest
import torch

from mmfss.checkpoints.official import WEIGHTS
from mmfss.commands import weights
from mmfss.commands.command_lines import WeightsArguments, parse
from mmfss.configs import DEFAULT_METHOD, EMBEDDED_METHOD


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv('MMFSS_WEIGHTS', str(tmp_path / 'weights'))
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.delenv('SAM2', raising=False)
    (tmp_path / 'weights').mkdir()
    return tmp_path / 'weights'


@pytest.fixture
def fetched(monkeypatch):
    """Names of what is fetched, in the place of fetching."""
    names = []
    monkeypatch.setattr(weights, 'fetch', lambda one: names.append(one.name))
    return names


def command(*words: str) -> int:
    return weights.run(parse(WeightsArguments, words))


def test_the_list_says_what_is_there_how_large_and_what_for(folder, fetched, capsys):
    torch.save({'w': torch.ones(1)}, folder / WEIGHTS['dinov2_small'].file)
    (folder / WEIGHTS['dinov2_base'].file).write_text('<html>')
    (folder / f'{WEIGHTS["sam2_large"].file}.part').write_bytes(bytes(3_000_000))
    assert command() == 0 and fetched == []
    said = capsys.readouterr().out
    rows = {line.split()[0]: line for line in said.split('\n\n')[0].splitlines()[1:]}
    assert list(rows) == list(WEIGHTS)
    assert rows['dinov2_small'].endswith(f' {folder}/dinov2_vits14_pretrain.pth')
    assert 'b14_pretrain.pth is a web page that was saved under this name' in rows['dinov2_base']
    assert '  898  Apache-2.0  ' in rows['sam2_large']
    assert rows['sam2_large'].endswith('not there, 3 MB of it came')
    assert 'fssam' in rows['sam2_small'] and 'prototype' in rows['dinov2_base']
    assert rows['dinov3_small'].endswith(f'not there; gated: {WEIGHTS["dinov3_small"].page}')
    assert f'Looked for in {folder}, then ' in said and '`mmfss weights where NAME' in said
    assert command('list', 'sam1_vit_b') == 0
    assert len(capsys.readouterr().out.split('\n\n')[0].splitlines()) == 2


def test_names_methods_and_default(folder, fetched):
    assert command('fetch', 'fssam', 'sam1_vit_b', 'dinov2_base') == 0
    assert fetched == ['sam2_small', 'dinov2_base', 'sam1_vit_b']
    fetched.clear()
    assert command('fetch', 'default') == 0
    assert fetched == [one.name for one in weights.needed_by(DEFAULT_METHOD)] != []
    assert weights.needed_by(EMBEDDED_METHOD) == []


@pytest.mark.parametrize(
    'words, said',
    [
        (['fetch'], r'error: fetch what\? give names that `mmfss weights` lists'),
        (['fetch', 'dinov9'], "error: there are no weights 'dinov9'; give names .*dinov2_base"),
        (['fetch', 'all-foreground'], 'error: the method all-foreground needs no official weights'),
        (['where', 'dinov9'], "there are no weights 'dinov9'"),
    ],
)
def test_what_is_not_meant_by_anything(folder, fetched, capsys, words, said):
    assert command(*words) == 2 and fetched == []
    assert re.search(said, capsys.readouterr().err)


def test_where_files_belong(folder, capsys):
    assert command('where', 'dinov2_base', 'dinov3_base') == 0
    first, second = capsys.readouterr().out.splitlines()
    one, gated = WEIGHTS['dinov2_base'], WEIGHTS['dinov3_base']
    assert first == f'{one.url} -> {folder}/{one.file}'
    assert second == f'{gated.page} (gated: ask for {gated.file} there) -> {folder}/{gated.file}'


def test_one_that_fails_does_not_keep_the_others(folder, monkeypatch, capsys):
    asked = []

    def fetch(one):
        asked.append(one.name)
        if one.name == 'sam2_tiny':
            raise ConnectionError('no network. Run ...')
        if one.name == 'sam2_large':
            raise KeyboardInterrupt

    monkeypatch.setattr(weights, 'fetch', fetch)
    assert command('fetch', 'sam2_tiny', 'sam2_small') == 1
    assert asked == ['sam2_tiny', 'sam2_small']
    assert capsys.readouterr().err == 'error: no network. Run ...\n'
    assert command('fetch', 'sam2_large', 'sam2_small') == 130 and asked[2:] == ['sam2_large']
    assert 'interrupted: what came is kept; run the same command' in capsys.readouterr().err
