"""What ``benchmark.py gpu`` measures, a section each: machine, correctness, encoders, episode and
labelling, training step, evaluation, and with compiled encoders."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.evaluation import TARGET, measured
from benchmarks.gpu_session import BF16, COMPILED, FIRST, FP32, Job, Rows, Session
from benchmarks.labelling import Labels, support_of
from benchmarks.pictures import episodes_of, write_fold
from benchmarks.running import Episodes, Outcome, difference, fault_of, tolerance_of
from benchmarks.stages import KEPT, READ, flop_counter
from benchmarks.timing import matmul_peak, note
from benchmarks.training import Step, batch_of
from mmfss.apis.inferencer import FewShotInferencer

CLASSES = (1, 5)
STEPS = (1, 4)
"""Episodes of a training step."""
ANALYSIS = Path(__file__).resolve().parents[1] / 'analysis_tools'


def machine(session: Session) -> dict[str, Any]:
    """Versions, the GPU, and ``peaks``: operations per second of a large matrix product."""
    target = session.target
    size = 8192 if session.cuda else 512 if session.args.quick else 2048
    for name, dtype in ((FP32, torch.float32), (BF16, torch.bfloat16)):
        # thrice: clocks rise under load
        session.peaks[name] = max(matmul_peak(target, dtype, size) for _ in range(3))
    found = dict(
        device=str(target),
        threads=torch.get_num_threads(),
        matmul_flops=session.peaks[BF16],
        matmul_dtype='bfloat16',
        matmul_size=size,
        peaks=dict(session.peaks),
        torch=torch.__version__,
        tf32_found=session.tf32,
        tf32_here='off',
    )
    if session.cuda:
        about = torch.cuda.get_device_properties(target)
        found.update(
            gpu=about.name,
            memory_bytes=about.total_memory,
            multiprocessors=about.multi_processor_count,
            capability=f'{about.major}.{about.minor}',
            cuda=torch.version.cuda,
            cudnn=torch.backends.cudnn.version(),
            driver=_driver(),
        )
    return found


def _driver() -> str | None:
    query = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.split('\n')[0].strip() or None


def correctness(session: Session) -> dict[str, Any]:
    """``episodes``: the same weights on the CPU and on the device, in fp32 and in bf16;
    ``references``: by directory of reference tensors the stages within and outside tolerance."""
    dataset = episodes_of(session.root, session.spec, session.side, 1, 2)

    def both(variant: str, part: str) -> dict[str, Any]:
        subject = session.variants[variant]
        there = replace(subject, device='cpu')
        truth = Episodes(there.build(), dataset, there).run()
        ours = Episodes(session.model(variant), dataset, subject).run()
        return session.apart(part, ours, truth, tolerance_of(subject))

    episodes: dict[str, Any] = {}
    for variant in (FP32, BF16):
        part = f'correctness: {variant} on {session.target} and on the CPU'
        note(part)
        if (found := session.attempt(part, partial(both, variant, part))) is not None:
            episodes[variant] = found
    references: dict[str, Any] = {}
    for root in session.args.references or ():
        part = f'correctness: reference tensors of {root}'
        note(part)
        references.update(session.attempt(part, partial(_references, root, session.target)) or {})
    return dict(episodes=episodes, references=references)


def _references(root: str, target: torch.device) -> dict[str, Any]:
    """What ``check_parity.py`` finds, by directory.

    Raises:
        ValueError: a directory or a file of it cannot be used.
    """
    if str(ANALYSIS) not in sys.path:
        sys.path.append(str(ANALYSIS))
    tool = import_module('check_parity')
    directories, errors = tool.directories([root])
    found: dict[str, Any] = {}
    for ref in directories:
        comparer = tool.comparer_of(ref, target)
        if isinstance(comparer, str):
            found[str(ref.root)] = dict(left_out=comparer)
            continue
        rows = tool.check(comparer).rows
        errors += [row.note for row in rows if row.broken]
        outside = {
            f'{row.case}, {row.stage}': row.note
            or f'{row.error:.2g}, allowed {row.bound:.2g}; '
            f'relative {row.rl2:.2g}, allowed {row.rl2_bound:.2g}'
            for row in rows
            if not row.ok
        }
        found[str(ref.root)] = dict(
            method=comparer.method,
            stages=len(rows),
            within=len(rows) - len(outside),
            outside=outside,
        )
    if errors:
        raise ValueError('; '.join(dict.fromkeys(errors)))
    return found


def encoders(session: Session) -> Rows:
    """The frozen encoders at batch 1 and ``--batch``: of each also ``images_per_second``,
    ``flops_per_second`` and ``share_of_peak``, that of the matrix product in the same type."""
    model, side = session.model(FP32), session.side
    pixels = torch.rand(
        session.args.batch, 3, side, side, generator=torch.Generator().manual_seed(0)
    )
    images = 255 * pixels.to(session.target)
    names = dict.fromkeys([*model.query_encoders, *model.support_encoders])
    about = {
        f'{name}, batch {count}': (name, count)
        for count in dict.fromkeys((session.args.batch, 1))
        for name in names
    }
    makers = {
        (work, variant): partial(_encoding, session, variant, name, images[:count])
        for work, (name, count) in about.items()
        for variant in session.now
        if variant != FIRST or name == 'sam2'
    }
    rows = session.timed('encoders', makers, session.calls)
    for work, found in rows.items():
        name, count = about[work]
        flops = _flops(model.encoders[name], images[:1])
        for variant, entry in found.items():
            speed = count / entry['seconds']['median']
            peak = session.peaks.get(FP32 if variant == FP32 else BF16)
            entry.update(
                encoder=name,
                batch=count,
                images_per_second=speed,
                flops_per_second=speed * flops,
                share_of_peak=None if peak is None else speed * flops / peak,
            )
    return rows


def _encoding(session: Session, variant: str, name: str, images: Tensor) -> Job:
    encoder, subject = session.model(variant).encoders[name], session.variants[variant]

    @torch.no_grad()
    def job() -> None:
        with subject.context():
            for _ in range(session.calls):
                encoder(images)

    return job


@torch.no_grad()
def _flops(encoder: Callable[[Tensor], Any], image: Tensor) -> float:
    with flop_counter() as counter:
        encoder(image)
    return float(counter.get_total_flops())


def episode(session: Session) -> dict[str, Any]:
    """``timed``: a cold 1-shot episode, and a further image to label, of 1 and of 5 classes;
    ``apart``: how far the episodes of others are from that of fp32."""
    dataset = episodes_of(session.root, session.spec, session.side, 1, 1)
    files = sorted((write_fold(session.root, session.spec) / 'JPEGImages').glob('val_*'))
    outcomes = session.outcomes

    def cold(variant: str) -> Job:
        runner = Episodes(session.model(variant), dataset, session.variants[variant])
        return lambda: outcomes.update({variant: runner.run(1)})

    def label(variant: str, classes: int) -> Job:
        model, amp = session.model(variant), session.variants[variant].amp
        inferencer = FewShotInferencer(model, threshold=0.0, amp=amp)
        inferencer.set_support(support_of(classes, 1, session.spec))
        return Labels(inferencer, files)

    makers = {('1-shot episode', v): partial(cold, v) for v in session.now}
    for classes in CLASSES:
        work = f'a further image, {classes} classes'
        makers.update({(work, v): partial(label, v, classes) for v in session.now})
    timed = session.timed('episode', makers)
    apart = {}
    for variant in [v for v in session.now if {v, FP32} <= set(outcomes) and v != FP32]:
        part = f'episode: {variant} and {FP32}'
        tolerance = tolerance_of(session.variants[variant])
        apart[variant] = session.apart(part, outcomes[variant], outcomes[FP32], tolerance)
    return dict(timed=timed, apart=apart)


def training(session: Session) -> dict[str, Any]:
    """``timed``: a step of 1 and of 4 augmented episodes; or ``not_trained``: which method."""
    model = session.model(FP32)
    if model.loss_decode is None:
        return dict(timed={}, not_trained=type(model).__name__)
    samples = batch_of(session.root, session.spec, session.subject, max(STEPS))

    def step(variant: str, batch: int) -> Job:
        return Step(session.model(variant), samples[:batch], session.variants[variant])

    makers = {
        (f'step, batch {batch}', variant): partial(step, variant, batch)
        for batch in STEPS
        for variant in session.now
        if variant != FIRST
    }
    return dict(timed=session.timed('training', makers))


def evaluation(session: Session) -> dict[str, Any]:
    """Of 1-shot episodes in bf16: ``ways`` as the subcommand ``evaluation`` has them, of each the
    ``reading_share`` (of the time, reading and kept features); ``equal``; ``together``: episodes
    and images ``--batch`` at a time, without a cache."""
    args, subject = session.args, session.variants[BF16]
    episodes, batch = (4 if args.quick else 96), args.batch
    asked = argparse.Namespace(
        episodes=episodes,
        batch=batch,
        plain_episodes=None,
        cache_memory=None,
        target=TARGET,
        repeats=1,
    )
    # on a GPU atomic sums may change last bits; the difference is in the record
    least = tolerance_of(subject) if session.cuda else 0.0

    def judged(ours: Outcome, other: Outcome, tolerance: float) -> dict[str, Any]:
        return difference(ours, other, max(tolerance, least))

    where = session.root, session.spec
    with tempfile.TemporaryDirectory(dir=session.root) as caches:
        figures, equal = measured(asked, subject, *where, 1, caches, False, judged)
    for name, found in equal.items():
        if (fault := fault_of(found)) is not None:
            session.failed[f'evaluation: {name}'] = fault
    for way in figures['ways'].values():
        parts = way['parts']
        read = parts.get(READ, 0.0) + parts.get(KEPT, 0.0)
        way['reading_share'] = read / sum(parts.values())

    def together() -> dict[str, Any]:
        many = replace(subject, encode_batch=batch)
        runner = Episodes(many.build(), episodes_of(*where, session.side, 1, episodes), many, batch)
        runner.run(batch)  # the first call of an operation costs more
        out = runner.run()
        return dict(
            batch=batch, episodes=out.episodes, images_per_second=2 * out.episodes / out.total
        )

    found = session.attempt('evaluation: encoded together', together)
    return dict(figures, equal=equal, together=found)


def compiled(session: Session) -> dict[str, Any]:
    """``encoders``, ``episode`` and ``training`` again, in bf16 and compiled. Last and apart, as
    each batch size is compiled by itself, which takes long."""
    session.now = (COMPILED,)
    again = dict(encoders=encoders, episode=episode, training=training)
    found = {
        name: session.attempt(f'compiled: {name}', partial(section, session))
        for name, section in again.items()
    }
    return {name: section for name, section in found.items() if section is not None}


SECTIONS: dict[str, Callable[[Session], dict[str, Any]]] = {
    'machine': machine,
    'correctness': correctness,
    'encoders': encoders,
    'episode': episode,
    'training': training,
    'evaluation': evaluation,
    'compiled': compiled,
}
"""In order of worth."""
