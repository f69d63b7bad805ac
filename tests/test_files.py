"""Files that are written whole or not at all."""

from __future__ import annotations

import csv
import errno
import hashlib
import os
import signal
import subprocess
import sys

import pytest

from mmfss import files
from mmfss.files import (
    atomic,
    check_writable,
    digest_of,
    explained,
    remove_parts,
    write_text,
)


def test_the_folder_is_made_and_nothing_else_stays(tmp_path):
    path = tmp_path / 'a/b/ü.txt'
    write_text(path, 'größer\n')
    assert path.read_bytes() == 'größer\n'.encode()
    assert os.listdir(path.parent) == ['ü.txt'] and path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), KeyboardInterrupt()])
def test_what_was_there_outlives_a_failed_write(tmp_path, error):
    path = tmp_path / 'a.txt'
    write_text(path, 'old')
    with pytest.raises(type(error)), atomic(path) as part:
        part.write_text('ne')
        raise error
    assert path.read_text() == 'old' and os.listdir(tmp_path) == ['a.txt']


def test_a_kill_in_the_middle_leaves_the_old_file(tmp_path, repo_root):
    path = tmp_path / 'a.txt'
    write_text(path, 'old')
    code = (
        'import sys, time; from mmfss.files import atomic\n'
        f'with atomic({str(path)!r}) as part:\n'
        "    part.write_text('ne'); print('half', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, '-c', code], stdout=subprocess.PIPE, text=True, cwd=repo_root
    )
    assert process.stdout.readline() == 'half\n'
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path.read_text() == 'old'
    assert all(name == 'a.txt' or name.endswith('.part') for name in os.listdir(tmp_path))
    write_text(path, 'new')
    assert path.read_text() == 'new'


def test_very_long_name(tmp_path):
    path = tmp_path / ('n' * 250 + '.txt')
    write_text(path, 'x')
    assert path.read_text() == 'x'


def test_places_that_cannot_be_written_to(tmp_path):
    (tmp_path / 'file').write_text('')
    for path in (tmp_path / 'file/a.json', tmp_path):
        with pytest.raises(ValueError, match=r'--out: .* cannot be written .*give the path of a'):
            check_writable(path, '--out')
    assert check_writable(tmp_path / 'b/a.json', '--out') == tmp_path / 'b/a.json'
    assert not (tmp_path / 'b/a.json').exists()


def test_checksum(tmp_path):
    content = os.urandom(3 * 2**20 + 7)
    (tmp_path / 'x').write_bytes(content)
    assert digest_of(tmp_path / 'x') == hashlib.sha256(content).hexdigest()


def test_what_a_killed_run_left_is_removed(tmp_path):
    for name in ('a.png', '.a.png.x.part', 'below/.b.png.y.part', 'below/c.part', '.hidden'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('')
    remove_parts(tmp_path)
    left = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob('*') if p.is_file())
    assert left == ['.hidden', 'a.png', 'below/c.part']


def test_errors_of_the_disk_say_what_to_do():
    error = explained(OSError(errno.ENOSPC, 'No space left on device', '/x'))
    assert f'{error}' == (
        f'[Errno {errno.ENOSPC}] No space left on device; free some space on the disk of /, then '
        "run the command again: what is complete is kept: '/x'"
    )
    assert explained(error) is error  # once is enough
    other = OSError(errno.EIO, 'Input/output error', '/x')
    assert explained(other) is other and explained(OSError('text')).errno is None


NAMES = [
    '=1+1',
    '+cmd',
    '-x',
    '@a',
    "'quoted",
    "'=1",
    '\tx',
    'plain',
    'a=1',
    '',
    '-0.5',
    '+3e2',
    'ä;"b"\nc',
]


def test_cells_that_a_spreadsheet_would_run_are_texts_and_come_back(tmp_path):
    path = tmp_path / 'a.csv'
    files.write_csv(path, ('name', '=head'), [(name, '1') for name in NAMES])
    with open(path, encoding='utf-8', newline='') as file:
        found = [row[0] for row in csv.reader(file)]
    assert found[1:5] == ["'=1+1", "'+cmd", "'-x", "'@a"]
    assert found[-3:-1] == ['-0.5', '+3e2']  # numbers are numbers
    for cell in found:
        try:
            float(cell)
        except ValueError:
            assert not cell.startswith(('=', '+', '-', '@', '\t', '\r'))
    assert files.read_csv(path) == [['name', '=head'], *([name, '1'] for name in NAMES)]


def test_what_takes_its_name_was_flushed_before(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(files.os, 'fsync', lambda number: (done.append('flush'), fsync(number)))
    monkeypatch.setattr(files.os, 'replace', lambda *names: (done.append('name'), replace(*names)))
    files.write_text(tmp_path / 'a.txt', 'a')
    with files.atomic(tmp_path / 'b.txt', flush=False) as part:
        part.write_text('b')
    assert done == ['flush', 'name', 'name']


def test_a_lock_is_had_by_one_and_leaves_nothing(tmp_path):
    lock = tmp_path / 'sub/.lock'
    for _ in range(2):
        with pytest.raises(FileNotFoundError), files.locked(lock, 'is at it'):
            said = rf'another run \(process {os.getpid()}\) is at it; wait'
            with pytest.raises(ValueError, match=said), files.locked(lock, 'is at it'):
                pass
            raise FileNotFoundError('of what it does')
        assert not lock.exists()
