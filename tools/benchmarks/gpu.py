"""What a GPU gives, in one command of minutes: does it compute what a CPU does, how fast, at which
share of its peak, in how much memory. On a CPU it is a dry run."""

from __future__ import annotations

import argparse
import gc
import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_sections import SECTIONS
from benchmarks.gpu_session import BF16, FP32, Session
from benchmarks.report import SECONDS, mib, spread, table
from benchmarks.subject import at_least, folder, subject_of
from benchmarks.timing import note
from mmfss.files import write_text

HELP = 'a GPU: correctness, encoders, episode, training step, evaluation, in fp32 and bf16'
LEAST_SHARE = 0.4
"""Of the bf16 peak, that encoders are to reach at ``--batch``."""
LEAST_READING = 0.5
"""Of the time of a cached evaluation, from which on reading bounds it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument('--batch', type=int, default=16, help='images, and cached episodes')
    parser.add_argument('--limit', type=float, default=420.0, help='seconds; later begins nothing')
    parser.add_argument(
        '--references', nargs='+', metavar='DIR', help='reference tensors, as of check_parity.py'
    )
    parser.add_argument('--only', nargs='+', choices=SECTIONS, help='these, and the machine')


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure section by section; what fails or comes too late leaves the others alone.

    Returns:
        What each section of :mod:`benchmarks.gpu_sections` gives under its name; ``seconds`` of
        each; ``failed`` and ``left_out``: part -> why; ``targets``. So far as there is one it lies
        in ``FILE.part`` of ``--json FILE`` meanwhile.

    Raises:
        ValueError: an option that is a variant here, or out of range.
    """
    at_least(args, 1, 'batch')
    at_least(args, 0, 'limit')
    if args.amp or args.compile or args.channels_last is not None:
        raise ValueError(
            'gpu measures with and without --amp, --compile and --channels-last by itself: leave '
            'them out'
        )
    subject = subject_of(args)
    results: dict[str, Any] = {}
    part = None if args.json is None else Path(f'{args.json}.part')
    with folder(args.data) as root, without_tf32() as tf32, all_there_frozen():
        session = Session(args, subject, root, tf32)
        state: dict[str, dict[str, Any]] = dict(
            failed=session.failed, left_out=session.left_out, seconds={}
        )
        asked = {'machine', *(args.only or SECTIONS)}  # peaks that the others are shares of
        for name in (name for name in SECTIONS if name in asked):
            note(f'{name}:')
            start = time.monotonic()  # no clock of the GPU, which fails for good after some errors
            found = session.attempt(name, partial(SECTIONS[name], session))
            if found is not None:
                results[name] = found
            state['seconds'][name] = time.monotonic() - start
            if part is not None:
                write_text(part, json.dumps(finite({**results, **state}), indent=1) + '\n')
    targets = targets_of(results, args.batch, session.cuda)
    if part is not None:
        part.unlink(missing_ok=True)
    return finite({**results, **state, 'targets': targets})


@contextmanager
def without_tf32() -> Iterator[dict[str, bool]]:
    """Within, fp32 is fp32 on any GPU; gives the switches as they were."""
    matmul, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = dict(matmul=matmul.allow_tf32, convolutions=convolutions.allow_tf32)
    matmul.allow_tf32 = convolutions.allow_tf32 = False
    try:
        yield before
    finally:
        matmul.allow_tf32 = before['matmul']
        convolutions.allow_tf32 = before['convolutions']


@contextmanager
def all_there_frozen() -> Iterator[None]:
    """Within, Python's garbage collection, which comes before each timing, leaves alone what is
    there already, most of it of imports: it takes a hundredth of the time."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def finite(node: Any) -> Any:
    """Results that JSON can hold: None for what is no finite number."""
    if isinstance(node, Mapping):
        return {str(key): finite(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [finite(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node


def targets_of(results: Mapping[str, Any], batch: int, on_gpu: bool) -> list[dict[str, Any]]:
    """What is to be reached, what was found (None: not measured), and whether it was reached
    (None: not measured, or no judgement, as there is no GPU)."""
    rows: list[dict[str, Any]] = []

    def add(target: str, least: float, found: float | None, by: str = '') -> None:
        reached = found >= least if on_gpu and found is not None else None
        rows.append(dict(target=target, least=least, found=found, by=by, reached=reached))

    best: dict[str, tuple[float, str]] = {}
    works = [results.get('encoders', {}), results.get('compiled', {}).get('encoders', {})]
    for variants in (found for section in works for found in section.values()):
        for variant, entry in variants.items():
            share = entry['share_of_peak']
            if variant != FP32 and entry['batch'] == batch and share is not None:
                best[entry['encoder']] = max(
                    best.get(entry['encoder'], (0.0, '')), (share, variant)
                )
    for encoder, (share, variant) in best.items():
        add(f'share of the bf16 peak, {encoder}, batch {batch}', LEAST_SHARE, share, variant)
    if not best:
        add(f'share of the bf16 peak, batch {batch}', LEAST_SHARE, None)
    ways = results.get('evaluation', {}).get('ways', {})
    reading = {name: w['reading_share'] for name, w in ways.items() if name.startswith('warm')}
    target = 'share of reading and kept features in a cached evaluation'
    for name, share in reading.items():
        add(target, LEAST_READING, share, name)
    if not reading:
        add(target, LEAST_READING, None)
    for root, found in results.get('correctness', {}).get('references', {}).items():
        if 'stages' in found:
            share = found['within'] / found['stages'] if found['stages'] else None
            add('share of reference stages within tolerance', 1.0, share, root)
    return rows


def tables(results: dict[str, Any]) -> list[str]:
    """What is printed."""
    texts = []
    if 'machine' in results:
        about = {k: v for k, v in results['machine'].items() if k not in ('peaks', 'matmul_flops')}
        peaks = results['machine']['peaks'].items()
        about.update({f'TFLOP/s of a matrix product, {k}': v / 1e12 for k, v in peaks})
        texts.append(table(['machine', ''], [[k, v] for k, v in about.items()]))
    if 'correctness' in results:
        texts += _correctness(results['correctness'])
    texts += _works(results)
    if 'evaluation' in results:
        texts += _evaluation(results['evaluation'])
    texts += _works(results.get('compiled', {}))
    texts.append(table(['section', 's'], [[k, v] for k, v in results['seconds'].items()]))
    for kind in ('failed', 'left_out'):
        if results[kind]:
            rows = [[part, why] for part, why in results[kind].items()]
            texts.append(table([kind.replace('_', ' '), 'why'], rows))
    words = {True: 'reached', False: 'not reached', None: 'no judgement'}
    rows = [
        [
            t['target'],
            f'>= {100 * t["least"]:.0f} %',
            'not measured' if t['found'] is None else f'{100 * t["found"]:.1f} %',
            t['by'],
            words[t['reached']],
        ]
        for t in results['targets']
    ]
    return [*texts, table(['target', 'wanted', 'found', 'by', ''], rows)]


def _correctness(found: Mapping[str, Any]) -> list[str]:
    texts = [_apart('on the device, and on the CPU', found['episodes'])]
    rows: list[list[Any]] = []
    for root, entry in found['references'].items():
        if 'left_out' in entry:
            rows.append([root, entry['left_out'], None])
        else:
            rows.append([root, f'{entry["within"]} of {entry["stages"]}', None])
            rows += [['', stage, why] for stage, why in list(entry['outside'].items())[:20]]
    if rows:
        texts.append(table(['reference tensors', 'stages within tolerance', 'outside'], rows))
    return texts


def _apart(title: str, found: Mapping[str, Any]) -> str:
    names = ('max_logit_difference', 'max_logit', 'tolerance', 'different_pixels', 'pixels')
    rows = [[name, *(entry[key] for key in names)] for name, entry in found.items()]
    return table([title, 'logits differ by', 'largest', 'allowed', 'pixels', 'of'], rows)


def _memory(entry: Mapping[str, Any]) -> list[str | None]:
    """Of a run alone, and with what lay there before: the models of all variants."""
    if 'peak_bytes' not in entry:
        return [None, None]
    return [mib(entry['peak_bytes'] - entry['before_bytes']), mib(entry['peak_bytes'])]


def _works(found: Mapping[str, Any]) -> list[str]:
    """Of encoders, episode and training step, as far as they are there."""
    texts = [_encoders(found['encoders'])] if 'encoders' in found else []
    for name in ('episode', 'training'):
        if name in found:
            texts.append(_timed(name, found[name]['timed']))
    if 'episode' in found:
        texts.append(_apart('episode, and that of fp32', found['episode']['apart']))
    if 'not_trained' in found.get('training', {}):
        texts.append(f'No training step: {found["training"]["not_trained"]} is not trained.')
    return texts


def _encoders(found: Mapping[str, Any]) -> str:
    rows = [
        [
            work,
            variant,
            1000 * entry['seconds']['median'],
            entry['images_per_second'],
            entry['flops_per_second'] / 1e9,
            None if entry['share_of_peak'] is None else f'{100 * entry["share_of_peak"]:.1f} %',
            *_memory(entry),
            entry['warm_up_seconds'],
        ]
        for work, variants in found.items()
        for variant, entry in variants.items()
    ]
    header = ('encoder', '', 'ms', 'images/s', 'GFLOP/s', 'of peak', 'memory', 'peak', 's before')
    return table(header, rows)


def _timed(title: str, found: Mapping[str, Any]) -> str:
    rows = [
        [work, variant, *spread(entry['seconds'], 1000), *_memory(entry), entry['warm_up_seconds']]
        for work, variants in found.items()
        for variant, entry in variants.items()
    ]
    return table([title, '', *SECONDS, 'memory', 'peak', 's before'], rows)


def _evaluation(found: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, way in found['ways'].items():
        largest = sorted(way['parts'].items(), key=lambda part: -part[1])[:3]
        parts = ', '.join(f'{stage} {1000 * seconds:.1f}' for stage, seconds in largest)
        share = f'{100 * way["reading_share"]:.0f} %'
        rows.append([name, 1000 * way['episode_seconds'], way['images_per_second'], share, parts])
    if (many := found['together']) is not None:
        name = f'no cache, {many["batch"]} episodes and images at a time'
        speed = many['images_per_second']
        rows.append([name, 2000 / speed, speed, None, None])
    header = (f'evaluation, 1-shot, {BF16}', 'ms / episode', 'images/s', 'reading', 'ms in stages')
    return [table(header, rows), _apart('evaluation', found['equal'])]
