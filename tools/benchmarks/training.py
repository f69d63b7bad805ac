"""A training step: forward, backward, optimiser; ours and the published way; peak memory."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor

from benchmarks.common import fold_spec, machine_of, model_parts, subject_of, tolerance_of
from benchmarks.pictures import FoldSpec, episodes_of, write_fold
from benchmarks.report import mib, table
from benchmarks.subject import Subject, folder
from benchmarks.timing import clock_of, note, peak_bytes, summary
from benchmarks.worker import in_process
from mmfss.methods.fssam.model import FSSAM

HELP = 'a training step, and its peak memory'
PARTS = ('forward', 'backward', 'optimiser')
_IMAGES = 12
_LR = 1e-4
_GRADIENTS_APART = 0.05  # of the largest: bfloat16 and sums in another order


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument('--batches', type=int, nargs='+', default=[1, 2], help='episodes per step')
    parser.add_argument('--checkpointing', action='store_true', help='with it as well')
    parser.add_argument('--no-memory', action='store_true', help='no peaks, which take processes')


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure.

    Returns:
        ``machine``, ``parameters``; ``ways``: for each way and batch the seconds of a step and of
        its parts, ``peak_bytes`` and ``before_bytes``; ``ratios`` of naive to ours by batch;
        ``gradients``: how far they are apart.
    """
    if min(args.batches) < 1:
        raise ValueError(f'--batches must be >= 1, got {args.batches}')
    subject = subject_of(args)
    with folder(args.data) as root:
        spec = fold_spec(args, _IMAGES, 2)
        folder_of = str(write_fold(root, spec))
        samples = batches_of(folder_of, spec, subject.side, max(args.batches))
        kinds = [k for k in KINDS if args.checkpointing or k != 'ours, checkpointing']
        models = {kind: KINDS[kind](subject) for kind in kinds}
        gradients = checked_gradients(models, samples[:1], subject)
        repeats = args.repeats or (1 if args.quick else 3)
        ways = timed_steps(models, samples, args.batches, repeats, subject)
        results = dict(
            machine=machine_of(subject, args.quick),
            parameters=model_parts(models['ours']),
            gradients=gradients,
            ways=ways,
        )
        del models
        if not args.no_memory:
            measure_memory(ways, subject, folder_of, spec)
    results['ratios'] = ratios(ways)
    return results


def checked_gradients(
    models: dict[str, FSSAM], samples: list[dict], subject: Subject
) -> dict[str, float]:
    """:func:`gradient_difference` of ours and the naive way.

    Raises:
        ValueError: They are too far apart.
    """
    found = gradient_difference(models['ours'], models['naive'], samples, subject)
    if found['loss'] > tolerance_of(subject) or found['gradient'] > _GRADIENTS_APART:
        raise ValueError(
            f'training steps are not equal: loss differs by {found["loss"]:.3g} and gradients by '
            f'{found["gradient"]:.3g} of the largest; run tests/test_benchmarking and '
            'tests/test_models'
        )
    return found


def measure_memory(ways: dict[str, Any], subject: Subject, pictures: str, spec: FoldSpec) -> None:
    """Add the peaks of each way, of a process each."""
    for name, entry in ways.items():
        note(f'memory: {name}')
        peaks = in_process(
            'training',
            subject=subject.to_dict(),
            kind=entry['kind'],
            batch=entry['batch'],
            pictures=pictures,
            spec=asdict(spec),
        )
        entry.update(peaks)


KINDS: dict[str, Callable[[Subject], FSSAM]] = {
    'ours': lambda subject: subject.build(),
    'naive': lambda subject: subject.build_naive(),
    'ours, features kept': lambda subject: subject.build(dict(training=True)),
    'ours, checkpointing': lambda subject: Subject(
        **{**subject.to_dict(), 'checkpointing': True}
    ).build(),
}
"""Ways to train. With features kept, images must come again unchanged: no augmentation."""


def batches_of(pictures: str, spec: FoldSpec, side: int, number: int) -> list[dict]:
    """Augmented 1-shot episodes as the loader gives them."""
    dataset = episodes_of(Path(pictures), spec, side, 1, number, training=True)
    return [dataset[i] for i in range(number)]


class Step:
    """Steps of one model on the same episodes.

    Args:
        model: an FSSAM.
        samples: B episodes.
        subject: whose autocast is used.
    """

    def __init__(self, model: FSSAM, samples: list[dict], subject: Subject) -> None:
        self.model, self.samples, self.subject = model, samples, subject
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(trained, lr=_LR, weight_decay=0.0)
        self.clock = clock_of(subject.target)

    def __call__(self) -> dict[str, float]:
        """One step; seconds of its parts."""
        self.model.train()
        stamps = [self.clock()]
        loss = loss_of(self.model, self.samples, self.subject)
        stamps.append(self.clock())
        loss.backward()
        stamps.append(self.clock())
        self.optimiser.step()
        self.optimiser.zero_grad()
        stamps.append(self.clock())
        self.model.eval()
        return {name: b - a for name, a, b in zip(PARTS, stamps, stamps[1:])}


def loss_of(model: FSSAM, samples: list[dict], subject: Subject) -> Tensor:
    """Preprocessor, model and loss, as the training loop runs them."""
    data = model.data_preprocessor(pseudo_collate(samples), True)
    with subject.context():
        losses = model(**data, mode='loss')
    return model.parse_losses(losses)[0]


def gradient_difference(
    ours: FSSAM, naive: FSSAM, samples: list[dict], subject: Subject
) -> dict[str, float]:
    """Largest differences of loss and gradients of one step, without dropout; gradients relative
    to the largest one of all."""
    found = []
    for model in (ours, naive):
        model.eval()
        loss = loss_of(model, samples, subject)
        loss.backward()
        named = model.named_parameters()
        gradients = {n: p.grad.double().clone() for n, p in named if p.grad is not None}
        model.zero_grad(set_to_none=True)
        found.append((float(loss.detach()), gradients))
    (loss_a, a), (loss_b, b) = found
    if set(a) != set(b):
        raise ValueError(f'other parameters get a gradient: {sorted(set(a) ^ set(b))[:5]}')
    largest = max(float(g.abs().max()) for g in b.values())
    apart = max(float((a[name] - b[name]).abs().max()) for name in b)
    return dict(loss=abs(loss_a - loss_b), gradient=apart / largest)


def timed_steps(
    models: dict[str, FSSAM],
    samples: list[dict],
    batches: list[int],
    repeats: int,
    subject: Subject,
) -> dict[str, Any]:
    """Steps of all ways in turns; the first of each does not count."""
    steps = {
        f'{kind}, batch {batch}': (kind, batch, Step(model, samples[:batch], subject))
        for batch in batches
        for kind, model in models.items()
    }
    spent: dict[str, list[dict[str, float]]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, (_, _, step) in steps.items():
            parts = step()
            if turn:
                spent[name].append(parts)
        note(f'turn {turn + 1} of {repeats + 1}')
    return {
        name: dict(
            kind=kind,
            batch=batch,
            seconds=summary([sum(parts.values()) for parts in spent[name]]),
            parts={part: summary([parts[part] for parts in spent[name]]) for part in PARTS},
        )
        for name, (kind, batch, _) in steps.items()
    }


def measured_step(
    subject: dict[str, Any], kind: str, batch: int, pictures: str, spec: dict[str, Any]
) -> dict[str, int]:
    """Job of a process of its own: two steps; the most memory it held, and that before them."""
    about, fold = Subject(**subject), FoldSpec(**spec)
    about.prepare()
    samples = batches_of(pictures, fold, about.side, batch)
    step = Step(KINDS[kind](about), samples, about)
    before = peak_bytes(about.target)
    for _ in range(2):
        step()
    return dict(peak_bytes=peak_bytes(about.target), before_bytes=before)


def ratios(ways: dict[str, Any]) -> dict[str, float]:
    """Naive over ours by batch: seconds and peak memory."""
    out = {}
    for entry in ways.values():
        if entry['kind'] == 'naive':
            continue
        naive = ways[f'naive, batch {entry["batch"]}']
        label = f'{entry["kind"]}, batch {entry["batch"]}'
        seconds = naive['seconds']['median'] / entry['seconds']['median']
        out[f'naive / {label}'] = seconds
        if 'peak_bytes' in entry:
            out[f'peak of {label} / naive'] = entry['peak_bytes'] / naive['peak_bytes']
    return out


def tables(results: dict[str, Any]) -> list[str]:
    """What is printed."""
    rows = [
        [
            name,
            entry['seconds']['median'],
            entry['seconds']['low'],
            entry['seconds']['high'],
            *(entry['parts'][part]['median'] for part in PARTS),
            entry['batch'] / entry['seconds']['median'],
            mib(entry['peak_bytes']) if 'peak_bytes' in entry else None,
        ]
        for name, entry in results['ways'].items()
    ]
    header = ('step', 's (median)', 'low', 'high', *PARTS, 'episodes/s', 'peak')
    difference = results['gradients']
    return [
        table(header, rows),
        table(['ratio', ''], [[k, v] for k, v in results['ratios'].items()]),
        f'ours and naive: loss differs by {difference["loss"]:.2g}, gradients by '
        f'{difference["gradient"]:.2g} of the largest',
    ]
