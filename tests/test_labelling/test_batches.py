"""The command with several images at a time, and with kept features."""

from __future__ import annotations

import csv
import json
import os
import signal
import weakref
from concurrent.futures import Future
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from mmfss.apis.inferencer import FewShotInferencer
from mmfss.commands.label import label
from mmfss.datasets.io import read_mask
from mmfss.encoders.encoding import Encoding

BATCH = ('--batch-size', '4')


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with open(path, encoding='utf-8', newline='') as file:
        return {row['image']: row for row in csv.DictReader(file)}


def check_equal(out: Path, reference: Path, names: set[str]) -> None:
    """Labels are equal (the batches' rounding moves no border in these images), scores to 1e-5."""
    scores, wanted = rows_of(out / 'scores.csv'), rows_of(reference / 'scores.csv')
    assert set(scores) == names
    for name in names:
        path = (Path('ann_dir') / name).with_suffix('.png')
        np.testing.assert_array_equal(read_mask(out / path), read_mask(reference / path))
        for column, value in wanted[name].items():
            if column != 'image':
                assert float(scores[name][column]) == pytest.approx(float(value), abs=1e-5)


def test_batches_with_broken_images_among_them(case, predictions, tmp_path, capsys):
    images, out = tmp_path / 'images', tmp_path / 'out'
    for name in predictions:
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (images / name).write_bytes((case.images / name).read_bytes())
    for name in ('02_torn.jpg', '05_torn.jpg', 'below/00_torn.png'):
        (images / name).write_bytes((case.images / '01.jpg').read_bytes()[:300])
    assert label(case.arguments(out, *BATCH, images=images)) == 1
    assert capsys.readouterr().out.startswith('9 labelled') and (out / 'run.json').is_file()
    assert set(rows_of(out / 'failed.csv')) == {'02_torn.jpg', '05_torn.jpg', 'below/00_torn.png'}
    check_equal(out, case.reference, set(predictions))


def _run_and_kill(arguments: list[str]) -> None:
    real = os.replace

    def replace(source, target):
        if str(target).endswith('07.png'):
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)

    pytest.MonkeyPatch().setattr(os, 'replace', replace)
    label(arguments)


def test_killed_within_a_batch_and_resumed(case, predictions, tmp_path, capsys):
    out = tmp_path / 'out'
    process = get_context('fork').Process(
        target=_run_and_kill, args=(case.arguments(out, '--batch-size', '3', '--no-overlays'),)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert 1 <= len(list((out / 'ann_dir').rglob('*.png'))) <= 8
    assert label(case.arguments(out, *BATCH, '--no-overlays')) == 0  # with another size too
    assert 1 <= int(capsys.readouterr().out.split(', ')[1].split()[0]) <= 8
    check_equal(out, case.reference, set(predictions))
    assert not list(out.rglob('.*.part'))


def test_the_same_run_gives_the_same_bytes(case, tmp_path, files_of):
    for out in ('a', 'b'):
        assert label(case.arguments(tmp_path / out, *BATCH)) == 0
    assert files_of(tmp_path / 'a') == files_of(tmp_path / 'b')


def test_a_batch_that_is_too_large_is_done_one_by_one(
    case, predictions, tmp_path, files_of, monkeypatch
):
    real, sizes = FewShotInferencer.predict, []

    def predict(self, images, sources):
        sizes.append(len(images))
        if len(images) > 1 or sources[0] == '04.jpg':
            raise torch.OutOfMemoryError('no room')
        return real(self, images, sources)

    monkeypatch.setattr(FewShotInferencer, 'predict', predict)
    assert label(case.arguments(tmp_path / 'out', *BATCH)) == 1
    assert sizes == [4, 1, 1, 1, 1, 4, 1, 1, 1, 1, 1]
    assert list(rows_of(tmp_path / 'out/failed.csv')) == ['04.jpg']
    found = files_of(tmp_path / 'out')
    for name, content in files_of(case.reference).items():  # each by itself: no rounding either
        if name.startswith('ann_dir/') and '04' not in name:
            assert found[name] == content


def test_what_a_failed_batch_had_taken_is_free_again(case, tmp_path, monkeypatch):
    real, taken = FewShotInferencer.predict, []

    def predict(self, images, sources):
        assert all(features() is None for features in taken)
        if len(images) > 1:
            features = torch.zeros(1)
            taken.append(weakref.ref(features))
            raise torch.OutOfMemoryError('no room')
        return real(self, images, sources)

    monkeypatch.setattr(FewShotInferencer, 'predict', predict)
    assert label(case.arguments(tmp_path / 'out', *BATCH)) == 0
    assert len(taken) == 2


def test_an_image_is_let_go_with_its_list(case, tmp_path, monkeypatch):
    seen = []

    def read_in_turn(read, items, batch):
        for item in items:
            now = [Future()]
            now[0].set_result(read(item))
            seen.append(weakref.ref(now[0].result().photo.pixels))
            yield now
            now.clear()
            assert seen[-1]() is None

    monkeypatch.setattr('mmfss.labelling.run.read_ahead', read_in_turn)
    assert label(case.arguments(tmp_path / 'out')) == 0
    assert len(seen) == 9


@pytest.mark.parametrize('option', ['--batch-size', '--pairs'])
def test_wrong_numbers(case, tmp_path, capsys, option):
    assert label(case.arguments(tmp_path / 'out', option, '0')) == 2
    assert 'must be an integer >= 1, got 0' in capsys.readouterr().err


# ------------------------------------------------------------------ kept features
def test_kept_features_change_no_byte(case, tmp_path, files_of, monkeypatch):
    kept = ('--feature-cache', str(tmp_path / 'kept'))
    assert label(case.arguments(tmp_path / 'first', *kept)) == 0
    stored = {path for path in (tmp_path / 'kept').rglob('*') if path.is_file()}
    assert len(stored) >= 9 + 3  # images and supports
    encoded, real = [], Encoding._chunk

    def encode(self, encoder, steps, images):
        encoded.append(len(images))
        return real(self, encoder, steps, images)

    monkeypatch.setattr(Encoding, '_chunk', encode)
    assert label(case.arguments(tmp_path / 'second', *kept)) == 0
    assert encoded == []
    for out in ('first', 'second'):
        assert files_of(tmp_path / out) == files_of(case.reference)
    settings = json.loads((tmp_path / 'first/run.json').read_text())['settings']
    assert not {'feature_cache', 'encode_batch'} & set(settings['model'])
    # another threshold: labels anew, nothing is encoded
    assert label(case.arguments(tmp_path / 'third', *kept, '--threshold', 'disc=1')) == 0
    assert encoded == []


def test_a_run_goes_on_with_and_without_kept_features(case, tmp_path, files_of, capsys):
    out = tmp_path / 'out'
    assert label(case.arguments(out)) == 0
    (out / 'ann_dir/04.png').unlink()
    assert label(case.arguments(out, '--feature-cache', str(tmp_path / 'kept'))) == 0
    assert '\n1 labelled' in '\n' + capsys.readouterr().out
    assert files_of(out) == files_of(case.reference)


def test_a_file_where_the_features_should_go(case, tmp_path, capsys):
    (tmp_path / 'file').write_text('mine')
    given = case.arguments(tmp_path / 'out', '--feature-cache', str(tmp_path / 'file'))
    assert label(given) == 2
    assert str(tmp_path / 'file') in capsys.readouterr().err
    assert (tmp_path / 'file').read_text() == 'mine'
