"""Supports are read by the reader of ``prepare folder``: its layouts, options and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from PIL import Image

from mmfss.apis import FewShotInferencer
from mmfss.apis.support import SupportSet
from mmfss.apis.support_annotations import PROPOSED
from mmfss.apis.support_folder import Reading, read_support
from mmfss.commands.command_lines import CheckArguments, LabelArguments, parse
from mmfss.commands.label import reading_of

S, SHAPE = tiny_models.SIZE, (40, 60)


@pytest.fixture(scope='module')
def inferencer() -> FewShotInferencer:
    return FewShotInferencer(tiny_models.build(), device='cpu')


def photo(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=95)
    return path


def box(i: int) -> np.ndarray:
    """bool (H, W), 20 x 20 somewhere."""
    y, x = np.random.default_rng(i).integers(0, 20, 2)
    mask = np.zeros(SHAPE, bool)
    mask[y : y + 20, x : x + 20] = True
    return mask


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def outline(mask: np.ndarray) -> list[list[float]]:
    (y, y2), (x, x2) = ((int(v.min()), int(v.max()) + 1) for v in np.nonzero(mask))
    return [[x, y], [x2, y], [x2, y2], [x, y2]]


def coco(path: Path, names: list[str], category: int = 3) -> None:
    images = [dict(id=i, file_name=n, height=40, width=60) for i, n in enumerate(names)]
    rows = [
        dict(id=i, image_id=i, category_id=category, segmentation=[sum(outline(box(i)), [])])
        for i in range(len(names))
    ]
    categories = [dict(id=category, name='cup')]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(images=images, annotations=rows, categories=categories)))


# -------------------------------------------------------------------------------- layouts
def parts_by_kind(root: Path) -> list[Path]:
    for i, s in enumerate(('train', 'val')):
        save(root / f'masks/{s}/a.png', box(i) * 255)
    return [photo(root / f'images/{s}/a.jpg', i) for i, s in enumerate(('train', 'val'))]


def mmseg(root: Path) -> list[Path]:
    for i, s in enumerate(('train', 'val')):
        save(root / f'ann_dir/{s}/a.png', box(i))
    return [photo(root / f'img_dir/{s}/a.jpg', i) for i, s in enumerate(('train', 'val'))]


def roboflow_masks(root: Path) -> list[Path]:
    photos = [photo(root / f'{s}/a.jpg', i) for i, s in enumerate(('train', 'valid'))]
    for i, s in enumerate(('train', 'valid')):
        save(root / f'{s}/a_mask.png', box(i) * 4)
        (root / s / '_classes.csv').write_text('Pixel Value, Class\n0, background\n4, cup\n')
    return photos


def roboflow_coco(root: Path) -> list[Path]:
    photos = [photo(root / f'train/{i}.jpg', i) for i in range(2)]
    coco(root / 'train/_annotations.coco.json', ['0.jpg', '1.jpg'])
    return photos


def labelme(root: Path) -> list[Path]:
    photos = [photo(root / f'any/{i}.jpg', i) for i in range(2)]
    for i, path in enumerate(photos):
        shape = dict(label='cup', points=outline(box(i)), shape_type='polygon')
        content = dict(shapes=[shape], imagePath=path.name, imageHeight=40, imageWidth=60)
        path.with_suffix('.json').write_text(json.dumps(content))
    return photos


def tails(root: Path) -> list[Path]:
    for i in range(2):
        save(root / f'cup/{i}_mask.png', box(i) * 255)
    return [photo(root / f'cup/{i}.jpg', i) for i in range(2)]


def by_mask_folder(root: Path) -> list[Path]:
    for i in range(2):
        save(root / f'masks/cup/{i}.png', box(i) * 255)
    return [photo(root / f'images/{i}.jpg', i) for i in range(2)]


def voc(root: Path) -> list[Path]:
    for i in range(2):
        save(root / f'SegmentationClass/{i}.png', box(i)[..., None] * np.array([51, 221, 255]))
    (root / 'labelmap.txt').write_text('background:0,0,0::\ncup:51,221,255::\n')
    return [photo(root / f'JPEGImages/{i}.jpg', i) for i in range(2)]


def in_parts_by_class(root: Path) -> list[Path]:
    for i, s in enumerate(('train', 'val')):
        save(root / f'{s}/cup/{i}.png', np.dstack([box(i)] * 3) * 255)
    return [photo(root / f'{s}/cup/{i}.jpg', i) for i, s in enumerate(('train', 'val'))]


def behind_links(root: Path) -> list[Path]:
    disk = root.with_name('disk')
    for i in range(2):
        photo(disk / f'{i}.jpg', i)
        save(disk / f'{i}.png', box(i) * 255)
    root.mkdir()
    (root / 'cup').symlink_to(disk)
    (disk / 'up').symlink_to(root)
    return [root / f'cup/{i}.jpg' for i in range(2)]


@pytest.mark.parametrize(
    'make, name',
    [
        (parts_by_kind, 'object'),
        (mmseg, 'object'),
        (roboflow_masks, 'cup'),
        (roboflow_coco, 'cup'),
        (labelme, 'cup'),
        (tails, 'cup'),
        (by_mask_folder, 'cup'),
        (voc, 'cup'),
        (in_parts_by_class, 'cup'),
        (behind_links, 'cup'),
    ],
)
def test_layouts(tmp_path, inferencer, make, name):
    photos = make(tmp_path / 'in')
    support, prompted = read_support(tmp_path / 'in', inferencer)
    wanted = SupportSet.build({name: [(path, box(i)) for i, path in enumerate(photos)]}, S)
    assert support.classes == (name,) and prompted == []
    assert [shot.source for shot in support.shots[name]] == list(map(str, photos))
    for shot, other in zip(support.shots[name], wanted.shots[name]):
        np.testing.assert_array_equal(shot.image, other.image)
        np.testing.assert_array_equal(shot.mask, other.mask)


# -------------------------------------------------------------------------------- options
def test_annotations_and_images_elsewhere(tmp_path, inferencer):
    photos = [photo(tmp_path / f'photos/{i}.jpg', i) for i in range(2)]
    coco(tmp_path / 'export/some.json', [f'old\\place\\{i}.jpg' for i in range(2)])
    (tmp_path / 'in').mkdir()
    reading = Reading(images=tmp_path / 'photos', annotations=tmp_path / 'export/some.json')
    support, _ = read_support(tmp_path / 'in', inferencer, reading=reading)
    assert [shot.source for shot in support.shots['cup']] == list(map(str, photos))
    assert support.account.count() == 2  # found by the ends of their names


def test_black_objects(tmp_path, inferencer):
    for i in range(2):
        photo(tmp_path / f'cup/{i}.jpg', i)
        save(tmp_path / f'cup/{i}.png', ~box(i) * 255)
    with pytest.raises(ValueError, match='in 2 of 2 masks of cup 255 covers most .* --object-val'):
        read_support(tmp_path, inferencer)
    support, _ = read_support(tmp_path, inferencer, reading=Reading(object_value=0))
    wanted = SupportSet.build({'cup': [(tmp_path / 'cup/1.jpg', box(1))]}, S)
    np.testing.assert_array_equal(support.shots['cup'][1].mask, wanted.shots['cup'][0].mask)


@pytest.mark.parametrize('command', ['label', 'check'])
def test_the_options_of_the_commands(command, tmp_path):
    first = ['in', 'photos', 'out'] if command == 'label' else ['in']
    arguments = LabelArguments if command == 'label' else CheckArguments
    assert reading_of(parse(arguments, first).reading) == Reading()
    options = '--layout coco --annotations a.json --support-images b --object-value 0'
    options = f'{options} --exif stored --crowd ignored --units percent'
    found = reading_of(parse(arguments, [*first, *options.split()]).reading)
    assert found == Reading(
        'coco', Path('b'), Path('a.json'), 0, exif='stored', crowd='ignored', units='percent'
    )


# ------------------------------------------------------------------------------- refusals
def test_palettes_that_contradict_each_other(tmp_path, inferencer):
    (tmp_path / 'masks').mkdir()
    for i in range(2):
        photo(tmp_path / f'images/{i}.jpg', i)
        image = Image.fromarray(box(i).astype(np.uint8))
        image.putpalette([0, 0, 0, *((255, 0, 0) if i else (0, 0, 255))])
        image.save(tmp_path / f'masks/{i}.png')
    (tmp_path / 'classes.txt').write_text('cat\ndog\n')
    with pytest.raises(ValueError, match='value 1 has 2 colours .* in 1 masks .* in 1 masks'):
        read_support(tmp_path, inferencer)


def test_names_of_splits_beside_classes(tmp_path, inferencer):
    for name in ('bus', 'train'):
        photo(tmp_path / f'{name}/0.jpg')
        save(tmp_path / f'{name}/0.png', box(0))
    with pytest.raises(ValueError, match='train are names of splits, which are never classes'):
        read_support(tmp_path, inferencer)


def test_a_photo_without_annotations_is_left_out(tmp_path, inferencer):
    for i in range(3):
        photo(tmp_path / f'images/{i}.jpg', i)
    coco(tmp_path / 'annotations.json', ['0.jpg', '1.jpg', '2.jpg'])
    content = json.loads((tmp_path / 'annotations.json').read_text())
    del content['annotations'][1]
    (tmp_path / 'annotations.json').write_text(json.dumps(content))
    support, _ = read_support(tmp_path, inferencer)
    assert len(support.shots['cup']) == 2
    assert [row.file for _, row in support.account] == [str(tmp_path / 'images/1.jpg')]


def test_rectangles_alone_are_prompts(tmp_path, inferencer):
    """As boxes alone are in COCO format."""
    photos = labelme(tmp_path / 'in')
    for i, path in enumerate(photos):
        points = outline(box(i))[::2]
        shape = dict(label='cup', points=points, shape_type='rectangle')
        content = dict(shapes=[shape], imagePath=path.name, imageHeight=40, imageWidth=60)
        path.with_suffix('.json').write_text(json.dumps(content))
    support, prompted = read_support(tmp_path / 'in', inferencer)
    assert prompted == list(map(str, photos)) and len(support.shots['cup']) == 2
    what = [row.what for reason, row in support.account if reason is PROPOSED]
    assert what == ['shape 1 of 0.json', 'shape 1 of 1.json']


@pytest.mark.parametrize(
    'content, tool',
    [
        (dict(shapes=[], imagePath='', version=''), 'LabelMe'),
        ([dict(id=1, data={}, annotations=[])], 'Label Studio'),
        (dict(item={}, annotations=[]), 'V7 Darwin'),
    ],
)
def test_files_of_tools_in_the_place_of_prompts(tmp_path, inferencer, content, tool):
    photo(tmp_path / 'cup/0.jpg')
    save(tmp_path / 'cup/0.png', box(0))
    photo(tmp_path / 'cup/1.jpg', 1)
    (tmp_path / 'cup/1.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f'1.json is .*{tool}'):
        read_support(tmp_path, inferencer)


def test_prompts_beside_files_of_labelme(tmp_path, inferencer):
    labelme(tmp_path / 'in')
    photo(tmp_path / 'in/any/p.jpg')
    (tmp_path / 'in/any/p.json').write_text('{"box": [1, 2, 30, 30]}')
    with pytest.raises(ValueError, match='p.json is a prompt and .*0.json is of LabelMe'):
        read_support(tmp_path / 'in', inferencer)
