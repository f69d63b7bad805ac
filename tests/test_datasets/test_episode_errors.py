"""Broken files, odd images and failing pipelines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from episode_cases import LIST, SUPPORT, TEST, TRAIN, build, digest
from mmengine.dataset import pseudo_collate
from PIL import Image
from torch.utils.data import DataLoader


def break_image(root, image):
    path = root / f'JPEGImages/{image}.jpg'
    path.write_bytes(path.read_bytes()[:200])


def break_mask(root, image):
    path = root / f'SegmentationClassAug/{image}.png'
    path.write_bytes(path.read_bytes()[:-30])


def remove_image(root, image):
    (root / f'JPEGImages/{image}.jpg').unlink()


def other_size(root, image):
    Image.fromarray(np.ones((9, 9), np.uint8)).save(root / f'SegmentationClassAug/{image}.png')


@pytest.mark.parametrize(
    'harm, error, message',
    [
        (break_image, ValueError, r'cannot read image file .*{}\.jpg'),
        (break_mask, ValueError, r'cannot read mask file .*{}\.png'),
        (remove_image, FileNotFoundError, r'image file not found: .*{}\.jpg'),
        (other_size, ValueError, r'mask .*{}\.png is 9 x 9 pixels .* its image .*{}\.jpg is'),
    ],
)
@pytest.mark.parametrize('who', ['query', 'support'])
def test_a_broken_file_ends_the_run_with_its_path(voc, harm, error, message, who):
    dataset = build(voc, scarce_classes='drop')
    episode = dataset.episode(0)
    image = episode.query if who == 'query' else episode.supports[0]
    harm(voc, image)
    with pytest.raises(error, match=message.replace('{}', image)):
        dataset[0]


def test_a_broken_file_is_named_from_a_data_worker(voc):
    dataset = build(voc, scarce_classes='drop')
    image = dataset.episode(0).query
    break_image(voc, image)
    items = iter(DataLoader(dataset, num_workers=1, collate_fn=pseudo_collate))
    with pytest.raises(ValueError, match=rf'cannot read image file .*{image}\.jpg'):
        next(items)
    items._shutdown_workers()  # left to the garbage collector it takes five seconds


def test_support_that_loses_its_object(big_voc):
    tiny = [*SUPPORT[:3], dict(type='Resize', scale=(1, 1))]
    dataset = build(big_voc, support_pipeline=tiny)
    with pytest.raises(
        ValueError,
        match=r'support mask .*\.png has no pixel of \w+ left after '
        r'the support pipeline; raise min_area',
    ):
        for i in range(24):
            dataset[i]


class Vanish:
    """Loses the object in two of three cases."""

    def __call__(self, results):
        if np.random.rand() < 2 / 3:
            results['gt_seg_map'][:] = 0
        return results


def test_support_augmentation_is_redrawn(big_voc):
    dataset = build(big_voc, support_pipeline=[*SUPPORT, Vanish()])
    assert all((dataset[i]['inputs']['support_mask'] == 1).any() for i in range(10))
    assert digest(dataset[2]) == digest(dataset[2])


def test_a_failing_transform_names_the_file(big_voc):
    def fail(results):
        raise RuntimeError('too much')

    dataset = build(big_voc, support_pipeline=[*SUPPORT, fail])
    image = dataset.episode(0).supports[0]
    with pytest.raises(
        ValueError,
        match=rf'a transform failed on .*{image}\.jpg with mask .*'
        rf'{image}\.png: RuntimeError: too much',
    ):
        dataset[0]


def odd_images(root):
    """Grey, 16-bit, RGBA, palette and one-pixel-wide images, all of the first class."""
    for folder in ('JPEGImages', 'SegmentationClassAug', 'ImageSets/Segmentation'):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (30, 20), dtype=np.uint8)
    images = dict(
        grey=Image.fromarray(grey),
        deep=Image.fromarray(grey.astype(np.uint16) * 257),
        alpha=Image.fromarray(rng.integers(0, 256, (30, 20, 4), dtype=np.uint8)),
        palette=Image.fromarray(grey).convert('P'),
        wide=Image.fromarray(grey[:1]),
        high=Image.fromarray(grey[:, :1]),
        line=Image.fromarray(np.zeros((1, 900), np.uint8)),
    )
    for name, image in images.items():
        image.save(root / f'JPEGImages/{name}.png')
        label = np.ones(image.size[::-1], np.uint8)
        Image.fromarray(label).save(root / f'SegmentationClassAug/{name}.png')
    (root / LIST).write_text('\n'.join(images))
    return dict(type='PascalVOCFewShot', data_root=str(root), ann_file=LIST, img_suffix='.png')


@pytest.mark.parametrize('pipelines', [(TRAIN, TRAIN), (TEST, SUPPORT)])
def test_odd_images_are_read(tmp_path, pipelines):
    dataset = build(
        tmp_path,
        dataset=odd_images(tmp_path / 'VOC'),
        shots=2,
        min_area=1,
        query_pipeline=pipelines[0],
        support_pipeline=pipelines[1],
        num_episodes=None,
    )
    for i in range(7):
        query = dataset.episode(i).query
        try:
            inputs = dataset[i]['inputs']
        except ValueError as error:  # a line of 900 x 1 cannot be scaled down to a side of 40
            assert pipelines[0] is TRAIN
            assert 'a transform failed on' in str(error) and 'line.png' in str(error)
            assert (
                'the image is too thin to be resized: 1 x 900 pixels (height x width), and its '
                'short side would be scaled to 0; remove it from the list'
            ) in str(error)
            continue
        assert inputs['query'].shape == (3, 32, 32) and (inputs['support_mask'] == 1).any()
        if pipelines[0] is TEST and query in ('grey', 'deep', 'wide', 'high'):
            assert torch.equal(inputs['query'][0], inputs['query'][2])


@pytest.mark.parametrize('pipeline', [[*TEST, lambda results: None], TEST[:2], []])
def test_pipeline_that_gives_no_image_or_label(big_voc, pipeline):
    dataset = build(big_voc, query_pipeline=pipeline)
    with pytest.raises(ValueError, match=r'gave no image and label for .*\.jpg; it needs LoadIm'):
        dataset[0]


def test_supports_of_different_sizes(big_voc):
    dataset = build(big_voc, shots=2, support_pipeline=SUPPORT[:3], num_episodes=200)
    with pytest.raises(ValueError, match=r'must have one size, got .*end the support pipeline'):
        for i in range(200):
            dataset[i]
