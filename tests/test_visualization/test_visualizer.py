"""Episodes through MMEngine's backends, and the curves of the same run: a tiny real one."""

from __future__ import annotations

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
visualizer = dict(vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])
"""


def test_training_and_test_in_tensorboard_and_curves(tmp_path):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = write_config(tmp_path / 'visualizer_run.py', write_shapes(tmp_path / 'shapes', 30, 40))
    with open(config) as file:
        text = file.read().replace('max_epochs=3', 'max_epochs=1')
    with open(config, 'w') as file:
        file.write(text + RUN)
    work_dir = tmp_path / 'work'
    launch.train([config, '--work-dir', str(work_dir)])
    (folder,) = {path.parent for path in work_dir.rglob('events.out.tfevents*')}
    events = EventAccumulator(str(folder)).Reload()
    losses = events.Scalars('loss')
    assert [event.step for event in losses] == [1, 2]
    assert len(events.Scalars('mIoU')) == 1

    (history,) = write_curves([work_dir], tmp_path / 'curves.png')
    assert list(history.train['loss']) == [1, 2] and list(history.val['mIoU']) == [1]
    assert list(history.train['loss'].values()) == pytest.approx([e.value for e in losses])

    options = ['custom_hooks.0.interval=3', 'visualizer.vis_backends.0.type=TensorboardVisBackend']
    options.append('visualizer.vis_backends.1.type=LocalVisBackend')
    (checkpoint,) = work_dir.glob('epoch_1.pth')
    arguments = [config, str(checkpoint), '--work-dir', str(tmp_path / 'test')]
    testing.test([*arguments, '--cfg-options', *options])
    (folder,) = {path.parent for path in (tmp_path / 'test').rglob('events.out.tfevents*')}
    events = EventAccumulator(str(folder)).Reload()
    assert set(events.Tags()['images']) == {'episode_00000', 'episode_00003', 'episodes'}
    (image,) = events.Images('episodes')
    sheet = cv2.imread(str(tmp_path / 'test' / 'episodes.png'))
    encoded = np.frombuffer(image.encoded_image_string, np.uint8)
    assert np.array_equal(cv2.imdecode(encoded, cv2.IMREAD_COLOR), sheet)
    assert sheet.shape[1] == 8 * 164 + 4  # with the refined prior and the errors
    singles = sorted(path.name for path in (tmp_path / 'test').rglob('vis_image/*'))
    assert singles == ['episode_00000_0.png', 'episode_00003_0.png', 'episodes_0.png']
