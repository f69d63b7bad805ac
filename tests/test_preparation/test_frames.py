"""Which pixels of a photo annotations are of: upright, stored, and how that is told."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from coco_cases import SHAPE, coco_folder, same, stored, write
from own_folders import corners
from PIL import Image, ImageOps
from prepared_checks import episodes, fails, prepare, save

from mmfss.datasets.account import Account
from mmfss.datasets.preparation.frames import Photo, read_frame, turned, upright_mask

pytest.importorskip('pycocotools')
QUARTER = (5, 6, 7, 8)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('form', ['PNG', 'TIFF', 'JPEG'])
def test_pixels_are_turned_as_viewers_turn_them(tmp_path, orientation, form):
    pixels = np.random.default_rng(0).integers(0, 255, (6, 10), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f'x.{form.lower()}'
    Image.fromarray(pixels).save(path, form, exif=exif)
    data = io.BytesIO(path.read_bytes())
    upright = np.asarray(ImageOps.exif_transpose(Image.open(data)))
    if form == 'PNG':
        np.testing.assert_array_equal(turned(pixels, orientation), upright)
        np.testing.assert_array_equal(stored(upright, orientation), pixels)
    photo = read_frame(path)
    assert (photo.stored, photo.orientation) == ((6, 10), orientation)
    assert photo.upright == upright.shape == turned(pixels, orientation).shape
    assert photo.size_tells == (orientation in QUARTER)


def test_the_frame_of_a_size():
    photo = Photo('x.jpg', (30, 40), 6)
    for said, exif, frame in (
        (None, None, 'upright'),
        ((40, 30), None, 'upright'),
        ((30, 40), None, 'stored'),
        ((30, 41), None, None),
        ((30, 40), 'upright', None),
        (None, 'stored', 'stored'),
        ((40, 30), 'stored', None),
    ):
        assert photo.frame(said, exif) == frame, (said, exif)
    assert Photo('x.jpg', (30, 30), 6).frame((30, 30), None) == 'upright'


def test_masks_become_upright():
    photo = Photo('x.jpg', (3, 5), 8)
    mask = np.random.default_rng(0).integers(0, 2, (5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(upright_mask(mask, photo), mask)
    np.testing.assert_array_equal(upright_mask(stored(mask, 8), photo), mask)
    with pytest.raises(ValueError, match=r'is 3 x 5 .* its image x\.jpg is 5 x 3; .*orientation 8'):
        upright_mask(mask, photo, 'stored')
    with pytest.raises(ValueError, match=r'the mask is 4 x 4 .* must be equal; .* --exif stored'):
        upright_mask(np.zeros((4, 4), np.uint8), photo)


@pytest.mark.parametrize('orientation', range(2, 9))
@pytest.mark.parametrize('code', [False, True])
def test_annotations_of_turned_photos(tmp_path, capsys, orientation, code):
    """As the label tools write them, and of the stored pixels: the same masks, upright."""
    for frame in ('upright', 'stored'):
        src, out = tmp_path / frame, tmp_path / f'{frame}_out'
        _, masks = coco_folder(src, orientation=orientation, frame=frame, code=code)
        tells = orientation in QUARTER
        options = () if tells or frame == 'upright' else ('--exif', 'stored')
        said = prepare(capsys, 'folder', src, out, *options)
        same(out, masks)
        assert ('its stored pixels, as sizes say' in said) == (tells and frame == 'stored')
        assert ('taken to be of it as shown' in said) == (not tells and frame == 'upright')


@pytest.mark.parametrize('orientation', QUARTER)
def test_sizes_of_stored_pixels_beside_outlines_of_the_upright_photo(tmp_path, capsys, orientation):
    """What Label Studio exports: refused with what to say, then read."""
    content, masks = coco_folder(tmp_path / 'src', orientation=orientation, shape=(90, 60))
    for image in content['images']:
        image.update(height=60, width=90)
    for annotation in content['annotations']:
        annotation.update(bbox=[0, 0, 1, 1], area=1.0)
    write(tmp_path / 'src', content)
    said = fails('folder', tmp_path / 'src', tmp_path / 'out')
    assert re.search(
        r'4 outlines do not fit the frame that sizes say, .*annotation 0 in 0\.png', said
    )
    assert '--exif upright' in said and not (tmp_path / 'out').exists()
    prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out', '--exif', 'upright')
    same(tmp_path / 'out', masks)


def test_outlines_that_fit_both_frames(tmp_path, capsys):
    """Sizes say stored, and nothing says that the outlines are, too: a person must."""
    shape = (90, 60)
    content, masks = coco_folder(tmp_path / 'src', orientation=6, shape=shape)
    for image, annotation in zip(content['images'], content['annotations']):
        mask = np.zeros(shape, bool)
        mask[10:40, 5:35] = True
        image.update(height=60, width=90)
        annotation.update(segmentation=[corners(mask)], bbox=None, area=None)
        masks[image['file_name']] = mask
    write(tmp_path / 'src', content)
    said = fails('folder', tmp_path / 'src', tmp_path / 'out')
    assert 'sizes of 4 photos that EXIF turns are those of their stored pixels, but' in said
    prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out', '--exif', 'upright')
    same(tmp_path / 'out', masks)


def test_one_turned_photo_among_others(tmp_path):
    content, _ = coco_folder(tmp_path / 'src', number=8, shape=(90, 60))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ('2.png', '5.png'):
        with Image.open(tmp_path / 'src/images' / name) as image:
            pixels = np.asarray(image)
        Image.fromarray(stored(pixels, 6)).save(tmp_path / 'src/images' / name, exif=exif)
        content['images'][int(name[0])].update(height=60, width=90)
    write(tmp_path / 'src', content)
    said = fails('folder', tmp_path / 'src', tmp_path / 'out')
    assert '2 outlines do not fit the frame that sizes say' in said
    assert 'annotation 2 in 2.png, annotation 5 in 5.png' in said


@pytest.mark.parametrize('orientation, frame', [(6, 'upright'), (6, 'stored'), (3, 'upright')])
def test_mask_files_of_turned_photos(tmp_path, capsys, orientation, frame):
    _, masks = coco_folder(tmp_path / 'src', orientation=orientation)
    (tmp_path / 'src/annotations.json').unlink()
    (tmp_path / 'src/images').rename(tmp_path / 'src/mug')
    for name, mask in masks.items():
        picture = tmp_path / 'src/mug' / name
        picture.rename(picture.with_suffix('.tmp'))
        with Image.open(picture.with_suffix('.tmp')) as image:
            image.save(picture.with_suffix('.jpg'), exif=image.getexif(), quality=95)
        picture.with_suffix('.tmp').unlink()
        drawn = mask if frame == 'upright' else stored(mask, orientation)
        save(picture, drawn * 255)
    said = prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out')
    same(tmp_path / 'out', {f'mug/{name}': mask for name, mask in masks.items()})
    account = Account.read(tmp_path / 'out')
    assert account.count() == (4 if frame == 'stored' or orientation == 3 else 0)
    assert ('left_out.csv' in said) == bool(account)


def test_training_reads_photos_upright(tmp_path, capsys):
    """Image and mask of an episode show the same object at the same place."""
    _, masks = coco_folder(tmp_path / 'src', orientation=6)
    prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out')
    for defer in (False, True):
        data = episodes(tmp_path / 'out', 'all', 'novel', num_episodes=4, defer_images=defer)
        for item in (data[i] for i in range(4)):
            label = item['data_samples'].gt_sem_seg.data[0].numpy()
            query = item['inputs']['query']
            pixels = query[0].read() if defer else query
            image = pixels.permute(1, 2, 0).numpy()
            assert tuple(item['data_samples'].ori_shape) == label.shape == image.shape[:2] == SHAPE
            assert (image[label == 1] == (40, 40, 200)).all() and (image[label == 0] < 80).all()


def test_a_photo_of_another_size_than_said(tmp_path):
    content, _ = coco_folder(tmp_path / 'src')
    content['images'][1].update(height=61)
    write(tmp_path / 'src', content)
    said = fails('folder', tmp_path / 'src', tmp_path / 'out')
    assert '1 of 4 images are of another size than their annotations say.' in said
    assert re.search(
        r'1\.png is 90 x 60 pixels \(width x height\), its annotations are for 90 x 61', said
    )
    for image in content['images']:
        image.update(height=180, width=270)
    write(tmp_path / 'src', content)
    said = fails('folder', tmp_path / 'src', tmp_path / 'out')
    assert 'All are 0.33 times as large, so they were resized after annotation.' in said
    for image in content['images']:
        image.update(height=90, width=60)
    write(tmp_path / 'src', content)
    said = fails('folder', tmp_path / 'src', tmp_path / 'out')
    assert 'Width and height are exchanged in all of them.' in said
