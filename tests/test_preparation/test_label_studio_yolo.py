"""Exports of Label Studio and folders of YOLO-seg: read as they are meant, or named."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import tiny_models
from own_folders import SHAPE
from PIL import Image
from prepared_checks import fails, picture

from mmfss import regions
from mmfss.apis import FewShotInferencer
from mmfss.apis.images import mask_to_model_size
from mmfss.apis.support_folder import read_support
from mmfss.datasets.account import Account
from mmfss.datasets.preparation.annotated import Terms, annotated_masks, look_at_all
from mmfss.datasets.preparation.folder_layouts import find_source
from mmfss.datasets.preparation.folder_layouts.annotated import UNLISTED
from mmfss.datasets.preparation.folder_layouts.label_studio import (
    OTHERS,
    PREDICTED,
    UNANSWERED,
)
from mmfss.datasets.preparation.folder_layouts.label_studio import (
    TURNED as BY_HAND,
)
from mmfss.datasets.preparation.folder_layouts.shapes import NO_AREA, NO_LABEL, RECTANGLE

pytest.importorskip('pycocotools')
H, W = SHAPE


def dump(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def box(x1, y1, x2, y2) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def percent(x, y) -> list[float]:
    return [100 * x / W, 100 * y / H]


def region(kind, labels, value, number=1, **more):
    value = {**value, **({f'{kind}labels': labels} if labels else {})}
    return dict(
        id=f'r{number}', type=f'{kind}labels' if labels else kind, from_name='label',
        to_name='image', original_width=W, original_height=H, image_rotation=0, value=value, **more,
    )  # fmt: skip


BRUSH = box(3, 4, 20, 11)
BRUSH[6:8, 8:12] = False
DONE = [
    region('brush', ['cat'], dict(format='rle', rle=regions.brush_code(BRUSH))),
    region('polygon', ['cup'], dict(points=[percent(*p) for p in ((25, 5), (45, 5), (45, 20),
           (25, 20))], closed=True), 2),
    # turned by 90 degrees about its upper left corner: to the left of it
    region('rectangle', ['cat'], dict(zip(('x', 'y', 'width', 'height'),
           (*percent(40, 25), *percent(10, 8))), rotation=90), 3),
]  # fmt: skip
TURNED = box(32, 25, 40, 35)


def found_in(src, **options):
    """Classes, ``{image: {class: mask}}`` and the account of a folder."""
    source = find_source(src, **options)
    terms = Terms(source.classes, source.labels)
    account = Account()
    account.merge(source.account)
    photos = look_at_all(source.samples, source.images, terms, account)
    masks = {
        photo.image: {
            source.classes[c - 1]: mask == 1
            for c, mask in annotated_masks(photo, source.labels).items()
        }
        for photo in photos
    }
    counts = {reason.text: len(rows) for reason, rows in account.rows.items()}
    return source, masks, counts


@pytest.mark.parametrize('form', ['JSON', 'JSON-MIN'])
@pytest.mark.parametrize('place', ['/data/upload/3/0a1b2c3d-{}', '/data/local-files/?d=x/{}'])
def test_both_exports(form, place, tmp_path):
    src = tmp_path / 'src'
    for name in ('a b.jpg', 'skipped.jpg', 'plain.jpg'):
        picture(src / name, SHAPE)
    names = [place.format(name) for name in ('a%20b.jpg', 'skipped.jpg', 'plain.jpg')]
    if form == 'JSON':
        old = dict(id=1, result=[], updated_at='2026-01-01')
        new = dict(id=2, result=DONE, updated_at='2026-01-02')
        content = [
            dict(id=1, data=dict(image=names[0], note='x'), annotations=[new, old]),
            dict(id=2, data=dict(image=names[1]), annotations=[dict(result=DONE,
                 was_cancelled=True)], predictions=[dict(result=DONE)]),
            dict(id=3, data=dict(image=names[2]), annotations=[dict(result=[])]),
        ]  # fmt: skip
    else:
        flat = [
            dict(one['value'], **{k: one[k] for k in ('original_width', 'original_height')})
            for one in DONE
        ]
        content = [
            dict(image=names[0], id=1, label=flat, annotator=1, annotation_id=2, kind='outdoor',
                 created_at='', updated_at='2026-01-02', lead_time=3.5),
            dict(image=names[2], id=3, annotator=1, annotation_id=3, updated_at=''),
        ]  # fmt: skip
    dump(src / 'project-1.json', content)
    source, masks, said = found_in(src)
    assert source.layout == 'label_studio' and source.classes == ('cat', 'cup')
    assert [*masks] == ['a b.jpg', 'plain.jpg'] and masks['plain.jpg'] == {}
    found = masks['a b.jpg']
    np.testing.assert_array_equal(found['cat'], BRUSH | TURNED)
    np.testing.assert_array_equal(found['cup'], box(25, 5, 45, 20))
    assert said[RECTANGLE.text] == said[UNLISTED.text] == 1
    assert said.get(UNANSWERED.text) == said.get(OTHERS.text) == (1 if form == 'JSON' else None)


def test_labels_beside_regions_and_what_has_no_area(tmp_path):
    """A Labels tag, an ellipse, a key point, a relation, a choice of the whole photo."""
    src = tmp_path / 'src'
    picture(src / 'a.jpg', SHAPE)
    ellipse = dict(zip(('x', 'y', 'radiusX', 'radiusY'), (*percent(25, 20), *percent(10, 5))))
    results = [
        region('ellipse', None, ellipse),
        region('', ['egg'], ellipse),
        region('keypoint', ['egg'], dict(zip(('x', 'y', 'width'), (10, 10, 1))), 2),
        region('brush', ['egg'], dict(format='rle', rle=[]), 3, **{}) | dict(image_rotation=90),
        region('polygon', None, dict(points=[[1, 1], [5, 1], [5, 5]]), 4),
        region('vector', ['egg'], dict(vertices=[]), 5),
        dict(type='relation', from_id='r1', to_id='r2', direction='right'),
        dict(id='c', type='choices', from_name='kind', to_name='image', value=dict(choices=['x'])),
    ]
    dump(src / 'x.json', [dict(id=7, data=dict(pic='http://h/p/a.jpg'), annotations=[
        dict(result=results, ground_truth=True), dict(result=[], updated_at='2027')])])  # fmt: skip
    _, masks, said = found_in(src)
    found = masks['a.jpg']
    y, x = np.mgrid[:H, :W] + 0.5
    inside = ((x - 25) / 10) ** 2 + ((y - 20) / 5) ** 2 < 1
    assert [*found] == ['egg'] and (found['egg'] ^ inside).sum() < 12
    assert [said[r.text] for r in (NO_AREA, BY_HAND, NO_LABEL, OTHERS)] == [2, 1, 1, 1]


def test_predictions_and_the_order_of_labels(tmp_path):
    src = tmp_path / 'src'
    picture(src / 'a.jpg', SHAPE)
    dump(src / 'tasks.json', [dict(data=dict(image='/data/local-files/?d=src/a.jpg'),
         predictions=[dict(model_version='m', score=0.5, result=DONE)])])  # fmt: skip
    dump(src / 'config.xml', '<View><Image name="image" value="$image"/>'
         '<BrushLabels name="label" toName="image">'
         '<Label value="cup"/><Label value="cat"/></BrushLabels></View>')  # fmt: skip
    source, _, said = found_in(src)
    assert source.classes == ('cup', 'cat') and said[PREDICTED.text] == 1


def test_a_photo_that_exif_turns(tmp_path):
    """Label Studio has the sizes of the browser, that is of the upright photo."""
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / 'src').mkdir()
    Image.fromarray(np.zeros((W, H, 3), np.uint8)).save(tmp_path / 'src/a.jpg', exif=exif)
    dump(tmp_path / 'src/x.json', [dict(id=1, data=dict(image='a.jpg'), annotations=[
        dict(result=DONE)])])  # fmt: skip
    _, masks, _ = found_in(tmp_path / 'src')
    np.testing.assert_array_equal(masks['a.jpg']['cat'], BRUSH | TURNED)


@pytest.mark.parametrize(
    'content, said',
    [
        ('[{"id": 1, "data": {"image": "a.jpg"}, "annotations": [',
         r'x\.json is cut off or no JSON .*; save or export it again\.'),
        ([dict(id=4, data={}, annotations=[])], 'task 4 of Label Studio has no photos in its data'),
        ([dict(id=4, data=dict(l='a.jpg', r='b.jpg'), annotations=[])],
         r'task 4 of Label Studio has 2 photos in its data \(l, r\); a task is of one'),
        ([dict(id=4, data=dict(image='gone.jpg'), annotations=[dict(result=DONE)])],
         r'1 of 1 images of .* image not found: gone\.jpg'),
        ([dict(id=4, data=dict(image='a.jpg'), annotations=[dict(result=[
            region('brush', ['cat'], dict(format='rle', rle=[0, 0, 0, 4, 7]))])])],
         r'region 1 of a\.jpg: a brush label is'),
        ([dict(id=4, data=dict(image='a.jpg'), annotations=[dict(result=[
            DONE[0], {**DONE[1], 'original_width': 7}])])], 'are of several sizes of it'),
        ([dict(id=4, data=dict(image='a.jpg'), annotations=[dict(result=[
            {**one, 'original_width': 2 * W, 'original_height': 2 * H} for one in DONE[1:]])])],
         r'image .*a\.jpg is 50 x 40 pixels .*its annotations are for 100 x 80'),
        ([dict(id=4, data=dict(image='a.jpg'), annotations=[])], 'no shape with a label and an ar'),
        ([dict(id=4, data=dict(image='a.jpg'), annotations=[dict()])], 'cut off or no file of Lab'),
        ([dict(id=4, data=dict(image='a.jpg'), annotations=[dict(result=[
            region('polygon', ['a'], dict(points=[[1, 1], ['x', 1], [5, 5]]))])])],
         'must be finite numbers'),
    ],
)  # fmt: skip
def test_exports_that_are_wrong(content, said, tmp_path):
    picture(tmp_path / 'src/a.jpg', SHAPE)
    dump(tmp_path / 'src/x.json', content)
    found = fails('folder', tmp_path / 'src', tmp_path / 'out')
    assert re.search(said, found) and ('x.json' in found or 'a.jpg' in found)
    assert not (tmp_path / 'out').exists()


# -------------------------------------------------------------------------------------- YOLO
def line(label, mask) -> str:
    (outline,) = regions.outlines_of(mask)
    ring = regions.joined(outline) / (W, H)
    return ' '.join([str(label), *map(str, ring.ravel())]) + '\n'


@pytest.mark.parametrize('place', ['split', 'kind', 'beside', 'apart'])
@pytest.mark.parametrize('names', ['list', 'numbers', 'classes.txt'])
def test_yolo(place, names, tmp_path):
    src, photos = tmp_path / 'src', tmp_path / 'src'
    form = dict(split='{}/{}', kind='{1}/{0}', beside='', apart='{1}/{0}')[place]
    if place == 'apart':
        photos = tmp_path / 'photos'
    for part in ('train', 'valid'):
        picture(photos / form.format(part, 'images') / f'{part} 1.jpg', SHAPE)
        picture(photos / form.format(part, 'images') / f'{part} 2.png', SHAPE)
        folder = src / form.format(part, 'labels')
        dump(folder / f'{part} 1.txt', line(1, BRUSH) + '\n0 0.5 0.5 0.2 0.2 0.9\n')
        dump(folder / f'{part} 2.txt', '')
    if names == 'classes.txt':
        dump(src / 'classes.txt', 'cup\ncat\nunused\n')
    else:
        said = "['cup', 'cat', 'unused']" if names == 'list' else '{1: cat, 0: cup, 2: unused}'
        dump(src / 'data.yaml', f'train: ../train/images\nnc: 3\nnames: {said}\n')
    source, masks, said = found_in(src, images=photos if place == 'apart' else None)
    assert source.layout == 'yolo' and source.classes == ('cup', 'cat')
    assert len(masks) == 4 and said[RECTANGLE.text] == 2
    (found,) = (found for image, found in masks.items() if 'valid 1' in image)
    np.testing.assert_array_equal(found['cat'], BRUSH)
    np.testing.assert_array_equal(found['cup'], box(20, 16, 30, 24))
    assert [*source.splits] == ([] if place == 'beside' else ['train', 'val'])


@pytest.mark.parametrize(
    'text, said',
    [
        ('7 0 0 1 0 1 1\n', r"line 1 of a\.txt: class '7' is none of 0\.\.1 .*of .*data\.yaml"),
        ('0 0 0 1 0 1 1\nx 0 0 1 0 1 1\n', r"line 2 of a\.txt: class 'x' is none"),
        ('0 0 0 1 0 1 1\n0 0.1 0.1 0.2\n', '3 numbers are neither an outline nor a box'),
        ('0 0 0 1 0 1 1\n0 0.1 nan 0.2 0.1 0.1 0.1\n', 'must be finite numbers'),
    ],
)
def test_texts_that_are_wrong(text, said, tmp_path):
    src = tmp_path / 'src'
    picture(src / 'images/a.jpg', SHAPE)
    dump(src / 'labels/a.txt', text)
    dump(src / 'data.yaml', 'names: [cup, cat]')
    assert re.search(said, fails('folder', src, tmp_path / 'out'))
    dump(src / 'labels/a.txt', '0 0 0 1 0 1 1\n')
    dump(src / 'labels/b.txt', '0 0 0 1 0 1 1\n')
    said = fails('folder', src, tmp_path / 'out')
    assert re.search(r'1 texts of YOLO have no photo of their name: .*b\.txt; photos there', said)
    (src / 'labels/b.txt').unlink()
    (src / 'data.yaml').unlink()
    said = fails('folder', src, tmp_path / 'out')
    assert 'has outlines of YOLO and nothing that names their classes; put data.yaml' in said
    dump(src / 'data.yaml', 'names: {1: a, 2: b}')
    assert 'names must be of the classes 0, 1, ...' in fails('folder', src, tmp_path / 'out')


# ---------------------------------------------------------------------------------- supports
def test_supports(tmp_path):
    """By the same reader; of rectangles alone as prompts."""
    inferencer = FewShotInferencer(tiny_models.build())
    for form in ('label studio', 'yolo', 'rectangles'):
        src = tmp_path / form
        picture(src / 'images/a.jpg', SHAPE)
        if form == 'yolo':
            dump(src / 'labels/a.txt', line(1, box(25, 5, 45, 20)) + line(0, BRUSH))
            dump(src / 'data.yaml', 'names: [cat, cup]')
        else:
            results = [{**DONE[2], 'value': {**DONE[2]['value'], 'rotation': 0}}]
            results = results if form == 'rectangles' else DONE
            task = dict(id=1, data=dict(image='a.jpg'), annotations=[dict(result=results)])
            dump(src / 'export.json', [task])
        support, prompted = read_support(src, inferencer)
        boxes = form == 'rectangles'
        assert len(prompted) == boxes and [*support.shots] == ['cat', 'cup'][: 2 - boxes]
        (shot,) = support.shots['cat']
        wanted = {'label studio': BRUSH | TURNED, 'yolo': BRUSH}.get(form, box(40, 25, 50, 33))
        small = mask_to_model_size(wanted.astype(np.uint8), inferencer.image_size)
        if not boxes:
            np.testing.assert_array_equal(shot.mask, small)
        else:
            assert shot.prompts[0].box == (40, 25, 50, 33) and (shot.mask & small).any()
