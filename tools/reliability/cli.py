"""The command line of the trials."""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

Trial = Callable[[random.Random], object]
AREAS = ('label', 'cache', 'supports', 'prepare', 'train', 'test', 'page')
#: area, what is done -> how often with --scale 1
Row = tuple[str, str, int, Trial]


def _rows(areas: list[str], root: Path, scale: float, seed: int) -> Iterator[Row]:
    """The trials of some areas; an area is made when it is come to."""
    from reliability.labelling import Cache, Labelling
    from reliability.page import Page
    from reliability.training import Preparing, Training

    def folder(name: str) -> Path:
        (root / name).mkdir()
        return root / name

    if {'label', 'cache'} & {*areas}:
        labelling = Labelling(folder('label'))
    if 'label' in areas:
        yield 'label', 'killed after a random time', 12, labelling.kill_at_random
        yield 'label', 'killed at a save, replacement, removal', 20, labelling.kill_at_a_change
        yield 'label', 'killed with --overwrite', 12, labelling.kill_while_overwriting
        yield 'label', 'full disk', 12, labelling.full_disk
        yield 'label', 'bit of the output', 30, labelling.flip_a_bit
        yield 'label', 'bit of the support file', 30, labelling.flip_a_support
        yield 'label', 'two at once', 6, labelling.two_writers
    if 'cache' in areas:
        cache = Cache(labelling)
        yield 'cache', 'killed', 10, cache.kill
        yield 'cache', 'bit of a file', 20, cache.flip_a_bit
        yield 'cache', 'file cut', 10, cache.cut
    if 'prepare' in areas:
        preparing = Preparing(folder('prepare'))
        yield 'prepare', 'killed at a save, replacement, removal', 20, preparing.kill
        yield 'prepare', 'full disk', 15, preparing.full_disk
        yield 'prepare', 'bit of a mask', 30, preparing.flip_a_mask
        yield 'prepare', 'converter, checkpoint with code', 10, preparing.checkpoint_with_code
    if {'train', 'test'} & {*areas}:
        training = Training(folder('train'))
    if 'train' in areas:
        yield 'train', 'killed at a save, replacement, pointer', 15, training.kill_at_a_change
        yield 'train', 'full disk', 10, training.full_disk
        yield 'train', 'torchrun, two processes killed', 2, training.kill_two_processes
    if 'test' in areas:
        yield 'test', 'bit of a checkpoint', 25, training.flip_a_checkpoint
        yield 'test', 'bit of stored results', 25, training.flip_results
        yield 'test', 'two at once', 4, training.two_tests
    if 'supports' in areas:
        yield 'supports', 'malformed', 1, lambda rng: _malformed(root, int(2000 * scale), seed)
    if 'page' in areas:
        page = Page(folder('page'))
        try:
            yield 'page', 'hostile Host and Origin', 60, page.hostile_headers
            yield 'page', 'files of others', 20, page.files_of_others
            yield 'page', 'killed', 2, page.kill
            yield 'page', 'exports whose names fall together', 15, page.exports_of_one_name
            yield 'page', 'visits', 1, lambda rng: page.many_visits(max(2, int(200 * scale)))
        finally:
            page.stop()


def _malformed(root: Path, number: int, seed: int) -> str:
    from mmfss.apis import FewShotInferencer
    from reliability.malformed import try_all
    from reliability.running import Bad
    from reliability.tiny import write_tiny

    config, weights = write_tiny(root / 'malformed')
    _, bad = try_all(FewShotInferencer(config, str(weights), 'cpu'), number, seed)
    if bad:
        raise Bad(f'{len(bad)} of {number}; ' + '; '.join(bad[:20]))
    return f'{number} files'


def main() -> None:
    """Run the trials and print a table; exit status 1 where something was bad."""
    from reliability.running import Bad

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('areas', nargs='*', metavar='AREA', help=f'of {", ".join(AREAS)}; all')
    parser.add_argument('--scale', type=float, default=1.0, help='of the numbers of trials')
    parser.add_argument('--seed', type=int, default=0, help='trial i of a row has seed + i')
    args = parser.parse_args()
    if unknown := {*args.areas} - {*AREAS}:
        parser.error(f'no such area: {", ".join(unknown)}; there are {", ".join(AREAS)}')
    torch.set_num_threads(1)  # processes are forked
    lines, any_bad = ['| | what | tried | bad | seconds |', '|---|---|---|---|---|'], False
    with tempfile.TemporaryDirectory(prefix='mmfss_reliability_') as made:
        areas = args.areas or list(AREAS)
        for area, what, number, trial in _rows(areas, Path(made), args.scale, args.seed):
            bad, begun, said = 0, time.monotonic(), None
            number = number if number <= 2 else max(2, round(number * args.scale))
            for seed in range(args.seed, args.seed + number):
                try:
                    said = trial(random.Random(seed))
                except Bad as error:
                    bad += 1
                    print(f'BAD {area}, {what}, seed {seed}: {error}', flush=True)
            spent = time.monotonic() - begun
            if said is not None:
                what = f'{what}: {said}'
            lines.append(f'| {area} | {what} | {number} | {bad} | {spent:.0f} |')
            print(lines[-1], flush=True)
            any_bad |= bad > 0
    print('\n'.join(['', *lines]))
    raise SystemExit(int(any_bad))
