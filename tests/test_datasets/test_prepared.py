"""Prepared datasets: what is written is what is read, label maps and class masks."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from episode_cases import SUPPORT, TEST
from mmseg.registry import DATASETS
from PIL import Image

from mmfss.datasets.folds import Benchmark, get_split
from mmfss.datasets.prepared import Entry, mask_path, write_description
from mmfss.datasets.prepared_dataset import PreparedDataset
from mmfss.datasets.segmentation import image_files

BENCHMARK = Benchmark('mine', ('cup', 'pen', 'fork'), 1, ((1, 2, 3),), 5)


def prepare(root, kind, number=12):
    """Images with two overlapping rectangles each, of classes 1 + i % 3 and 1 + (i + 1) % 3."""
    rng = np.random.default_rng(0)
    images, entries, truth = root.parent / 'photos', [], {}
    (images / 'sub').mkdir(parents=True)
    for i in range(number):
        name = f'sub/im{i}.png'
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(images / name)
        maps = {
            1 + i % 3: np.zeros((20, 24), np.uint8),
            1 + (i + 1) % 3: np.zeros((20, 24), np.uint8),
        }
        for shift, mask in enumerate(maps.values()):
            mask[2 + 3 * shift : 12, 3 : 9 + i] = 1
        classes = tuple(sorted(maps))
        truth[f'sub/im{i}'] = maps
        if kind == 'class_masks':
            entries.append(Entry(name, classes))
            for class_id, mask in maps.items():
                save(mask_path(root, name, class_id), mask)
        else:
            entries.append(Entry(name))
            label = np.zeros((20, 24), np.uint8)
            for class_id, mask in maps.items():
                label[mask == 1] = class_id
            truth[f'sub/im{i}'] = {c: label == c for c in classes}
            save(mask_path(root, name), label)
    write_description(root, BENCHMARK, kind, images, {'all': entries}, dict(made='here'))
    return truth


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture(params=['label_maps', 'class_masks'])
def prepared(request, tmp_path):
    return tmp_path / 'mine', request.param, prepare(tmp_path / 'mine', request.param)


def episodes(root, **options):
    cfg = dict(
        type='EpisodicDataset',
        benchmark=str(root),
        fold=0,
        split='novel',
        shots=2,
        num_episodes=20,
        dataset=dict(type='PreparedDataset', data_root=str(root), split='all'),
        query_pipeline=TEST,
        support_pipeline=SUPPORT,
    )
    return DATASETS.build({**cfg, **options})


def test_class_index_and_episodes_have_the_true_pixels(prepared):
    root, _, truth = prepared
    dataset = episodes(root)
    assert dataset.split == get_split(root, 0) and dataset.split.benchmark == 'mine'
    assert dataset.index.areas == {
        image: {c: int(m.sum()) for c, m in sorted(maps.items())} for image, maps in truth.items()
    }
    for i in range(20):
        episode, item = dataset.episode(i), dataset[i]
        expected = truth[episode.query][episode.class_id].astype(np.uint8)
        assert (item['data_samples'].gt_sem_seg.data[0].numpy() == expected).all()
        assert item['data_samples'].class_name == BENCHMARK.classes[episode.class_id - 1]


def test_index_is_kept_beside_the_masks(prepared):
    root, *_ = prepared
    episodes(root)
    assert (root / 'class_index_masks_all.json').is_file()


def test_label_maps_are_an_ordinary_mmseg_dataset(tmp_path):
    prepare(tmp_path / 'mine', 'label_maps')
    dataset = PreparedDataset(str(tmp_path / 'mine'), 'all')
    assert dataset.metainfo['classes'] == ('background', 'cup', 'pen', 'fork')
    assert len({tuple(c) for c in dataset.metainfo['palette']}) == 4
    assert dataset[3]['seg_map_path'] == str(tmp_path / 'mine/masks/sub/im3.png')


def test_label_size(prepared):
    root, *_ = prepared
    item = episodes(root, label_size=7)[0]
    assert item['data_samples'].gt_sem_seg.shape == (7, 7)
    assert item['inputs']['query'].shape == (3, 32, 32)
    with pytest.raises(
        ValueError, match="label_size must be 'original', or it must be an integer >= 1, got 0"
    ):
        episodes(root, label_size=0)


def test_unfinished_or_damaged(prepared):
    root, *_ = prepared
    content = json.loads((root / 'dataset.json').read_text())
    with pytest.raises(ValueError, match=r"split of .* must be one of \['all'\], got 'train'"):
        PreparedDataset(str(root), 'train')
    assert len(PreparedDataset(str(root), ['test', 'val', 'all'])) == 12
    lines = (root / 'splits/all.txt').read_text()
    (root / 'splits/all.txt').write_text(lines[:-20])
    with pytest.raises(ValueError, match='run tools/prepare.py again|damaged'):
        PreparedDataset(str(root), 'all').full_init()
    (root / 'splits/all.txt').write_text(lines)
    (root / 'dataset.json').write_text(json.dumps({**content, 'format': 0}))
    with pytest.raises(ValueError, match='was prepared in format 0'):
        PreparedDataset(str(root), 'all')
    (root / 'dataset.json').write_text(json.dumps(content)[:-30])
    with pytest.raises(ValueError, match='dataset.json is damaged .* run tools/prepare.py again'):
        PreparedDataset(str(root), 'all')
    (root / 'dataset.json').unlink()
    with pytest.raises(FileNotFoundError, match='preparation was interrupted; run tools/prepare'):
        episodes(root)


def test_masks_with_values_that_are_not_allowed(prepared):
    root, kind, _ = prepared
    path = mask_path(root, 'sub/im4.png', 2 if kind == 'class_masks' else None)
    save(path, np.full((20, 24), 7, np.uint8))
    allowed = r'1 \(the class\)' if kind == 'class_masks' else r'1\.\.3'
    with pytest.raises(ValueError, match=rf'im4.png has values .*\[7\]; allowed are .*{allowed}'):
        episodes(root)


def test_image_that_is_gone(prepared):
    root, *_ = prepared
    (root.parent / 'photos/sub/im5.png').unlink()
    with pytest.raises(FileNotFoundError, match='1 of 12 images not found in .*im5.png'):
        episodes(root)


def test_what_cannot_be_described(tmp_path):
    names = tuple(f'c{i}' for i in range(255))
    many = Benchmark('many', names, 1, (tuple(range(1, 256)),), 1)
    args = (tmp_path, {'all': []}, {})
    with pytest.raises(ValueError, match='at most 254 classes, got 255; use class masks'):
        write_description(tmp_path, many, 'label_maps', *args)
    with pytest.raises(ValueError, match=r"must be one of \['label_maps', 'class_masks'\]"):
        write_description(tmp_path, many, 'boxes', *args)
    twice = {'all': [Entry('a.jpg'), Entry('a.png')]}
    with pytest.raises(ValueError, match=r"images of one name: \['a'\]"):
        write_description(tmp_path, BENCHMARK, 'label_maps', tmp_path, twice, {})
    assert not (tmp_path / 'dataset.json').exists()


def test_ids_do_not_depend_on_how_the_folder_is_spelt(prepared, monkeypatch):
    """They go into the digest of the data, by which frozen episodes and results are compared."""
    root, *_ = prepared
    monkeypatch.chdir(root.parent)
    spelt = (root, 'mine', './mine', 'mine/', f'{root.parent}//mine', 'mine/../mine')
    files = [image_files(PreparedDataset(str(name), 'all')) for name in spelt]
    assert {tuple(found) for found in files} == {tuple(f'sub/im{i}' for i in range(12))}
    assert len({episodes(name).protocol['data'] for name in spelt}) == 1


def test_image_without_a_class_in_class_masks(tmp_path):
    root = tmp_path / 'mine'
    prepare(root, 'class_masks')
    shutil.copy(tmp_path / 'photos/sub/im0.png', tmp_path / 'photos/none.png')
    found = (root / 'splits/all.txt').read_text().splitlines()
    entries = [Entry('none.png'), *map(Entry.parse, found)]
    write_description(root, BENCHMARK, 'class_masks', root.parent / 'photos', {'all': entries}, {})
    dataset = episodes(root)
    assert len(dataset.index) == 13 and dataset.index.areas['none'] == {}
    assert all('none' not in (e.query, *e.supports) for e in map(dataset.episode, range(20)))
