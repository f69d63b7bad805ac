"""The hook that draws the first test episodes."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.structures import PixelData
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample

from mmfss.datasets.deferred import image_steps
from mmfss.datasets.episode_loading import compose
from mmfss.features.images import DeferredImage, DeferredImages
from mmfss.visualization import visualizer
from mmfss.visualization.episodes import CAPTION_HEIGHT, GAP, TITLE_HEIGHT
from mmfss.visualization.visualizer import EpisodeVisualizationHook, EpisodeVisualizer

P, SIDE = 48, 16
ROW = TITLE_HEIGHT + CAPTION_HEIGHT + P + GAP


class Pictures:
    """Stands for mmengine's visualizer."""

    def __init__(self):
        self.got = []

    def add_image(self, name, image, step=0):
        self.got.append((name, image, step))


def make_runner(work_dir):
    return SimpleNamespace(work_dir=str(work_dir), visualizer=Pictures(), iter=12, model=None)


def make_sample(episode: int, pseudo: bool = True):
    mask = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
    mask[..., : SIDE // 2] = 1
    sample = SegDataSample(metainfo=dict(episode=episode, class_name='key'))
    sample.gt_sem_seg = PixelData(data=mask)
    output = sample.clone()
    output.pred_sem_seg = PixelData(data=mask.clone())
    if pseudo:
        zeros = torch.zeros(SIDE, SIDE)
        output.set_metainfo(dict(maps={'pseudo fg': zeros, 'pseudo ae': zeros}))
    return sample, output


def make_batch(size: int, shots: int = 1, stacked: bool = False, pseudo: bool = True, first=0):
    """Pure blue pictures: channel 0 of BGR."""
    image = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
    image[0] = 255
    pairs = [make_sample(first + i, pseudo) for i in range(size)]
    inputs = dict(
        query=[image] * size,
        support=[torch.stack([image] * shots)] * size,
        support_mask=[pairs[0][0].gt_sem_seg.data.repeat(shots, 1, 1)] * size,
    )
    if stacked:
        inputs = {key: torch.stack(value) for key, value in inputs.items()}
    return dict(inputs=inputs, data_samples=[p[0] for p in pairs]), [p[1] for p in pairs]


def run_test(hook, runner, batches, stage='test'):
    getattr(hook, f'before_{stage}_epoch')(runner)
    for index, (batch, outputs) in enumerate(batches):
        getattr(hook, f'after_{stage}_iter')(runner, index, batch, outputs)
    getattr(hook, f'after_{stage}_epoch')(runner, {})


def build(**settings) -> EpisodeVisualizationHook:
    return HOOKS.build(dict(type='EpisodeVisualizationHook', panel_size=P, **settings))


@pytest.mark.parametrize('stacked', [False, True])
def test_writes_the_first_episodes(tmp_path, stacked):
    runner = make_runner(tmp_path / 'not' / 'yet')
    run_test(build(max_episodes=3), runner, [make_batch(2, stacked=stacked)] * 3)
    path = tmp_path / 'not' / 'yet' / 'episodes.png'
    picture = cv2.imread(str(path))[..., ::-1]
    assert picture.shape == (3 * ROW, 7 * (P + GAP) + GAP, 3)
    y, x = TITLE_HEIGHT + CAPTION_HEIGHT + P // 2, GAP + P + GAP + P // 2
    assert picture[y, x].tolist() == [0, 0, 255]  # the query: blue, in RGB
    assert [p.name for p in path.parent.iterdir()] == ['episodes.png']
    ((name, image, step),) = runner.visualizer.got
    assert (name, step) == ('episodes', 12)
    assert np.array_equal(image, picture)


@pytest.mark.parametrize('shots', [1, 2])
def test_deferred_images_are_read(tmp_path, shots):
    blue = np.zeros((SIDE, SIDE, 3), np.uint8)
    blue[..., 0] = 255
    cv2.imwrite(str(tmp_path / 'blue.png'), blue)
    steps = image_steps(compose([dict(type='LoadImage')]))
    path = str(tmp_path / 'blue.png')
    file = DeferredImage(path, DeferredImage.key_of(path, steps), steps, (SIDE, SIDE))
    for name, deferred in (('read.png', False), ('deferred.png', True)):
        batch, outputs = make_batch(2, shots=shots)
        if deferred:
            files = dict(
                query=[DeferredImages((file,))] * 2, support=[DeferredImages((file,) * shots)] * 2
            )
            batch['inputs'].update(files)
        run_test(build(out_file=name), make_runner(tmp_path), [(batch, outputs)])
    assert (tmp_path / 'read.png').read_bytes() == (tmp_path / 'deferred.png').read_bytes()


def test_what_the_maps_show_stands_below(tmp_path):
    runner = make_runner(tmp_path)
    runner.model = SimpleNamespace(module=SimpleNamespace(map_texts={'pseudo ae': 'said of it'}))
    run_test(build(), runner, [make_batch(1)])
    picture = cv2.imread(str(tmp_path / 'episodes.png'))
    assert picture.shape[0] == ROW + CAPTION_HEIGHT + GAP and picture[ROW:].max() > 200
    run_test(build(), runner, [make_batch(1, pseudo=False)])  # of maps that are drawn
    assert cv2.imread(str(tmp_path / 'episodes.png')).shape[0] == ROW


def test_fewer_episodes_than_asked_and_no_pseudo_masks(tmp_path):
    run_test(
        build(out_file='few.jpg'), make_runner(tmp_path), [make_batch(1, shots=2, pseudo=False)]
    )
    assert cv2.imread(str(tmp_path / 'few.jpg')).shape == (ROW, 6 * (P + GAP) + GAP, 3)


def test_second_test_replaces_the_picture(tmp_path):
    hook, runner = build(max_episodes=4), make_runner(tmp_path)
    run_test(hook, runner, [make_batch(4)])
    run_test(hook, runner, [make_batch(1)])
    assert cv2.imread(str(tmp_path / 'episodes.png')).shape[0] == ROW


def test_interrupted_test_leaves_nothing_behind(tmp_path):
    hook, runner = build(), make_runner(tmp_path)
    hook.after_test_iter(runner, 0, *make_batch(3))
    run_test(hook, runner, [make_batch(1)])
    assert cv2.imread(str(tmp_path / 'episodes.png')).shape[0] == ROW


def test_single_episodes_at_an_interval(tmp_path):
    """Episodes 4..9, two a batch, every third one; the sheet has the first two."""
    runner = make_runner(tmp_path)
    run_test(build(max_episodes=2, interval=3), runner, [make_batch(2, first=i) for i in (4, 6, 8)])
    shapes = {name: image.shape[0] for name, image, step in runner.visualizer.got}
    assert shapes == {'episode_00006': ROW, 'episode_00009': ROW, 'episodes': 2 * ROW}
    runner = make_runner(tmp_path)
    run_test(build(interval=1, draw_val=True), runner, [make_batch(1)], stage='val')
    assert [name for name, *_ in runner.visualizer.got] == ['val_episode_00000', 'episodes_val']


def test_another_drawing_by_a_subclass(tmp_path):
    class Plain(EpisodeVisualizer):
        def draw_sample(self, query, supports, support_masks, sample, panel_size=160):
            return np.full((panel_size, 7, 3), len(supports), np.uint8)

    runner = make_runner(tmp_path)
    runner.visualizer = Plain(name='plain')
    run_test(build(), runner, [make_batch(2, shots=3)])
    picture = cv2.imread(str(tmp_path / 'episodes.png'))
    assert picture.shape == (2 * P, 7, 3) and (picture == 3).all()


def test_validation_is_drawn_on_request_only(tmp_path):
    run_test(build(), make_runner(tmp_path), [make_batch(1)], stage='val')
    assert list(tmp_path.iterdir()) == []
    run_test(build(draw_val=True), make_runner(tmp_path), [make_batch(1)], stage='val')
    assert [p.name for p in tmp_path.iterdir()] == ['episodes_val.png']


def test_other_processes_draw_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(visualizer, 'is_main_process', lambda: False)
    runner = make_runner(tmp_path)
    run_test(build(), runner, [make_batch(1)])
    assert list(tmp_path.iterdir()) == [] and runner.visualizer.got == []


def test_path_is_logged(tmp_path):
    logger = MMLogger.get_instance('episode_hook')
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    run_test(build(), make_runner(tmp_path), [make_batch(1)])
    logger.removeHandler(handler)
    assert lines[-1:] == [f'Episodes drawn to {tmp_path / "episodes.png"}']


@pytest.mark.parametrize(
    'bad, message',
    [
        (
            dict(max_episodes=0),
            'max_episodes must be >= 1, got 0; to draw nothing leave the hook out',
        ),
        (dict(interval=-1), r'interval must be >= 0 \(0: no single episodes\), got -1'),
        (dict(out_file='x.gif'), r"out_file must end in \.png or \.jpg, got 'x\.gif'"),
        (dict(panel_size=5000), 'panel_size must be from 48 to 1024 pixels, got 5000'),
    ],
)
def test_bad_settings_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        EpisodeVisualizationHook(**bad)
