"""Episodes through MMEngine's backends, and the curves of the same run: a tiny real one."""

from __future__ import annotations

import importlib.util
import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import VISBACKENDS
from mmengine.structures import PixelData
from mmengine.visualization import BaseVisBackend
from mmseg.registry import VISUALIZERS
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer
from tiny_runs import write_config, write_shapes

from mmfss.commands import test as testing
from mmfss.commands import train as launch
from mmfss.visualization import draw_episode, draw_sample, visualizer
from mmfss.visualization.curves import write_curves

IMAGE = np.full((16, 16, 3), 100, np.uint8)
MASK = np.ones((16, 16), np.uint8)


@VISBACKENDS.register_module()
class RecordingVisBackend(BaseVisBackend):
    """Stands for a backend on the network, as W&B."""

    calls: list[tuple] = []

    def __init__(self, save_dir: str, project: str) -> None:
        super().__init__(save_dir)
        self.project = project

    @property
    def experiment(self) -> RecordingVisBackend:
        return self

    def _init_env(self) -> None:
        pass

    def add_image(self, name, image, step=0):
        self.calls.append((self.project, name, image, step))


def sample(**fields) -> SegDataSample:
    out = SegDataSample(metainfo=dict(episode=7, class_name='key'))
    fields = {'pred_sem_seg': torch.ones(1, 16, 16, dtype=torch.uint8), **fields}
    for name, data in fields.items():
        setattr(out, name, PixelData(data=data))
    return out


def test_an_episode_goes_to_every_backend(tmp_path):
    backends = [dict(type='LocalVisBackend'), dict(type='RecordingVisBackend', project='mine')]
    cfg = dict(type='EpisodeVisualizer', name='backends', vis_backends=backends)
    built = VISUALIZERS.build(dict(save_dir=str(tmp_path), **cfg))
    assert isinstance(built, SegLocalVisualizer)  # mmseg's hooks go on working with it
    RecordingVisBackend.calls.clear()
    output = sample()
    output.set_metainfo(dict(maps={'refined prior': torch.rand(4, 4, dtype=torch.bfloat16)}))
    built.add_episode('seven', IMAGE, [IMAGE], [MASK], output, step=3, panel_size=48)
    want = draw_sample(IMAGE, [IMAGE], [MASK], output, 48)
    ((project, name, image, step),) = RecordingVisBackend.calls
    assert (project, name, step) == ('mine', 'seven', 3) and np.array_equal(image, want)
    (path,) = tmp_path.rglob('seven_3.png')
    assert np.array_equal(cv2.imread(str(path))[..., ::-1], want)


def test_title_names_episode_class_and_iou(monkeypatch):
    titles = []
    monkeypatch.setattr(visualizer, 'draw_episode', lambda **k: titles.append(k['title']))
    truth = torch.ones(1, 16, 16, dtype=torch.uint8)
    truth[..., 8:] = 0
    draw_sample(IMAGE, [IMAGE], [MASK], sample(gt_sem_seg=truth))
    draw_sample(IMAGE, [IMAGE], [MASK], sample(gt_sem_seg=truth + 255 * (1 - truth)))
    draw_sample(IMAGE, [IMAGE], [MASK], sample())
    assert titles == [
        'episode 7: key, IoU 50.0 %',
        'episode 7: key, IoU 100.0 %',
        'episode 7: key',
    ]


def test_maps_of_the_sample_are_drawn():
    maps = {'pseudo fg': torch.rand(8, 8), 'refined prior': torch.rand(4, 4)}
    output = sample()
    output.set_metainfo(dict(maps=maps))
    drawn = draw_sample(IMAGE, [IMAGE], [MASK], output, 48)
    wanted = draw_episode(
        IMAGE, [IMAGE], [MASK], np.ones((16, 16), np.uint8), title='episode 7: key', panel_size=48,
        maps={name: one.numpy() for name, one in maps.items()},
    )  # fmt: skip
    assert np.array_equal(drawn, wanted) and drawn.shape[1] == 5 * (48 + 4) + 4
    output.set_metainfo(dict(maps={'attention': torch.rand(1, 8, 8)}))
    message = r'map attention must be an array \(h, w\); got \(1, 8, 8\)'
    with pytest.raises(ValueError, match=message):
        draw_sample(IMAGE, [IMAGE], [MASK], output)


def test_sample_without_a_prediction():
    with pytest.raises(ValueError, match=r"no pred_sem_seg, it has \[\]; draw what a model's"):
        draw_sample(IMAGE, [IMAGE], [MASK], SegDataSample())


RUN = """
default_hooks = dict(logger=dict(interval=1))
custom_hooks = [dict(type='EpisodeVisualizationHook', interval=2)]
visualizer = dict(vis_backends=[dict(type='LocalVisBackend')])
"""
TENSORBOARD = dict(type='TensorboardVisBackend')
WANDB = dict(type='WandbVisBackend', init_kwargs=dict(mode='offline', project='mine'))
MORE = [
    backend
    for backend, package in ((TENSORBOARD, 'tensorboard'), (WANDB, 'wandb'))
    if importlib.util.find_spec(package)
]
"""All that are installed beside the local one."""


@pytest.fixture(scope='module')
def ran(tmp_path_factory):
    """Work dirs of a training of two iterations and its test, with the pictures of each."""
    root = tmp_path_factory.mktemp('backends')
    config = write_config(root / 'visualizer_run.py', write_shapes(root / 'shapes', 30, 40))
    with open(config) as file:
        text = file.read().replace('max_epochs=3', 'max_epochs=1')
    with open(config, 'w') as file:
        file.write(text + RUN + f"visualizer['vis_backends'] += {MORE}\n")
    trained, tested = root / 'trained', root / 'tested'
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)  # W&B looks for code there
        patch.setenv('WANDB_SILENT', 'true')
        launch.train([config, '--work-dir', str(trained)])
        (checkpoint,) = trained.glob('epoch_1.pth')
        testing.test([config, str(checkpoint), '--work-dir', str(tested),
                      '--cfg-options', 'custom_hooks.0.interval=3'])  # fmt: skip
    return trained, tested


def losses_of(work_dir) -> list[float]:
    """What the local backend has."""
    (path,) = work_dir.rglob('scalars.json')
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line['loss'] for line in lines if 'loss' in line]


PICTURES = ['episode_00000', 'episode_00003', 'episodes']


def test_curves_and_local_pictures(ran):
    trained, tested = ran
    (history,) = write_curves([trained], trained / 'curves.png')
    assert list(history.train['loss']) == [1, 2] and list(history.val['mIoU']) == [1]
    assert list(history.train['loss'].values()) == pytest.approx(losses_of(trained))
    singles = sorted(path.name for path in tested.rglob('vis_image/*'))
    assert singles == [f'{name}_0.png' for name in PICTURES]
    sheet = cv2.imread(str(tested / 'episodes.png'))
    assert np.array_equal(cv2.imread(str(next(tested.rglob('episodes_0.png')))), sheet)
    assert sheet.shape[1] == 8 * 164 + 4  # with the refined prior and the errors


def test_tensorboard(ran):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def events(work_dir):
        (folder,) = {path.parent for path in work_dir.rglob('events.out.tfevents*')}
        return EventAccumulator(str(folder)).Reload()

    trained, tested = ran
    losses = events(trained).Scalars('loss')
    assert [event.step for event in losses] == [1, 2]
    assert [event.value for event in losses] == pytest.approx(losses_of(trained))
    assert len(events(trained).Scalars('mIoU')) == 1
    found = events(tested)
    assert sorted(found.Tags()['images']) == PICTURES
    (image,) = found.Images('episodes')
    encoded = np.frombuffer(image.encoded_image_string, np.uint8)
    sheet = cv2.imread(str(tested / 'episodes.png'))
    assert np.array_equal(cv2.imdecode(encoded, cv2.IMREAD_COLOR), sheet)


def test_wandb(ran):
    pytest.importorskip('wandb')
    trained, tested = ran
    logged = [row['loss'] for row in wandb_history(trained) if 'loss' in row]
    assert logged == pytest.approx(losses_of(trained)) and len(logged) == 2
    assert sum('mIoU' in row for row in wandb_history(trained)) == 1
    rows = wandb_history(tested)
    paths = {key: row[key] for row in rows for key in row if key.endswith('.path')}
    assert sorted(paths) == [f'{name}.path' for name in PICTURES]
    (path,) = tested.rglob(paths['episodes.path'])
    sheet = cv2.imread(str(tested / 'episodes.png'))
    assert np.array_equal(cv2.imread(str(path)), sheet)


def wandb_history(work_dir) -> list[dict]:
    """Rows of the one offline run there. Its file is a log of LevelDB behind 7 bytes: blocks of
    32 KiB of records, each of checksum (4 bytes), length (2), kind (1: whole; 2, 3, 4: first,
    middle, last piece) and content."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = work_dir.rglob('*.wandb')
    data, place, content, rows = path.read_bytes(), 7, b'', []
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], 'little'), data[place + 6]
        content += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            items = Record.FromString(content).history.item
            rows.append({one.key or '.'.join(one.nested_key): json.loads(one.value_json)
                         for one in items})  # fmt: skip
            content = b''
    return rows
