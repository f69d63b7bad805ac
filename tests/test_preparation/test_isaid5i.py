"""iSAID-5i: tiles, colours, resuming, the authors' tiles, bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mmseg.datasets import iSAIDDataset
from prepared_checks import episodes, fails, files, picture, prepare, read, save

from mmfss.datasets import get_split
from mmfss.datasets.preparation.isaid5i import CLASSES, COLOURS

TABLE = np.array(list(COLOURS.values()), np.uint8)


def labels_of(split: str) -> np.ndarray:
    """40 x 36: three classes, one of them too small."""
    labels = np.zeros((40, 36), np.uint8)
    labels[2:10, 2:10] = 1 if split == 'train' else 6
    labels[30:40, 20:36] = 15
    labels[20:22, 20:22] = 9
    return labels


@pytest.fixture
def download(tmp_path: Path) -> Path:
    """Folders and names as the release unpacks them: two pictures a split."""
    root = tmp_path / 'iSAID'
    for split, names in (('train', ['P0000', 'P0002']), ('val', ['P0003', 'P0004'])):
        for i, name in enumerate(names):
            picture(root / split / f'images/images/{name}.png', (40, 36), seed=i)
            masks = root / split / 'Semantic_masks/images/images'
            save(masks / f'{name}_instance_color_RGB.png', TABLE[labels_of(split)])
    return root


def run(capsys, root: Path, out: Path, *options: object) -> str:
    small = '--size', 16, '--stride', 16, '--min-area', 20
    return prepare(capsys, 'isaid5i', root, out, *small, *options)


def test_classes_are_those_of_mmseg() -> None:
    meta = iSAIDDataset.METAINFO
    names = [name.lower().replace('store', 'storage') for name in meta['classes']]
    assert names == list(COLOURS)
    assert meta['palette'] == [list(colour) for colour in COLOURS.values()]


def test_tiles(download: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'out'
    summary = run(capsys, download, out)
    # rows 0, 16, 24 and columns 0, 16, 20: class 1 in the first tile, 15 in those of row 24
    # and columns 16 and 20, and in row 16 only with 2 x 16 and 2 x 12 pixels
    names = (out / 'splits/train.txt').read_text().splitlines()
    boxes = ['0_16_0_16', '16_32_16_32', '16_32_20_36', '24_40_16_32', '24_40_20_36']
    assert names == [f'train/{p}_{box}.png' for p in ('P0000', 'P0002') for box in boxes]
    assert '  train: 10 tiles (10 made, 0 complete already)' in summary
    assert 'tiles with 20 pixels of ship 2, storage_tank 0' in summary
    assert 'harbor 8' in summary
    truth, image = labels_of('train'), read(download / 'train/images/images/P0002.png')
    mask = read(out / 'masks/train/P0002_24_40_20_36.png')
    np.testing.assert_array_equal(mask, truth[24:40, 20:36])
    tile = read(out / 'images/train/P0002_24_40_20_36.png')
    np.testing.assert_array_equal(tile, image[24:40, 20:36])
    split = get_split(str(out), 1)
    assert split.classes == CLASSES and split.novel == (6, 7, 8, 9, 10)
    assert split.names('novel')[0] == 'ground_track_field'


def test_episodes(download: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'out'
    run(capsys, download, out)
    data = episodes(out, 'val', 'novel', fold=1)
    assert data.num_images == 2
    item = data[0]
    assert item['data_samples'].class_id == 6
    assert item['inputs']['query'].shape == (3, 16, 16)
    assert int(item['inputs']['support_mask'].sum()) == 64


def test_a_run_is_resumed(download: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'out'
    run(capsys, download, out)
    before = files(out / 'images') | files(out / 'masks')
    (out / 'masks/train/P0000_0_16_0_16.png').unlink()
    tile = out / 'images/val/P0003_24_40_16_32.png'
    tile.write_bytes(tile.read_bytes()[:-40])
    (out / 'tiles/val/P0004.json').write_text('[{"na')  # a note cut off: the tiles are kept
    summary = run(capsys, download, out)
    assert 'train: 10 tiles (1 made, 9 complete already)' in summary
    assert 'val: 10 tiles (1 made, 9 complete already)' in summary
    assert 'val: 10 tiles (0 made, 10 complete already)' in run(capsys, download, out)
    after = files(out / 'images') | files(out / 'masks')
    assert {k: v[1] for k, v in before.items()} == {k: v[1] for k, v in after.items()}
    message = fails('isaid5i', download, out, '--size', 32)
    assert 'was begun with other options' in message and 'size was 16, now 32' in message


def test_the_tiles_of_the_authors(tmp_path: Path, capsys) -> None:
    root, out = tmp_path / 'iSAID_patches', tmp_path / 'out'
    names = ['P0791_412_668_0_256', 'P0791_0_256_0_256', 'P0003_0_256_0_256']
    for split in ('train', 'val'):
        for i, name in enumerate(names):
            labels = np.zeros((64, 64), np.uint8)
            labels[:40, :40], labels[60:, :] = 4 + i // 2, 255
            picture(root / split / 'images' / f'{name}.png', (64, 64), seed=i)
            save(root / split / 'semantic_png' / f'{name}_instance_color_RGB.png', labels)
    assert 'val: 3 tiles (3 made, 0 complete already)' in prepare(capsys, 'isaid5i', root, out)
    assert 'val: 3 tiles (0 made, 3 complete already)' in prepare(capsys, 'isaid5i', root, out)
    mask = read(out / 'masks/val/images/P0791_412_668_0_256.png')
    assert mask[0, 0] == 4 and mask[63, 0] == 255
    assert not (out / 'images').exists()
    data = episodes(out, 'val', 'novel', fold=0, scarce_classes='drop')
    assert data.num_images == 2 and data[0]['data_samples'].class_id == 4
    bad = np.full((64, 64), 17, np.uint8)
    save(root / 'val/semantic_png/P0003_0_256_0_256_instance_color_RGB.png', bad)
    message = fails('isaid5i', root, tmp_path / 'other')
    assert 'has the values [17]; allowed are 0, 1..15, 255' in message


def test_bad_masks_are_named(download: Path, tmp_path: Path) -> None:
    masks = download / 'val/Semantic_masks/images/images'
    odd = TABLE[labels_of('val')]
    odd[5, 5] = (1, 2, 3)
    save(masks / 'P0003_instance_color_RGB.png', odd)
    save(masks / 'P0004_instance_color_RGB.png', odd[:-1])
    message = fails('isaid5i', download, tmp_path / 'out')
    assert '2 of 2 failed' in message
    assert 'P0003_instance_color_RGB.png has 1 colours outside the class table: [(1, 2, 3)]' in (
        message
    )
    assert 'is 36 x 39 pixels (width x height), its image 36 x 40' in message
    (masks / 'P0003_instance_color_RGB.png').unlink()
    (download / 'val/images/images/P0004.png').unlink()
    message = fails('isaid5i', download, tmp_path / 'out')
    assert "1 of 1 images of val have no mask: ['P0003']; 1 masks have no image: ['P0004']" in (
        message
    )
    assert 'must be at least 1 pixel' in fails('isaid5i', download, tmp_path / 'o', '--stride', 0)
    assert 'must hold train and val' in fails('isaid5i', tmp_path / 'none', tmp_path / 'o')
