"""Files of fixed episodes: read, refused, frozen and replayed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from config_cases import CONFIGS
from test_datasets.conftest import write_voc

from mmfss.commands import freeze_episodes as freezing
from mmfss.datasets.class_index import ClassIndex
from mmfss.datasets.folds import get_split
from mmfss.datasets.published_episodes import read_episodes

PASCAL = get_split('pascal-5i', 1)
IMAGES = [f'2007_{i:06d}' for i in range(1449)]


@pytest.fixture(scope='module')
def index():
    """Every image of val shows one novel class of fold 1 and one that is not."""
    return ClassIndex({name: {6 + i % 5: 3000, 1: 10} for i, name in enumerate(reversed(IMAGES))})


def write(path, shots=2, **changes):
    """Two episodes; image i of the sorted list shows class 6 + (1448 - i) % 5."""
    arrays = {'query': [3, 10], 'class': [6, 9], 'support': [[8, 13], [0, 5]]}
    arrays.update(changes)
    start = f'pascal.fold1.{shots}shot.'
    np.savez(path, **{start + key: np.array(value) for key, value in arrays.items()})
    return path


def test_positions_are_those_of_the_sorted_list(index, tmp_path):
    first, second = read_episodes(write(tmp_path / 'e.npz'), PASCAL, 2, index)
    assert (first.index, first.class_id, first.query) == (0, 6, '2007_000003')
    assert first.supports == ('2007_000008', '2007_000013')
    assert (second.class_id, second.supports) == (9, ('2007_000000', '2007_000005'))


def test_images_of_coco_go_by_their_ids(tmp_path):
    names = {f'COCO_val2014_{i:012d}': {1: 5000} for i in (42, 73, 574769)}
    arrays = {'query': [73], 'class': [1], 'support': [[574769]]}
    start = 'coco.fold0.1shot.'
    np.savez(tmp_path / 'c.npz', **{start + k: np.array(v, np.int32) for k, v in arrays.items()})
    (one,) = read_episodes(tmp_path / 'c.npz', get_split('coco-20i', 0), 1, ClassIndex(names))
    assert (one.query, one.supports) == (
        'COCO_val2014_000000000073',
        ('COCO_val2014_000000574769',),
    )


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'query': [4, 10]},
            r'episode 0 of .* class 6 and images \[4, 8, 13\].*images \[4\] are not',
        ),
        ({'query': [2000, 10]}, r'images \[2000\] are not there or do not show the class'),
        ({'class': [1, 9]}, r'of class 1 .*the fold has the classes \[6, 7, 8, 9, 10\]'),
        ({'query': [8, 10]}, r'episode 0 of'),
        ({'support': [[8], [0]]}, r'must be \(N,\), \(N,\) and \(N, 2\), got .*\(2, 1\)'),
    ],
)
def test_episodes_that_do_not_fit_the_data(index, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read_episodes(write(tmp_path / 'e.npz', **changes), PASCAL, 2, index)


def test_files_of_no_use(index, tmp_path):
    path = write(tmp_path / 'e.npz')
    with pytest.raises(FileNotFoundError, match='file of episodes not found'):
        read_episodes(tmp_path / 'none.npz', PASCAL, 2, index)
    with pytest.raises(
        ValueError, match=r'has no pascal.fold1.5shot.query.*it has pascal.fold1.2s'
    ):
        read_episodes(path, PASCAL, 5, index)
    with pytest.raises(ValueError, match='are of pascal-5i, coco-20i, the config is of shapes-5i'):
        read_episodes(path, get_split('shapes-5i', 1), 2, index)
    fewer = ClassIndex(dict(list(index.areas.items())[:1448]))
    with pytest.raises(ValueError, match='the 1449 of VOC 2012 val, and the data .* have 1448'):
        read_episodes(path, PASCAL, 2, fewer)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match='e.npz is damaged or no .npz file of arrays'):
        read_episodes(path, PASCAL, 2, index)
    np.savez(path, **{'pascal.fold1.2shot.query': np.array([print], object)})
    with pytest.raises(ValueError, match='is damaged or no .npz file of arrays'):
        read_episodes(path, PASCAL, 2, index)


def test_frozen_from_the_file_and_replayed(tmp_path, monkeypatch):
    """On data of as many images as VOC val has."""
    monkeypatch.setattr('mmfss.datasets.published_episodes._VAL_IMAGES', 40)
    root = write_voc(tmp_path / 'VOC2012')
    monkeypatch.setenv('DATA_ROOT', str(root))
    config = str(CONFIGS / 'fs_sam2_pascal_1shot.py')
    dataset = 'test_dataloader.dataset'
    common = ['--cfg-options', f'{dataset}.dataset.ann_file=ImageSets/Segmentation/train.txt',
              f'{dataset}.min_area=1', f'{dataset}.scarce_classes=drop']  # fmt: skip
    drawn, out, arrays = tmp_path / 'drawn.json', tmp_path / 'frozen.json', tmp_path / 'e.npz'
    freezing.main([config, str(drawn), '--fold', '1', '--episodes', '6', *common])
    rows = json.loads(drawn.read_text())['episodes']
    place = {f'im{i:03d}': i for i in range(40)}
    start = 'pascal.fold1.1shot.'
    np.savez(arrays, **{
        f'{start}class': np.array([row[0] for row in rows]),
        f'{start}query': np.array([place[row[1]] for row in rows]),
        f'{start}support': np.array([[place[row[2]]] for row in rows]),
    })  # fmt: skip
    args = [config, str(out), '--fold', '1', '--published', str(arrays)]
    freezing.main([*args, '--episodes', '5', *common])
    content = json.loads(out.read_text())
    assert content['episodes'] == rows[:5] and content['protocol']['sampler'] == 'published'
    assert content['protocol']['published']['name'] == 'e.npz'
    assert json.loads(drawn.read_text())['protocol']['sampler'] == 'fs_sam2'
    for more, message in (
        (['--episodes', '7'], '--episodes is 7, and .*e.npz has 6 of fold 1, 1-shot'),
        (['--seed', '3'], '--seed and --sampler have no effect on the episodes of'),
    ):
        with pytest.raises(ValueError, match=message):
            freezing.main([*args, *more, *common])
