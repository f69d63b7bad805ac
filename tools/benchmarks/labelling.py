"""Labelling: what a further image costs once the supports are encoded, by K and N: reading,
encoding, segmenting, deciding at its own size. No files are written."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import machine_of, subject_of
from benchmarks.pictures import FoldSpec, photo, write_fold
from benchmarks.report import SECONDS, mib, seconds_row, table
from benchmarks.subject import folder
from benchmarks.timing import clock_of, interleaved, note, peak_bytes
from mmfss.apis.inferencer import FewShotInferencer

HELP = 'images/s of labelling with encoded supports, by shots and classes'
_FILES = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument('--shots', type=int, nargs='+', default=[1, 5, 20], help='K of one class')
    parser.add_argument('--classes', type=int, nargs='+', default=[1, 5], help='N at --class-shots')
    parser.add_argument('--class-shots', type=int, default=1, help='K of several classes')


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure.

    Returns:
        ``machine``; ``seconds`` of an image by ``N=.., K=..``; ``support_seconds`` it took to
        encode the supports; ``images_per_second``; ``ratios``: see :func:`ratios`;
        ``peak_bytes`` of the process with all of these supports.
    """
    if min(*args.shots, *args.classes, args.class_shots) < 1:
        raise ValueError(
            f'--shots, --classes and --class-shots must be >= 1, got {args.shots}, '
            f'{args.classes}, {args.class_shots}'
        )
    subject = subject_of(args)
    model = subject.build()
    clock = clock_of(subject.target)
    wanted = [(1, k) for k in args.shots] + [(n, args.class_shots) for n in args.classes]
    support_seconds, inferencers = {}, {}
    for classes, shots in dict.fromkeys(wanted):
        note(f'supports: N={classes}, K={shots}')
        inferencer = FewShotInferencer(model, threshold=0.0, amp=args.amp)
        pairs = support_of(classes, shots, args)
        start = clock()
        inferencer.set_support(pairs)
        support_seconds[name_of(classes, shots)] = clock() - start
        inferencers[name_of(classes, shots)] = inferencer
    with folder(args.data) as root:
        width, height = args.photo_size
        spec = FoldSpec(_FILES, 'photos', width, height, 2, args.seed)
        files = sorted((Path(write_fold(root, spec)) / 'JPEGImages').glob('val_*'))
        jobs = {name: _Each(one, files) for name, one in inferencers.items()}
        seconds = interleaved(jobs, args.repeats or (2 if args.quick else 9), clock)
    return dict(
        machine=machine_of(subject, args.quick),
        seconds=seconds,
        support_seconds=support_seconds,
        images_per_second={name: 1 / entry['median'] for name, entry in seconds.items()},
        ratios=ratios(seconds, args.shots, args.classes, args.class_shots),
        peak_bytes=peak_bytes(subject.target),
    )


class _Each:
    """Labels the next of some files at each call."""

    def __init__(self, inferencer: FewShotInferencer, files: list[Path]) -> None:
        self.inferencer, self.files, self.place = inferencer, files, 0

    def __call__(self) -> None:
        self.inferencer(self.files[self.place % len(self.files)])
        self.place += 1


def name_of(classes: int, shots: int) -> str:
    """What a setting is called."""
    return f'N={classes}, K={shots}'


def support_of(
    classes: int, shots: int, args: argparse.Namespace
) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Generated photos of N classes with K marked ones each: BGR images and masks of 0, 1, 255."""
    width, height = args.photo_size
    spec = FoldSpec(2, 'photos', width, height, 2, args.seed)
    return {
        f'class {n}': [
            photo(np.random.default_rng([args.seed, 9, n, k]), spec, 1) for k in range(shots)
        ]
        for n in range(classes)
    }


def ratios(
    seconds: dict[str, dict[str, Any]], shots: list[int], classes: list[int], class_shots: int
) -> dict[str, float]:
    """Of medians: the change from the least to the most shots, and what a class more costs, both
    in percent."""
    out = {}
    few, many = (seconds[name_of(1, k)]['median'] for k in (min(shots), max(shots)))
    if min(shots) < max(shots):
        out[f'K={min(shots)} to K={max(shots)}, %'] = 100 * (many / few - 1)
    low, high = min(classes), max(classes)
    if low < high:
        one, all_ = (seconds[name_of(n, class_shots)]['median'] for n in (low, high))
        out[f'N={low} to N={high}, % per class'] = 100 * (all_ / one - 1) / (high - low)
    return out


def tables(results: dict[str, Any]) -> list[str]:
    """What is printed."""
    rows = [
        seconds_row(
            name, entry, results['images_per_second'][name], results['support_seconds'][name]
        )
        for name, entry in results['seconds'].items()
    ]
    return [
        table(['a further image', *SECONDS, 'images/s', 's for supports'], rows),
        table(['change', ''], [[k, v] for k, v in results['ratios'].items()]),
        'An image is read, encoded, segmented for N classes and decided at its size; no files. '
        f'Peak memory of the process {mib(results["peak_bytes"])}',
    ]
