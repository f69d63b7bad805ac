"""The generated example for labelling."""

import json

import numpy as np
import pytest

from mmfss.commands import prepare as cli
from mmfss.datasets.io import read_image, read_mask
from mmfss.datasets.preparation.example import SHOTS, Example, write_example
from mmfss.datasets.shapes import SHAPES_CLASSES
from mmfss.datasets.shapes_scenes import render_sample


@pytest.fixture(scope='module')
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp('example') / 'out'
    assert write_example(out, Example(images=20, image_size=64))
    return out


def test_supports_are_marked(out):
    folders = sorted(path.name for path in (out / 'support').iterdir())
    assert folders == list(SHOTS) == sorted(SHOTS)  # labels are in the order of the names
    for name, shots in SHOTS.items():
        images = sorted((out / 'support' / name / 'images').iterdir())
        assert len(images) == shots
        for path in images:
            mask = read_mask(out / 'support' / name / 'masks' / path.name)
            image, label = render_sample(4, 'train', int(path.stem), 64)
            assert np.array_equal(read_image(path), image)
            assert np.array_equal(mask == 255, label == SHAPES_CLASSES.index(name) + 1)
            assert (mask == 255).mean() >= 0.03


def test_pictures_and_truth(out):
    names = sorted(path.name for path in (out / 'images').iterdir())
    assert names == sorted(path.name for path in (out / 'masks').iterdir())
    assert len(names) == 20
    truths = [read_mask(out / 'masks' / name) for name in names]
    assert set(np.unique(truths)) == {0, 1, 2, 3, 255}
    assert sum(not ((t > 0) & (t < 255)).any() for t in truths) == 6  # 30 %
    assert read_image(out / 'images' / names[0]).shape == (64, 64, 3)


def test_made_once_and_never_over_something_else(out, tmp_path):
    assert not write_example(out, Example(images=20, image_size=64))
    with pytest.raises(ValueError, match='example of other numbers; choose another folder'):
        write_example(out, Example(images=21, image_size=64))
    (tmp_path / 'mine.txt').write_text('mine')
    with pytest.raises(ValueError, match='holds something else'):
        write_example(tmp_path, Example(images=20, image_size=64))
    assert [path.name for path in tmp_path.iterdir()] == ['mine.txt']


def test_folders_of_the_same_names_may_be_somebodys(tmp_path):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images/00000.png').write_text('mine')
    with pytest.raises(ValueError, match='holds something else'):
        write_example(tmp_path, Example(images=2, image_size=32))
    assert (tmp_path / 'images/00000.png').read_text() == 'mine'
    assert len(list(tmp_path.rglob('*'))) == 2


def test_an_interrupted_run_is_made_whole(out):
    manifest = json.loads((out / 'example.json').read_text())
    assert manifest == dict(images=20, seed=4, image_size=64, shots=SHOTS)
    (out / 'example.json').rename(out / '.example.begun.json')
    with pytest.raises(ValueError, match='example of other numbers'):
        write_example(out, Example(images=21, image_size=64))
    next((out / 'images').iterdir()).unlink()
    assert write_example(out, Example(images=20, image_size=64))
    assert len(list((out / 'images').iterdir())) == 20


def test_command(tmp_path, capsys):
    cli.main(['example', str(tmp_path / 'e'), '--images', '2', '--image-size', '32'])
    assert '2 of crescent, 3 of ring, 5 of star; 2 pictures' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='images must be from 1 to 99999, got 0'):
        cli.main(['example', str(tmp_path / 'f'), '--images', '0'])
