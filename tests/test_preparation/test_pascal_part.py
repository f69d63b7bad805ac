"""PASCAL-Part: the merged parts, objects cut out of .mat files, bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from prepared_checks import episodes, fails, files, picture, prepare, read

from mmfss.datasets import get_split
from mmfss.datasets.preparation.pascal_part import CLASSES, FOLDS, MERGED, bounding_box

SHAPE = (40, 50)
savemat = pytest.importorskip('scipy.io', reason='pip install -r requirements/common.txt').savemat


def box_mask(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """uint8 (40, 50), 1 inside."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def struct(rows: list[dict]) -> np.ndarray:
    """A MATLAB struct array (1, n); (0, 0) for none, as in the release."""
    if not rows:
        return np.zeros((0, 0))
    out = np.empty((1, len(rows)), [(key, object) for key in rows[0]])
    for i, row in enumerate(rows):
        for key, value in row.items():
            out[0, i][key] = value
    return out


def write_mat(file: Path, objects: list[tuple[str, np.ndarray, dict[str, np.ndarray]]]) -> None:
    """An annotation: ``(class, silhouette, {part: mask})`` per object."""
    rows = [
        {
            'class': kind,
            'class_ind': np.uint8(3),
            'mask': mask,
            'parts': struct([dict(part_name=n, mask=m) for n, m in parts.items()]),
        }
        for kind, mask, parts in objects
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    savemat(file, dict(anno=struct([dict(imname=file.stem, objects=struct(rows))])))


@pytest.fixture
def download(tmp_path: Path) -> Path:
    """VOCdevkit: two images to train on, three to test on."""
    root = tmp_path / 'VOCdevkit'
    lists = {
        'train': ['2008_000001', '2008_000002'],
        'val': ['2008_000003', '2009_000004', '2010_5'],
    }
    for split, names in lists.items():
        file = root / f'VOC2010/ImageSets/Main/{split}.txt'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('\n'.join(names) + '\n')
        for i, name in enumerate(names):
            picture(root / f'VOC2010/JPEGImages/{name}.jpg', SHAPE, seed=i)
            bird = {
                'head': box_mask(5, 9, 10, 14),
                'beak': box_mask(6, 8, 8, 10),
                'lwing': box_mask(10, 14, 10, 20),
                'rwing': box_mask(16, 18, 10, 20),
                'lfoot': box_mask(20, 22, 12, 13),
            }
            car = {
                'frontside': box_mask(25, 35, 30, 40),
                'wheel_1': box_mask(33, 36, 31, 34),
                'wheel_2': box_mask(33, 36, 36, 39),
                'headlight_1': box_mask(27, 28, 31, 32),
            }
            objects = [
                ('bird', box_mask(5, 22, 8, 20), bird),
                ('boat', box_mask(0, 3, 0, 9), {}),
                ('car', box_mask(25, 36, 30, 41), car),
            ]
            if name == '2010_5':
                objects = [('boat', box_mask(0, 3, 0, 9), {})]
            write_mat(root / f'Annotations_Part/{name}.mat', objects)
    return root


def test_the_56_classes() -> None:
    assert [sum(map(len, objects.values())) for objects in FOLDS.values()] == [31, 4, 5, 16]
    assert len(set(CLASSES)) == 56
    parts = [part for group in MERGED.values() for part in group]
    assert len(set(parts)) == len(parts)
    assert set(MERGED['leg']) == {
        *('lleg', 'llleg', 'luleg', 'lfoot', 'rleg', 'rlleg', 'ruleg', 'rfoot'),
        *('lbleg', 'lblleg', 'lbuleg', 'lbho', 'lfleg', 'lflleg', 'lfuleg', 'lfho'),
        *('rbleg', 'rblleg', 'rbuleg', 'rbho', 'rfleg', 'rflleg', 'rfuleg', 'rfho'),
    }
    assert set(MERGED['armhand']) == {'lhand', 'llarm', 'luarm', 'rhand', 'rlarm', 'ruarm'}


def test_boxes_leave_out_the_last_row_and_column() -> None:
    assert bounding_box(box_mask(5, 22, 8, 20)) == (5, 21, 8, 19)
    assert bounding_box(box_mask(5, 6, 8, 9)) == (5, 6, 8, 9)


def test_objects(download: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'out'
    summary = prepare(capsys, 'pascal_part', download, out)
    # per image 3 masks of the bird, 2 of the car and 2 pictures; headlights, boats: none
    assert 'val: 4 objects with a part in 3 images; files 14 made, 0 complete' in summary
    assert 'fold 0: 31 novel classes, 2 images of train, 2 images of val' in summary
    lines = (out / 'splits/val.txt').read_text().splitlines()
    face, leg, wings = (CLASSES.index(f'bird:{part}') + 1 for part in ('face', 'leg', 'wings'))
    assert (face, leg, wings) == (1, 2, 6)
    assert lines[0] == f'2008_000003_1.png\t{face} {leg} {wings}'
    assert lines[1].startswith('2008_000003_3.png\t')
    source = read(download / 'VOC2010/JPEGImages/2008_000003.jpg')
    np.testing.assert_array_equal(read(out / 'images/2008_000003_1.png'), source[5:21, 8:19])
    mask = read(out / f'masks/{face}/2008_000003_1.png')
    truth = np.zeros((16, 11), np.uint8)
    truth[0:4, 2:6], truth[1:3, 0:2] = 1, 1
    np.testing.assert_array_equal(mask, truth)
    wheels = read(out / f'masks/{CLASSES.index("car:wheel") + 1}/2008_000003_3.png')
    assert wheels.shape == (10, 10) and wheels.sum() == 2 * 2 * 3  # the last row is outside
    split = get_split(str(out), 3)
    assert split.novel_names[:2] == ('aeroplane:body', 'aeroplane:engine')
    assert len(split.base) == 40


def test_resumes_and_draws_episodes(download: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'out'
    prepare(capsys, 'pascal_part', download, out)
    before = files(out / 'masks')
    (out / 'masks/1/2008_000003_1.png').unlink()
    summary = prepare(capsys, 'pascal_part', download, out)
    assert 'val: 4 objects with a part in 3 images; files 1 made, 13 complete already' in summary
    assert {k: v[1] for k, v in before.items()} == {
        k: v[1] for k, v in files(out / 'masks').items()
    }
    data = episodes(out, 'val', 'novel', num_episodes=20, scarce_classes='drop')
    assert {data.episode(i).class_id for i in range(20)} == {1, 2, 6}
    assert data[0]['inputs']['query'].shape == (3, 16, 11)


def test_bad_input(download: Path, tmp_path: Path) -> None:
    parts, out = download / 'Annotations_Part', tmp_path / 'out'
    (parts / '2008_000001.mat').unlink()
    file = parts / '2008_000002.mat'
    file.write_bytes(file.read_bytes()[:200])
    message = fails('pascal_part', download, out)
    assert '2 of 2 failed' in message
    assert 'annotation not found' in message and '2008_000001.mat' in message
    assert '2008_000002.mat: it is cut off, or has no anno.objects' in message
    picture(download / 'VOC2010/JPEGImages/2008_000003.jpg', (41, 50))
    message = fails('pascal_part', download, out, '--splits', 'val')
    assert '2008_000003.mat is 50 x 40 pixels (width x height), its image 50 x 41' in message
    parts.rename(download / 'x')
    assert 'unpack trainval.tar.gz of PASCAL-Part' in fails('pascal_part', download, out)
    assert 'ROOT is its VOCdevkit' in fails('pascal_part', tmp_path, out)
