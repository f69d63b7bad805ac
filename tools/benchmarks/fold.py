"""The whole training of a fold as published, out of measured parts of ``training`` and
``evaluation``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from benchmarks import evaluation, training
from benchmarks.evaluation import COLD, NAIVE, PLAIN, WARM
from benchmarks.report import load, table
from benchmarks.subject import at_least

HELP = 'the whole training of a fold with its validations, extrapolated'
STEPS, EPISODES_PER_STEP, VALIDATION = 526, 8, (2, 1000)  # of an epoch, as published
WAYS = (
    ('naive', 'naive', NAIVE),
    ('ours, no cache', 'ours', PLAIN),
    ('ours, cache in validation', 'ours', 'cache'),
    ('ours, cache in both (no augmentation)', 'ours, features kept', 'cache'),
)
"""What is shown: name, way to train, way to validate."""
_COMMON = (
    'config', 'arch', 'method', 'image_size', 'threads', 'amp', 'compile', 'channels_last',
    'device',
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument('--epochs', type=int, default=300, help='(%(default)s)')
    parser.add_argument('--from-training', metavar='FILE', help='--json of `training`')
    parser.add_argument('--from-evaluation', metavar='FILE', help='--json of `evaluation`')


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Put parts together; those without a file are measured.

    Returns:
        ``episode_seconds`` of a training episode and ``validation_seconds`` (first, later) by
        way; ``hours`` of training, validation and both; ``ratios`` of naive to the others.
    """
    at_least(args, 1, 'epochs')
    steps = part_of(args, 'training', args.from_training, training, no_memory=True)
    shots = part_of(
        args, 'evaluation', args.from_evaluation, evaluation, shots=[1], batch=1
    )['shots']  # fmt: skip
    if '1' not in shots:
        raise ValueError(
            f'--from-evaluation {args.from_evaluation} has no 1-shot evaluation, which validation '
            'is; measure it with --shots 1'
        )
    kinds = dict.fromkeys(entry['kind'] for entry in steps['ways'].values())
    episode = {kind: episode_seconds(steps['ways'], kind) for kind in kinds}
    target = shots['1']['target']
    validation = {name: (target[name], target[name]) for name in (NAIVE, PLAIN)}
    validation['cache'] = target[COLD], target[WARM]
    hours = {
        name: of_fold(episode[a], validation[b], args.epochs) for name, a, b in WAYS if a in episode
    }
    naive = hours['naive']['all']
    return dict(
        episode_seconds=episode,
        validation_seconds={k: dict(first=a, later=b) for k, (a, b) in validation.items()},
        hours=hours,
        ratios={name: naive / entry['all'] for name, entry in hours.items() if name != 'naive'},
    )


def part_of(
    args: argparse.Namespace, name: str, path: str | None, module: Any, **own: Any
) -> Mapping[str, Any]:
    """Results of a subcommand: of its file, or measured now with its defaults but for ``own``."""
    if path is None:
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        return module.run(
            argparse.Namespace(**{**vars(args), **vars(parser.parse_args([])), **own})
        )
    content = load(path)
    if content['subcommand'] != name:
        raise ValueError(f'--from-{name} {path} is of {content["subcommand"]!r}, not of {name!r}')
    other = {k: content['settings'].get(k) for k in _COMMON}
    ours = {k: getattr(args, k) for k in _COMMON}
    if other != ours:
        raise ValueError(
            f'--from-{name} {path} was measured with {other}, this is asked for {ours}; give the '
            'options that it was measured with'
        )
    return content['results']


def episode_seconds(ways: Mapping[str, Any], kind: str) -> float:
    """Seconds of an episode in a step of many: what one more adds to a step, from the two batches
    that lie furthest apart; of one batch, its share."""
    found = sorted(
        (entry['batch'], entry['seconds']['median'])
        for entry in ways.values()
        if entry['kind'] == kind
    )
    (few, short), (many, long) = found[0], found[-1]
    if few == many:
        return short / few
    slope = (long - short) / (many - few)
    at_step = long + slope * (EPISODES_PER_STEP - many)
    return at_step / EPISODES_PER_STEP


def of_fold(episode: float, validation: tuple[float, float], epochs: int) -> dict[str, float]:
    """Hours of training, validation and all, for ``epochs`` with two validations each."""
    first, later = validation
    steps = epochs * STEPS * EPISODES_PER_STEP * episode
    runs = epochs * VALIDATION[0]
    checked = first + (runs - 1) * later
    return dict(training=steps / 3600, validation=checked / 3600, all=(steps + checked) / 3600)


def tables(results: dict[str, Any]) -> list[str]:
    """What is printed."""
    rows = [
        [name, e['training'], e['validation'], e['all'], results['ratios'].get(name)]
        for name, e in results['hours'].items()
    ]
    parts = [[f'training, {k}: an episode', v] for k, v in results['episode_seconds'].items()]
    for name, entry in results['validation_seconds'].items():
        parts += [[f'validation, {name}: {which}', value] for which, value in entry.items()]
    return [
        table(['whole training', 'h training', 'h validation', 'h in all', 'naive / this'], rows),
        table(['part', 's'], parts),
        f'An epoch: {STEPS} steps of {EPISODES_PER_STEP} episodes and {VALIDATION[0]} validations '
        f'of {VALIDATION[1]}. Step of 8: what an episode adds from one batch to the other, '
        'extended.',
    ]
