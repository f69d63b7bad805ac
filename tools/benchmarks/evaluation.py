"""E episodes of M images: the published way, and ours without, with a cold and a warm cache."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.pictures import FoldSpec, episodes_of
from benchmarks.report import mib, table
from benchmarks.running import Episodes, Outcome, compare, tolerance_of
from benchmarks.stages import ENCODERS, FINGERPRINT, KEPT
from benchmarks.subject import Subject, at_least, folder, subject_of
from benchmarks.timing import note, peak_bytes, summary

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
        first way; ``equal``: how far the results of two ways are apart; ``peak_bytes`` of the
        process, all ways together.
    """
    at_least(args, 2, 'images')
    for names in (('episodes',), ('batch',), ('shots', 'target'), ('plain_episodes',)):
        at_least(args, 1, *names)
    if args.quick:
        args.images = min(args.images, max(6, max(args.shots) + 1))
        args.episodes = min(args.episodes, 6)
    subject = subject_of(args)
    results: dict[str, Any] = dict(machine=subject.machine(args.quick), shots={}, equal={})
    with folder(args.data) as root:
        spec = FoldSpec.asked(args, subject.side, args.images, max(args.shots) + 1)
        for shots in args.shots:
            with tempfile.TemporaryDirectory(dir=root) as caches:
                figures, equal = measured(args, subject, root, spec, shots, caches)
                results['shots'][str(shots)] = figures
                results['equal'].update(equal)
    return dict(results, peak_bytes=peak_bytes(subject.target))


def measured(
    args: argparse.Namespace,
    subject: Subject,
    root: str,
    spec: FoldSpec,
    shots: int,
    caches: str,
    baseline: bool = True,
    judged: Callable[[Outcome, Outcome, float], dict[str, Any]] = compare,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """All ways to evaluate one list of K-shot episodes, in turns.

    Args:
        args, subject: of the subcommand.
        root, spec: of :func:`benchmarks.pictures.write_fold`.
        shots: K.
        caches: an empty folder.
        baseline: the published way as well, where there is one.
        judged: gives the difference of two outcomes, given the tolerance.

    Returns:
        Figures, and how far the last results are apart: the cache changes no bit; the naive way
        and batches round otherwise.
    """
    where = root, spec, subject.side, shots, args.episodes
    read, deferred = episodes_of(*where), episodes_of(*where, defer_images=True)
    drawn = [read.episode(i) for i in range(args.episodes)]
    distinct = len({image for e in drawn for image in (e.query, *e.supports)})
    memory = args.cache_memory
    if memory is None:
        memory = int(_MEMORY * distinct / args.target[0])

    def outcome(
        name: str, cache: str | None, batch: int, limit: int | None, staged: bool = False
    ) -> Outcome:
        """Of a new model, so that nothing is in memory. The first call of an operation costs more:
        without a cache, an episode is run that does not count."""
        options = None if cache is None else dict(directory=cache, memory_bytes=memory)
        model = subject.build_naive() if name == NAIVE else subject.build(options)
        if subject.compile and name != NAIVE:
            with subject.context():
                note(f'compiled in {model.warm_up(batch, shots):.0f} s')
        dataset = read if cache is None else deferred
        runner = Episodes(model, dataset, subject, batch, staged)
        if cache is None:
            runner.run(1)
        return runner.run(limit)

    # way -> whether with a cache, episodes at a time, limit of their number
    ways = {NAIVE: (False, 1, args.plain_episodes), PLAIN: (False, 1, args.plain_episodes)}
    ways.update({COLD: (True, 1, None), WARM: (True, 1, None)})
    if args.batch > 1:
        ways[f'{WARM}, batch {args.batch}'] = True, args.batch, None
    if not (baseline and subject.has_naive()):
        del ways[NAIVE]
    outcomes: dict[str, list[Outcome]] = {name: [] for name in ways}
    parts, fixed = {}, {}
    for turn in range(args.repeats or 1):
        for name, (cached, batch, limit) in ways.items():
            note(f'{shots}-shot: {name}')
            cache = f'{caches}/{turn}' if cached else None
            outcomes[name].append(outcome(name, cache, batch, limit))
            if not turn:  # also the parts of a few episodes, taken apart
                # a cold cache has to be empty, a warm one to be opened
                apart = f'{cache}_parts' if name in (COLD, WARM) else cache
                some = outcome(name, apart, batch, min(4 * batch, args.episodes), staged=True)
                fixed[name] = some.stages.pop(FINGERPRINT, 0.0)
                parts[name] = {k: v / some.episodes for k, v in some.stages.items()}
    tolerance = tolerance_of(subject)
    equal = {
        f'{shots}-shot, {name} and {other}': judged(outcomes[name][-1], outcomes[other][-1], close)
        for name, other, close in (
            (PLAIN, NAIVE, tolerance),
            (COLD, PLAIN, 0.0),
            (WARM, COLD, 0.0),
            (f'{WARM}, batch {args.batch}', WARM, tolerance),
        )
        if {name, other} <= set(outcomes)
    }
    seconds = {name: per_episode(runs, fixed[name]) for name, runs in outcomes.items()}
    target = extrapolated(seconds, fixed, args.episodes, distinct, tuple(args.target))
    first = target[next(iter(ways))]
    figures = dict(
        images=distinct,
        cache_memory=memory,
        ways={
            name: dict(
                seconds=summary([run.total for run in runs]),
                episodes=runs[-1].episodes,
                fixed_seconds=fixed[name],
                episode_seconds=seconds[name],
                cache=runs[-1].cache,
                figures={key: runs[-1].figures[key] for key in ('mIoU', 'FB-IoU')},
                parts=parts[name],
                images_per_second=(shots + 1) / seconds[name],
            )
            for name, runs in outcomes.items()
        },
        target=target,
        ratios={name: first / value for name, value in list(target.items())[1:]},
    )
    return figures, equal


def per_episode(runs: Sequence[Outcome], fixed: float) -> float:
    """Seconds of an episode in the fastest run, without what does not depend on their number;
    with it where that took longer when it was measured."""
    total = min(run.total for run in runs)
    return (total - fixed if fixed < total else total) / runs[-1].episodes


def extrapolated(
    episode_seconds: Mapping[str, float],
    fixed: Mapping[str, float],
    episodes: int,
    images: int,
    target: tuple[int, ...],
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
            encoding = sum(parts.get(stage, 0.0) for stage in ENCODERS.values())
            kept = parts.get(KEPT, 0.0)
            light = sum(parts.values()) - encoding - kept
            rows.append([
                f'{shots}-shot, {name}', way['episodes'], way['seconds']['median'],
                1000 * way['episode_seconds'], way['images_per_second'],
                *(1000 * part for part in (encoding, kept, light)),
                way['figures']['mIoU'], entry['target'][name], entry['ratios'].get(name),
            ])  # fmt: skip
        header = (
            'way', 'episodes', 's', 'ms / episode', 'images/s', 'ms encoding', 'ms cache',
            'ms rest', 'mIoU', 's at target', f'{next(iter(entry["ways"]))} / this',
        )  # fmt: skip
        texts.append(table(header, rows))
        texts.append(
            f'{entry["images"]} distinct images; the cache holds '
            f'{entry["cache_memory"] / 2**20:.0f} MiB in memory. Target of M\' images and E\' '
            'episodes: E\' x seconds of an episode; with a cold cache E\' warm + M\' (cold - warm) '
            'E / M. Encoding, cache and rest are of the first episodes, taken apart by stage, '
            'which slows Python down. Images/s counts the K + 1 of each episode, encoded or not. '
            'In s and target there is the fingerprint of the encoders, once '
            f'({entry["ways"][WARM]["fixed_seconds"]:.2f} s).'
        )
    return [*texts, f'Peak memory of the process, all ways together: {mib(results["peak_bytes"])}']
