"""DeepGlobe, ISIC, Chest X-ray: masks, tiles, resuming, bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from prepared_checks import episodes, fails, picture, prepare, read, save

from mmfss.datasets import get_split
from mmfss.datasets.preparation.deepglobe import CLASSES, COLOURS, UNKNOWN

CODES = np.array([UNKNOWN, *COLOURS.values()], np.uint8)


@pytest.fixture
def deepglobe(tmp_path: Path) -> Path:
    """Two images of 60 x 60: tiles of 10 x 10."""
    root = tmp_path / 'deepglobe'
    labels = np.ones((60, 60), np.uint8)
    labels[0:5, 0:10] = 2  # tile 00: half of it
    labels[10, 20:24] = 3  # tile 12: 4 %, too little
    labels[10, 30:35] = 3  # tile 13: 5 %
    labels[20:25, 40:50] = 0  # tile 24: half unknown
    labels[50:60, 50:60] = 4  # tile 55: one class
    for i, name in enumerate(['119', '2334']):
        picture(root / f'train/{name}_sat.jpg', (60, 60), seed=i)
        rgb = CODES[labels].astype(int)
        save(root / f'train/{name}_mask.png', np.clip(rgb + (-3, 3, 0), 0, 255).astype(np.uint8))
    (root / 'valid').mkdir()
    return root


def test_deepglobe(deepglobe: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'out'
    summary = prepare(capsys, 'deepglobe', deepglobe, out)
    assert 'DeepGlobe: 6 of 72 tiles of 2 images (6 made, 0 complete already)' in summary
    assert 'tiles with agriculture 6, urban 2, rangeland 2, forest 0, water 0, barren 0' in summary
    names = (out / 'splits/test.txt').read_text().split()
    assert names == [f'{p}_{tile}.png' for p in ('119', '2334') for tile in ('00', '13', '24')]
    mask = read(out / 'masks/119_24.png')
    assert mask.shape == (10, 10) and (mask[:5] == 255).all() and (mask[5:] == 1).all()
    split = get_split(str(out), 0)
    assert split.classes == CLASSES and split.novel == (1, 2, 3, 4, 5, 6) and split.base == ()
    assert 'DeepGlobe: 6 of 72 tiles of 2 images (0 made, 6' in (
        prepare(capsys, 'deepglobe', deepglobe, out)
    )
    message = fails('deepglobe', deepglobe, out, '--unknown', 'background')
    assert "unknown was 'ignored', now 'background'" in message
    prepare(capsys, 'deepglobe', deepglobe, tmp_path / 'b', '--unknown', 'background')
    assert (read(tmp_path / 'b/masks/119_24.png')[:5] == 0).all()


def test_deepglobe_episodes(deepglobe: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'out'
    prepare(capsys, 'deepglobe', deepglobe, out)
    data = episodes(out, 'test', 'novel')
    assert data.num_images == 6
    item = data[2]
    assert item['data_samples'].class_id == 1
    assert int((item['data_samples'].gt_sem_seg.data == 255).sum()) == 50
    with pytest.raises(ValueError, match='has no base classes'):
        episodes(out, 'test', 'base')


def test_deepglobe_bad_input(deepglobe: Path, tmp_path: Path) -> None:
    mask = deepglobe / 'train/119_mask.png'
    save(mask, np.full((60, 60, 3), (255, 0, 0), np.uint8))
    message = fails('deepglobe', deepglobe, tmp_path / 'out')
    assert '119_mask.png has 1 colours outside the class table: [(255, 0, 0)]' in message
    mask.unlink()
    message = fails('deepglobe', deepglobe, tmp_path / 'out')
    assert "1 images have no mask: ['119']; 0 masks have no image" in message
    assert 'only train has masks' in fails('deepglobe', deepglobe / 'valid', tmp_path / 'out')


IDS = {
    'ISIC_0000000': 'nevus',
    'ISIC_0000013': 'melanoma',
    'ISIC_0000022': 'melanoma',
    'ISIC_0000031': 'nevus',
    'ISIC_0015032': 'seborrheic_keratosis',
    'ISIC_0015044': 'seborrheic_keratosis',
}


@pytest.fixture
def isic(tmp_path: Path) -> Path:
    """Six images in the folders of the challenge, and the table."""
    root = tmp_path / 'ISIC'
    for i, name in enumerate(IDS):
        picture(root / f'ISIC2018_Task1-2_Training_Input/{name}.jpg', (16, 20), seed=i)
        mask = np.zeros((16, 20), np.uint8)
        mask[2:8, 3 : 6 + i] = 255
        save(root / f'ISIC2018_Task1_Training_GroundTruth/{name}_segmentation.png', mask)
    rows = ''.join(f'{name},{value}\n' for name, value in IDS.items())
    (root / 'class_id.csv').write_text('ID,Class\n' + rows, encoding='utf-8-sig')
    (root / 'ISIC2018_Task1-2_Training_Input/ATTRIBUTION.txt').write_text('CC-0')
    return root


def test_isic(isic: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'out'
    options = 'isic', isic, out, '--classes', isic / 'class_id.csv'
    summary = prepare(capsys, *options)
    assert 'masks 6 made' in summary
    assert '2 nevus, 2 seborrheic_keratosis, 2 melanoma' in summary
    mask = read(out / 'masks/ISIC_0000022.png')
    assert mask.max() == 3 and (mask == 3).sum() == 6 * 5
    assert 'masks 0 made, 6 complete' in prepare(capsys, *options)
    data = episodes(out, 'test', 'novel')
    assert data.num_images == 6
    assert [data.episode(i).class_id for i in range(6)] == [1, 3, 3, 1, 2, 2]
    assert data.episode(0).supports == ('ISIC_0000031',)


def test_isic_in_folders(isic: Path, tmp_path: Path, capsys) -> None:
    images = isic / 'ISIC2018_Task1-2_Training_Input'
    assert 'give --classes class_id.csv' in fails('isic', isic, tmp_path / 'out')
    order = ['nevus', 'seborrheic_keratosis', 'melanoma']
    for name, value in IDS.items():
        target = images / str(order.index(value) + 1) / f'{name}.jpg'
        target.parent.mkdir(exist_ok=True)
        (images / f'{name}.jpg').rename(target)
    prepare(capsys, 'isic', isic, tmp_path / 'out')
    assert read(tmp_path / 'out/masks/2/ISIC_0015032.png').max() == 2
    assert len(episodes(tmp_path / 'out', 'test', 'novel')) == 6


def test_isic_bad_input(isic: Path, tmp_path: Path, capsys) -> None:
    table, out = isic / 'class_id.csv', tmp_path / 'out'
    options = 'isic', isic, out, '--classes', table
    text = table.read_text(encoding='utf-8-sig')
    table.write_text(text + 'ISIC_0000000,nevus\n')
    assert "ids twice: ['ISIC_0000000']" in fails(*options)
    table.write_text(text.replace('melanoma', 'wart'))
    assert "has the classes ['wart']; classes are ['nevus'" in fails(*options)
    table.write_text(text.replace('ID,', 'image,'))
    assert "must have the columns ID, Class, got ['image', 'Class']" in fails(*options)
    table.write_text(text + 'ISIC_9999999,nevus\n')
    assert "1 of 7 images of" in (message := fails(*options)) and 'ISIC_9999999' in message
    table.write_text(text.replace('ISIC_0000013,melanoma\n', ''))
    truth = isic / 'ISIC2018_Task1_Training_GroundTruth'
    save(truth / 'ISIC_0000000_segmentation.png', np.zeros((16, 20), np.uint8))
    summary = prepare(capsys, *options)
    assert "1 images left out, as their mask is empty: ['ISIC_0000000.jpg']" in summary
    assert '1 images left out, as' in summary and 'has no class for them' in summary


@pytest.fixture
def xray(tmp_path: Path) -> Path:
    """Three radiographs of Shenzhen, one without mask, and two of Montgomery."""
    root = tmp_path / 'Lung Segmentation'
    names = ['CHNCXR_0001_0', 'CHNCXR_0002_0', 'CHNCXR_0025_0', 'MCUCXR_0001_0', 'MCUCXR_0104_1']
    for i, name in enumerate(names):
        grey = np.random.default_rng(i).integers(0, 256, (60, 50), dtype=np.uint8)
        save(root / f'CXR_png/{name}.png', grey)
        mask = np.zeros((60, 50), np.uint8)
        mask[10:40, 4:20], mask[10:40, 30:46] = 255, 255
        ending = '' if name.startswith('MCU') else '_mask'
        if name != 'CHNCXR_0025_0':
            save(root / f'masks/{name}{ending}.png', mask)
    return root


def test_chest_xray(xray: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'out'
    summary = prepare(capsys, 'chest_xray', xray, out, '--side', 30)
    assert 'Chest X-ray: 2 made, 0 complete already' in summary
    assert '2 images of shenzhen' in summary
    assert '1 images left out, as they have no mask' in summary
    image, mask = (read(out / f'{k}/CHNCXR_0002_0.png') for k in ('images', 'masks'))
    assert image.shape == (30, 25, 3)
    truth = np.zeros((30, 25), np.uint8)
    truth[5:20, 2:10], truth[5:20, 15:23] = 1, 1
    np.testing.assert_array_equal(mask, truth)
    grey = read(xray / 'CXR_png/CHNCXR_0002_0.png').reshape(30, 2, 25, 2).mean((1, 3))
    assert np.abs(image[..., 0] - grey).max() <= 1  # rounded along each side
    (out / 'images/CHNCXR_0001_0.png').unlink()
    both = 'chest_xray', xray, out, '--side', 30, '--subsets', 'shenzhen', 'montgomery'
    summary = prepare(capsys, *both)
    assert 'Chest X-ray: 3 made, 1 complete already' in summary
    assert '2 images of shenzhen, 2 images of montgomery' in summary
    data = episodes(out, 'test', 'novel')
    assert data.num_images == 4 and data[3]['inputs']['query'].shape == (3, 30, 25)


def test_chest_xray_at_full_size(xray: Path, tmp_path: Path, capsys) -> None:
    prepare(capsys, 'chest_xray', xray, tmp_path / 'out')
    grey = read(xray / 'CXR_png/CHNCXR_0001_0.png')
    image = read(tmp_path / 'out/images/CHNCXR_0001_0.png')
    np.testing.assert_array_equal(image, np.stack([grey] * 3, -1))


def test_chest_xray_bad_input(xray: Path, tmp_path: Path) -> None:
    (xray / 'CXR_png/CHNCXR_0001_0.png').unlink()
    save(xray / 'masks/CHNCXR_0002_0_mask.png', np.zeros((50, 60), np.uint8))
    message = fails('chest_xray', xray, tmp_path / 'out')
    assert '2 of 2 failed' in message and 'image not found' in message
    assert 'CHNCXR_0002_0_mask.png is 60 x 50 pixels (width x height), its image 50 x 60' in message
    save(xray / 'masks/CHNCXR_0002_0.png', np.zeros((60, 50), np.uint8))
    message = fails('chest_xray', xray, tmp_path / 'out')
    assert "two masks of one image: ['CHNCXR_0002_0']" in message
    assert 'at least 1 pixel, got 0' in fails('chest_xray', xray, tmp_path / 'out', '--side', 0)
    assert 'has CXR_png and masks' in fails('chest_xray', tmp_path, tmp_path / 'out')
