"""A folder of photos of 12 bits, prepared, and read as it was prepared."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import tifffile
from mmengine.dataset import Compose
from PIL import Image

from mmfss.commands.prepare import main
from mmfss.datasets.deferred import image_steps
from mmfss.datasets.episodes import EpisodicDataset
from mmfss.datasets.transforms import LoadImage, read_grey_values

LOAD = [dict(type='LoadImage'), dict(type='LoadLabel'), dict(type='BinarizeLabel')]


@pytest.fixture
def folder(tmp_path):
    """Four TIFFs of 12 bits and a PNG of 8, each with an object; and the values."""
    rng = np.random.default_rng(0)
    photos = {}
    (tmp_path / 'mine/disc').mkdir(parents=True)
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 10:30] = 255
    for i in range(5):
        values = rng.integers(0, 4096, (40, 40, 3)).astype(np.uint16)
        path = tmp_path / f'mine/disc/{i}'
        if i == 4:
            values >>= 4
            Image.fromarray(values.astype(np.uint8)).save(f'{path}.bmp')
        else:
            tifffile.imwrite(f'{path}.tif', values, photometric='rgb')
        Image.fromarray(mask).save(f'{path}.png')
        photos[str(i)] = values.astype(np.uint8) if i == 4 else values
    return tmp_path, photos


def prepare(capsys, *arguments) -> str:
    main(['folder', *map(str, arguments)])
    return capsys.readouterr().out


def episodes(root, **load) -> EpisodicDataset:
    steps = [dict(LOAD[0], **load), *LOAD[1:]]
    return EpisodicDataset(
        dict(type='PreparedDataset', data_root=str(root), split='all'),
        str(root), 0, 'novel', 1, steps, steps, class_index_file=None,
    )  # fmt: skip


def shown(dataset: EpisodicDataset, photos, change) -> None:
    """That each query is what ``change`` makes of its values."""
    names = set()
    for item in dataset:
        name = item['data_samples'].img_path.rsplit('/', 1)[-1].split('.')[0]
        values = photos[name]
        truth = values if values.dtype == np.uint8 else change(values)
        got = item['inputs']['query'].numpy()[::-1].transpose(1, 2, 0)
        np.testing.assert_array_equal(got, truth)
        names.add(name)
    assert names == set(photos)


def test_a_folder_of_12_bits(folder, capsys):
    root, photos = folder
    said = prepare(capsys, root / 'mine', root / 'whole')
    assert re.search(
        r'warning: image .*0\.tif uses 0\.\.4095 of the 16-bit pixels 0\.\.65535, so that 16 of '
        r'256 grey values are left of it: give --bit-depth 12 .* \(and so are 3 images more\)',
        said,
    )
    content = json.loads((root / 'whole/dataset.json').read_text())
    assert 'grey_values' not in content['source']
    dataset = episodes(root / 'whole')
    shown(dataset, photos, lambda values: values >> 8)
    assert 'grey_values' not in dataset.protocol

    said = prepare(capsys, root / 'mine', root / 'deep', '--bit-depth', 12)
    assert 'warning: image' not in said
    content = json.loads((root / 'deep/dataset.json').read_text())
    assert content['source']['grey_values'] == dict(bit_depth=12)
    deep = episodes(root / 'deep')
    shown(deep, photos, lambda values: values >> 4)
    assert deep.protocol['grey_values'] == [dict(bit_depth=12)] * 2
    own = episodes(root / 'deep', grey_values=dict(limits=(0, 4095)))  # a config's own comes first
    shown(own, photos, lambda values: np.rint(values / 4095 * 255))
    # the same folder again, prepared with another range
    said = prepare(capsys, root / 'mine', root / 'deep', '--value-range', 0, 4095)
    shown(episodes(root / 'deep'), photos, lambda values: np.rint(values / 4095 * 255))


def test_features_of_two_ranges_have_two_keys(folder):
    digests = set()
    for grey_values in (None, dict(bit_depth=12), dict(bit_depth=14), dict(percentiles=(1, 99)),
                        dict(limits=(0, 4095))):  # fmt: skip
        pipeline = Compose([LoadImage(grey_values=grey_values)])
        prepared = Compose([LoadImage()])
        read_grey_values(prepared.transforms, grey_values)
        assert image_steps(pipeline).digest == image_steps(prepared).digest
        digests.add(image_steps(pipeline).digest)
    assert len(digests) == 5


def test_floats_need_a_range(folder, capsys):
    root, photos = folder
    for i in range(4):
        values = (photos[str(i)] / 4095).astype(np.float32)
        tifffile.imwrite(root / f'mine/disc/{i}.tif', values, photometric='rgb')
    with pytest.raises(SystemExit, match=r'4 of 5 failed .*\n.*0\.tif has float pixels 0\.\.1, a'):
        prepare(capsys, root / 'mine', root / 'out')
    assert not (root / 'out').exists()
    prepare(capsys, root / 'mine', root / 'out', '--value-range', 0, 1)
    shown(episodes(root / 'out'), photos, lambda values: np.rint(values / 4095 * 255))
    with pytest.raises(SystemExit, match='given as bit_depth and as limits; give one of them'):
        prepare(capsys, root / 'mine', root / 'out', '--value-range', 0, 1, '--bit-depth', 9)
