"""Interrupted preparations, a full disk, folders that cannot be written to: nothing is lost."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from preparation_jobs import bad_job, end_process, paint, slow_job
from prepared_checks import fails, files, picture, save

from mmfss import files as mmfss_files
from mmfss.commands import prepare as cli
from mmfss.datasets.io import save_png
from mmfss.datasets.preparation import folder_masks, jobs
from mmfss.datasets.preparation.jobs import run
from mmfss.datasets.segmentation import PreparedDataset

SCRIPT = """
import sys
from functools import partial
from pathlib import Path
sys.path[:0] = {path!r}
from mmfss.datasets.preparation.jobs import run
from preparation_jobs import slow_job

if __name__ == '__main__':
    print(run(partial(slow_job, folder=Path({out!r})), range({number}), 'slow', {workers}))
"""


def start(tmp_path: Path, out: Path, number: int, workers: int) -> subprocess.Popen:
    here = Path(__file__).resolve()
    path = [str(here.parents[2]), str(here.parents[1])]
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT.format(path=path, out=str(out), number=number, workers=workers))
    return subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(path)},
    )


def wait_for(condition, seconds: float = 120.0) -> None:
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, 'nothing happened'
        time.sleep(0.02)


def of_session(session: int) -> list[int]:
    """Processes of a session that are alive, by /proc."""
    found = []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            fields = stat.read_text().rpartition(')')[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != 'Z':
            found.append(int(stat.parent.name))
    return found


@pytest.mark.parametrize('stop, workers', [(signal.SIGKILL, 2), (signal.SIGINT, 2)])
def test_a_stopped_run_goes_on_and_ends_as_an_unbroken_one(tmp_path, stop, workers):
    out, number = tmp_path / 'out', 96
    process = start(tmp_path, out, number, workers)
    wait_for(lambda: len(list(out.glob('[0-9]*.png'))) > 8)
    (os.kill if stop == signal.SIGKILL else os.killpg)(process.pid, stop)  # ctrl-C reaches all
    process.communicate(timeout=120)
    assert process.returncode != 0
    wait_for(lambda: not of_session(process.pid))  # no worker is left behind
    made = {p.name: p for p in out.glob('[0-9]*.png')}
    assert 8 < len(made) < number
    for name, path in made.items():  # whole, each of them
        np.testing.assert_array_equal(np.asarray(Image.open(path)), paint(int(name[:3])))
    half = sorted(made)[:2]
    made[half[0]].write_bytes(made[half[0]].read_bytes()[:-30])
    made[half[1]].write_bytes(b'')
    (out / '.005.png.abc.part').write_bytes(b'half')
    mmfss_files.remove_parts(out)
    tally = run(partial(slow_job, folder=out), range(number), 'again', 0)
    assert (tally.written, tally.kept) == (number - len(made) + 2, len(made) - 2)
    run(partial(slow_job, folder=tmp_path / 'unbroken'), range(number), 'unbroken', 0)
    after, unbroken = files(out), files(tmp_path / 'unbroken')
    assert {k: v[1] for k, v in after.items()} == {k: v[1] for k, v in unbroken.items()}


def test_all_failures_are_reported_and_the_rest_is_done():
    with pytest.raises(ValueError) as failure:
        run(bad_job, range(9), 'numbers', 0)
    assert str(failure.value).startswith(
        'numbers: 3 of 9 failed (6 made, 0 complete already of the others):\n  number 0 is bad\n'
        '  number 3 is bad\n  number 6 is bad\n'
    )
    assert 'mend or remove these files and run the command again' in str(failure.value)
    tally = run(bad_job, [1, 2, 4], 'numbers', 0)
    assert (str(tally), tally.results) == ('3 made, 0 complete already', [1, 2, 4])


def test_processes_do_what_one_does():
    numbers = [n for n in range(100) if n % 3]
    assert run(bad_job, numbers, 'two', 2).results == numbers


def test_a_killed_worker_is_an_error():
    with pytest.raises(OSError, match='a worker process was killed, .*fewer --workers'):
        run(end_process, range(40), 'killed', 2)


def own_folder(tmp_path: Path, number: int = 6) -> Path:
    """A folder with two classes."""
    src = tmp_path / 'src'
    for i in range(number):
        for name in ('ant', 'bee'):
            picture(src / name / f'{i}.jpg', (40, 50), i)
            save(src / name / f'{i}.png', np.where(paint(i)[:40, :50] > 40, 255, 0).astype('u1'))
    return src


@pytest.mark.parametrize(
    'code, remedy',
    [
        (errno.ENOSPC, 'No space left on device; free some space on the disk of '),
        (errno.EROFS, 'Read-only file system; choose another output folder, then run'),
        (errno.EACCES, 'Permission denied; change its rights or choose another output folder'),
    ],
)
def test_a_disk_that_cannot_be_written_to(tmp_path, monkeypatch, capsys, code, remedy):
    src, out = own_folder(tmp_path), tmp_path / 'out'
    calls: list[Path] = []
    monkeypatch.setattr(folder_masks, 'save_png', partial(_failing, calls, code))
    said = fails('folder', src, out)
    assert remedy in said and 'what is complete is kept' in said
    assert not (out / 'dataset.json').exists() and not list(out.rglob('*.part'))
    assert len(list(out.rglob('*.png'))) == 5
    with pytest.raises(FileNotFoundError, match='its preparation was interrupted; run tools/prep'):
        PreparedDataset(str(out), 'all')
    monkeypatch.undo()
    cli.main(['folder', str(src), str(out), '--workers', '0'])
    assert '7 made, 5 complete already' in capsys.readouterr().out
    assert len(PreparedDataset(str(out), 'all')) == 12


def _failing(calls: list, code: int, path: Path, mask: np.ndarray) -> None:
    """``save_png`` on a disk that has room for five files."""
    calls.append(path)
    if len(calls) <= 5:
        save_png(path, mask)
        return
    with mmfss_files.atomic(path) as part:
        part.write_bytes(b'half')
        raise OSError(code, os.strerror(code), str(part))


def test_a_full_disk(tmp_path):
    """On a real, small file system, where one may be mounted."""
    out = tmp_path / 'small'
    out.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', str(out)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip('mounting a small file system is not permitted')
    try:
        with pytest.raises(OSError, match='No space left on device; free some space'):
            run(partial(slow_job, folder=out / 'masks'), range(40), 'full', 0)
        assert not list(out.rglob('*.part'))
        made = sorted(out.rglob('*.png'))
        assert 3 < len(made) < 20
        for path in made:
            np.testing.assert_array_equal(np.asarray(Image.open(path)), paint(int(path.stem)))
    finally:
        subprocess.run(['umount', str(out)], check=True)


def test_a_file_in_place_of_a_folder(tmp_path):
    src = own_folder(tmp_path)
    (tmp_path / 'out').write_text('mine')
    said = fails('folder', src, tmp_path / 'out')
    assert 'a file is where a folder must be: remove it or choose another output folder' in said
    assert (tmp_path / 'out').read_text() == 'mine'


def test_ctrl_c_says_that_it_goes_on(tmp_path, monkeypatch, capsys):
    src = own_folder(tmp_path)

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, '_outcome', interrupt)
    with pytest.raises(SystemExit) as stop:
        cli.main(['folder', str(src), str(tmp_path / 'out'), '--workers', '0'])
    assert stop.value.code == 130
    assert re.search('interrupted: .*run the same command again', capsys.readouterr().err)


@pytest.mark.parametrize('workers', ['-1', 'two', '1.5'])
def test_workers_must_be_a_number(tmp_path, capsys, workers):
    with pytest.raises(SystemExit):
        cli.main(['folder', str(tmp_path), str(tmp_path / 'out'), f'--workers={workers}'])
    assert f"must be an integer from 0 on, got '{workers}'" in capsys.readouterr().err


def test_every_command_has_help(capsys):
    for name in cli.COMMANDS:
        with pytest.raises(SystemExit) as stop:
            cli.main([name, '--help'])
        assert stop.value.code == 0
        assert f'prepare.py {name}' in capsys.readouterr().out
