from __future__ import annotations

import cv2
import numpy as np
import pytest
from mmseg.registry import TRANSFORMS
from PIL import Image

from mmfss.datasets.episode_loading import compose
from mmfss.datasets.transforms import (
    LoadImage,
    RandomBlur,
    RandomCropKeepObject,
    RandomRotateNearest,
    check_reduced,
)


def results(image, label):
    return dict(
        img=image,
        gt_seg_map=label,
        seg_fields=['gt_seg_map'],
        img_path='a.jpg',
        img_shape=image.shape[:2],
        ori_shape=image.shape[:2],
    )


def scene(height, width, box, seed=0):
    """An image whose first channel holds the label, so that both can be compared after."""
    label = np.zeros((height, width), np.uint8)
    label[box] = 1
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[..., 0] = label
    return results(image, label)


def write(tmp_path, shape=(6, 5)):
    image = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    label = np.random.default_rng(1).choice(np.array([0, 3, 4, 255], np.uint8), shape)
    Image.fromarray(image).save(tmp_path / 'a.png')
    Image.fromarray(label).save(tmp_path / 'm.png')
    return (
        image,
        label,
        dict(img_path=str(tmp_path / 'a.png'), seg_map_path=str(tmp_path / 'm.png'), label_value=3),
    )


def apply(*types):
    steps = [TRANSFORMS.build(dict(type=t) if isinstance(t, str) else t) for t in types]

    def run(data):
        for step in steps:
            data = step(data)
        return data

    return run


def test_load_and_binarise(tmp_path):
    image, label, data = write(tmp_path)
    out = apply('LoadImage', 'LoadLabel', 'BinarizeLabel')(data)
    np.testing.assert_array_equal(out['img'], image[..., ::-1])
    assert out['ori_shape'] == out['img_shape'] == (6, 5)
    assert out['seg_fields'] == ['gt_seg_map'] and out['gt_seg_map'].dtype == np.uint8
    for y in range(6):
        for x in range(5):
            expected = {3: 1, 255: 255}.get(int(label[y, x]), 0)
            assert out['gt_seg_map'][y, x] == expected


def test_label_of_another_size(tmp_path):
    data = write(tmp_path, shape=(5, 6))[2]
    with pytest.raises(ValueError, match=r'm\.png is 5 x 6 pixels .*a\.png is 6 x 5'):
        apply('LoadImage', 'LoadLabel')(data)


def test_label_before_the_image(tmp_path):
    with pytest.raises(ValueError, match='put LoadImage before it'):
        apply('LoadLabel', 'LoadImage')(write(tmp_path)[2])


def test_label_loaded_after_the_resize_keeps_its_size(tmp_path):
    _, label, data = write(tmp_path)
    out = apply('LoadImage', dict(type='Resize', scale=(32, 16)), 'LoadLabel')(data)
    assert out['img'].shape == (16, 32, 3) and out['img_shape'] == (16, 32)
    np.testing.assert_array_equal(out['gt_seg_map'], label)


def test_upstream_transforms_keep_label_values(tmp_path):
    data = write(tmp_path)[2]
    run = apply(
        'LoadImage',
        'LoadLabel',
        'BinarizeLabel',
        dict(type='RandomResize', scale=(64, 64), ratio_range=(0.9, 1.1), keep_ratio=True),
        dict(type='RandomRotate', prob=1, degree=10),
        'RandomBlur',
        dict(type='RandomFlip', prob=1.0),
        dict(type='RandomCropKeepObject', crop_size=48),
        dict(type='Resize', scale=(40, 40)),
    )
    out = run(data)
    assert out['gt_seg_map'].dtype == np.uint8 and out['gt_seg_map'].shape == (40, 40)
    assert set(np.unique(out['gt_seg_map'])) == {0, 1, 255}


def test_blur():
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        RandomBlur(1)(dict(img=image))['img'], cv2.GaussianBlur(image, (5, 5), 0)
    )
    assert RandomBlur(0)(dict(img=image))['img'] is image
    np.random.seed(0)
    blurred = sum(RandomBlur()(dict(img=image))['img'] is not image for _ in range(400))
    assert 160 < blurred < 240
    with pytest.raises(ValueError, match=r'prob of RandomBlur must be in 0\.\.1, got 2'):
        RandomBlur(2)
    with pytest.raises(ValueError, match='kernel_size of RandomBlur must be odd, got 4'):
        RandomBlur(0.5, 4)


def test_blur_of_a_width_that_is_drawn():
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    np.random.seed(3)
    found = [RandomBlur(1, 5, (0.1, 2.0))(dict(img=image))['img'] for _ in range(50)]
    np.random.seed(3)
    for one in found:
        np.random.random()
        width = np.random.uniform(0.1, 2.0)
        np.testing.assert_array_equal(one, cv2.GaussianBlur(image, (5, 5), width))
    for sigma in ((0, 1), (2.0, 1.0), (1.0,)):
        with pytest.raises(ValueError, match=r'sigma of RandomBlur must be None or \(lowest'):
            RandomBlur(1, 5, sigma)


def test_rotation_takes_each_pixel_from_the_image_before():
    """By an angle for image and label; corners are filled."""
    rng = np.random.default_rng(0)
    label = rng.integers(1, 3, (40, 60), dtype=np.uint8)
    image = np.repeat(label[..., None] * 100, 3, axis=2)
    np.random.seed(1)
    turn = RandomRotateNearest(prob=1.0, degree=10, pad_val=0, seg_pad_val=0)
    out = turn(results(image, label))
    assert set(np.unique(out['img'])) == {0, 100, 200}  # no mixture
    np.testing.assert_array_equal(out['img'][..., 0], out['gt_seg_map'] * 100)
    assert out['gt_seg_map'][0, 0] == 0 and not np.array_equal(out['gt_seg_map'], label)
    angles = [turn.generate_degree()[1] for _ in range(2000)]
    assert -10 <= min(angles) < -9.9 and 9.9 < max(angles) <= 10
    still = RandomRotateNearest(prob=0.0, degree=10)(results(image, label))
    assert still['img'] is image


def test_crop_is_a_window_of_image_and_label():
    np.random.seed(0)
    for _ in range(20):
        data = scene(30, 40, np.s_[5:12, 20:30])
        original = data['img']
        out = RandomCropKeepObject(16)(data)
        assert out['img'].shape == (16, 16, 3) and out['img_shape'] == (16, 16)
        np.testing.assert_array_equal(out['img'][..., 0], out['gt_seg_map'])
        windows = np.lib.stride_tricks.sliding_window_view(original, (16, 16, 3))
        assert (windows == out['img']).all((2, 3, 4, 5)).any()


def test_crop_keeps_the_object():
    np.random.seed(0)
    kept = [
        RandomCropKeepObject(32, max_tries=500)(scene(64, 64, np.s_[50:60, 3:13]))[
            'gt_seg_map'
        ].sum()
        for _ in range(50)
    ]
    assert min(kept) >= 85 and max(kept) == 100


def test_crop_takes_the_best_of_its_draws():
    crop = RandomCropKeepObject(8, max_tries=30)
    data = scene(40, 40, np.s_[:, :])  # no window holds 85 %
    np.random.seed(0)
    assert crop(data)['gt_seg_map'].all()
    label = np.tril(np.ones((40, 40), np.uint8))
    np.random.seed(3)
    draws = [(np.random.randint(0, 33), np.random.randint(0, 33)) for _ in range(30)]
    best = max(int(label[t : t + 8, x : x + 8].sum()) for t, x in draws)
    np.random.seed(3)
    out = crop(results(np.zeros((40, 40, 3), np.uint8), label))
    assert out['gt_seg_map'].sum() == best


def test_crop_never_loses_a_small_object():
    for seed, box in enumerate([np.s_[0:1, 0:1], np.s_[299:300, 150:151], np.s_[150:151, 299:300]]):
        np.random.seed(seed)
        out = RandomCropKeepObject(16, max_tries=1)(scene(300, 300, box))
        assert out['gt_seg_map'].sum() == 1
    ring = np.zeros((300, 300), np.uint8)  # its centre is not on the object
    cv2.circle(ring, (150, 150), 140, 1)
    np.random.seed(1)
    for _ in range(20):
        data = results(np.zeros((300, 300, 3), np.uint8), ring)
        assert RandomCropKeepObject(16, max_tries=1)(data)['gt_seg_map'].any()


def test_crop_without_object():
    out = RandomCropKeepObject(16)(scene(20, 20, np.s_[0:0, 0:0]))
    assert out['img'].shape == (16, 16, 3)


@pytest.mark.parametrize('shape', [(10, 12), (10, 40), (40, 10), (1, 1), (16, 16)])
def test_crop_pads_evenly(shape):
    np.random.seed(0)
    data = scene(*shape, np.s_[:, :])
    out = RandomCropKeepObject(16, pad_val=(7, 8, 9))(data)
    assert out['img'].shape == (16, 16, 3) and out['gt_seg_map'].shape == (16, 16)
    inside = out['gt_seg_map'] == 1
    assert inside.sum() == min(shape[0], 16) * min(shape[1], 16)
    assert (out['gt_seg_map'][~inside] == 255).all()
    assert (out['img'][~inside] == (7, 8, 9)).all()
    rows = np.flatnonzero(inside.any(1))
    assert rows[0] == (16 - len(rows)) // 2


@pytest.mark.parametrize(
    'options', [dict(crop_size=0), dict(crop_size=8, keep_ratio=2), dict(crop_size=8, max_tries=0)]
)
def test_crop_arguments(options):
    with pytest.raises(ValueError, match='of RandomCropKeepObject is out of range: [02]'):
        RandomCropKeepObject(**options)


def test_crop_of_a_label_of_another_size():
    data = results(np.zeros((9, 9, 3), np.uint8), np.zeros((8, 9), np.uint8))
    with pytest.raises(ValueError, match=r'one size, got \(9, 9\) and \(8, 9\) for a\.jpg'):
        RandomCropKeepObject(4)(data)


# ------------------------------------------------------------------------------- reduced size
def write_photo(path, size=(800, 600), orientation=1):
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8)).save(path, exif=exif)
    return str(path)


@pytest.mark.parametrize(
    'reduce_to, shape',
    [
        (None, (600, 800)),
        (600, (600, 800)),
        (301, (600, 800)),
        (300, (300, 400)),
        ((200, 150), (150, 200)),
        ((100, 76), (150, 200)),
        ((100, 75), (75, 100)),
        (10, (75, 100)),
        ((800, 10), (600, 800)),
    ],
)
def test_decoded_at_a_reduced_size_never_below_the_target(tmp_path, reduce_to, shape):
    path = write_photo(tmp_path / 'a.jpg')
    found = LoadImage(reduce_to=reduce_to)(dict(img_path=path))
    assert found['img'].shape[:2] == found['img_shape'] == shape
    assert found['ori_shape'] == (600, 800)


def test_reduced_size_is_that_of_the_image_turned_upright(tmp_path):
    path = write_photo(tmp_path / 'a.jpg', orientation=6)
    load = LoadImage(reduce_to=(150, 300), exif_orientation=True)
    found = load(dict(img_path=path))
    assert found['ori_shape'] == (800, 600) and found['img_shape'] == (400, 300)


def test_reduced_images_and_their_labels(tmp_path):
    """Smooth photos come out nearly alike, labels not at all different."""
    path, mask = write_photo(tmp_path / 'a.jpg'), tmp_path / 'a.png'
    Image.fromarray(np.tile(np.arange(800) // 8, (600, 1)).astype(np.uint8)).save(mask)
    found = []
    for reduce_to in (None, 64):
        pipeline = [dict(type='LoadImage', reduce_to=reduce_to), dict(type='LoadLabel')]
        start = dict(img_path=path, seg_map_path=str(mask), seg_fields=[])
        found.append(compose([*pipeline, dict(type='Resize', scale=(64, 64))])(start))
    assert abs(found[0]['img'].astype(int) - found[1]['img']).mean() < 1.5
    np.testing.assert_array_equal(found[0]['gt_seg_map'], found[1]['gt_seg_map'])


def test_other_forms_than_jpeg_are_decoded_whole(tmp_path):
    Image.new('RGB', (800, 600)).save(tmp_path / 'a.png')
    found = LoadImage(reduce_to=8)(dict(img_path=str(tmp_path / 'a.png')))
    assert found['img_shape'] == (600, 800)


@pytest.mark.parametrize(
    'after, got',
    [
        ([], 'nothing'),
        ([dict(type='RandomFlip', prob=0.5)], 'RandomFlip'),
        ([dict(type='Resize', scale_factor=0.5)], r'Resize\(scale=None, keep_ratio=False\)'),
        ([dict(type='Resize', scale=(64, 64), keep_ratio=True)],
         r'Resize\(scale=\(64, 64\), keep_ratio=True\)'),
        ([dict(type='Resize', scale=(65, 64))], r'Resize\(scale=\(65, 64\), keep_ratio=False\)'),
    ],
)  # fmt: skip
def test_reduced_images_go_into_a_fixed_resize(after, got):
    load = [dict(type='LoadImage', reduce_to=64), dict(type='LoadLabel')]
    message = rf'LoadImage\(reduce_to=\(64, 64\)\) must be followed by a Resize .*, got {got}: the'
    with pytest.raises(ValueError, match=message):
        check_reduced([TRANSFORMS.build(transform) for transform in [*load, *after]])


@pytest.mark.parametrize('reduce_to', [0, (64,), (64, 0), 'a', (1.5, 2)])
def test_wrong_reduced_size(reduce_to):
    with pytest.raises(ValueError, match='reduce_to of LoadImage must be None, a side or'):
        LoadImage(reduce_to=reduce_to)
