"""E episodes of M images: the published way, and ours without, with a cold and a warm cache."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmfss.encoders.compiling import warm_up

from benchmarks.common import fold_spec, machine_of, subject_of, tolerance_of
from benchmarks.pictures import FoldSpec, episodes_of, write_fold
from benchmarks.report import mib, table
from benchmarks.running import Episodes, Outcome, compare
from benchmarks.stages import ENCODERS, FINGERPRINT, KEPT
from benchmarks.subject import Subject, folder
from benchmarks.timing import note, peak_bytes, summary
from mmfss.methods.fssam.model import FSSAM

HELP = 'an evaluation of E episodes of M images, with and without feature cache'
NAIVE, PLAIN, COLD, WARM = 'naive', 'no cache', 'cold cache', 'warm cache'
TARGET = (364, 1000)  # images and episodes of PASCAL-5i, fold 0
_MEMORY = 2**30  # of FeatureCache, by default


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument('--images', type=int, default=12, help='M (%(default)s)')
    parser.add_argument('--episodes', type=int, default=33, help='E (%(default)s)')
    parser.add_argument('--shots', type=int, nargs='+', default=[1, 5], help='K')
    parser.add_argument('--batch', type=int, default=4, help='of the batched evaluation; 1: none')
    parser.add_argument(
        '--plain-episodes',
        type=int,
        help='take only so many for the ways that keep nothing: all episodes cost the same there',
    )
    parser.add_argument(
        '--target',
        type=int,
        nargs=2,
        default=TARGET,
        metavar=('M', 'E'),
        help='images and episodes of the list that figures are extrapolated to (%(default)s)',
    )
    parser.add_argument(
        '--cache-memory',
        type=int,
        help='bytes that the cache may hold in memory; default: its own default times M / target M',
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure.

    Returns:
        ``machine``; for each K under ``shots``: ``ways`` (seconds of all episodes, of one, images
        per second, parts of one episode), ``target`` (extrapolated seconds) and ``ratios`` to the
        naive way; ``equal``: how far the results of two ways are apart; ``peak_bytes`` of the
        process, all ways together.
    """
    _check(args)
    if args.quick:
        args.images = min(args.images, max(6, max(args.shots) + 1))
        args.episodes = min(args.episodes, 6)
    subject = subject_of(args)
    results: dict[str, Any] = dict(machine=machine_of(subject, args.quick), shots={}, equal={})
    with folder(args.data) as root:
        spec = fold_spec(args, args.images, max(args.shots) + 1)
        pictures = write_fold(root, spec)
        for shots in args.shots:
            with tempfile.TemporaryDirectory(dir=root) as caches:
                ways = Ways(args, subject, pictures, spec, shots, Path(caches))
                results['shots'][str(shots)] = ways.measured()
                results['equal'].update(ways.equal)
    return dict(results, peak_bytes=peak_bytes(subject.target))


def _check(args: argparse.Namespace) -> None:
    smallest = dict(images=2, episodes=1, batch=1)
    for name, low in smallest.items():
        if getattr(args, name) < low:
            raise ValueError(f'--{name} must be >= {low}, got {getattr(args, name)}')
    if min(args.shots) < 1 or min(args.target) < 1:
        raise ValueError(f'--shots and --target must be >= 1, got {args.shots}, {args.target}')
    if args.plain_episodes is not None and args.plain_episodes < 1:
        raise ValueError(f'--plain-episodes must be >= 1, got {args.plain_episodes}')


class Ways:
    """All ways to evaluate one list of K-shot episodes.

    Args:
        args: of the command line.
        subject, pictures, spec: model and data.
        shots: K.
        caches: an empty folder.

    Attributes:
        equal: of the two ways that were compared, see :func:`benchmarks.running.compare`.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        subject: Subject,
        pictures: Path,
        spec: FoldSpec,
        shots: int,
        caches: Path,
    ) -> None:
        self.args, self.subject, self.shots, self.caches = args, subject, shots, caches
        self.equal: dict[str, Any] = {}
        self.fixed: dict[str, float] = {}
        where = pictures, spec, subject.side, shots, args.episodes
        self.read = episodes_of(*where)
        self.deferred = episodes_of(*where, defer_images=True)
        drawn = [self.read.episode(i) for i in range(args.episodes)]
        self.distinct = len({image for e in drawn for image in (e.query, *e.supports)})
        share = self.distinct / args.target[0]
        self.memory = args.cache_memory if args.cache_memory is not None else int(_MEMORY * share)

    def measured(self) -> dict[str, Any]:
        """Turns of all ways; the last outcome of each is compared."""
        outcomes: dict[str, list[Outcome]] = {}
        parts: dict[str, dict[str, float]] = {}
        for turn in range(self.args.repeats or 1):
            for name, outcome in self._turn(turn, parts).items():
                outcomes.setdefault(name, []).append(outcome)
        last = {name: runs[-1] for name, runs in outcomes.items()}
        self._compare(last)
        ways: dict[str, dict[str, Any]] = {
            name: dict(
                seconds=summary([run.total for run in runs]),
                episodes=runs[-1].episodes,
                fixed_seconds=self.fixed[name],
                episode_seconds=per_episode(runs, self.fixed[name]),
                cache=runs[-1].cache,
                figures={key: runs[-1].figures[key] for key in ('mIoU', 'FB-IoU')},
                parts=parts.get(name, {}),
            )
            for name, runs in outcomes.items()
        }
        for entry in ways.values():
            entry['images_per_second'] = (self.shots + 1) / entry['episode_seconds']
        target = extrapolated(
            {name: entry['episode_seconds'] for name, entry in ways.items()},
            self.fixed,
            self.args.episodes,
            self.distinct,
            tuple(self.args.target),
        )
        return dict(
            images=self.distinct,
            cache_memory=self.memory,
            ways=ways,
            target=target,
            ratios={k: target[NAIVE] / v for k, v in target.items() if k != NAIVE},
        )

    def _turn(self, turn: int, parts: dict[str, dict[str, float]]) -> dict[str, Outcome]:
        """Each way once; on the first turn also the parts of a few episodes, taken apart."""
        batch, plain = self.args.batch, self.args.plain_episodes
        cache = dict(directory=str(self.caches / f'{turn}'), memory_bytes=self.memory)
        apart = dict(directory=str(self.caches / f'{turn}_parts'), memory_bytes=self.memory)
        ways: list[tuple[str, dict[str, Any] | None, int, int | None]] = [
            (NAIVE, None, 1, plain),
            (PLAIN, None, 1, plain),
            (COLD, cache, 1, None),
            (WARM, cache, 1, None),
        ]
        if batch > 1:
            ways.append((f'{WARM}, batch {batch}', cache, batch, None))
        found = {}
        for name, options, size, limit in ways:
            note(f'{self.shots}-shot: {name}')
            model = self._model(name, options, size)
            found[name] = self._run(model, size, limit)
            if not turn:
                if options is not None:  # a cold one has to be empty, a warm one to be opened
                    model = self._model(name, apart if name in (COLD, WARM) else options, size)
                some = self._run(model, size, min(4 * size, self.args.episodes), staged=True)
                self.fixed[name] = some.stages.pop(FINGERPRINT, 0.0)
                parts[name] = {k: v / some.episodes for k, v in some.stages.items()}
        return found

    def _model(self, name: str, cache: dict[str, Any] | None, batch: int) -> FSSAM:
        """A new model, so that nothing is in memory. The first call of an operation costs more:
        without a cache, an episode is run that does not count."""
        model = self.subject.build_naive() if name == NAIVE else self.subject.build(cache)
        if self.subject.compile and name != NAIVE:
            with self.subject.context():
                note(f'compiled in {warm_up(model, batch, self.shots):.0f} s')
        if cache is None:
            self._run(model, batch, 1)
        return model

    def _run(self, model: FSSAM, batch: int, limit: int | None, staged: bool = False) -> Outcome:
        """Episodes through a model; one with a cache gets images that are not read."""
        dataset = self.read if model.encoding.cache is None else self.deferred
        return Episodes(model, dataset, batch, self.subject.context(), staged).run(limit)

    def _compare(self, last: Mapping[str, Outcome]) -> None:
        """The cache changes no bit; the naive way and batches round otherwise."""
        tolerance = tolerance_of(self.subject)
        for name, reference, allowed in (
            (PLAIN, NAIVE, tolerance),
            (COLD, PLAIN, 0.0),
            (WARM, COLD, 0.0),
            (f'{WARM}, batch {self.args.batch}', WARM, tolerance),
        ):
            if name in last:
                label = f'{self.shots}-shot, {name} and {reference}'
                self.equal[label] = compare(last[name], last[reference], allowed)


def per_episode(runs: Sequence[Outcome], fixed: float) -> float:
    """Seconds of an episode in the fastest run, without what does not depend on their number."""
    return max(min(run.total for run in runs) - fixed, 0.0) / runs[-1].episodes


def extrapolated(
    episode_seconds: Mapping[str, float],
    fixed: Mapping[str, float],
    episodes: int,
    images: int,
    target: tuple[int, int],
) -> dict[str, float]:
    """Seconds of a longer list, from seconds per episode of each way on a shorter one.

    A way that keeps nothing, or has everything, costs the same for every episode. A cold cache
    costs as much as a warm one, and what it takes more is shared among the images: with E
    episodes of M images here and E', M' there, ``E' warm + M' (cold - warm) E / M``. The
    fingerprint of the encoders is taken once.

    Args:
        episode_seconds: by way.
        fixed: seconds of each way that do not depend on the number of episodes.
        episodes, images: E, and the M distinct images that are used.
        target: M' and E'.
    """
    images_there, episodes_there = target
    out = {name: seconds * episodes_there for name, seconds in episode_seconds.items()}
    if COLD in out and WARM in out:
        more = (episode_seconds[COLD] - episode_seconds[WARM]) * episodes / images
        out[COLD] = out[WARM] + images_there * more
    return {name: seconds + fixed.get(name, 0.0) for name, seconds in out.items()}


def tables(results: dict[str, Any]) -> list[str]:
    """What is printed."""
    texts = []
    for shots, entry in results['shots'].items():
        rows = []
        for name, way in entry['ways'].items():
            parts = way['parts']
            encoding = sum(parts.get(stage, 0.0) for stage in ENCODERS)
            kept = parts.get(KEPT, 0.0)
            light = sum(parts.values()) - encoding - kept
            rows.append([
                f'{shots}-shot, {name}', way['episodes'], way['seconds']['median'],
                1000 * way['episode_seconds'], way['images_per_second'],
                *(1000 * part for part in (encoding, kept, light)),
                way['figures']['mIoU'], entry['target'][name], entry['ratios'].get(name),
            ])  # fmt: skip
        texts.append(table(HEADER, rows))
        texts.append(
            f'{entry["images"]} distinct images; the cache holds '
            f'{entry["cache_memory"] / 2**20:.0f} MiB in memory. {_FORMULA} '
            f'({entry["ways"][WARM]["fixed_seconds"]:.2f} s).'
        )
    return [*texts, f'Peak memory of the process, all ways together: {mib(results["peak_bytes"])}']


_FORMULA = (
    "Target of M' images and E' episodes: E' x seconds of an episode; with a cold cache E' warm + "
    "M' (cold - warm) E / M. Encoding, cache and rest are of the first episodes, taken apart by "
    'stage, which slows Python down. Images/s counts the K + 1 of each episode, encoded or not. In '
    's and target there is the fingerprint of the encoders, once'
)
HEADER = (
    'way', 'episodes', 's', 'ms / episode', 'images/s', 'ms encoding', 'ms cache', 'ms rest',
    'mIoU', 's at target', 'naive / this',
)  # fmt: skip
