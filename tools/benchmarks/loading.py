"""The data loader alone: episodes per second by workers, size of decoding, deferred images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader, Dataset

from benchmarks.common import subject_of
from benchmarks.pictures import FoldSpec, episodes_of, pipelines, write_fold
from benchmarks.report import table
from benchmarks.subject import folder
from benchmarks.timing import clock_of, note, summary

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
    if args.shots < 1 or args.episodes < 1 or min(args.workers) < 0:
        raise ValueError(
            f'--shots and --episodes must be >= 1 and --workers >= 0, got {args.shots}, '
            f'{args.episodes}, {args.workers}'
        )
    if args.quick:
        args.episodes, args.workers = min(args.episodes, 4), args.workers[:2]
    subject = subject_of(args)
    repeats = args.repeats or (1 if args.quick else 3)
    with folder(args.data) as root:
        datasets = kinds_of(args, root, subject.side)
        passes = {
            f'{name}, {workers} workers': measured(dataset, workers, repeats, args.quick)
            for name, dataset in datasets.items()
            for workers in args.workers
        }
    for entry in passes.values():
        entry['episodes_per_second'] = args.episodes / entry['seconds']['median']
    return dict(passes=passes)


def kinds_of(args: argparse.Namespace, root: str, side: int) -> dict[str, Dataset]:
    """Datasets to read: test and training of photos, and of large ones at full and reduced size."""
    out: dict[str, Dataset] = {}
    for factor in (1, _LARGE):
        width, height = (factor * length for length in args.photo_size)
        spec = FoldSpec(6, 'photos', width, height, args.shots + 1, args.seed)
        folder_of, size = Path(write_fold(root, spec)), f'{width} x {height}'
        where = folder_of, spec, side, args.shots, args.episodes
        out[f'test, {size}'] = episodes_of(*where)
        out[f'test, {size}, deferred'] = episodes_of(*where, defer_images=True)
        if factor == 1:
            out[f'training, {size}'] = episodes_of(*where, training=True)
        else:
            query, support = reduced(side)
            out[f'test, {size}, reduced'] = episodes_of(
                *where, query_pipeline=query, support_pipeline=support
            )
    return out


def reduced(side: int) -> tuple[list[dict], list[dict]]:
    """The pipelines of a test with images decoded close to the side S that they are resized to."""
    steps = pipelines(side)
    for step in (*steps[0], *steps[1]):
        if step['type'] == 'LoadImage':
            step['reduce_to'] = side
    return steps


def measured(dataset: Dataset, workers: int, repeats: int, quick: bool) -> dict[str, Any]:
    """Seconds of passes over the dataset."""
    import torch

    clock = clock_of(torch.device('cpu'))
    loader = DataLoader(
        dataset,
        num_workers=workers,
        collate_fn=pseudo_collate,
        persistent_workers=workers > 0,
    )
    spent = []
    for turn in range(repeats + 1):
        start = clock()
        for _ in loader:
            pass
        if turn:
            spent.append(clock() - start)
    note(f'{len(spent)} passes with {workers} workers')
    return dict(seconds=summary(spent))


def tables(results: dict[str, Any]) -> list[str]:
    """What is printed."""
    rows = [
        [
            name,
            entry['episodes_per_second'],
            *(entry['seconds'][k] for k in ('median', 'low', 'high')),
        ]
        for name, entry in results['passes'].items()
    ]
    return [table(['data', 'episodes/s', 's a pass (median)', 'low', 'high'], rows)]
