"""The data loader alone: episodes per second by workers, size of decoding, deferred images."""

from __future__ import annotations

import argparse
from time import perf_counter
from typing import Any

from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader, Dataset

from benchmarks.pictures import FoldSpec, episodes_of, pipelines
from benchmarks.report import spread, table
from benchmarks.subject import at_least, folder, subject_of
from benchmarks.timing import note, summary

HELP = 'episodes/s of the data loader'
_LARGE = 4  # times the sides: photos of a phone


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument('--shots', type=int, default=1, help='K (%(default)s)')
    parser.add_argument('--workers', type=int, nargs='+', default=[0, 1, 2], help='processes')
    parser.add_argument('--episodes', type=int, default=40, help='of a pass (%(default)s)')


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure.

    Returns:
        ``passes``: for each kind of data and number of workers, the seconds of a pass over the
        episodes, and episodes per second. Workers are kept; the pass that starts them does not
        count.
    """
    at_least(args, 1, 'shots', 'episodes')
    at_least(args, 0, 'workers')
    if args.quick:
        args.episodes, args.workers = min(args.episodes, 4), args.workers[:2]
    subject = subject_of(args)
    repeats = args.repeats or (1 if args.quick else 3)
    passes: dict[str, Any] = {}
    with folder(args.data) as root:
        for name, dataset in kinds_of(args, root, subject.side).items():
            for workers in args.workers:
                loader = DataLoader(
                    dataset,
                    num_workers=workers,
                    collate_fn=pseudo_collate,
                    persistent_workers=workers > 0,
                )
                spent = []
                for _ in range(repeats + 1):
                    start = perf_counter()
                    for _ in loader:
                        pass
                    spent.append(perf_counter() - start)
                note(f'{repeats} passes with {workers} workers')
                seconds = summary(spent[1:])
                passes[f'{name}, {workers} workers'] = dict(
                    seconds=seconds, episodes_per_second=args.episodes / seconds['median']
                )
    return dict(passes=passes)


def kinds_of(args: argparse.Namespace, root: str, side: int) -> dict[str, Dataset]:
    """Datasets to read: test and training of photos, and of large ones at full size and decoded
    close to the side S that they are resized to."""
    out: dict[str, Dataset] = {}
    for factor in (1, _LARGE):
        width, height = (factor * length for length in args.photo_size)
        spec = FoldSpec(6, 'photos', width, height, args.shots + 1, args.seed)
        where, size = (root, spec, side, args.shots, args.episodes), f'{width} x {height}'
        out[f'test, {size}'] = episodes_of(*where)
        out[f'test, {size}, deferred'] = episodes_of(*where, defer_images=True)
        if factor == 1:
            out[f'training, {size}'] = episodes_of(*where, training=True)
            continue
        query, support = pipelines(side)
        for step in (*query, *support):
            if step['type'] == 'LoadImage':
                step['reduce_to'] = side
        out[f'test, {size}, reduced'] = episodes_of(
            *where, query_pipeline=query, support_pipeline=support
        )
    return out


def tables(results: dict[str, Any]) -> list[str]:
    """What is printed."""
    rows = [
        [name, entry['episodes_per_second'], *spread(entry['seconds'])]
        for name, entry in results['passes'].items()
    ]
    return [table(['data', 'episodes/s', 's a pass (median)', 'low', 'high'], rows)]
