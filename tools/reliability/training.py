"""Trials of ``mmfss train``, ``test``, ``prepare`` and the converter."""

from __future__ import annotations

import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from mmfss.commands.cli import run as command
from mmfss.commands.prepare import main as prepare
from mmfss.safe_load import is_whole, load_checkpoint
from reliability.running import (
    Bad,
    Ended,
    copied,
    events_of,
    files_of,
    flip,
    full_at,
    killed_at,
    run,
    same,
    two_at_once,
    well,
)
from reliability.tiny import write_tiny

TOOLS = Path(__file__).resolve().parents[1]
EPOCHS = 4
SEEDS = ('--seeds', '0', '1')


def whole_ones(work_dir: Path) -> list[Path]:
    """Checkpoints of a training that are whole; those under their names that are not are bad."""
    found = sorted(work_dir.glob('epoch_*.pth')) + sorted(work_dir.glob('best_*.pth'))
    if torn := [path.name for path in found if not is_whole(path)]:
        raise Bad(f'{torn} is under its name and not whole')
    return [path for path in found if path.name.startswith('epoch')]


class Training:
    """Training of a tiny model, and its tests.

    Args:
        root: a folder for all.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.log = root, root / 'log'
        self.config, _ = write_tiny(root / 'tiny')

    def train(self, *more: str) -> Callable[[], None]:
        """The command, as a function."""
        given = [str(self.config), '--work-dir', str(self.root / 'work'), '--feature-cache', 'none']
        return lambda: command('train', [*given, *more])

    def begin(self) -> Path:
        """The work folder, empty."""
        shutil.rmtree(self.root / 'work', ignore_errors=True)
        return self.root / 'work'

    @cached_property
    def events(self) -> int:
        """Changes of files of an undisturbed training."""
        self.begin()
        return events_of(self.train(), self.log)[0]

    @cached_property
    def trained(self) -> Path:
        """What an undisturbed training leaves."""
        work = self.begin()
        well(run(self.train(), self.log), 0)
        return copied(work, self.root / 'trained')

    def resume(self, work: Path, begun: list[Path]) -> None:
        """``--resume`` ends the training from a whole checkpoint."""
        ended = well(run(self.train('--resume'), self.log), 0)
        last = whole_ones(work)
        if [path.name for path in last] != [f'epoch_{EPOCHS}.pth']:
            raise Bad(f'after --resume there is {last}')
        if load_checkpoint(last[0])['meta']['epoch'] != EPOCHS:
            raise Bad('the last checkpoint is of another epoch')
        if begun and 'resumed epoch' not in ended.said:
            raise Bad(f'{begun} was there, and training began anew')

    # ------------------------------------------------------------------------------- trials
    def kill_at_a_change(self, rng: random.Random) -> None:
        """Killed before a save, a replacement, a removal, the pointer; then ``--resume``."""
        work, event = self.begin(), rng.randrange(self.events)
        run(self.train(), self.log, killed_at(event))
        begun = whole_ones(work)
        if (work / 'last_checkpoint').exists() and not begun:
            raise Bad(f'event {event}: a checkpoint is noted and none is whole')
        self.resume(work, begun)

    def full_disk(self, rng: random.Random) -> None:
        """The disk is full from a moment on; then has room, and ``--resume``."""
        work, event = self.begin(), rng.randrange(self.events // 2)
        ended = run(self.train(), self.log, full_at(event))
        begun = whole_ones(work)
        if ended.status:
            well(ended, 1)
            if 'No space left on device' not in ended.last or str(self.root) not in ended.last:
                raise Bad(f'the last line is {ended.last[:300]!r}')
        self.resume(work, begun)

    def flip_a_checkpoint(self, rng: random.Random) -> None:
        """A bit of a checkpoint falls over; then it is tested."""
        flipped = self.root / 'flipped.pth'
        shutil.copy(self.last, flipped)
        done = flip(flipped, rng)
        ended, found = self._tested(flipped)
        if ended.status:
            well(ended, 1)
            if flipped.name not in ended.last:
                raise Bad(f'{done}: {ended.last[:300]}')
        elif found != self.figure:
            raise Bad(f'{done}: not noticed, {found} in the place of {self.figure}')

    def test(self, checkpoint: Path, *more: str) -> Callable[[], None]:
        """The command, as a function."""
        given = [str(self.config), str(checkpoint), '--work-dir', str(self.root / 'test')]
        return lambda: command('test', [*given, '--feature-cache', 'none', *more])

    def _tested(self, checkpoint: Path) -> tuple[Ended, str]:
        ended = run(self.test(checkpoint), self.log)
        figures = re.findall(r'mIoU[: ]+([\d.]+)', ended.said)
        return ended, figures[-1] if figures else ''

    @cached_property
    def last(self) -> Path:
        """The last checkpoint of an undisturbed training."""
        (last,) = whole_ones(self.trained)
        return last

    @cached_property
    def figure(self) -> str:
        """What a test of it gives."""
        ended, found = self._tested(self.last)
        well(ended, 0)
        return found

    @cached_property
    def table(self) -> Path:
        """Results of two seeds."""
        base = self.root / 'results'
        well(run(self.test(self.last, *SEEDS, '--out', str(base)), self.log), 0)
        return Path(f'{base}.json')

    def flip_results(self, rng: random.Random) -> None:
        """A bit of stored results falls over; the same command again gives the same figures."""
        whole, flipped = self.table.read_text(), self.root / 'again.json'
        shutil.copy(self.table, flipped)
        done = flip(flipped, rng)
        base = flipped.with_suffix('')
        ended = run(self.test(self.last, *SEEDS, '--out', str(base)), self.log)
        if ended.status:
            well(ended, 1)
            if flipped.name not in ended.last:
                raise Bad(f'{done}: {ended.last[:300]}')
            return

        def counted(text: str) -> list[str]:
            return re.findall(r'"mIoU": ([\d.]+)', text)

        if counted(flipped.read_text()) != counted(whole):
            raise Bad(f'{done}: other figures, not noticed')

    def two_tests(self, rng: random.Random) -> None:
        """Two ``test`` into one ``--out``."""
        results = self.root / 'both.json'
        results.unlink(missing_ok=True)
        both = self.test(self.last, *SEEDS, '--out', str(results.with_suffix('')))
        two_at_once(both, self.root, rng, 0.5, 1, 'another run (process')
        if not results.is_file():
            raise Bad('there are no results')

    def kill_two_processes(self, rng: random.Random) -> None:
        """torchrun with two processes, all killed after a time; then ``--resume`` with two."""
        work = self.begin()
        line = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2']
        line += ['--master_port', str(rng.randrange(20000, 60000)), str(TOOLS / 'train.py')]
        line += [str(self.config), '--work-dir', str(work), '--launcher', 'pytorch']
        env = {**os.environ, 'PYTHONPATH': str(TOOLS.parent), 'OMP_NUM_THREADS': '1'}
        with open(self.log, 'wb') as log:
            started = subprocess.Popen(
                line, stdout=log, stderr=log, env=env, start_new_session=True
            )
            until = time.monotonic() + 200
            wanted = rng.randrange(1, EPOCHS)
            while not list(work.glob(f'epoch_{wanted}.pth')) and time.monotonic() < until:
                if started.poll() is not None:
                    break
                time.sleep(0.02)
            time.sleep(rng.uniform(0, 1.0))
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()
        begun = whole_ones(work)
        if not begun:
            raise Bad(f'nothing is whole: {self.log.read_text(errors="replace")[-300:]}')
        done = subprocess.run(
            [*line, '--resume'], capture_output=True, text=True, env=env, timeout=300
        )
        last = [path.name for path in whole_ones(work)]
        if done.returncode or last != [f'epoch_{EPOCHS}.pth']:
            raise Bad(f'status {done.returncode}, {last}: {done.stderr[-300:]}')


class Code:
    """A checkpoint that wants to run code: it would make a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.marker,)


class Preparing:
    """Trials of ``mmfss prepare folder`` and ``convert-fssam``."""

    def __init__(self, root: Path) -> None:
        self.root, self.log, self.source = root, root / 'log', root / 'example' / 'support'
        made = ['example', str(root / 'example'), '--images', '2', '--image-size', '64']
        well(run(lambda: prepare(made), self.log), 0)

    def prepare(self, out: Path) -> Callable[[], None]:
        """The command, as a function."""
        given = ['folder', str(self.source), str(out), '--min-area', '1', '--workers', '0']
        return lambda: prepare([*given, '--name', 'tried'])

    @cached_property
    def reference(self) -> Path:
        """What an undisturbed run writes."""
        well(run(self.prepare(self.root / 'reference'), self.log), 0)
        return self.root / 'reference'

    @cached_property
    def events(self) -> int:
        """Changes of files of an undisturbed run."""
        return events_of(self.prepare(self.root / 'counted'), self.log)[0]

    def _end(self, out: Path) -> None:
        well(run(self.prepare(out), self.log), 0)
        same(files_of(out), files_of(self.reference), 'after a further run')

    def kill(self, rng: random.Random) -> None:
        """Killed before a change of files."""
        out, event = self.root / 'out', rng.randrange(self.events)
        shutil.rmtree(out, ignore_errors=True)
        run(self.prepare(out), self.log, killed_at(event))
        self._end(out)

    def full_disk(self, rng: random.Random) -> None:
        """The disk is full from a moment on."""
        out = self.root / 'out'
        shutil.rmtree(out, ignore_errors=True)
        ended = run(self.prepare(out), self.log, full_at(rng.randrange(self.events // 2)))
        if ended.status:
            well(ended, 1)
            if 'No space left on device' not in ended.said or 'free some space' not in ended.said:
                raise Bad(f'it says {ended.said[-300:]!r}')
        self._end(out)

    def flip_a_mask(self, rng: random.Random) -> None:
        """A bit of a mask that was made falls over: made again, or the same pixels."""
        import numpy as np
        from PIL import Image

        out = copied(self.reference, self.root / 'out')
        masks = sorted(out.rglob('*.png'))
        path = rng.choice(masks)
        done = flip(path, rng)
        well(run(self.prepare(out), self.log), 0)
        whole = self.reference / path.relative_to(out)
        if not np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(whole))):
            raise Bad(f'{done}: other pixels, not noticed')

    def checkpoint_with_code(self, rng: random.Random) -> None:
        """The converter is given a file that would make a folder when it is loaded."""
        marker, file = self.root / 'marker', self.root / 'code.pth'
        data = pickle.dumps({'sam2.a': Code(marker)}, protocol=rng.choice((2, 3, 4, 5)))
        if rng.random() < 0.5:
            import zipfile

            with zipfile.ZipFile(file, 'w') as archive:
                archive.writestr('archive/data.pkl', data)
                archive.writestr('archive/version', '3\n')
        else:
            file.write_bytes(data)
        given = [str(file), str(self.root / 'made.pth'), '--config', 'fss_sam2_pascal_1shot']
        ended = run(lambda: command('convert-fssam', [*given, '--fold', '0']), self.log)
        if marker.exists():
            raise Bad('the code ran')
        well(ended, 1)
        if file.name not in ended.last or (self.root / 'made.pth').exists():
            raise Bad(f'it says {ended.last[:300]!r}')
