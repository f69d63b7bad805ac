"""What labelling tools export: read as it is meant, or named."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import re

import numpy as np
import pytest
from own_folders import SHAPE, blob, corners
from PIL import Image
from prepared_checks import fails, files, picture, prepare, read, save

from mmfss.datasets.folds import get_benchmark
from mmfss.datasets.prepared import Entry, mask_path

pytest.importorskip('pycocotools')
H, W = SHAPE


def dump(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def masks(out, image) -> dict[str, np.ndarray]:
    """``{class: bool mask}`` of a prepared image, whatever the form."""
    names = get_benchmark(str(out)).classes
    for line in (out / 'splits/all.txt').read_text(encoding='utf-8').splitlines():
        entry = Entry.parse(line)
        if f'/{entry.image}'.endswith(f'/{image}'):
            if entry.classes:
                files_of = {c: mask_path(out, entry.image, c) for c in entry.classes}
                return {names[c - 1]: read(path) == 1 for c, path in files_of.items()}
            labels = read(mask_path(out, entry.image))
            return {name: labels == c for c, name in enumerate(names, 1) if (labels == c).any()}
    raise AssertionError(image)


# ------------------------------------------------------------------------------ COCO's names
def coco(src, names, stored=None, file='annotations.json', categories=(('cup', 1),), first=0):
    """A blob of each category in each image; ``stored``: where the images are."""
    images, annotations = [], []
    for i, name in enumerate(names):
        path = src / (stored[i] if stored else f'images/{name}')
        picture(path, SHAPE, i)
        images.append(dict(id=i, file_name=name, height=H, width=W))
        for k, (_, category) in enumerate(categories):
            mask = blob(10 * (i + first) + k, 1)
            annotations.append(
                dict(id=len(annotations), image_id=i, category_id=category, iscrowd=0,
                     segmentation=[corners(mask)])
            )  # fmt: skip
    rows = [dict(id=key, name=name) for name, key in categories]
    dump(src / file, dict(images=images, annotations=annotations, categories=rows))


@pytest.mark.parametrize(
    'name, stored, said',
    [
        ('a_{i}.jpg', 'images/a_{i}.jpg', False),
        ('./a_{i}.jpg', 'images/a_{i}.jpg', False),
        ('images/a_{i}.jpg', 'images/a_{i}.jpg', False),
        ('b/a_{i}.jpg', 'images/b/a_{i}.jpg', False),
        ('a_{i}.jpg', 'images/b/a_{i}.jpg', True),
        ('images\\a_{i}.jpg', 'images/a_{i}.jpg', True),
        ('C:\\Users\\me\\b\\a_{i}.jpg', 'images/b/a_{i}.jpg', True),
        ('/home/me/photos/b/a_{i}.jpg', 'images/b/a_{i}.jpg', True),
        ('../../media/upload/7/ab12cd34-a_{i}.jpg', 'images/ab12cd34-a_{i}.jpg', True),
        ('../../media/upload/7/ab12cd34-a_{i}.jpg', 'images/a_{i}.jpg', True),
        ('a_{i}.jpg', 'images/0f12cd34-a_{i}.jpg', True),
        ('my%20pics/a%20{i}.jpg', 'images/my pics/a {i}.jpg', True),
        ('100%_{i}.jpg', 'images/100%_{i}.jpg', False),
        ('http://host:8080/data/a_{i}.jpg', 'images/a_{i}.jpg', True),
        ('/data/local-files/?d=b/a_{i}.jpg', 'images/b/a_{i}.jpg', True),
        ('A_{i}.JPG', 'images/a_{i}.jpg', True),
        ('train2017/a_{i}.jpg', 'train2017/a_{i}.jpg', False),
        ('a_{i}.jpg', 'a_{i}.jpg', False),
        ('ä ö_{i}.jpg', 'images/ä ö_{i}.jpg', False),
        ('%C3%A4_{i}.jpg', 'images/ä_{i}.jpg', True),
        ('a\u0308_{i}.jpg', 'images/ä_{i}.jpg', True),
        ('https://host/b/a_{i}.jpg?sig=a%2Fb.jpg', 'images/b/a_{i}.jpg', True),
    ],
)
def test_names_of_images_in_coco(tmp_path, capsys, name, stored, said):
    src, out = tmp_path / 'src', tmp_path / 'mine'
    names, places = ([text.format(i=i) for i in range(3)] for text in (name, stored))
    coco(src, names, places)
    text = prepare(capsys, 'folder', src, out)
    assert ('3  image found by the end of its name' in text) is said
    for i, place in enumerate(places):
        found = masks(out, place.removeprefix('images/'))
        np.testing.assert_array_equal(found['cup'], blob(10 * i, 1) == 1)
    if said:
        with open(out / 'left_out.csv', encoding='utf-8') as file:
            rows = list(csv.DictReader(file))
        assert [row['what'] for row in rows] == names
        assert [row['file'] for row in rows] == [str(src / place) for place in places]


def test_a_name_that_fits_several_images(tmp_path, capsys):
    src = tmp_path / 'src'
    coco(src, ['x/a.jpg', 'b.jpg'], ['images/1/a.jpg', 'images/b.jpg'])
    picture(src / 'images/2/a.jpg', SHAPE)
    said = fails('folder', src, tmp_path / 'out')
    assert re.search(r"'x/a\.jpg' may be any of 2 files: .*1/a\.jpg, .*2/a\.jpg; write", said)
    coco(src, ['y/2/a.jpg', 'b.jpg'], ['images/2/a.jpg', 'images/b.jpg'])  # the folder tells
    assert '2 images' in prepare(capsys, 'folder', src, tmp_path / 'fine')
    coco(src, ['c/2/a.jpg', 'd/2/a.jpg'], ['images/2/a.jpg', 'images/b.jpg'])
    said = fails('folder', src, tmp_path / 'out')
    assert "is named twice, by 'd/2/a.jpg' in" in said


def test_images_that_are_elsewhere_or_gone(tmp_path, capsys):
    src = tmp_path / 'src'
    coco(src, ['a.jpg', 'b.jpg'], ['../photos/a.jpg', '../photos/b.jpg'])
    said = fails('folder', src, tmp_path / 'out')
    assert '2 of 2 images of' in said and 'image not found: a.jpg, b.jpg' in said
    assert 'images there are none; say with --images DIR' in said
    said = prepare(capsys, 'folder', src, tmp_path / 'out', '--images', tmp_path / 'photos')
    assert 'out: 2 images (layout coco)' in said
    said = fails('folder', src, tmp_path / 'out', '--images', tmp_path / 'none')
    assert re.search(r'folder .*none not found', said)


# ----------------------------------------------------------------------------- COCO in parts
@pytest.mark.parametrize(
    'file, folder',
    [
        ('{s}/_annotations.coco.json', '{s}'),
        ('annotations/instances_{s}.json', '{s}'),
        ('annotations/instances_{s}2017.json', 'images/{s}2017'),
        ('{s}.json', 'images/{s}'),
        ('{s}/annotations.json', '{s}/images'),
        ('annotations_{s}.coco.json', 'images'),
    ],
)
def test_coco_files_of_parts(tmp_path, capsys, file, folder):
    """Ids differ from file to file, and images of all parts may have one name."""
    src, out = tmp_path / 'src', tmp_path / 'mine'
    parts = dict(train=(('cup', 1), ('jug', 2)), valid=(('jug', 5), ('cup', 9)), test=(('cup', 1),))
    for k, (s, categories) in enumerate(parts.items()):
        names = [f'{i if folder != "images" else s + str(i)}.jpg' for i in range(2)]
        places = [f'{folder.format(s=s)}/{name}' for name in names]
        coco(src, names, places, file.format(s=s), categories, first=3 * k)
    said = prepare(capsys, 'folder', src, out)
    assert 'mine: 6 images (layout coco)' in said
    assert 'splits: all 6, train 2, val 2, test 2' in said
    assert get_benchmark(str(out)).classes == ('cup', 'jug')
    for k, (s, categories) in enumerate(parts.items()):
        for i in range(2):
            name = f'{folder.format(s=s)}/{i if folder != "images" else s + str(i)}.jpg'
            found = masks(out, name.removeprefix('images/'))
            for n, (category, _) in enumerate(categories):
                np.testing.assert_array_equal(found[category], blob(10 * (i + 3 * k) + n, 1) == 1)


def test_a_part_without_annotations(tmp_path, capsys):
    src = tmp_path / 'src'
    coco(src, ['0.jpg', '1.jpg'], ['train/0.jpg', 'train/1.jpg'], 'train/_annotations.coco.json')
    empty = dict(images=[], annotations=[], categories=[dict(id=1, name='cup')])
    dump(src / 'test/_annotations.coco.json', empty)
    said = prepare(capsys, 'folder', src, tmp_path / 'out')
    assert re.search('1 files without annotations left out: .*test/_annotations.coco.json', said)


# ------------------------------------------------------------------------------------ LabelMe
def pairs(numbers):
    return [[numbers[i], numbers[i + 1]] for i in range(0, len(numbers), 2)]


def labelme(path, shapes, image=None, **more):
    picture(path.with_suffix('.jpg'), SHAPE)
    rows = [dict(group_id=None, flags={}, **shape) for shape in shapes]
    image = path.with_suffix('.jpg').name if image is None else image
    dump(path, dict(version='5.4.1', flags={}, shapes=rows, imagePath=image, imageData=None,
                    imageHeight=H, imageWidth=W) | more)  # fmt: skip


def polygon(label, mask):
    return dict(label=label, points=pairs(corners(mask)), shape_type='polygon')


def painted(label, mask, left, top):
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, 'PNG')
    h, w = mask.shape
    points = [[left, top], [left + w - 1, top + h - 1]]
    text = base64.b64encode(buffer.getvalue()).decode()
    return dict(label=label, points=points, shape_type='mask', mask=text)


def test_labelme(tmp_path, capsys):
    src, out = tmp_path / 'src', tmp_path / 'mine'
    ring = np.ones((21, 21), bool)
    ring[5:16, 5:16] = False
    for i in range(2):
        labelme(
            src / f'a/{i}.json',
            [
                polygon('nut', blob(i, 1)),
                painted('ring', ring, 20 + i, 10),
                dict(label='bolt', points=[[15, 20], [15, 32]], shape_type='circle'),
                dict(label='plate', points=[[45, 30], [2, 4]], shape_type='rectangle'),
                dict(label='nut', points=[[3, 4]], shape_type='point'),
                dict(label='nut', points=[[3, 4], [9, 9]], shape_type='linestrip'),
                dict(label='', points=pairs(corners(blob(1, 1))), shape_type='polygon'),
                dict(label='_background_', points=pairs(corners(blob(1, 1)))),
            ],
            image='..\\a\\' + f'{i}.jpg' if i else None,
        )
    labelme(src / 'a/none.json', [])
    picture(src / 'a/new.jpg', SHAPE)
    said = prepare(capsys, 'folder', src, out)
    assert (
        'mine: 3 images (layout labelme), class masks' in said and '1 images show no class' in said
    )
    assert get_benchmark(str(out)).classes == ('bolt', 'nut', 'plate', 'ring')
    for text in (
        '4  point, line or other shape without area: left out',
        '2  rectangle: read as filled to its borders',
        '2  shape without a label: left out',
        '2  labelled as background or to be ignored: left out',
        '1  image that no annotation file names, left out',
    ):
        assert text in said, said
    for i in range(2):
        found = masks(out, f'a/{i}.jpg')
        np.testing.assert_array_equal(found['nut'], blob(i, 1) == 1)
        wanted = np.zeros(SHAPE, bool)
        wanted[10:31, 20 + i : 41 + i] = ring
        np.testing.assert_array_equal(found['ring'], wanted)
        yy, xx = np.mgrid[:H, :W]
        disc = (xx + 0.5 - 15) ** 2 + (yy + 0.5 - 20) ** 2 <= 12**2
        assert (found['bolt'] != disc).sum() < 0.05 * disc.sum()
        assert found['plate'].sum() == 43 * 26


def test_labelme_in_folders_of_parts_and_classes(tmp_path, capsys):
    """Names of folders are no classes; labels are. A list of labels gives the order."""
    src, out = tmp_path / 'src', tmp_path / 'mine'
    for s in ('train', 'val'):
        for i in range(2):
            shapes = [polygon('nut', blob(i, 1)), polygon('bolt', blob(7 + i, 1))]
            labelme(src / f'{s}/things/{i}.json', shapes)
    dump(src / 'labels.txt', '__ignore__\n_background_\nnut\nbolt\nwasher\n')
    said = prepare(capsys, 'folder', src, out)
    assert get_benchmark(str(out)).classes == ('nut', 'bolt')
    assert 'splits: all 4, train 2, val 2' in said
    assert '1 categories without annotations left out: washer' in said


def test_rectangles_alone_are_boxes(tmp_path):
    """As annotations in COCO format that are boxes alone."""
    for i in range(2):
        box = dict(label='nut', points=[[5, 5], [30, 30]], shape_type='rectangle')
        labelme(tmp_path / f'src/{i}.json', [box])
    said = fails('folder', tmp_path / 'src', tmp_path / 'out')
    assert '2 x box without an outline' in said and '(nut 2)' in said


def test_a_file_of_labelme_that_is_cut_off(tmp_path):
    src = tmp_path / 'src'
    for i in range(3):
        labelme(src / f'{i}.json', [polygon('nut', blob(i, 1))])
    content = json.loads((src / '1.json').read_text())
    content['shapes'][0]['points'][0] = ['x', 1]
    dump(src / '1.json', content)
    said = fails('folder', src, tmp_path / 'out')
    assert re.search(r'src/1\.json is cut off or no file of LabelMe \(.*\); save it in', said)
    for half in (json.dumps(content)[:40], ''):
        (src / '1.json').write_text(half)
        said = fails('folder', src, tmp_path / 'out')
        assert re.search(r'src/1\.json is cut off or no file of LabelMe \(.*\); save it in', said)


def test_masks_beside_files_of_labelme_count(tmp_path, capsys):
    """Who has made masks of them has both."""
    src, out = tmp_path / 'src', tmp_path / 'mine'
    for i in range(2):
        labelme(src / f'cat/{i}.json', [polygon('whisker', blob(i, 1))])
        save(src / f'cat/{i}.png', blob(30 + i))
    prepare(capsys, 'folder', src, out)
    np.testing.assert_array_equal(masks(out, 'cat/1.jpg')['cat'], blob(31) == 255)


# ------------------------------------------------------------------------- folders of VOC
def voc(src, coding, number=2, masks_too=True):
    for i in range(number):
        labels = (blob(i, 1) > 0) * 1
        labels[(blob(50 + i, 1) > 0) & (labels == 0)] = 2
        picture(src / f'JPEGImages/n{i}.jpg', SHAPE, i)
        if masks_too:
            save(src / f'SegmentationClass/n{i}.png', coding[labels].astype(np.uint8))
        yield f'n{i}.jpg', labels


def test_voc_of_cvat(tmp_path, capsys):
    """Colours, and a list of names with them in any order."""
    src, out = tmp_path / 'src', tmp_path / 'mine'
    wanted = dict(voc(src, np.array([(0, 0, 0), (250, 50, 83), (51, 221, 255)])))
    dump(src / 'labelmap.txt', '# label:color_rgb:parts:actions\nbackground:0,0,0::\n'
         'bolt:51,221,255::\nnut:250,50,83::\n')  # fmt: skip
    dump(src / 'ImageSets/Segmentation/default.txt', 'n0\nn1\n')
    said = prepare(capsys, 'folder', src, out)
    assert get_benchmark(str(out)).classes == ('bolt', 'nut') and 'other files' not in said
    for image, labels in wanted.items():
        found = masks(out, image)
        np.testing.assert_array_equal(found['nut'], labels == 1)
        np.testing.assert_array_equal(found['bolt'], labels == 2)
    bordered = read(src / 'SegmentationClass/n1.png')
    bordered[0] = 9
    save(src / 'SegmentationClass/n1.png', bordered)
    said = fails('folder', src, out)
    assert 'has 1 colours outside the class table: [(9, 9, 9)]' in said
    assert 'add them to the list (as "ignored" if they are borders)' in said
    with open(src / 'labelmap.txt', 'a') as file:
        file.write('ignored:9,9,9::\n')
    prepare(capsys, 'folder', src, out)
    found = read(out / 'masks/n1.png')
    assert (found[0] == 255).all() and (found[1:] != 255).all()


@pytest.mark.parametrize(
    'file, lines',
    [
        ('class_names.txt', '__ignore__\n_background_\nnut\nbolt\n'),
        ('class_names.txt', '_background_\nnut\nbolt'),
        ('labels.txt', '__ignore__\n_background_\nnut\nbolt\n'),
        ('labels.txt', 'nut\nbolt\n'),
        ('classes.txt', 'background\nnut\nbolt\n'),
        ('classes.txt', '0: background\n1: nut\n2: bolt\n'),
    ],
)
def test_voc_of_labelme(tmp_path, capsys, file, lines):
    src, out = tmp_path / 'src', tmp_path / 'mine'
    wanted = dict(voc(src, np.array([0, 1, 2])))
    dump(src / file, lines)
    prepare(capsys, 'folder', src, out)
    assert get_benchmark(str(out)).classes == ('nut', 'bolt')
    for image, labels in wanted.items():
        np.testing.assert_array_equal(read(out / f'masks/{image[:-4]}.png'), labels)


def test_numbers_before_names_are_their_values(tmp_path, capsys):
    src, out = tmp_path / 'src', tmp_path / 'mine'
    wanted = dict(voc(src, np.array([0, 1, 2])))
    dump(src / 'classes.txt', '2: bolt\n1: nut\n')
    prepare(capsys, 'folder', src, out)
    classes = get_benchmark(str(out)).classes
    assert classes == ('bolt', 'nut')
    for image, labels in wanted.items():
        found = read(out / f'masks/{image[:-4]}.png')
        np.testing.assert_array_equal(found == 2, labels == 1)  # nut
        np.testing.assert_array_equal(found == 1, labels == 2)


def test_lists_of_voc_are_parts(tmp_path, capsys):
    src, out = tmp_path / 'src', tmp_path / 'mine'
    wanted = dict(voc(src, np.array([0, 1, 2]), 4))
    picture(src / 'JPEGImages/unmarked.jpg', SHAPE)
    dump(src / 'classes.txt', 'nut\nbolt\n')
    for name, images in (('train', 'n0\nn1'), ('val', 'n2\nn3\n'), ('trainval', 'n0\nn1\nn2\nn3')):
        dump(src / f'ImageSets/Segmentation/{name}.txt', images)
    said = prepare(capsys, 'folder', src, out)
    assert 'splits: all 4, train 2, val 2' in said and len(wanted) == 4
    assert '1  image that no list in ImageSets names, left out' in said
    for file in (src / 'ImageSets/Segmentation').iterdir():
        file.write_text('other\n')
    assert 'ImageSets name none of the images, but other' in fails('folder', src, out)


def test_lists_of_parts_in_folders(tmp_path, capsys):
    """CVAT and Datumaro: a folder of each part, whose name is in the lists, or is not."""
    src, out = tmp_path / 'src', tmp_path / 'mine'
    for s in ('train', 'val'):
        for i in range(2):
            picture(src / f'JPEGImages/{s}/{i}.jpg', SHAPE, i)
            save(src / f'SegmentationClass/{s}/{i}.png', blob(i, 1))
        lines = '0\n1.jpg\n' if s == 'val' else 'train/0\ntrain/1\n'
        dump(src / f'ImageSets/Segmentation/{s}.txt', lines)
    dump(src / 'classes.txt', 'nut\n')
    assert 'splits: all 4, train 2, val 2' in prepare(capsys, 'folder', src, out)


def test_labelme_with_photos_inside_its_files(tmp_path, capsys):
    src = tmp_path / 'src'
    for i in range(2):
        labelme(src / f'{i}.json', [polygon('nut', blob(i, 1))], imageData='aGVsbG8=')
    assert '2 images' in prepare(capsys, 'folder', src, tmp_path / 'out')
    (src / '1.jpg').unlink()
    said = fails('folder', src, tmp_path / 'other')
    assert re.search("1.json .*its photo '1.jpg' is not there but in the file alone", said)


def test_labelme_with_images_in_another_folder(tmp_path, capsys):
    src = tmp_path / 'src'
    for i in range(2):
        labelme(src / f'annotations/{i}.json', [polygon('nut', blob(i, 1))], f'../images/{i}.jpg')
        (src / 'images').mkdir(exist_ok=True)
        (src / f'annotations/{i}.jpg').rename(src / f'images/{i}.jpg')
    said = prepare(capsys, 'folder', src, tmp_path / 'out')
    assert '2 images (layout labelme)' in said and 'end of its name' not in said


def test_masks_exported_without_images(tmp_path, capsys):
    src, out = tmp_path / 'src', tmp_path / 'mine'
    wanted = dict(voc(src, np.array([0, 1, 2])))
    dump(src / 'classes.txt', 'nut\nbolt\n')
    (src / 'JPEGImages').rename(tmp_path / 'photos')
    said = fails('folder', src, out)
    assert 'has masks in SegmentationClass and no images (JPEGImages): export again' in said
    assert '"Save images" in CVAT), or say where they are with --images DIR' in said
    prepare(capsys, 'folder', src, out, '--images', tmp_path / 'photos')
    for image, labels in wanted.items():
        np.testing.assert_array_equal(read(out / f'masks/{image[:-4]}.png'), labels)


@pytest.mark.parametrize('folder', ['ann_dir/train', 'masks', 'labels'])
def test_masks_alone_with_images_elsewhere(tmp_path, capsys, folder):
    for i in range(2):
        picture(tmp_path / f'photos/{i}.jpg', SHAPE, i)
        save(tmp_path / f'src/{folder}/{i}.png', blob(i, 1))
    options = ['folder', tmp_path / 'src', tmp_path / 'out']
    assert 'and no images (JPEGImages): export again with images' in fails(*options)
    assert '2 images (layout values)' in prepare(capsys, *options, '--images', tmp_path / 'photos')


def test_semantic_masks_of_roboflow(tmp_path, capsys):
    """Values as _classes.csv says, in every part."""
    src, out = tmp_path / 'src', tmp_path / 'mine'
    for s in ('train', 'valid'):
        for i in range(2):
            stem = f'{s}/p{i}_jpg.rf.{i:032x}'
            picture(src / f'{stem}.jpg', SHAPE, i)
            values = blob(i, 7)
            values[:5] = 3
            save(src / f'{stem}_mask.png', values)
        dump(src / f'{s}/_classes.csv', 'Pixel Value, Class\n0, background\n3, rust\n7, crack\n')
    said = prepare(capsys, 'folder', src, out)
    assert get_benchmark(str(out)).classes == ('rust', 'crack') and 'other files' not in said
    found = read(out / f'masks/train/p1_jpg.rf.{1:032x}.png')
    np.testing.assert_array_equal(found == 1, np.arange(H)[:, None].repeat(W, 1) < 5)
    assert set(np.unique(found)) == {0, 1, 2}
    dump(src / 'valid/_classes.csv', 'Pixel Value, Class\n0, background\n3, crack\n7, rust\n')
    assert '2 files say different things of the classes' in fails('folder', src, out)


# -------------------------------------------------------------------------------- VIA and CVAT
def via_shapes(i):
    mask = blob(i, 1)
    x, y = corners(mask)[::2], corners(mask)[1::2]
    return [
        (dict(name='polygon', all_points_x=x, all_points_y=y), 'nut'),
        (dict(name='ellipse', cx=25, cy=20, rx=18, ry=9, theta=math.pi / 6), 'egg'),
        (dict(name='point', cx=5, cy=5), 'nut'),
    ]


@pytest.mark.parametrize(
    'form, attribute',
    [
        ('json', 'label'),
        ('project', 'class'),
        ('csv', 'Type'),
        ('json', 'whatever'),
        ('csv', None),
    ],
)
def test_via(tmp_path, capsys, attribute, form):
    src, out, content, rows = tmp_path / 'src', tmp_path / 'mine', {}, []
    for i in range(2):
        picture(src / f'n{i}.jpg', SHAPE, i)
        regions = []
        for shape, label in via_shapes(i):
            attributes = {attribute: label, 'note': 'x'} if attribute else {}
            if attribute == 'whatever':
                del attributes['note']
            regions.append(dict(shape_attributes=shape, region_attributes=attributes))
            rows.append([f'n{i}.jpg', -1, '{}', 3, len(regions), json.dumps(shape),
                         json.dumps(attributes)])  # fmt: skip
        content[f'n{i}.jpg-1'] = dict(filename=f'n{i}.jpg', size=-1, regions=regions,
                                      file_attributes={})  # fmt: skip
    if form == 'csv':
        with open(src / 'via_export.csv', 'w', newline='') as file:
            head = 'filename,file_size,file_attributes,region_count,region_id'
            head = f'{head},region_shape_attributes,region_attributes'.split(',')
            csv.writer(file).writerows([head, *rows])
    else:
        dump(src / 'via.json', {'_via_img_metadata': content} if form == 'project' else content)
    said = prepare(capsys, 'folder', src, out)
    assert 'mine: 2 images (layout via)' in said
    assert '2  point, line or other shape without area' in said
    for i in range(2):
        found = masks(out, f'n{i}.jpg')
        yy, xx = np.mgrid[:H, :W] + 0.5
        c, s = math.cos(math.pi / 6), math.sin(math.pi / 6)
        dx, dy = xx - 25, yy - 20
        egg = ((dx * c + dy * s) / 18) ** 2 + ((dy * c - dx * s) / 9) ** 2 <= 1
        if attribute is None:
            assert (found['object'] != (egg | (blob(i, 1) == 1))).mean() < 0.01
        else:
            np.testing.assert_array_equal(found['nut'], blob(i, 1) == 1)
            assert (found['egg'] != egg).sum() < 0.04 * egg.sum()


def test_via_whose_class_is_not_plain(tmp_path):
    picture(tmp_path / 'src/n.jpg', SHAPE)
    region = dict(shape_attributes=via_shapes(0)[0][0], region_attributes=dict(a='x', b='y'))
    dump(tmp_path / 'src/via.json', {'n': dict(filename='n.jpg', regions=[region])})
    said = fails('folder', tmp_path / 'src', tmp_path / 'out')
    assert 'regions have the attributes a, b; which is the class? Rename it to "label"' in said


def cvat(src, images='images'):
    rows = []
    for i, subset in enumerate(('Train', 'Train', 'Validation', 'default')):
        picture(src / f'{images}/n{i}.jpg', SHAPE, i)
        points = ';'.join(f'{x:.2f},{y:.2f}' for x, y in pairs(corners(blob(i, 1))))
        runs = '3,5,2,6,4'  # of 4 x 5 pixels at (30, 8)
        rows.append(
            f'<image id="{i}" name="n{i}.jpg" subset="{subset}" width="{W}" height="{H}">'
            f'<polygon label="nut" occluded="0" points="{points}" z_order="0"></polygon>'
            f'<mask label="ring" rle="{runs}" left="30" top="8" width="5" height="4"/>'
            '<ellipse label="egg" cx="25" cy="20" rx="18" ry="9" rotation="30"/>'
            '<box label="box" xtl="10" ytl="10" xbr="30" ybr="20" rotation="90"/>'
            '<polyline label="nut" points="1,1;2,2"/><tag label="good"/></image>'
        )
    names = ''.join(f'<label><name>{n}</name></label>' for n in ('ring', 'nut', 'egg', 'box', 'x'))
    head = f'<version>1.1</version><meta><task><labels>{names}</labels></task></meta>'
    dump(src / 'annotations.xml', f'<?xml version="1.0"?><annotations>{head}{"".join(rows)}'
         '</annotations>')  # fmt: skip


def test_cvat_for_images(tmp_path, capsys):
    src, out = tmp_path / 'src', tmp_path / 'mine'
    cvat(src)
    said = prepare(capsys, 'folder', src, out, '--min-area', '8')
    assert 'mine: 4 images (layout cvat), class masks' in said
    assert 'splits: all 4, train 2, val 1' in said
    assert get_benchmark(str(out)).classes == ('ring', 'nut', 'egg', 'box')
    assert '4  rectangle: read as filled' in said and '4  point, line or other shape' in said
    for i in range(4):
        found = masks(out, f'n{i}.jpg')
        np.testing.assert_array_equal(found['nut'], blob(i, 1) == 1)
        part = np.zeros(20, bool)
        part[3:8] = part[10:16] = True
        wanted = np.zeros(SHAPE, bool)
        wanted[8:12, 30:35] = part.reshape(4, 5)
        np.testing.assert_array_equal(found['ring'], wanted)
        yy, xx = np.nonzero(found['box'])
        assert (xx.min(), xx.max(), yy.min(), yy.max()) == (15, 24, 5, 24)
    text = (src / 'annotations.xml').read_text()
    dump(src / 'annotations.xml', text[:-200])
    assert 'is cut off or no file of "CVAT for images"' in fails('folder', src, out)
    dump(src / 'annotations.xml', text.replace('3,5,2,6,4', '3,5,2,6,5'))
    assert 'its runs sum to 21 of 20 pixels' in fails('folder', src, out)


# -------------------------------------------------------------------------- tools not read
@pytest.mark.parametrize(
    'name, content, said',
    [
        ('x.json', [dict(image_id=1, category_id=1, segmentation={})], r'a list of predictions'),
        ('annotations/default.json', dict(items=[], categories={}), 'Datumaro; convert it'),
        ('ann/0.jpg.json', dict(objects=[], size={}), 'Supervisely; export "COCO"'),
        ('a/0.json', dict(item={}, annotations=[]), 'V7 Darwin; export "COCO"'),
        ('x.json', [dict(image='a', annotations=[])], 'CreateML, which has boxes alone'),
        ('x.json', dict(type='FeatureCollection', features=[]), r'a GIS or QuPath \(GeoJSON\)'),
        ('x.json', dict(project={}, config={}, file={}, view={}, metadata={}), 'VIA 3; annotate'),
        ('samples.json', dict(samples=[]), 'FiftyOne; export with dataset_type'),
        ('annotations.xml', '<annotations><track id="0"></track></annotations>', 'of a video'),
        ('Annotations/0.xml', '<annotation><object><bndbox/></object></annotation>', 'LabelImg'),
        ('data.yaml', 'names: [a]', r'YOLO, and no labels/x\.txt with outlines are there'),
        ('task.json', '{}', 'a CVAT backup; export'),
        ('masks.npy', '', 'NumPy or MATLAB, which are no images; save'),
        ('labels/0.nii.gz', '', 'medical imaging .volumes.; save slices'),
    ],
)
@pytest.mark.parametrize('folder', ['images', '.'])
def test_tools_that_are_not_read_are_named(tmp_path, name, content, said, folder):
    """With what to export there, wherever the photos are; and nothing is written."""
    src = tmp_path / 'src'
    for i in range(2):
        picture(src / folder / f'{i}.jpg', SHAPE, i)
    dump(src / name, content)
    before = files(src)
    assert re.search(f'is from .*{said}', fails('folder', src, tmp_path / 'out'))
    assert files(src) == before and not (tmp_path / 'out').exists()


def test_a_file_of_annotations_that_is_named(tmp_path, capsys):
    src = tmp_path / 'src'
    coco(src, ['a.jpg', 'b.jpg'], file='../export/some.json')
    options = ['folder', src, tmp_path / 'out', '--annotations', tmp_path / 'export/some.json']
    assert '2 images (layout coco)' in prepare(capsys, *options)
    dump(tmp_path / 'export/some.json', dict(samples=[]))
    assert re.search(r'some\.json is no file of .*, but from FiftyOne; export', fails(*options))
    (tmp_path / 'export/some.json').unlink()
    assert re.search(r'annotations not found: .*some\.json', fails(*options))


def test_an_archive(tmp_path):
    dump(tmp_path / 'src/export.zip', 'PK')
    said = fails('folder', tmp_path / 'src', tmp_path / 'out')
    assert 'export.zip is from an archive that is not unpacked; unpack it and give' in said
