"""Killed, interrupted, out of space, started again with other values: nothing is lost or mixed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from PIL import Image

from mmfss.commands.label import label
from mmfss.datasets.io import read_mask
from mmfss.files import locked
from mmfss.labelling import records


def before_the_label_is_there(monkeypatch, kill):
    real = os.replace

    def replace(source, target):
        if str(target).endswith('03.png'):
            kill()
        real(source, target)

    monkeypatch.setattr(os, 'replace', replace)


def before_the_record_is_there(monkeypatch, kill):
    real = records.RecordWriter.add

    def add(self, record):
        if record['image'].endswith('04.jpg'):
            kill()
        real(self, record)

    monkeypatch.setattr(records.RecordWriter, 'add', add)


def in_the_middle_of_a_record(monkeypatch, kill):
    def add(self, record):
        text = json.dumps(record, separators=(',', ':')).encode()
        line = b'%08x %s\n' % (records.isal_zlib.crc32(text), text)
        torn = record['image'].endswith('05.JPG')
        self._file.write(line[: len(line) // 2] if torn else line)
        self._file.flush()
        if torn:
            kill()

    monkeypatch.setattr(records.RecordWriter, 'add', add)


def _run_and_kill(arguments, install):
    patch = pytest.MonkeyPatch()
    install(patch, lambda: os.kill(os.getpid(), signal.SIGKILL))
    label(arguments)


@pytest.mark.parametrize(
    'moment', [before_the_label_is_there, before_the_record_is_there, in_the_middle_of_a_record]
)
def test_killed_and_resumed_is_as_uninterrupted(case, tmp_path, files_of, capsys, moment):
    out = tmp_path / 'out'
    arguments = case.arguments(out)
    process = get_context('fork').Process(target=_run_and_kill, args=(arguments, moment))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert not (out / 'annotations.json').exists()
    written = list((out / 'ann_dir').rglob('*.png'))
    assert 1 <= len(written) <= 8
    for path in written:  # whole, each of them
        read_mask(path)
    assert label(arguments) == 0
    done = int(capsys.readouterr().out.split(', ')[1].split()[0])
    assert 1 <= done <= 8
    assert files_of(out) == files_of(case.reference)
    assert not list(out.rglob('.*.part'))


def test_ctrl_c_in_the_real_command(case, tmp_path, repo_root):
    images = tmp_path / 'many'
    images.mkdir()
    for i in range(60):
        os.symlink(case.images / '01.jpg', images / f'{i:02d}.jpg')
    out = tmp_path / 'out'
    command = [sys.executable, str(repo_root / 'tools/label.py')]
    command += case.arguments(out, images=images)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    until = time.monotonic() + 100
    while len(list((out / 'ann_dir').glob('*.png'))) < 3 and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert 'run the same command again and it goes on' in said and 'Traceback' not in said
    known = records.Records(out / 'records').entries
    assert 2 <= len(known) < 60 and not (out / 'scores.csv').exists()
    label_of_one = (case.reference / 'ann_dir/01.png').read_bytes()
    for path in (out / 'ann_dir').glob('*.png'):
        assert path.read_bytes() == label_of_one


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_stops_the_run_and_it_goes_on_after(
    case, tmp_path, files_of, capsys, monkeypatch, code
):
    out, real = tmp_path / 'out', os.replace

    def replace(source, target):
        if str(target).endswith(('ann_dir/04.png', 'ann_dir/05.png')):
            raise OSError(code, os.strerror(code), str(target))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', replace)
        assert label(case.arguments(out)) == 2
    said = capsys.readouterr().err
    assert f'{os.strerror(code)}; ' in said and 'what is complete is kept' in said
    assert len(list((out / 'ann_dir').rglob('*.png'))) >= 1
    assert not (out / 'failed.csv').exists()  # no image is to blame
    assert label(case.arguments(out)) == 0
    assert files_of(out) == files_of(case.reference)


def test_output_that_cannot_be_made(case, tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    assert label(case.arguments(tmp_path / 'file')) == 2
    assert 'a file is where a folder must be' in capsys.readouterr().err
    assert label(case.arguments(tmp_path / 'file/below')) == 2
    assert 'a file is where a folder must be' in capsys.readouterr().err


def test_other_values_are_refused_unless_overwritten(case, tmp_path, files_of, capsys):
    out = tmp_path / 'out'
    one = tmp_path / 'one'
    one.mkdir()
    (one / 'a.jpg').write_bytes((case.images / '01.jpg').read_bytes())
    assert label(case.arguments(out, images=one)) == 0
    before = files_of(out)
    state = torch.load(case.weights, weights_only=True)
    state['state_dict'] = {key: value + 0 for key, value in state['state_dict'].items()}
    next(iter(state['state_dict'].values())).add_(0.01)
    torch.save(state, tmp_path / 'other.pth')
    other = ('--weights', str(tmp_path / 'other.pth'))
    for more, images, named in (
        (('--threshold', 'slab=0.25'), one, 'thresholds was [0.0, 0.0], now [0.0, 0.25]'),
        (other, one, 'weights was '),
        ((), case.images, f'images was {one}, now {case.images}'),
        (('--amp',), one, 'amp was false, now true'),
    ):
        assert label(case.arguments(out, *more, images=images)) == 2
        said = capsys.readouterr().err
        assert named in said and 'Give another output folder, the same values' in said
        assert files_of(out) == before
    assert label(case.arguments(out, *other, '--overwrite', images=one)) == 0
    assert files_of(out)['run.json'] != before['run.json']
    assert len(records.Records(out / 'records').files) == 2  # those from before are gone


def test_two_runs_at_once_are_refused(case, tmp_path, capsys):
    with locked(tmp_path / 'out/.label.lock', f'is labelling into {tmp_path / "out"}'):
        assert label(case.arguments(tmp_path / 'out')) == 2
    said = capsys.readouterr().err
    assert f'another run (process {os.getpid()}) is labelling into' in said


def test_other_peoples_files_are_not_written_over(case, tmp_path, capsys):
    (tmp_path / 'out/ann_dir').mkdir(parents=True)
    for more in ((), ('--overwrite',)):
        assert label(case.arguments(tmp_path / 'out', *more)) == 2
        said = capsys.readouterr().err
        assert 'holds ann_dir but no run.json, so it is not of this command' in said
    (tmp_path / 'out/run.json').write_text('{"format": "another"}')
    assert label(case.arguments(tmp_path / 'out', '--overwrite')) == 2
    assert "is not of the format 'mmfss-labels-1'" in capsys.readouterr().err


def test_a_support_file_of_somebody_is_not_written_over(case, tmp_path, capsys):
    (tmp_path / 'support.safetensors').write_text('mine')
    assert label(case.arguments(tmp_path)) == 2
    assert 'holds support.safetensors but no run.json' in capsys.readouterr().err
    assert (tmp_path / 'support.safetensors').read_text() == 'mine'


def _correct(path):
    """Write a label of one block of class 2, in the palette of the one before."""
    with Image.open(path) as picture:
        corrected, palette = np.array(picture), picture.getpalette()
    corrected[:] = 0
    corrected[3:5, 2:9] = 2
    by_hand = Image.fromarray(corrected)
    by_hand.putpalette(palette)
    by_hand.save(path)
    return path.read_bytes()


def test_a_corrected_label_outlives_new_dates_of_its_image(case, tmp_path, capsys):
    images, out = tmp_path / 'images', tmp_path / 'out'
    images.mkdir()
    (images / 'a.jpg').write_bytes((case.images / '01.jpg').read_bytes())
    assert label(case.arguments(out, images=images)) == 0
    kept = _correct(out / 'ann_dir/a.png')
    for seconds in (10, 20, 30):  # as after copying the images
        os.utime(images / 'a.jpg', (seconds, seconds))
        assert label(case.arguments(out, images=images)) == 0
        assert (out / 'ann_dir/a.png').read_bytes() == kept
    capsys.readouterr()
    assert label(case.arguments(out, images=images)) == 0
    assert capsys.readouterr().out.startswith('0 labelled, 1 done before, 0 failed\n')
    Image.new('RGB', (30, 20)).save(images / 'a.jpg')  # another picture
    assert label(case.arguments(out, images=images)) == 0
    assert capsys.readouterr().out.startswith('1 labelled')
    with Image.open(out / 'ann_dir/a.png') as picture:
        assert picture.size == (30, 20)


def test_an_image_is_known_by_its_content(case, tmp_path, files_of, capsys, monkeypatch):
    """Another one of equal size and time in its place is labelled; one that was copied is not."""
    images, out = tmp_path / 'images', tmp_path / 'out'
    images.mkdir()
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(images / 'a.bmp')
    (images / 'b.jpg').write_bytes((case.images / '01.jpg').read_bytes())
    then = (images / 'a.bmp').stat()
    assert label(case.arguments(out, images=images)) == 0
    before = files_of(out)

    shutil.copytree(images, tmp_path / 'copy')  # with new times
    shutil.rmtree(images)
    os.rename(tmp_path / 'copy', images)
    reads, real = [], records.checksum_of
    monkeypatch.setattr(records, 'checksum_of', lambda path: reads.append(path.name) or real(path))
    time.sleep(2 * records._SETTLED)
    for looked_at in (['a.bmp', 'b.jpg'], []):  # it is known once it was read
        capsys.readouterr()
        assert label(case.arguments(out, images=images)) == 0
        assert capsys.readouterr().out.startswith('0 labelled, 2 done before')
        assert reads == looked_at and files_of(out) == before
        reads.clear()

    other = Image.fromarray(np.full((40, 60, 3), 90, np.uint8))
    other.paste((250, 220, 40), (10, 10, 40, 30))
    other.save(images / 'a.bmp')
    os.utime(images / 'a.bmp', ns=(then.st_atime_ns, then.st_mtime_ns))
    now = (images / 'a.bmp').stat()
    assert (now.st_size, now.st_mtime_ns) == (then.st_size, then.st_mtime_ns)
    capsys.readouterr()
    assert label(case.arguments(out, images=images)) == 0
    said = capsys.readouterr().out
    assert said.startswith('1 labelled') and ' 1 done before' in said
    assert label(case.arguments(tmp_path / 'anew', images=images)) == 0
    assert files_of(out) == files_of(tmp_path / 'anew') != before


def _as_colours(picture):
    return picture.convert('RGB')


def _smaller(picture):
    return picture.crop((0, 0, 9, 8))


def _other_class(picture):
    picture.putpixel((0, 0), 3)
    return picture


def _numbered_anew(picture):
    colours = picture.getpalette('RGB')
    picture.putpalette(colours[3:6] + colours[:3] + colours[6:])
    return picture


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (_as_colours, "must be a palette ('P') or 8-bit grey ('L') image"),
        (_smaller, 'is 9 x 8 pixels (width x height), its image 86 x 45'),
        (_other_class, 'has the value 3, allowed are 0..2'),
        (_numbered_anew, 'has another palette'),
    ],
)
def test_a_correction_that_cannot_be_used_stays(case, tmp_path, capsys, change, message):
    images, out = tmp_path / 'images', tmp_path / 'out'
    images.mkdir()
    (images / 'a.jpg').write_bytes((case.images / '01.jpg').read_bytes())
    assert label(case.arguments(out, images=images)) == 0
    _correct(out / 'ann_dir/a.png')
    with Image.open(out / 'ann_dir/a.png') as picture:
        change(picture).save(out / 'ann_dir/a.png')
    kept = (out / 'ann_dir/a.png').read_bytes()
    assert label(case.arguments(out, images=images)) == 2
    said = capsys.readouterr().err
    assert '1 labels were changed and cannot be used: ' in said and message in said
    assert (out / 'ann_dir/a.png').read_bytes() == kept


def test_corrected_and_damaged_labels_and_changed_images(case, tmp_path, files_of, capsys):
    images, out = tmp_path / 'images', tmp_path / 'out'
    images.mkdir()
    for name in ('01.jpg', '04.jpg', '07.jpg'):
        (images / name).write_bytes((case.images / name).read_bytes())
    assert label(case.arguments(out, images=images)) == 0
    before = files_of(out)
    kept = _correct(out / 'ann_dir/01.png')
    (out / 'ann_dir/04.png').write_bytes(before['ann_dir/04.png'][:60])
    os.utime(images / '07.jpg', (0, 0))  # its content is as it was
    capsys.readouterr()
    for said in ('1 labelled', '0 labelled'):  # the correction is recorded once
        assert label(case.arguments(out, images=images)) == 0
        assert capsys.readouterr().out.startswith(said)
    after = files_of(out)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {'ann_dir/01.png', 'annotations.json', 'scores.csv'}
    assert after['ann_dir/01.png'] == kept
    first = json.loads(after['annotations.json'])['annotations'][0]
    assert (first['image_id'], first['category_id']) == (1, 2)
    assert (first['area'], first['bbox']) == (14, [2, 3, 7, 2])
