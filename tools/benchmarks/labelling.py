"""Labelling: what a further image costs once the supports are encoded, by K and N: reading,
encoding, segmenting, deciding at its own size. No files are written."""

from __future__ import annotations

import argparse
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pictures import FoldSpec, photo, write_fold
from benchmarks.report import SECONDS, mib, spread, table
from benchmarks.subject import at_least, folder, subject_of
from benchmarks.timing import clock_of, interleaved, note, peak_bytes
from mmfss.apis.inferencer import FewShotInferencer

HELP = 'images/s of labelling with encoded supports, by shots and classes'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument('--shots', type=int, nargs='+', default=[1, 5, 20], help='K of one class')
    parser.add_argument('--classes', type=int, nargs='+', default=[1, 5], help='N at --class-shots')
    parser.add_argument('--class-shots', type=int, default=1, help='K of several classes')


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure.

    Returns:
        ``machine``; ``seconds`` of an image by ``N=.., K=..``; ``support_seconds`` it took to
        encode the supports; ``images_per_second``; ``ratios`` of medians in percent: the change
        from the least to the most shots, and what a class more costs; ``peak_bytes`` of the
        process with all of these supports.
    """
    at_least(args, 1, 'shots', 'classes', 'class_shots')
    subject = subject_of(args)
    model, clock = subject.build(), clock_of(subject.target)
    width, height = args.photo_size
    spec = FoldSpec(6, 'photos', width, height, 2, args.seed)
    support_seconds, jobs = {}, {}
    with folder(args.data) as root:
        files = sorted((write_fold(root, spec) / 'JPEGImages').glob('val_*'))
        wanted = [(1, k) for k in args.shots] + [(n, args.class_shots) for n in args.classes]
        for classes, shots in dict.fromkeys(wanted):
            note(f'supports: N={classes}, K={shots}')
            inferencer = FewShotInferencer(model, threshold=0.0, amp=args.amp)
            pairs = support_of(classes, shots, spec)
            start = clock()
            inferencer.set_support(pairs)
            name = f'N={classes}, K={shots}'
            support_seconds[name] = clock() - start
            jobs[name] = Labels(inferencer, files)
        seconds = interleaved(jobs, args.repeats or (2 if args.quick else 9), clock)
    ratios = {}
    for symbol, values, name, per in (
        ('K', args.shots, 'N=1, K={}', ''),
        ('N', args.classes, f'N={{}}, K={args.class_shots}', ' per class'),
    ):
        low, high = min(values), max(values)
        if low < high:
            one, all_ = (seconds[name.format(x)]['median'] for x in (low, high))
            change = 100 * (all_ / one - 1) / (high - low if per else 1)
            ratios[f'{symbol}={low} to {symbol}={high}, %{per}'] = change
    return dict(
        machine=subject.machine(args.quick),
        seconds=seconds,
        support_seconds=support_seconds,
        images_per_second={name: 1 / entry['median'] for name, entry in seconds.items()},
        ratios=ratios,
        peak_bytes=peak_bytes(subject.target),
    )


class Labels:
    """Labels the next of some files at each call."""

    def __init__(self, inferencer: FewShotInferencer, files: list[Path]) -> None:
        self.inferencer, self.files = inferencer, cycle(files)

    def __call__(self) -> None:
        self.inferencer(next(self.files))


def support_of(
    classes: int, shots: int, spec: FoldSpec
) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Generated photos of N classes with K marked ones each: BGR images and masks of 0, 1, 255."""
    return {
        f'class {n}': [
            photo(np.random.default_rng([spec.seed, 9, n, k]), spec, 1) for k in range(shots)
        ]
        for n in range(classes)
    }


def tables(results: dict[str, Any]) -> list[str]:
    """What is printed."""
    rows = [
        [
            name,
            *spread(entry, 1000),
            results['images_per_second'][name],
            results['support_seconds'][name],
        ]
        for name, entry in results['seconds'].items()
    ]
    return [
        table(['a further image', *SECONDS, 'images/s', 's for supports'], rows),
        table(['change', ''], [[k, v] for k, v in results['ratios'].items()]),
        'An image is read, encoded, segmented for N classes and decided at its size; no files. '
        f'Peak memory of the process {mib(results["peak_bytes"])}',
    ]
