"""The function for CVAT with the types and the driver of its SDK; the server is a stand-in."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from serve_cases import mask_of
from webui_steps import BoxProposer, box_mask, pixels

from mmfss.regions import cvat_points
from mmfss.serve import cvat

cvataa = pytest.importorskip('cvat_sdk.auto_annotation')
from cvat_sdk import datasets, models  # noqa: E402
from cvat_sdk.auto_annotation import driver  # noqa: E402
from cvat_sdk.core import auth  # noqa: E402

LABELS = dict(cup='any', lamp='polygon', book='rectangle', note='tag', plate='mask')
IDS = {name: 70 + number for number, name in enumerate(LABELS)}


def drawn(kind: str, name: str, points, frame: int = 0, **more) -> models.LabeledShape:
    flat = np.asarray(points, float).ravel().tolist()
    return models.LabeledShape(type=kind, frame=frame, label_id=IDS[name], points=flat, **more)


class Task:
    """A task of photos with what is drawn in them, as :class:`cvat_sdk.datasets.TaskDataset`."""

    def __init__(self, *shapes: list[models.LabeledShape]) -> None:
        self.labels = [
            models.Label(name=name, type=kind, id=IDS[name], attributes=[], sublabels=[])
            for name, kind in LABELS.items()
        ]
        self.samples = [
            datasets.Sample(
                frame_index=frame,
                frame_name=f'{frame}.png',
                annotations=datasets.FrameAnnotations(shapes=list(some)),
                media=SimpleNamespace(load_image=lambda f=frame: Image.fromarray(pixels(f))),
            )
            for frame, some in enumerate(shapes)
        ]


CUP = drawn('mask', 'cup', cvat_points(box_mask()))
LAMP = drawn('polygon', 'lamp', [[5, 5], [25, 5], [25, 25], [5, 25]], source='manual')
BOOK = drawn('rectangle', 'book', [60, 50, 80, 70], source='semi-auto')
PLATE = drawn('points', 'plate', [40, 60])
GUESS = drawn('mask', 'plate', cvat_points(box_mask()), source='auto')


@pytest.fixture
def task() -> Task:
    return Task([CUP, LAMP, BOOK, PLATE], [GUESS], [])


@pytest.fixture
def function(task, worker, monkeypatch):
    monkeypatch.setattr(cvat, 'BoxMasks', lambda inferencer, weights: BoxProposer())
    return cvat.FewShotFunction(worker.new_inferencer(), task.samples, task.labels)


def annotate(task, function, monkeypatch, **options) -> dict[int, list]:
    """What the SDK's driver would upload, by frame."""
    monkeypatch.setattr(driver, 'TaskDataset', lambda *args, **how: task)
    sent = []

    def upload(action, number, patched_labeled_data_request):
        sent.extend(patched_labeled_data_request.shapes)

    api = SimpleNamespace(partial_update_annotations=upload)
    client = SimpleNamespace(logger=logging.getLogger('test'), tasks=SimpleNamespace(api=api))
    cvataa.annotate_task(client, 5, function, **options)
    found: dict[int, list] = {}
    for shape in sent:
        found.setdefault(shape.frame, []).append(shape)
    return found


def test_a_task_through_the_driver(task, function, worker, monkeypatch):
    assert [label.name for label in function.spec.labels] == ['cup', 'lamp', 'book', 'plate']
    found = annotate(task, function, monkeypatch)
    assert set(found) == {1, 2}  # in frame 0 all of them are drawn
    kinds = {s.label_id: s.type.value for shapes in found.values() for s in shapes}
    assert kinds == {70: 'mask', 71: 'polygon', 72: 'rectangle', 74: 'mask'}
    wanted = worker.new_inferencer()
    wanted.set_support(
        dict(
            cup=[(pixels(0)[..., ::-1], box_mask())],
            lamp=[(pixels(0)[..., ::-1], mask_of(slice(5, 25), slice(5, 25)))],
            book=[(pixels(0)[..., ::-1], mask_of(slice(60, 80), slice(50, 70)))],
            plate=[(pixels(0)[..., ::-1], mask_of(slice(36, 45), slice(56, 65)))],
        )
    )
    truth = wanted(pixels(2)[..., ::-1])
    masks = [s for s in found[2] if s.label_id == 70]
    both = sum(cvat.cvat_points_mask(s.points, 80, 96).astype(int) for s in masks)
    assert both.max() == 1 and ((both == 1) & ~truth.mask('cup')).sum() == 0
    assert both.sum() > 0.9 * truth.mask('cup').sum()  # less what is small beside the largest
    assert {s.source for s in found[2]} == {'auto'}


def test_polygons_in_the_place_of_masks_and_scores(task, function, worker, monkeypatch):
    with pytest.raises(ValueError, match="'plate' takes masks alone"):
        annotate(task, function, monkeypatch, conv_mask_to_poly=True)
    task.labels[-1].type = 'any'
    function = cvat.FewShotFunction(worker.new_inferencer(), task.samples, task.labels)
    found = annotate(task, function, monkeypatch, conv_mask_to_poly=True)
    assert {s.type.value for s in found[2]} == {'polygon', 'rectangle'}
    assert annotate(task, function, monkeypatch, conf_threshold=1.0) == {}


def test_shapes_of_all_kinds():
    names = {number: name for name, number in IDS.items()}
    circle = drawn('ellipse', 'cup', [48, 40, 60, 28], rotation=0.0)
    turned = drawn('rectangle', 'book', [40, 30, 60, 40], rotation=90.0)
    line = drawn('polyline', 'lamp', [[1, 1], [5, 5]])
    marks = cvat.marks_of([circle, turned, line], names, 80, 96)
    masks = marks.masks(lambda prompt: BoxProposer().propose(pixels(0), prompt))
    assert masks['cup'].sum() == pytest.approx(np.pi * 144, rel=0.06)
    np.testing.assert_array_equal(masks['book'], mask_of(slice(45, 55), slice(25, 45)))
    assert marks.notes == ['a polyline of lamp is left out: it has no area']
    cut = drawn('mask', 'cup', [3.0, 1.0, 0.0, 0.0, 9.0, 9.0])
    assert 'a mask of cup is left out' in cvat.marks_of([cut], names, 80, 96).notes[0]


def test_nothing_is_drawn(worker):
    task = Task([GUESS], [drawn('polyline', 'lamp', [[1, 1], [5, 5]])])
    with pytest.raises(ValueError, match='nothing is drawn in the task.*it has no area'):
        cvat.FewShotFunction(worker.new_inferencer(), task.samples, task.labels)


def test_what_cvat_cli_calls(task, worker, monkeypatch):
    """It logs in as cvat-cli does, with what it is given."""
    asked = {}

    class Client(SimpleNamespace):
        def __enter__(self):
            return self

        def __exit__(self, *exception):
            asked['closed'] = True

    def connect(parameters):
        asked['parameters'] = parameters
        return Client(logger=logging.getLogger('test'))

    def read(client, number):
        asked['task'] = number
        return task

    monkeypatch.setattr(auth, 'make_client_from_cli', connect)
    monkeypatch.setattr(datasets, 'TaskDataset', read)
    monkeypatch.setattr(cvat, 'FewShotInferencer', lambda *args, **how: worker.new_inferencer())
    monkeypatch.setattr(cvat, 'BoxMasks', lambda inferencer, weights: BoxProposer())
    made = cvat.create(5, method='prototype', server_host='http://x', max_shots=1)
    assert asked['task'] == 5 and asked['closed'] and asked['parameters'].server_host == 'http://x'
    assert isinstance(made.spec, cvataa.DetectionFunctionSpec)
