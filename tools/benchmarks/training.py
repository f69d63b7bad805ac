"""A training step of FSSAM: forward, backward, optimiser; ours and the published way; peak
memory."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor

from benchmarks.episode import parameters_of
from benchmarks.pictures import FoldSpec, episodes_of
from benchmarks.report import mib, spread, table
from benchmarks.running import tolerance_of
from benchmarks.subject import Subject, at_least, folder, subject_of
from benchmarks.timing import clock_of, note, peak_bytes, summary
from benchmarks.worker import in_process
from mmfss.methods.base import FewShotModel

HELP = 'a training step, and its peak memory'
PARTS = ('forward', 'backward', 'optimiser')
KINDS: dict[str, Callable[[Subject], FewShotModel]] = {
    'ours': lambda subject: subject.build(),
    'naive': lambda subject: subject.build_naive(),
    'ours, features kept': lambda subject: subject.build(dict(training=True)),
    'ours, checkpointing': lambda subject: replace(subject, checkpointing=True).build(),
}
"""Ways to train. With features kept, images must come again unchanged: no augmentation."""
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
    at_least(args, 1, 'batches')
    subject = subject_of(args)
    with folder(args.data) as root:
        spec = FoldSpec.asked(args, subject.side, _IMAGES, 2)
        samples = batch_of(root, spec, subject, max(args.batches))
        kinds = [k for k in KINDS if args.checkpointing or k != 'ours, checkpointing']
        models = {kind: KINDS[kind](subject) for kind in kinds}
        gradients = gradient_difference(models['ours'], models['naive'], samples[:1], subject)
        repeats = args.repeats or (1 if args.quick else 3)
        ways = timed_steps(models, samples, args.batches, repeats, subject)
        results = dict(
            machine=subject.machine(args.quick),
            parameters=parameters_of(models['ours']),
            gradients=gradients,
            ways=ways,
            ratios={},
        )
        del models
        for name, entry in () if args.no_memory else ways.items():
            note(f'memory: {name}')
            about = dict(subject=asdict(subject), root=root, spec=asdict(spec))
            entry.update(in_process('training', kind=entry['kind'], batch=entry['batch'], **about))
    for name, entry in ways.items():
        if entry['kind'] != 'naive':
            naive = ways[f'naive, batch {entry["batch"]}']
            faster = naive['seconds']['median'] / entry['seconds']['median']
            results['ratios'][f'naive / {name}'] = faster
            if 'peak_bytes' in entry:
                peaks = entry['peak_bytes'] / naive['peak_bytes']
                results['ratios'][f'peak of {name} / naive'] = peaks
    return results


def batch_of(root: str, spec: FoldSpec, subject: Subject, number: int) -> list[dict]:
    """Augmented 1-shot episodes as the loader gives them."""
    dataset = episodes_of(root, spec, subject.side, 1, number, training=True)
    return [dataset[i] for i in range(number)]


class Step:
    """Steps of one model on the same episodes.

    Args:
        model: an FSSAM, or the naive one.
        samples: B episodes.
        subject: whose autocast is used.
    """

    def __init__(self, model: FewShotModel, samples: list[dict], subject: Subject) -> None:
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


def loss_of(model: FewShotModel, samples: list[dict], subject: Subject) -> Tensor:
    """Preprocessor, model and loss, as the training loop runs them."""
    data = model.data_preprocessor(pseudo_collate(samples), True)
    with subject.context():
        losses = model(**data, mode='loss')
    return model.parse_losses(losses)[0]


def gradient_difference(
    ours: FewShotModel, naive: FewShotModel, samples: list[dict], subject: Subject
) -> dict[str, float]:
    """Largest differences of loss and gradients of one step, without dropout; gradients relative
    to the largest one of all.

    Raises:
        ValueError: They are too far apart, or of other parameters.
    """
    found = []
    for model in (ours, naive):
        model.eval().training = True  # the parts stay without dropout
        loss = loss_of(model, samples, subject)
        loss.backward()
        model.eval()
        named = model.named_parameters()
        gradients = {n: p.grad.double().clone() for n, p in named if p.grad is not None}
        model.zero_grad(set_to_none=True)
        found.append((float(loss.detach()), gradients))
    (loss_a, a), (loss_b, b) = found
    if set(a) != set(b):
        raise ValueError(f'other parameters get a gradient: {sorted(set(a) ^ set(b))[:5]}')
    largest = max(float(g.abs().max()) for g in b.values())
    apart = max(float((a[name] - b[name]).abs().max()) for name in b)
    result = dict(loss=abs(loss_a - loss_b), gradient=apart / largest)
    if result['loss'] > tolerance_of(subject) or result['gradient'] > _GRADIENTS_APART:
        raise ValueError(
            f'training steps are not equal: loss differs by {result["loss"]:.3g} and gradients by '
            f'{result["gradient"]:.3g} of the largest; run tests/test_benchmarks and '
            'tests/test_methods'
        )
    return result


def timed_steps(
    models: dict[str, FewShotModel],
    samples: list[dict],
    batches: list[int],
    repeats: int,
    subject: Subject,
) -> dict[str, Any]:
    """Steps of all ways in turns; the first of each does not count."""
    steps = {
        (kind, batch): Step(model, samples[:batch], subject)
        for batch in batches
        for kind, model in models.items()
    }
    spent: dict[tuple[str, int], list[dict[str, float]]] = {key: [] for key in steps}
    for turn in range(repeats + 1):
        for key, step in steps.items():
            parts = step()
            if turn:
                spent[key].append(parts)
        note(f'turn {turn + 1} of {repeats + 1}')
    return {
        f'{kind}, batch {batch}': dict(
            kind=kind,
            batch=batch,
            seconds=summary([sum(parts.values()) for parts in turns]),
            parts={part: summary([parts[part] for parts in turns]) for part in PARTS},
        )
        for (kind, batch), turns in spent.items()
    }


def measured_step(
    subject: dict[str, Any], kind: str, batch: int, root: str, spec: dict[str, Any]
) -> dict[str, int]:
    """Job of a process of its own: two steps; the most memory it held, and that before them."""
    about = Subject(**subject)
    about.prepare()
    samples = batch_of(root, FoldSpec(**spec), about, batch)
    step = Step(KINDS[kind](about), samples, about)
    before = peak_bytes(about.target)
    for _ in range(2):
        step()
    return dict(peak_bytes=peak_bytes(about.target), before_bytes=before)


def tables(results: dict[str, Any]) -> list[str]:
    """What is printed."""
    rows = [
        [
            name,
            *spread(entry['seconds']),
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
