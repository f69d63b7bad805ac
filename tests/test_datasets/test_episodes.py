from __future__ import annotations

import io
import pickle
import random

import mmengine.dataset.sampler as mm_samplers
import numpy as np
import pytest
import torch
from episode_cases import build, config, digest
from mmengine.dataset import DefaultSampler, InfiniteSampler, pseudo_collate
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from PIL import Image
from torch.utils.data import DataLoader

from mmfss.datasets.folds import FoldSplit, get_split


def unbatch(batch):
    inputs = batch['inputs']
    return [
        dict(inputs={k: v[b] for k, v in inputs.items()}, data_samples=sample)
        for b, sample in enumerate(batch['data_samples'])
    ]


@pytest.mark.parametrize('split', ['base', 'novel'])
@pytest.mark.parametrize('shots', [1, 3])
def test_form_of_an_item(big_voc, split, shots):
    dataset = build(big_voc, split, shots=shots)
    for i in range(len(dataset)):
        item = dataset[i]
        inputs, sample = item['inputs'], item['data_samples']
        assert inputs['query'].shape == (3, 32, 32)
        assert inputs['support'].shape == (shots, 3, 32, 32)
        assert inputs['support_mask'].shape == (shots, 32, 32)
        assert {t.dtype for t in (*inputs.values(), sample.gt_sem_seg.data)} == {torch.uint8}
        assert set(inputs['support_mask'].unique().tolist()) <= {0, 1, 255}
        assert (inputs['support_mask'] == 1).flatten(1).any(1).all()
        size = sample.ori_shape if split == 'novel' else (32, 32)
        assert sample.gt_sem_seg.data.shape == (1, *size)
        assert sample.img_shape == (32, 32) and sample.episode == i and sample.shots == shots
        assert sample.class_name == dataset.split.name(sample.class_id)
        assert len(sample.support_paths) == shots


def test_pixels_of_an_item_by_hand(big_voc):
    dataset = build(big_voc)
    item, episode = dataset[3], dataset.episode(3)
    label = np.asarray(Image.open(big_voc / f'SegmentationClassAug/{episode.query}.png'))
    expected = np.where(label == 255, 255, label == episode.class_id)
    np.testing.assert_array_equal(item['data_samples'].gt_sem_seg.data[0], expected)
    assert item['data_samples'].ori_shape == label.shape
    rgb = np.asarray(Image.open(big_voc / f'JPEGImages/{episode.query}.jpg')).astype(float)
    mean = item['inputs']['query'].float().mean((1, 2))
    np.testing.assert_allclose(mean, rgb.mean((0, 1))[::-1], atol=4)  # BGR


def test_base_images_hold_no_novel_pixel(big_voc):
    dataset = build(big_voc, 'base', num_episodes=300)
    novel = get_split('pascal-5i', 0).novel
    for i in range(300):
        episode = dataset.episode(i)
        for image in (episode.query, *episode.supports):
            label = np.asarray(Image.open(big_voc / f'SegmentationClassAug/{image}.png'))
            assert not np.isin(label, novel).any()
            assert np.count_nonzero(label == episode.class_id) >= 20
    kept = build(big_voc, 'base', exclude_novel_images=False, num_episodes=None)
    assert len(kept) > len(build(big_voc, 'base', num_episodes=None))


@pytest.mark.parametrize('split', ['base', 'novel'])
def test_same_for_any_workers_and_batch_size(big_voc, split):
    dataset = build(big_voc, split)
    expected = [digest(dataset[i]) for i in range(24)]
    for workers, size in ((0, 1), (0, 5), (2, 3)):
        np.random.seed(workers + size)
        loader = DataLoader(
            dataset, batch_size=size, num_workers=workers, collate_fn=pseudo_collate
        )
        assert [digest(item) for batch in loader for item in unbatch(batch)] == expected


@pytest.mark.parametrize('sampler', [DefaultSampler, InfiniteSampler])
def test_same_for_any_number_of_ranks(big_voc, monkeypatch, sampler):
    dataset = build(big_voc, num_episodes=11)
    seen = {}
    for world in (1, 2):
        for rank in range(world):
            monkeypatch.setattr(mm_samplers, 'get_dist_info', lambda r=rank, w=world: (r, w))
            order = iter(sampler(dataset, shuffle=False, seed=0))
            items = [digest(dataset[next(order)]) for _ in range(-(-11 // world))]
            seen.setdefault(world, set()).update(items)
    assert len(seen[1]) == 11 and seen[2] == seen[1]


def test_augmentation_differs_between_episodes_and_seeds(big_voc):
    first = build(big_voc, 'base', num_episodes=400)
    n = first.num_images
    assert len({digest(first[i])[4] for i in range(0, 30)}) == 30
    assert digest(first[0])[4:] != digest(build(big_voc, 'base', seed=6)[0])[4:]
    assert n < 400 and first.episode(0) != first.episode(n)


def test_random_states_are_kept(big_voc):
    dataset = build(big_voc, 'base')
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    dataset[0]
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    with pytest.raises(IndexError, match=r'must be in 0\.\.23, got 24'):
        dataset[24]
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected


def test_runner_builds_it(big_voc):
    cfg = dict(
        dataset=config(big_voc, lazy_init=True),
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        loader = Runner.build_dataloader(cfg, seed=1)
    batch = next(iter(loader))
    assert {k: len(v) for k, v in batch['inputs'].items()} == dict(
        query=2, support=2, support_mask=2
    )
    assert [s.episode for s in batch['data_samples']] == [0, 1]


def test_metainfo_is_plain_and_complete(big_voc):
    meta = build(big_voc, lazy_init=True).metainfo
    split = get_split('pascal-5i', 0)
    assert FoldSplit.from_dict(meta['split']) == split
    assert (meta['benchmark'], meta['fold'], meta['role']) == ('pascal-5i', 0, 'novel')
    assert meta['classes'] == ('background', *split.classes) and len(meta['palette']) == 21
    torch.save(meta, buffer := io.BytesIO())
    buffer.seek(0)
    assert torch.load(buffer, weights_only=True) == meta


def test_dataset_survives_pickling(big_voc):
    dataset = build(big_voc, 'base')
    assert digest(pickle.loads(pickle.dumps(dataset))[4]) == digest(dataset[4])


def test_length(big_voc):
    dataset = build(big_voc, num_episodes=None)
    assert len(dataset) == dataset.num_images < 150
    assert len({dataset.episode(i).query for i in range(len(dataset))}) == dataset.num_images


def test_index_cache_lies_beside_the_masks(voc):
    build(voc, class_index_file='auto', scarce_classes='drop')
    assert (voc / 'class_index_SegmentationClassAug_train.json').is_file()


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(fold=4), r"fold of 'pascal-5i' must be an integer in 0\.\.3, got 4"),
        (dict(fold='x'), r'fold of'),
        (dict(benchmark='voc'), r"benchmark must be one of .*got 'voc'"),
        (
            dict(split='train'),
            r"split must be one of \['base', 'novel', 'base_train', 'base_val'\], got 'train'",
        ),
        (dict(shots=0), r'shots must be an integer >= 1, got 0'),
        (dict(shots=1.0), r'shots must be an integer >= 1, got 1\.0'),
        (dict(shots='1'), r"shots must be an integer >= 1, got '1'"),
        (dict(shots=True), r'shots must be an integer >= 1, got True'),
        (dict(num_episodes=0), r'num_episodes must be an integer >= 1, got 0'),
        (dict(seed=-1), r'seed must be an integer >= 0, got -1'),
        (dict(min_area=0), r'min_area must be an integer >= 1, got 0'),
        (dict(scarce_classes='skip'), r"scarce_classes must be one of \['error', 'drop'\]"),
        (
            dict(benchmark='coco-20i'),
            r'needs a dataset with background and its 80 classes .*got '
            r'PascalVOCFewShot with 21',
        ),
        (dict(shots=40), r'40-shot episodes need 41 images of a class'),
        (dict(min_area=10000), r'no image has at least 10000 pixels'),
    ],
)
def test_arguments_out_of_range(big_voc, options, message):
    with pytest.raises(ValueError, match=message):
        build(big_voc, **options)


@pytest.mark.parametrize(
    'fold, names', [(1, {'cat', 'chair', 'cow'}), (3, {'pottedplant', 'sofa', 'tvmonitor'})]
)
def test_voc_photos_by_loop(shared_dir, fold, names):
    root = shared_dir / 'data/VOCdevkit/VOC2012'
    lines = (root / 'ImageSets/Segmentation/val.txt').read_text().split()
    split = get_split('pascal-5i', fold)
    classes = {}
    for image in lines:
        label = np.asarray(Image.open(root / f'SegmentationClassAug/{image}.png'))
        classes[image] = [c for c in split.novel if (label == c).sum() >= 2048]
    source = dict(
        type='PascalVOCFewShot', data_root=str(root), ann_file='ImageSets/Segmentation/val.txt'
    )
    dataset = build(root, dataset=source, fold=fold, num_episodes=300, min_area=None)
    queries = [image for image in lines if classes[image]]
    seen = set()
    for i in range(300):
        episode = dataset.episode(i)
        assert episode.query == queries[i % len(queries)]
        assert all(episode.class_id in classes[im] for im in (episode.query, *episode.supports))
        assert episode.query not in episode.supports
        seen.add(split.name(episode.class_id))
    assert seen == names
    sample = dataset[0]['data_samples']
    assert (sample.gt_sem_seg.data == 1).sum() >= 2048


def test_fold_without_training_images_says_why(shared_dir):
    root = shared_dir / 'data/VOCdevkit/VOC2012'
    source = dict(
        type='PascalVOCFewShot',
        data_root=str(root),
        ann_file='ImageSets/Segmentation/train_aug_fss.txt',
    )
    with pytest.raises(
        ValueError,
        match=r'no image has at least 2048 pixels in .*'
        r'train_aug_fss\.txt of a base class of pascal-5i fold 1 '
        r'.*exclude_novel_images=False',
    ):
        build(root, 'base', dataset=source, fold=1, min_area=None)
