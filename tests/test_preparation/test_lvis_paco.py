"""LVIS-92i and PACO-Part: classes and folds from the annotations, masks, objects, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from prepared_checks import episodes, fails, files, picture, prepare, read

from mmfss.datasets import get_split
from mmfss.datasets.preparation.paco_part import clipped_box

SHAPE = (30, 40)
coder = pytest.importorskip('pycocotools.mask', reason='pip install -r requirements/common.txt')


def square(top: int, left: int, side: int = 5) -> list[list[float]]:
    """A polygon around side x side pixels."""
    bottom, right = top + side, left + side
    return [[left, top, right, top, right, bottom, left, bottom]]


def rle(polygon: list) -> dict:
    """The same as compressed run-length code."""
    code = coder.merge(coder.frPyObjects(polygon, *SHAPE))
    return dict(size=list(code['size']), counts=code['counts'].decode())


@pytest.fixture
def lvis(tmp_path: Path) -> Path:
    """24 categories: 1..20 in two images of val, 21 in one, 22 in none, 23 in an empty polygon.

    As released: no file_name but coco_url, images of val in both folders.
    """
    root = tmp_path / 'coco'
    names = [f'category_{i}' for i in range(1, 25)]
    categories = [dict(id=i, name=n, frequency='r') for i, n in enumerate(names, 1)]
    for split in ('train', 'val'):
        images, annotations = [], []
        for i in range(4):
            folder = 'val2017' if split == 'val' and i % 2 else 'train2017'
            name = f'{folder}/{"0" * 8}{split == "val":d}{i:03d}.jpg'
            picture(root / name, SHAPE, seed=i)
            url = f'http://images.cocodataset.org/{name}'
            images.append(dict(id=i + 1, coco_url=url, height=SHAPE[0], width=SHAPE[1]))
        for c in range(1, 21):
            for image in (1 + c % 2, 3 + c % 2):
                annotations.append(dict(image_id=image, category_id=c, segmentation=square(c, 2)))
        annotations.append(dict(image_id=4, category_id=21, segmentation=square(3, 3)))
        annotations += [
            dict(image_id=image, category_id=1, segmentation=square(20, 30)) for image in (2, 4)
        ]
        if split == 'train':
            annotations += [
                dict(image_id=image, category_id=24, segmentation=square(9, 9)) for image in (1, 2)
            ]
        for n, annotation in enumerate(annotations, 1):
            annotation['id'] = n
        file = root / f'annotations/lvis_v1_{split}.json'
        file.parent.mkdir(exist_ok=True)
        file.write_text(
            json.dumps(dict(categories=categories, images=images, annotations=annotations))
        )
    return root


def test_lvis(lvis: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'out'
    summary = prepare(capsys, 'lvis92i', lvis, out)
    head = '20 classes in 2 images of val (WARNING: the published benchmark has 920)'
    assert head in summary
    assert 'val: 4 images; files 40 made, 0 complete already' in summary
    assert 'fold 3: 2 novel classes, 2 images of val' in summary
    assert get_split(str(out), 0).novel == (1, 11)
    assert get_split(str(out), 9).novel == (10, 20)
    split = get_split(str(out), 3)
    assert split.novel_names == ('category_4', 'category_14')
    assert split.base == tuple(i for i in range(1, 21) if i not in (4, 14))
    lines = (out / 'splits/val.txt').read_text().splitlines()
    assert lines[1] == 'val2017/000000001001.jpg\t1 3 5 7 9 11 13 15 17 19'
    mask = read(out / 'masks/1/val2017/000000001001.png')  # two instances are one mask
    truth = np.zeros(SHAPE, np.uint8)
    truth[1:6, 2:7], truth[20:25, 30:35] = 1, 1
    np.testing.assert_array_equal(mask, truth)
    data = episodes(out, 'val', 'novel', fold=3, num_episodes=40)
    assert data.num_images == 2
    assert {data.episode(i).class_id for i in range(20)} == {4, 14}
    assert int(data[0]['data_samples'].gt_sem_seg.data.sum()) == 25


def test_lvis_with_train(lvis: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'out'
    prepare(capsys, 'lvis92i', lvis, out)
    before = files(out / 'masks')
    summary = prepare(capsys, 'lvis92i', lvis, out, '--splits', 'train', 'val')
    assert 'val: 4 images; files 0 made, 40 complete already' in summary
    assert 'train: 4 images; files 42 made, 0 complete already' in summary
    assert before.items() <= files(out / 'masks').items()
    split = get_split(str(out), 0)
    assert split.novel == (1, 11) and split.base == (*range(2, 11), *range(12, 21), 24)
    assert episodes(out, 'train', 'base', fold=0, exclude_novel_images=False).num_images == 4


def test_lvis_bad_input(lvis: Path, tmp_path: Path) -> None:
    file, out = lvis / 'annotations/lvis_v1_val.json', tmp_path / 'out'
    text = file.read_text()
    (lvis / 'val2017/000000001001.jpg').unlink()
    picture(lvis / 'train2017/000000001002.jpg', (31, 40))
    message = fails('lvis92i', lvis, out)
    assert '2 of 4 failed' in message and 'image not found' in message
    assert 'is 40 x 31 pixels (width x height), its annotations are of 40 x 30' in message
    message = fails('lvis92i', lvis, out, '--min-images', 3)
    assert 'has 0 classes in 3 images, 10 folds need at least 10' in message
    assert 'must be at least 2' in fails('lvis92i', lvis, out, '--min-images', 1)
    file.write_text(text[:-200])
    assert 'lvis_v1_val.json is cut off' in fails('lvis92i', lvis, out)
    file.write_text(text.replace('"image_id": 4', '"image_id": 44'))
    assert 'annotations whose image_id is not among' in fails('lvis92i', lvis, out)
    file.unlink()
    assert 'unpack lvis_v1_val.json.zip' in fails('lvis92i', lvis, out)
    assert not (out / 'dataset.json').exists()


@pytest.fixture
def paco(tmp_path: Path) -> Path:
    """Two objects with eight parts each; part dog:7 in one image of val, none in val of dog:8."""
    root = tmp_path / 'coco'
    categories = [
        dict(id=1, name='dog', supercategory='OBJECT'),
        dict(id=2, name='car_(automobile)', supercategory='OBJECT'),
        *(dict(id=100 + i, name=f'dog:{i}', supercategory='PART') for i in range(1, 9)),
        *(
            dict(id=200 + i, name=f'car_(automobile):{i}', supercategory='PART')
            for i in range(1, 9)
        ),
    ]
    for split in ('train', 'val'):
        images, rows = [], []
        for i in range(1, 4):
            name = f'train2017/{split == "val":d}{i:011d}.jpg'
            picture(root / name, SHAPE, seed=i)
            images.append(dict(id=i, file_name=name, height=SHAPE[0], width=SHAPE[1]))
            for obj, box in ((1, [4.6, 3.2, 20.0, 22.9]), (2, [25.0, 10.0, 30.0, 15.0])):
                key = len(rows) + 1
                rows.append(_row(key, i, obj, box, square(3, 5, 20), key))
                for part in range(1, 9):
                    if split == 'val' and obj == 1 and (part == 8 or (part == 7 and i > 1)):
                        continue
                    top, left = (3 + part, 5) if obj == 1 else (10 + part, 26)
                    shape = square(top, left, 4)
                    rows.append(_row(len(rows) + 1, i, 100 * obj + part, box, shape, key))
        file = root / f'annotations/paco_lvis_v1/paco_lvis_v1_{split}.json'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(dict(categories=categories, images=images, annotations=rows)))
    return root


def _row(key: int, image: int, category: int, box: list, polygon: list, obj: int) -> dict:
    return dict(
        id=key,
        image_id=image,
        category_id=category,
        bbox=box,
        segmentation=rle(polygon),
        obj_ann_id=obj,
        area=1.0,
        attribute_ids=[],
    )


def test_paco(paco: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'out'
    summary = prepare(capsys, 'paco_part', paco, out)
    assert '16 parts in train (WARNING: the published benchmark has 448)' in summary
    assert '14 of them in 2 images of val (WARNING: the published benchmark has 303)' in summary
    # 3 images: 6 + 6 + 7 masks of dogs, 24 of cars, and 6 pictures of objects
    assert 'val: 6 images; files 49 made, 0 complete already' in summary
    split = get_split(str(out), 2)
    assert split.novel_names == ('dog:3', 'car_(automobile):3', 'car_(automobile):7')
    assert get_split(str(out), 3).novel_names[0] == 'dog:4'
    lines = (out / 'splits/val.txt').read_text().splitlines()
    assert lines[0] == 'train2017/100000000001_1.png\t1 2 3 4 5 6 7'
    source = read(paco / 'train2017/100000000001.jpg')
    image = read(out / 'images/train2017/100000000001_1.png')
    np.testing.assert_array_equal(image, source[3:26, 4:24])
    mask = read(out / 'masks/2/train2017/100000000001_1.png')
    truth = np.zeros((23, 20), np.uint8)
    truth[2:6, 1:5] = 1
    np.testing.assert_array_equal(mask, truth)
    assert 'files 0 made, 49 complete already' in prepare(capsys, 'paco_part', paco, out)
    data = episodes(out, 'val', 'novel', fold=2)
    assert data.num_images == 6
    assert data[0]['inputs']['query'].shape == (3, 23, 20)
    message = fails('paco_part', paco, out, '--whole')
    assert 'whole was False, now True' in message


def test_paco_whole_images(paco: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'out'
    prepare(capsys, 'paco_part', paco, out, '--whole', '--splits', 'val', 'train')
    lines = (out / 'splits/val.txt').read_text().splitlines()
    ids = ' '.join(map(str, [*range(1, 8), *range(9, 17)]))
    assert lines[0] == f'train2017/100000000001.jpg\t{ids}'
    assert read(out / 'masks/2/train2017/100000000001.png').sum() == 16
    assert not (out / 'images').exists()
    assert get_split(str(out), 0).base == (2, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15, 16)
    assert len(episodes(out, 'train', 'base', exclude_novel_images=False)) == 3


def test_paco_bad_input(paco: Path, tmp_path: Path) -> None:
    file = paco / 'annotations/paco_lvis_v1/paco_lvis_v1_val.json'
    content = json.loads(file.read_text())
    content['annotations'][1]['obj_ann_id'] = 999
    file.write_text(json.dumps(content))
    message = fails('paco_part', paco, tmp_path / 'a')
    assert 'the object 999 of part annotation 2 is not among those of image 1' in message
    content['annotations'][1]['obj_ann_id'] = 1
    content['annotations'][2]['segmentation']['size'] = [40, 30]
    file.write_text(json.dumps(content))
    message = fails('paco_part', paco, tmp_path / 'b')
    assert '1 of 6 failed' in message and 'segmentation of annotation 3 is wrong' in message
    (paco / 'annotations/paco_lvis_v1/paco_lvis_v1_train.json').unlink()
    assert 'unpack paco_lvis_v1.zip' in fails('paco_part', paco, tmp_path / 'b')


@pytest.mark.parametrize(
    'bbox, box',
    [
        ([4.6, 3.2, 20.0, 22.9], (3, 26, 4, 24)),
        ([25.0, 10.0, 30.0, 15.0], (10, 25, 25, 40)),
        ([-2.0, -1.0, 1.0, 0.5], (0, 1, 0, 1)),
        ([39.9, 29.9, 0.05, 0.05], (29, 30, 39, 40)),
    ],
)
def test_boxes_stay_in_the_image(bbox: list, box: tuple) -> None:
    assert clipped_box(bbox, SHAPE) == box
