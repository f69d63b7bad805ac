"""FSS-1000: masks, lists of classes, resuming, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from prepared_checks import episodes, fails, files, picture, prepare, read, save

from mmfss.datasets import get_benchmark, get_split
from mmfss.datasets.prepared_dataset import PreparedDataset

NAMES = ['ab_wheel', 'bus', 'cow', 'egg', 'fox']
LISTS = {'trn': ['fox', 'ab_wheel'], 'val': ['cow'], 'test': ['egg', 'bus']}


@pytest.fixture
def download(tmp_path: Path) -> Path:
    """Five classes of ten images, 20 x 24 px; smoothed masks in RGB, as the release has them."""
    root = tmp_path / 'fewshot_data'
    for c, name in enumerate(NAMES):
        for n in range(1, 11):
            picture(root / name / f'{n}.jpg', (20, 24), seed=100 * c + n)
            grey = np.zeros((20, 24), np.uint8)
            grey[4 : 10 + n, 3:9], grey[:, 9], grey[:, 10] = 255, 128, 127
            save(root / name / f'{n}.png', np.stack([grey] * 3, -1))
    for key, names in LISTS.items():
        file = root / 'splits' / f'{key}.txt'
        file.parent.mkdir(exist_ok=True)
        file.write_text('\n'.join(names))
    return root


def test_masks_lists_and_classes(download: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'out'
    summary = prepare(capsys, 'fss1000', download, out)
    assert 'masks 50 made, 0 complete already' in summary
    assert '2 training, 1 validation, 2 test classes (published: (520, 240, 240))' in summary
    split = get_split(str(out), 0)
    assert split.classes == tuple(NAMES)
    assert (split.novel, split.base, split.validation) == ((2, 4), (1, 3, 5), (3,))
    assert get_benchmark(str(out)).min_area == 1
    truth = np.zeros((20, 24), np.uint8)
    truth[4:13, 3:9], truth[:, 9] = 1, 1  # 128 counts, 127 does not
    np.testing.assert_array_equal(read(out / 'masks/2/bus/3.png'), truth)
    lists = {p.stem: p.read_text().splitlines() for p in (out / 'splits').iterdir()}
    assert {key: len(rows) for key, rows in lists.items()} == {'train': 30, 'val': 10, 'test': 20}
    assert lists['test'][:2] == ['bus/1.jpg\t2', 'bus/2.jpg\t2']
    assert lists['test'][9] == 'bus/10.jpg\t2'
    assert len(PreparedDataset(str(out), 'train')) == 30


def test_episodes_are_of_the_test_classes(download: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'out'
    prepare(capsys, 'fss1000', download, out)
    data = episodes(out, 'test', 'novel')
    assert data.num_images == 20
    classes = {data.episode(i).class_id for i in range(20)}
    assert classes == {2, 4}
    item = data[7]
    assert item['data_samples'].gt_sem_seg.data.sum() == 20 + 6 * 14  # 4:18 of the 8th mask
    assert episodes(out, 'train', 'base').num_images == 30
    assert episodes(out, 'val', 'base_val').num_images == 10


def test_the_official_list_alone(download: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / 'fss_test_set.txt').write_text('egg\nbus\n')
    out = tmp_path / 'out'
    prepare(capsys, 'fss1000', download, out, '--splits', tmp_path / 'fss_test_set.txt')
    split = get_split(str(out), 0)
    assert (split.novel, split.base) == ((2, 4), (1, 3, 5))
    assert split.validation == (5,)  # every fifth base class from the third on


def test_an_unchanged_run_keeps_everything(download: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'out'
    prepare(capsys, 'fss1000', download, out)
    before = files(out / 'masks')
    (out / 'masks/2/bus/3.png').write_bytes(before['2/bus/3.png'][1][:-30])  # cut off
    (out / 'masks/2/bus/4.png').unlink()
    assert 'masks 2 made, 48 complete already' in prepare(capsys, 'fss1000', download, out)
    assert 'masks 0 made, 50 complete already' in prepare(capsys, 'fss1000', download, out)
    after = files(out / 'masks')
    assert {k: v[1] for k, v in before.items()} == {k: v[1] for k, v in after.items()}
    assert before['1/ab_wheel/1.png'] == after['1/ab_wheel/1.png']


def test_what_is_left_out_is_said(download: Path, tmp_path: Path, capsys) -> None:
    save(download / 'fox/2.png', np.zeros((20, 24), np.uint8))
    (download / 'egg/9.jpg').unlink()
    (download / 'splits/val.txt').write_text('')
    with pytest.raises(ValueError, match='val.txt is empty'):
        get_benchmark_of(download)
    (download / 'splits/val.txt').write_text('cow\n')
    (download / 'gnu').mkdir()
    out = tmp_path / 'out'
    summary = prepare(capsys, 'fss1000', download, out)
    assert '1 images left out, as their mask has no foreground: fox/2.jpg' in summary
    assert '1 classes without exactly 10 images: egg (9)' in summary
    assert '1 folders left out, as no list names them: gnu' in summary
    assert 'fox/2.jpg' not in (out / 'splits/train.txt').read_text()
    assert json.loads((out / 'dataset.json').read_text())['source']['without_foreground'] == [
        'fox/2.jpg'
    ]


def get_benchmark_of(root: Path):
    from mmfss.datasets.preparation.fss1000 import read_classes

    return read_classes(root, None)[0].benchmark()


def test_bad_masks_are_all_named(download: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    save(download / 'fox/2.png', np.zeros((20, 23), np.uint8))
    (download / 'egg/3.png').unlink()
    (download / 'cow/4.png').write_bytes((download / 'cow/4.png').read_bytes()[:60])
    message = fails('fss1000', download, out)
    assert '3 of 50 failed (47 made, 0 complete already of the others)' in message
    assert 'fox/2.png is 23 x 20 pixels (width x height), its image 24 x 20' in message
    assert 'not found' in message and 'egg/3.png' in message
    assert 'cannot read image file' in message and 'cow/4.png' in message
    assert not (out / 'dataset.json').exists()


def test_bad_lists(download: Path, tmp_path: Path) -> None:
    out, lists = tmp_path / 'out', download / 'splits'
    (lists / 'val.txt').write_text('cow\nbus\n')
    assert "overlap: ['bus']" in fails('fss1000', download, out)
    (lists / 'val.txt').write_text('cow\ngnu\n')
    assert "have no folder in" in (message := fails('fss1000', download, out))
    assert "['gnu']" in message
    (lists / 'val.txt').write_text('cow\ncow\n')
    assert "has lines twice: ['cow']" in fails('fss1000', download, out)
    assert 'give --splits' in fails('fss1000', download, out, '--splits', tmp_path / 'none')
    assert 'unpack fewshot_data' in fails('fss1000', tmp_path / 'none', out)


def test_a_folder_of_other_classes_is_refused(download: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'out'
    prepare(capsys, 'fss1000', download, out)
    for key, names in {'trn': ['fox'], 'val': ['cow'], 'test': ['egg', 'bus']}.items():
        (download / 'splits' / f'{key}.txt').write_text('\n'.join(names))
    message = fails('fss1000', download, out)
    assert 'was begun with other options: classes was' in message
    assert 'choose another output folder' in message
