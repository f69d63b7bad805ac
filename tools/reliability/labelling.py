"""Trials of ``mmfss label`` and its feature cache."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from mmfss.commands.label import label
from mmfss.commands.prepare import main as prepare
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
    small_disk,
    two_at_once,
    well,
    with_bits,
)
from reliability.tiny import write_tiny

VARYING = ('records', '.label.lock')


class Labelling:
    """A folder of images, its supports, and what an undisturbed run makes of it.

    Args:
        root: a folder for all.
        images: how many.
    """

    def __init__(self, root: Path, images: int = 12) -> None:
        self.root, self.images = root, root / 'example' / 'images'
        config, weights = write_tiny(root / 'tiny')
        self.options = ['--config', str(config), '--weights', str(weights), '--device', 'cpu']
        self.options += ['--no-self-check', '--threshold', '0']
        made = ['example', str(root / 'example'), '--images', str(images), '--image-size', '64']
        well(run(lambda: prepare(made), root / 'log'), 0)

    def command(self, out: Path, *more: str) -> Callable[[], int]:
        """The command line, as a function."""
        given = [str(self.images.parent / 'support'), str(self.images), str(out)]
        return lambda: label([*given, *self.options, *more])

    def label(self, out: Path, *more: str, **how: object) -> Ended:
        """Run it."""
        return run(self.command(out, *more), self.root / 'log', **how)  # type: ignore[arg-type]

    @cached_property
    def reference(self) -> Path:
        """What an undisturbed run writes."""
        out = self.root / 'reference'
        well(self.label(out), 0)
        return out

    @cached_property
    def events(self) -> tuple[int, float]:
        """Changes of files of an undisturbed run, and its seconds."""
        return events_of(self.command(self.root / 'counted'), self.root / 'log')

    def check_end(self, out: Path, *more: str) -> None:
        """A further run ends well, and all is as if nothing had happened."""
        well(self.label(out, *more), 0)
        same(files_of(out, VARYING), files_of(self.reference, VARYING), 'after a further run')
        if parts := list(out.rglob('.*.part')):
            raise Bad(f'{len(parts)} half-written files are left')

    def out(self) -> Path:
        """A folder that is not there."""
        shutil.rmtree(self.root / 'out', ignore_errors=True)
        return self.root / 'out'

    # ------------------------------------------------------------------------------- trials
    def kill_at_random(self, rng: random.Random) -> None:
        """Killed after any time."""
        out = self.out()
        self.label(out, kill_after=rng.uniform(0, self.events[1]))
        self.check_end(out)

    def kill_at_a_change(self, rng: random.Random) -> None:
        """Killed before a file is replaced, flushed, removed, or a folder made."""
        out = self.out()
        self.label(out, harm=killed_at(rng.randrange(self.events[0])))
        self.check_end(out)

    def kill_while_overwriting(self, rng: random.Random) -> None:
        """Killed while ``--overwrite`` removes what was there, or after."""
        out = copied(self.reference, self.out())
        self.label(out, '--overwrite', harm=killed_at(rng.randrange(self.events[0] + 40)))
        self.check_end(out, *rng.choice(((), ('--overwrite',))))

    def full_disk(self, rng: random.Random) -> None:
        """A disk that is full at some moment, then has room again."""
        out, most = self.out(), 40 + sum(map(len, files_of(self.reference).values())) // 1024
        with small_disk(self.root / 'disk', rng.randrange(20, most)) as grow:
            if grow is None:
                said = self.label(out, harm=full_at(rng.randrange(self.events[0] // 2)))
            else:
                out = self.root / 'disk' / 'out'
                said = self.label(out)
            if said.status:
                well(said, 2)
                if 'free some space on the disk of' not in said.last or 'disk' not in said.last:
                    raise Bad(f'the last line is {said.last[:300]!r}')
            if grow is not None:
                grow(20 * most)
            self.check_end(out)

    def flip_a_bit(self, rng: random.Random) -> None:
        """A bit of any file of the output, or of its records, falls over; but for the pictures to
        look at, which nothing reads."""
        out = copied(self.reference, self.out())
        files = [path for path in with_bits(out) if path.suffix != '.jpg']
        done = flip(rng.choice(files), rng)
        ended = self.label(out)
        if ended.status:  # refused by name
            well(ended, 2)
            if 'run.json' not in done and str(out) not in ended.last:
                raise Bad(f'{done}: {ended.last[:300]}')
        else:
            try:
                same(files_of(out, VARYING), files_of(self.reference, VARYING), done)
            except Bad as error:
                if 'run.json' not in f'{error}' or '1 files differ' not in f'{error}':
                    raise

    def flip_a_support(self, rng: random.Random) -> None:
        """A bit of the support file falls over."""
        support = self.root / 'flipped.safetensors'
        shutil.copy(self.reference / 'support.safetensors', support)
        done = flip(support, rng)
        given = [str(support), str(self.images), str(self.out())]
        ended = run(lambda: label([*given, *self.options]), self.root / 'log')
        if ended.status:
            well(ended, 2)
            if support.name not in ended.last:
                raise Bad(f'{done}: {ended.last[:300]}')
        else:
            found = files_of(self.root / 'out' / 'ann_dir')
            same(found, files_of(self.reference / 'ann_dir'), f'{done}, not noticed')

    def two_writers(self, rng: random.Random) -> None:
        """Two runs into one folder, some moments apart."""
        out, most = self.out(), 0.5 * self.events[1]
        two_at_once(self.command(out), self.root, rng, most, 2, 'is labelling into')
        self.check_end(out)


class Cache:
    """Trials of the feature cache on disk, by labelling with it."""

    def __init__(self, labelling: Labelling) -> None:
        self.labelling = labelling

    @cached_property
    def whole(self) -> Path:
        """A cache with all images."""
        folder = self.labelling.root / 'cache_whole'
        well(self._label(folder), 0)
        return folder

    def _label(self, cache: Path, **how: object) -> Ended:
        out = self.labelling.out()
        return self.labelling.label(out, '--feature-cache', str(cache), **how)

    def _check(self, cache: Path, what: str) -> None:
        well(self._label(cache), 0)
        found = files_of(self.labelling.root / 'out', VARYING)
        same(found, files_of(self.labelling.reference, VARYING), what)

    def flip_a_bit(self, rng: random.Random) -> None:
        """A bit of any file of the cache falls over."""
        cache = copied(self.whole, self.labelling.root / 'cache')
        done = flip(rng.choice(with_bits(cache)), rng)
        self._check(cache, done)

    def kill(self, rng: random.Random) -> None:
        """Killed while it is filled."""
        cache = self.labelling.root / 'cache'
        shutil.rmtree(cache, ignore_errors=True)
        self._label(cache, harm=killed_at(rng.randrange(2 * self.labelling.events[0])))
        self._check(cache, 'after a kill')

    def cut(self, rng: random.Random) -> None:
        """A file of it ends early."""
        cache = copied(self.whole, self.labelling.root / 'cache')
        path = rng.choice([p for p in cache.rglob('*') if p.is_file() and p.stat().st_size])
        data = path.read_bytes()
        path.write_bytes(data[: rng.randrange(len(data))])
        self._check(cache, f'{path.name} was cut')
