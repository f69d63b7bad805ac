"""Support sets from folders in three layouts, with prompts; and their picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from PIL import Image

from mmfss.apis import FewShotInferencer
from mmfss.apis.box_masks import BoxMasks
from mmfss.apis.prompts import read_prompt
from mmfss.apis.support import SupportSet
from mmfss.apis.support_folder import Reading, draw_support, read_support
from mmfss.datasets.io import read_photo
from mmfss.datasets.preparation.frames import STORED
from mmfss.visualization.overlays import class_colours

H, W = 40, 60
S = tiny_models.SIZE


@pytest.fixture(scope='module')
def inferencer() -> FewShotInferencer:
    return FewShotInferencer(tiny_models.build(), device='cpu')


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (H, W), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def mask(path: Path, value: int = 255, unknown: int = 0, size: tuple[int, int] = (H, W)) -> Path:
    """An object in rows 10..29, columns 20..39; the first three rows are ``unknown``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros(size, np.uint8)
    values[10:30, 20:40] = value
    values[:3] = unknown
    Image.fromarray(values).save(path)
    return path


def class_folder(root: Path, **shots: int) -> Path:
    for name, number in shots.items():
        for i in range(number):
            photo(root / name / f'{i}.jpg', i)
            mask(root / name / f'{i}.png')
    return root


def equal(a: SupportSet, b: SupportSet) -> None:
    assert a.classes == b.classes and a.image_size == b.image_size
    for one, other in zip(a.shots.values(), b.shots.values()):
        assert [s.shape for s in one] == [s.shape for s in other]
        for x, y in zip(one, other):
            np.testing.assert_array_equal(x.image, y.image)
            np.testing.assert_array_equal(x.mask, y.mask)


def test_a_folder_per_class_is_what_set_support_reads(tmp_path, inferencer):
    """Classes by name, files by name; any K for each."""
    root = class_folder(tmp_path, ring=2, cup=1)
    support, prompted = read_support(root, inferencer)
    assert support.classes == ('cup', 'ring') and prompted == []
    pairs = {
        name: [(root / f'{name}/{i}.jpg', root / f'{name}/{i}.png') for i in range(number)]
        for name, number in (('cup', 1), ('ring', 2))
    }
    equal(support, SupportSet.build(pairs, S))
    assert support.shots['ring'][1].source == str(root / 'ring/1.jpg')


@pytest.mark.parametrize(
    'form', ['{c}/images/0.png {c}/masks/0.png', 'images/{c}/0.jpg masks/{c}/0.png']
)
def test_other_forms_of_the_folder_per_class(tmp_path, inferencer, form):
    for name in ('猫', 'b'):
        image, marked = form.format(c=name).split()
        photo(tmp_path / image)
        mask(tmp_path / marked)
    assert read_support(tmp_path, inferencer)[0].classes == ('b', '猫')


def test_values_of_two_value_masks(tmp_path, inferencer):
    """255 is the object, or 1 with 255 unknown; side by side in one folder."""
    root = class_folder(tmp_path, cup=1)
    photo(root / 'cup/1.jpg')
    mask(root / 'cup/1.png', value=1)
    support, _ = read_support(root, inferencer)
    first, second = (shot.mask for shot in support.shots['cup'])
    np.testing.assert_array_equal(first, second)
    assert np.unique(first).tolist() == [0, 1]
    mask(root / 'cup/1.png', value=1, unknown=255)
    with pytest.raises(ValueError, match=r'255 means unknown in some masks.* 1 masks.*cup/0\.png'):
        read_support(root, inferencer)
    mask(root / 'cup/0.png', value=1)
    support, _ = read_support(root, inferencer)
    assert np.unique(support.shots['cup'][1].mask).tolist() == [0, 1, 255]


@pytest.mark.parametrize(
    'form, png',
    [
        ('{c}/{n}{i}.jpg {c}/{n}{i}.png', False),
        ('{c}/images/{n}{i}.png {c}/masks/{n}{i}.png', True),
        ('images/{c}/{n}{i}.jpg masks/{c}/{n}{i}.png', False),
        ('inner', False),  # the folder not beside images and masks
    ],
)
def test_negatives_of_a_folder(tmp_path, inferencer, form, png):
    """An image alone, one with a mask, one with a prompt; none of them is a support."""
    shots, others = form, form
    if form == 'inner':
        shots, others = (
            '{c}/images/{n}{i}.jpg {c}/masks/{n}{i}.png',
            '{c}/{n}{i}.jpg {c}/{n}{i}.png',
        )
    names = [text.format(c='cup', n='', i=0) for text in shots.split()]
    photo(tmp_path / names[0]), mask(tmp_path / names[1])
    photo(tmp_path / shots.split()[0].format(c='bowl', n='', i=0))
    mask(tmp_path / shots.split()[1].format(c='bowl', n='', i=0))
    alone, marked, prompted = (
        tuple(tmp_path / text.format(c='cup', n='not/', i=i) for text in others.split())
        for i in range(3)
    )
    photo(alone[0], 5)
    photo(marked[0], 6), mask(marked[1])
    photo(prompted[0], 7)
    prompted[1].parent.mkdir(parents=True, exist_ok=True)
    prompted[1].with_suffix('.json').write_text(json.dumps(dict(box=[20, 10, 40, 30])))
    support, from_prompts = read_support(tmp_path, inferencer)
    assert from_prompts == [str(prompted[0])]
    assert support.classes == ('bowl', 'cup') and set(support.negatives) == {'cup'}
    assert [len(some) for some in support.shots.values()] == [1, 1]
    first, second, third = support.negatives['cup']
    wanted = SupportSet.build(
        {'cup': [(marked[0], marked[1])]}, S, negatives={'cup': [alone[0], marked]}
    ).negatives['cup']
    for found, other in zip((first, second), wanted):
        np.testing.assert_array_equal(found.image, other.image)
        np.testing.assert_array_equal(found.mask, other.mask)
    assert (third.mask == 1).any() and third.source == str(prompted[0])


def test_png_negatives_beside_each_other(tmp_path, inferencer):
    """In one folder a PNG without a photo is an image, and a mask that has lost its photo is not
    taken for one."""
    root = class_folder(tmp_path, cup=1)
    photo(root / 'cup/not/a.png')
    assert len(read_support(root, inferencer)[0].negatives['cup']) == 1
    mask(root / 'cup/Not/b.png')
    with pytest.raises(ValueError, match=r'Not/b\.png looks like a mask, and there is no image of'):
        read_support(root, inferencer)


def test_negatives_of_no_class(tmp_path, inferencer):
    root = class_folder(tmp_path, cup=1)
    photo(root / 'bowl/not/a.jpg')
    with pytest.raises(
        ValueError, match=r'1 classes .*: bowl; add .* .those in its folder not are'
    ):
        read_support(root, inferencer)
    photo(root / 'not/a.jpg')
    with pytest.raises(ValueError, match=r'/not is of no class; .* of that class, .*/<class>/not'):
        read_support(root, inferencer)


def test_negatives_alone(tmp_path, inferencer):
    photo(tmp_path / 'cup/not/a.jpg')
    with pytest.raises(
        ValueError, match=r"only images of what .* \(1, in folders 'not'\); mark at"
    ):
        read_support(tmp_path, inferencer)


def test_class_values(tmp_path, inferencer):
    """Each class of an image gets a shot; the other one is background; order of classes.txt."""
    photo(tmp_path / 'images/a.jpg')
    values = np.zeros((H, W), np.uint8)
    values[5:20, 5:30], values[25:38, 30:55], values[0] = 2, 1, 255
    (tmp_path / 'masks').mkdir()
    Image.fromarray(values).save(tmp_path / 'masks/a.png')
    photo(tmp_path / 'images/b.jpg')
    mask(tmp_path / 'masks/b.png', value=2)
    (tmp_path / 'classes.txt').write_text('zebra\nant\n')
    support, _ = read_support(tmp_path, inferencer)
    image = tmp_path / 'images/a.jpg'
    parts = [np.where(values == 255, 255, values == v).astype(np.uint8) for v in (1, 2)]
    second = (tmp_path / 'images/b.jpg', np.array(Image.open(tmp_path / 'masks/b.png')) == 2)
    wanted = {'zebra': [(image, parts[0])], 'ant': [(image, parts[1]), second]}
    equal(support, SupportSet.build(wanted, S))
    (tmp_path / 'classes.txt').write_text('zebra\nant\nbee\n')
    with pytest.raises(ValueError, match='1 classes of .* have no image: bee; add a marked image'):
        read_support(tmp_path, inferencer)
    (tmp_path / 'classes.txt').write_text('zebra\n')
    with pytest.raises(ValueError, match=r'a\.png has 1 unknown values: \[2\]; allowed are 0\.\.1'):
        read_support(tmp_path, inferencer)
    (tmp_path / 'classes.txt').write_text('zebra\nant\n')
    mask(tmp_path / 'masks/b.png', value=0)
    support, _ = read_support(tmp_path, inferencer)
    assert [len(some) for some in support.shots.values()] == [1, 1]
    assert [(reason.text, row.file) for reason, row in support.account] == [
        ('image in which no class is marked: left out', str(tmp_path / 'images/b.jpg'))
    ]


def test_a_photo_is_decoded_once(tmp_path, inferencer, monkeypatch):
    """For both of its classes, and for its prompt and its shot."""
    values = np.zeros((H, W), np.uint8)
    values[5:20, 5:30], values[25:38, 30:55] = 2, 1
    photo(tmp_path / 'values/images/a.jpg')
    (tmp_path / 'values/masks').mkdir()
    Image.fromarray(values).save(tmp_path / 'values/masks/a.png')
    (tmp_path / 'values/classes.txt').write_text('zebra\nant\n')
    photo(tmp_path / 'classes/cup/b.jpg')
    (tmp_path / 'classes/cup/b.json').write_text('{"box": [10, 5, 50, 35]}')
    photo(tmp_path / 'classes/cup/not/c.jpg')
    decoded = []

    def read(path, *rest):
        decoded.append(Path(path).name)
        return read_photo(path, *rest)

    monkeypatch.setattr('mmfss.apis.images.read_photo', read)
    for folder in ('values', 'classes'):
        read_support(tmp_path / folder, inferencer)
    assert decoded == ['a.jpg', 'b.jpg', 'c.jpg']


def test_coco(tmp_path, inferencer):
    """Overlapping classes each keep their whole mask; a crowd is unknown where that is said."""
    pytest.importorskip('pycocotools')
    photo(tmp_path / 'images/a.jpg')
    boxes = [(1, 7, (5, 5, 30, 30)), (2, 3, (20, 10, 50, 35)), (3, 3, (52, 0, 58, 5))]
    annotations = [
        dict(
            id=key,
            image_id=1,
            category_id=category,
            segmentation=[[x1, y1, x2, y1, x2, y2, x1, y2]],
        )
        for key, category, (x1, y1, x2, y2) in boxes
    ]
    annotations[2]['iscrowd'] = 1
    categories = [dict(id=3, name='zebra'), dict(id=7, name='ant')]
    images = [dict(id=1, file_name='a.jpg', height=H, width=W)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (tmp_path / 'annotations.json').write_text(json.dumps(content))
    support, _ = read_support(tmp_path, inferencer, reading=Reading(crowd='ignored'))
    zebra, ant = np.zeros((2, H, W), np.uint8)
    zebra[0:5, 52:58] = 255
    zebra[10:35, 20:50], ant[5:30, 5:30] = 1, 1
    image = tmp_path / 'images/a.jpg'
    equal(support, SupportSet.build({'zebra': [(image, zebra)], 'ant': [(image, ant)]}, S))


def test_a_turned_photo_is_read_upright(tmp_path, inferencer):
    """Its mask belongs to what viewers show: 60 high and 40 wide."""
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(tmp_path / 'cup/0.jpg', exif=exif)
    mask(tmp_path / 'cup/0.png', size=(W, H))
    support, _ = read_support(tmp_path, inferencer)
    assert support.shots['cup'][0].shape == (W, H)
    mask(tmp_path / 'cup/0.png')  # of the stored pixels, as its size says
    turned, _ = read_support(tmp_path, inferencer)
    assert turned.shots['cup'][0].shape == (W, H)
    assert [reason.text for reason in turned.account.rows] == [STORED.text]
    with pytest.raises(
        ValueError, match=r'the mask of .*0\.jpg is 60 x 40.*image .* is 40 x 60.*EXIF'
    ):
        read_support(tmp_path, inferencer, reading=Reading(exif='upright'))


def test_prompts(tmp_path, inferencer):
    """A prompt in the place of a mask; with both, the mask counts."""
    root = class_folder(tmp_path, cup=2)
    (root / 'cup/1.png').unlink()
    for i in range(2):
        (root / f'cup/{i}.json').write_text('{"box": [10, 5, 50, 35]}')
    support, prompted = read_support(root, inferencer)
    assert prompted == [str(root / 'cup/1.jpg')]
    proposal = BoxMasks(inferencer).propose(root / 'cup/1.jpg', read_prompt(root / 'cup/1.json'))
    pairs = [(root / 'cup/0.jpg', root / 'cup/0.png'), (root / 'cup/1.jpg', proposal.mask)]
    equal(support, SupportSet.build({'cup': pairs}, S))
    (root / 'cup/1.json').write_text('{"box": [10, 5, 50, 41]}')
    with pytest.raises(ValueError, match=r'prompt .*1\.json of .*1\.jpg: the box must be'):
        read_support(root, inferencer)
    (root / 'cup/1.json').unlink()
    with pytest.raises(ValueError, match=r'1 images have no mask.*1\.jpg.*a prompt x\.json may'):
        read_support(root, inferencer)


def test_a_png_beside_a_prompt_is_the_photo(tmp_path, inferencer):
    root = class_folder(tmp_path, cup=1)
    photo(root / 'cup/2.png', 2)
    (root / 'cup/2.json').write_text('{"box": [10, 5, 50, 35]}')
    support, prompted = read_support(root, inferencer)
    assert prompted == [str(root / 'cup/2.png')]
    assert [Path(shot.source).name for shot in support.shots['cup']] == ['0.jpg', '2.png']


def test_a_support_file(tmp_path, inferencer):
    support, _ = read_support(class_folder(tmp_path / 'in', cup=2, ring=1), inferencer)
    support.save(tmp_path / 'support.safetensors')
    again, prompted = read_support(tmp_path / 'support.safetensors', inferencer)
    equal(again, support)
    assert prompted == []


def empty(root: Path) -> None:
    root.mkdir()


def class_without_images(root: Path) -> None:
    class_folder(root, cup=1)
    (root / 'ring').mkdir()


def lone_mask(root: Path) -> None:
    mask(class_folder(root, cup=1) / 'cup/5.png')


def other_size(root: Path) -> None:
    mask(class_folder(root, cup=1) / 'cup/0.png', size=(H, W + 1))


def empty_mask(root: Path) -> None:
    mask(class_folder(root, cup=1) / 'cup/0.png', value=0)


def grey_edges(root: Path) -> None:
    mask(class_folder(root, cup=1) / 'cup/0.png', value=7)


def swapped_palette(root: Path) -> None:
    file = class_folder(root, cup=1) / 'cup/0.png'
    picture = Image.fromarray(np.asarray(Image.open(file)) // 255, 'P')
    picture.putpalette([255, 255, 255, 0, 0, 0])
    picture.save(file)


def truncated_photo(root: Path) -> None:
    file = class_folder(root, cup=1) / 'cup/0.jpg'
    file.write_bytes(file.read_bytes()[:400])


def same_name(root: Path) -> None:
    class_folder(root, cup=1, Cup=1)


def called_background(root: Path) -> None:
    class_folder(root, background=1)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (empty, 'has no folder of a class; expected one of: a folder per class'),
        (class_without_images, '1 classes of .* have no image: ring; add a marked image of each'),
        (lone_mask, r'1 masks have no image in .*cup/5\.png'),
        (other_size, r'the mask of .*cup/0\.jpg is 61 x 40 pixels.*image .* is 60 x 40'),
        (empty_mask, r'the mask of .*cup/0\.jpg marks no pixel as object'),
        (grey_edges, r'the mask of .*cup/0\.jpg has the values \[0, 7\]'),
        (swapped_palette, r'mask .*cup/0\.png has a palette in which the background'),
        (truncated_photo, r'cannot read image file .*cup/0\.jpg'),
        (same_name, 'differ by case or spaces alone'),
        (called_background, "'background' cannot be a class"),
    ],
)
def test_bad_folders(tmp_path, inferencer, make, message):
    make(tmp_path / 'in')
    with pytest.raises(ValueError, match=message):
        read_support(tmp_path / 'in', inferencer)


def test_nothing_there(tmp_path, inferencer):
    with pytest.raises(FileNotFoundError, match='support file .*none not found'):
        read_support(tmp_path / 'none', inferencer)


def pairs(*sizes: tuple[int, int]) -> list:
    found = []
    for height, width in sizes:
        marked = np.zeros((height, width), bool)
        marked[height // 4 : height // 2, width // 4 : width // 2] = True
        found.append((np.full((height, width, 3), 100, np.uint8), marked))
    return found


def test_picture():
    """One row: caption of 24 pixels, panels 176 high with gaps of 4, each of its proportions."""
    support = SupportSet.build({'a': pairs((100, 100), (100, 400), (352, 88))}, S)
    picture = draw_support(support)
    assert picture.dtype == np.uint8
    assert picture.shape == (24 + 176 + 4, 4 + 176 + 4 + 352 + 4 + 44 + 4, 3)
    colour = np.array(class_colours(1)[1][::-1])  # BGR, as predictions have it
    inside = picture[24 + 66, 4 + 66]
    np.testing.assert_allclose(inside, 0.45 * 100 + 0.55 * colour, atol=1)
    assert picture[24 + 44, 4 + 60].tolist() == colour.tolist()  # the outline
    assert picture[24 + 150, 4 + 150].tolist() == [75] * 3  # dull
    assert (picture[24 + 90 :, 4 + 176 + 4 : 4 + 176 + 356] == picture[-1, -1]).all()  # 88 high


def test_picture_of_negatives():
    """A row of their own, marked in black."""
    positives = pairs((100, 100))
    negatives = {'a': [positives[0], positives[0][0]]}
    support = SupportSet.build({'a': positives}, S, negatives=negatives)
    picture = draw_support(support)
    assert picture.shape == (2 * (24 + 176 + 4), 4 + 2 * (176 + 4), 3)
    row = 24 + 176 + 4
    assert picture[row + 24 + 66, 4 + 66].tolist() == [45] * 3  # 0.45 of 100
    assert picture[row + 24 + 44, 4 + 60].tolist() == [0] * 3  # the outline
    assert picture[row + 24 + 150, 4 + 180 + 150].tolist() == [45] * 3  # all of the second


def test_many_shots_wrap_and_are_capped():
    support = SupportSet.build({'a': pairs(*[(50, 50)] * 23), 'b': pairs((50, 50))}, S)
    picture = draw_support(support)  # 7 in a line of 1280; 20 of 23 in three lines
    assert picture.shape[:2] == (2 * 24 + 4 * 180, 4 + 7 * 180)
