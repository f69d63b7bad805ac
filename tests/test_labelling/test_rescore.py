"""Another threshold for labels that are there, and what is said of each class."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.prediction import Prediction
from mmfss.commands.label import class_line, label
from mmfss.datasets.classes import label_palette
from mmfss.datasets.io import read_mask, save_png
from mmfss.labelling import kept, rescore
from mmfss.labelling.folder import read_run
from mmfss.labelling.tables import Found


def middle(case) -> float:
    """A threshold that some images miss."""
    found = json.loads((case.reference / 'annotations.json').read_text())
    assert found['annotations']
    text = (case.reference / 'scores.csv').read_text().splitlines()
    column = text[0].split(',').index('disc score')
    scores = sorted(float(line.split(',')[column]) for line in text[1:])
    return round(scores[len(scores) // 2] + 1e-6, 6)


@pytest.fixture(scope='module')
def runs(case, tmp_path_factory):
    """A run whose scores are kept, objects apart or not."""
    made = {}
    for name, more in (('classes', []), ('objects', ['--instances'])):
        made[name] = tmp_path_factory.mktemp('kept') / name
        assert label(case.arguments(made[name], '--keep-scores', *more)) == 0
    return made


def no_model(monkeypatch):
    def loaded(*_, **__):
        raise AssertionError('a model was loaded')

    monkeypatch.setattr(FewShotInferencer, '__init__', loaded)


@pytest.mark.parametrize('form', ['classes', 'objects'])
def test_the_same_bytes_as_a_run(form, case, runs, tmp_path, files_of, monkeypatch, capsys):
    more = ['--instances'] if form == 'objects' else []
    value = middle(case)
    options = ['--threshold', f'disc={value}', *more]
    fresh, out = tmp_path / 'fresh', tmp_path / 'out'
    assert label(case.arguments(fresh, '--keep-scores', '--format', 'yolo', *options)) == 0
    shutil.copytree(runs[form], out)
    before = files_of(out)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        no_model(patch)
        again = case.arguments(out, '--rescore', '--format', 'yolo', *options)
        assert label(again) == 0
    assert '9 labelled' in capsys.readouterr().out
    wanted, found = files_of(fresh), files_of(out)
    assert found == wanted and found != before
    assert label(case.arguments(out, *options)) == 0  # and a run goes on there
    assert '0 labelled, 9 done before, 0 failed' in capsys.readouterr().out


def test_killed_half_way(case, runs, tmp_path, files_of, monkeypatch, capsys):
    """No run goes on there until it has come to its end, from a label without its record on."""
    fresh, out = tmp_path / 'fresh', tmp_path / 'out'
    options = ['--threshold', f'disc={middle(case)}']
    assert label(case.arguments(fresh, '--keep-scores', *options)) == 0
    shutil.copytree(runs['classes'], out)
    real, count = rescore.write_photo, [0]

    def killed(*arguments):
        count[0] += 1
        found = real(*arguments)
        if count[0] == 4:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(rescore, 'write_photo', killed)
    assert label(case.arguments(out, '--rescore', *options)) == 130
    monkeypatch.undo()
    assert label(case.arguments(out)) == 2
    said = capsys.readouterr().err
    assert 'thresholds was being exchanged: run the command with --rescore again' in said
    assert label(case.arguments(out, '--rescore')[:-3] + ['--rescore']) == 0  # to what was begun
    assert files_of(out) == files_of(fresh)


def test_what_a_person_drew_stays(case, runs, tmp_path, capsys):
    out = tmp_path / 'out'
    shutil.copytree(runs['classes'], out)
    own = out / 'ann_dir/01.png'
    drawn = read_mask(own)
    drawn[:5] = 2
    save_png(own, drawn, label_palette(2))
    with Image.open(case.images / '02.JPG') as photo:
        photo.load()
    assert label(case.arguments(out, '--rescore', '--threshold', '1')) == 0
    assert '8 labelled' in capsys.readouterr().out
    np.testing.assert_array_equal(read_mask(own), drawn)
    masks = [read_mask(p) for p in (out / 'ann_dir').rglob('*.png') if p != own]
    assert len(masks) == 8 and not any(mask.any() for mask in masks)
    assert [*read_run(out)['settings']['thresholds']] == [1, 1]


def test_what_cannot_be_rescored(case, runs, tmp_path, monkeypatch, capsys):
    no_model(monkeypatch)

    def says(out, *more):
        assert label(case.arguments(out, '--rescore', *more)) == 2
        return capsys.readouterr().err

    assert 'has no scores of 9 images: ' in says(case.reference)
    assert 'has no run.json, so there are no labels of a run in it' in says(tmp_path / 'none')
    assert not (tmp_path / 'none').exists()
    assert 'has no objects in annotations.json' in says(runs['classes'], '--instances')
    assert 'leave --overwrite, --tiles and --launcher out' in says(runs['classes'], '--overwrite')
    said = says(runs['classes'], '--threshold', 'dog=0.5')
    assert "there is no class 'dog', the supports are of disc, slab" in said
    out = tmp_path / 'out'
    shutil.copytree(runs['classes'], out)
    (out / 'scores/01.npz').write_bytes(b'PK')
    assert 'scores/01.npz is damaged' in says(out)


def test_scores_come_back_as_they_were(tmp_path):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 8, 8)).astype(np.float32)
    parts = (None, rng.normal(size=(3, 5, 5)).astype(np.float32))
    scores, limits = np.array([0.3, 0.7], np.float32), np.array([0.5, 0.5], np.float32)
    one = Prediction.make(('a', 'b'), scores, limits, logits, (13, 9), 'x', parts)
    kept.keep_scores(tmp_path, 'below/x.jpg', one)
    lower = np.zeros(2, np.float32)
    again = kept.read_scores(tmp_path, 'below/x.jpg', ('a', 'b'), lower)
    np.testing.assert_array_equal(again.labels, one.with_threshold(0).labels)
    np.testing.assert_array_equal(again.logits, logits)
    np.testing.assert_array_equal(again.scores, scores)
    assert again.parts[0] is None
    np.testing.assert_array_equal(again.parts[1], parts[1])
    without = Prediction.make(('a', 'b'), scores, limits, logits, (13, 9), 'x')
    kept.keep_scores(tmp_path, 'y.jpg', without)
    assert kept.read_scores(tmp_path, 'y.jpg', ('a', 'b'), lower).parts == ()


# ---------------------------------------------------------------------------- what is said
def test_the_line_of_a_class():
    line = class_line('cat', Found(12, 24, 0.931, 0.6, 0.68, 3))
    assert line == (
        'cat: in 12 of 24 images, best score 0.93, median 0.60, threshold 0.68, 3 less than 0.05 '
        'below it'
    )
    line = class_line('a cat', Found(0, 24, 0.53, 0.4, 0.68, 0))
    assert line == (
        'a cat: in 0 of 24 images, best score 0.53, median 0.40, threshold 0.68: nothing was '
        "marked; try --threshold 'a cat=0.5', or more supports"
    )
    line = class_line('cat', Found(0, 2, 0.7, 0.4, 0.68, 0))
    assert line.endswith('nothing was marked: its masks are empty, or of other classes')
    assert class_line('cat', Found(0, 0, 0, 0, 0.5, 0)).endswith('threshold 0.50')


def test_the_command_says_it(case, tmp_path, capsys):
    assert label(case.arguments(tmp_path / 'out', '--threshold', 'slab=1')) == 0
    lines = capsys.readouterr().out.splitlines()
    (disc,) = (line for line in lines if line.startswith('disc: in '))
    (slab,) = (line for line in lines if line.startswith('slab: in 0 of 9 images, best score '))
    assert 'threshold 0.00' in disc and 'nothing was marked; try --threshold slab=' in slab


@pytest.mark.parametrize('which', ['gone', 'empty', 'lone mask', 'broken', 'file'])
def test_a_wrong_support_is_said_before_a_model_is_loaded(
    which, case, tmp_path, monkeypatch, capsys
):
    no_model(monkeypatch)
    support = tmp_path / 'support'
    said = {
        'gone': 'support', 'empty': 'has no', 'lone mask': 'masks have no image',
        'broken': 'truncated, damaged', 'file': 'support',
    }[which]  # fmt: skip
    if which == 'empty':
        support.mkdir()
    elif which == 'file':
        support.write_text('no support')
    elif which != 'gone':
        (support / 'cat').mkdir(parents=True)
        Image.new('L', (9, 9)).save(support / 'cat/b_mask.png')
        Image.new('RGB', (9, 9)).save(support / 'cat/a.jpg')
        (support / 'cat/a_mask.png').write_bytes(b'\x89PNG\r\n\x1a\n')
        if which == 'broken':
            (support / 'cat/b_mask.png').unlink()
    arguments = case.arguments(tmp_path / 'out')
    arguments[0] = str(support)
    assert label(arguments) == 2
    assert said in capsys.readouterr().err and not (tmp_path / 'out').exists()
