"""Supports out of a COCO file: read as tools/prepare.py reads it, and said in the same words."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_models
from coco_cases import box, coco_folder, write
from prepared_checks import fails, picture, prepare

from mmfss.apis import FewShotInferencer
from mmfss.apis.box_masks import BoxMasks
from mmfss.apis.marks import Prompt
from mmfss.apis.support import SupportSet
from mmfss.apis.support_annotations import FILLED, GRABBED, PROPOSED
from mmfss.apis.support_folder import UNMARKED, Reading, draw_support, read_support
from mmfss.datasets.account import FILE, Account
from mmfss.datasets.preparation.own_coco import BOX, CROWD_OBJECT

pytest.importorskip('pycocotools')
S = tiny_models.SIZE
LARGE = (60, 90)


@pytest.fixture(scope='module')
def inferencer() -> FewShotInferencer:
    return FewShotInferencer(tiny_models.build(), device='cpu')


def masks_of(support: SupportSet) -> list[np.ndarray]:
    return [shot.mask for shot in support.shots['mug']]


def wanted(src, masks) -> list[np.ndarray]:
    pairs = [(src / 'images' / name, mask) for name, mask in masks.items()]
    return masks_of(SupportSet.build({'mug': pairs}, S))


def equal(found, other) -> None:
    assert len(found) == len(other)
    for one, mask in zip(found, other):
        np.testing.assert_array_equal(one, mask)


@pytest.mark.parametrize(
    'orientation, frame', [(1, 'upright'), (6, 'upright'), (8, 'stored'), (3, 'upright')]
)
@pytest.mark.parametrize('code', [False, True])
def test_photos_of_any_frame(tmp_path, inferencer, orientation, frame, code):
    _, masks = coco_folder(tmp_path, orientation=orientation, frame=frame, code=code)
    support, prompted = read_support(tmp_path, inferencer)
    equal(masks_of(support), wanted(tmp_path, masks))
    assert prompted == [] and support.shots['mug'][0].shape == LARGE


def test_stored_frames_that_sizes_do_not_tell(tmp_path, inferencer):
    _, masks = coco_folder(tmp_path, orientation=3, frame='stored')
    support, _ = read_support(tmp_path, inferencer, reading=Reading(exif='stored'))
    equal(masks_of(support), wanted(tmp_path, masks))
    assert not support.account


def boxes_alone(content):
    for annotation in content['annotations']:
        annotation['segmentation'] = []


def sizes_of_stored_pixels(content):
    for image in content['images']:
        image.update(height=90, width=60)


def twice_the_size(content):
    for annotation in content['annotations']:
        annotation['bbox'] = [2 * number for number in annotation['bbox']]


@pytest.mark.parametrize('change', [sizes_of_stored_pixels, twice_the_size])
def test_what_prepare_refuses_is_refused_in_its_words(tmp_path, inferencer, change):
    content, _ = coco_folder(tmp_path / 'src', orientation=6)
    change(content)
    write(tmp_path / 'src', content)
    with pytest.raises(ValueError) as refused:
        read_support(tmp_path / 'src', inferencer)
    assert fails('folder', tmp_path / 'src', tmp_path / 'out') == f'error: {refused.value}'


def test_what_prepare_says_is_said(tmp_path, inferencer, capsys):
    content, masks = coco_folder(tmp_path / 'src')
    for number, annotation in enumerate(list(content['annotations'])):
        annotation['iscrowd'] = int(number < 2)
        alone = dict(annotation, id=100 + number, segmentation=[], iscrowd=0)
        content['annotations'].append(dict(alone, bbox=[60, 2, 20, 10]))
    write(tmp_path / 'src', content)
    support, prompted = read_support(tmp_path / 'src', inferencer)
    prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out')
    assert support.account.rows == Account.read(tmp_path / 'out').rows
    assert set(support.account.rows) == {CROWD_OBJECT, BOX}
    for mask in masks.values():
        mask[2:12, 60:80] = 255
    equal(masks_of(support), wanted(tmp_path / 'src', masks))
    assert prompted == []  # the class has an outline there


@pytest.mark.parametrize('orientation, frame', [(1, 'upright'), (6, 'upright'), (6, 'stored')])
def test_boxes_alone_are_prompts(tmp_path, inferencer, orientation, frame):
    content, masks = coco_folder(tmp_path, orientation=orientation, frame=frame)
    boxes_alone(content)
    write(tmp_path, content)
    support, prompted = read_support(tmp_path, inferencer)
    assert prompted == [str(tmp_path / 'images' / name) for name in masks]
    proposer, made = BoxMasks(inferencer), {}
    for name, mask in masks.items():
        x, y, width, height = box(mask.astype(bool))
        prompt = Prompt(box=(x, y, x + width, y + height))
        made[name] = proposer.propose(tmp_path / 'images' / name, prompt).mask
    equal(masks_of(support), wanted(tmp_path, made))
    counts = {reason: len(rows) for reason, rows in support.account.rows.items() if reason.lost}
    assert counts == {} and support.account.count(PROPOSED) == 4
    assert draw_support(support).ndim == 3


def test_boxes_where_a_method_takes_no_prompts(tmp_path, inferencer, monkeypatch):
    """Every box is a mask all the same, and it is said of which kind."""
    content, masks = coco_folder(tmp_path)
    boxes_alone(content)
    write(tmp_path, content)

    def none(*_: object) -> None:
        raise ValueError('this method takes no prompts')

    monkeypatch.setattr(type(inferencer.model), 'prompter', none)
    monkeypatch.setenv('MMFSS_WEIGHTS', str(tmp_path))
    support, prompted = read_support(tmp_path, inferencer)
    assert len(prompted) == len(masks)
    account = support.account
    assert account.count(PROPOSED) == account.count(GRABBED) + account.count(FILLED) == 4
    assert all(len(shot.prompts) == 1 for shot in support.shots['mug'])


def test_a_photo_without_annotations_is_left_out_with_a_word(tmp_path, inferencer, caplog):
    content, masks = coco_folder(tmp_path)
    picture(tmp_path / 'images/empty.png', LARGE)
    content['images'].append(dict(id=50, file_name='empty.png', height=60, width=90))
    write(tmp_path, content)
    support, _ = read_support(tmp_path, inferencer)
    equal(masks_of(support), wanted(tmp_path, masks))
    ((reason, row),) = support.account
    assert reason == UNMARKED and row.file.endswith('empty.png')
    path = support.account.write(tmp_path)
    assert path is not None and path.name == FILE and 'empty.png' in path.read_text()
