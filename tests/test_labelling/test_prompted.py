"""Masks that came from prompts are looked at before they are used."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from mmfss.apis import SupportSet
from mmfss.commands.label import label


@pytest.fixture
def prompted(case, monkeypatch):
    """The supports of the case, as if the mask of one had come from a prompt."""
    support = SupportSet.load(case.support)
    monkeypatch.setattr('mmfss.commands.label.read_support', lambda *_: (support, ['photos/7.jpg']))


def test_masks_from_prompts_are_shown_first(case, prompted, tmp_path, files_of, capsys):
    images, out = tmp_path / 'images', tmp_path / 'out'
    images.mkdir()
    (images / '01.jpg').write_bytes((case.images / '01.jpg').read_bytes())
    arguments = case.arguments(out, images=images)
    assert label(arguments) == 3
    said = capsys.readouterr().err
    assert 'masks of 1 support images came from prompts: photos/7.jpg. Look at' in said
    assert str(out / 'support.png') in said and '--accept-prompts' in said
    assert set(files_of(out)) == {'support.png'}
    with Image.open(out / 'support.png') as picture:
        assert picture.mode == 'RGB' and min(picture.size) >= 64
    assert label([*arguments, '--accept-prompts']) == 0
    assert json.loads((out / 'annotations.json').read_text())['images'][0]['file_name'] == '01.jpg'
    capsys.readouterr()
    assert label(arguments) == 0  # they were accepted
    assert capsys.readouterr().out.startswith('0 labelled, 1 done before, 0 failed\n')
