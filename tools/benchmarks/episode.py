"""One cold episode, stage by stage, against the bare encoders on the same images."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor

from benchmarks.common import (
    fold_spec,
    machine_of,
    model_parts,
    stage_flops,
    subject_of,
    tolerance_of,
)
from benchmarks.pictures import episodes_of, write_fold
from benchmarks.plain import explicit_prior
from benchmarks.report import SECONDS, mib, seconds_row, table
from benchmarks.running import Episodes, Outcome, compare
from benchmarks.stages import ENCODERS
from benchmarks.subject import folder
from benchmarks.timing import clock_of, interleaved, peak_bytes, summary
from mmfss.encoders.dinov2 import DINOv2
from mmfss.functional import up
from mmfss.methods.fssam.model import FSSAM

HELP = 'one cold K-shot episode, stage by stage'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument('--shots', type=int, default=1, help='K (%(default)s)')
    parser.add_argument('--no-naive', action='store_true', help='leave the baseline out')


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure.

    Returns:
        ``machine``, ``parameters``, ``seconds`` of the interleaved jobs, ``stages`` (seconds and
        ``flops`` of each), ``ratios``, ``images_per_second``, ``peak_bytes`` of this process after
        ours, and ``equal`` to the baseline.
    """
    if args.shots < 1:
        raise ValueError(f'--shots must be >= 1, got {args.shots}')
    subject = subject_of(args)
    with folder(args.data) as root:
        spec = fold_spec(args, max(6, args.shots + 1), max(2, args.shots + 1))
        dataset = episodes_of(write_fold(root, spec), spec, subject.side, args.shots, 2)
        return _measure(args, subject, dataset)


def _measure(args: argparse.Namespace, subject: Any, dataset: Any) -> dict[str, Any]:
    model = subject.build()
    clock, context = clock_of(subject.target), subject.context()
    repeats = args.repeats or (2 if args.quick else 7)
    whole = Episodes(model, dataset, context=context)
    staged = Episodes(model, dataset, context=context, staged=True)
    images = images_of(model, dataset)
    outcomes: dict[str, Outcome] = {}
    jobs: dict[str, Callable[[], Any]] = {
        'episode': lambda: outcomes.update(ours=whole.run(1)),
        **encoder_jobs(model, images, context),
    }
    whole.run(1)
    peak = peak_bytes(subject.target)
    if not args.no_naive:
        naive = Episodes(subject.build_naive(), dataset, context=context)
        jobs['naive episode'] = lambda: outcomes.update(naive=naive.run(1))
    seconds = interleaved(jobs, repeats, clock)
    shares = [staged.run(1).stages for _ in range(repeats)]
    flops = stage_flops(model, dataset, subject)
    results: dict[str, Any] = dict(
        machine=machine_of(subject, args.quick),
        parameters=model_parts(model),
        images=len(images),
        seconds=seconds,
        stages={
            name: dict(
                seconds=summary([s.get(name, 0.0) for s in shares]), flops=flops.get(name, 0)
            )
            for name in shares[0]
        },
        images_per_second=len(images) / seconds['episode']['median'],
        peak_bytes=peak,
    )
    if not args.no_naive:
        results['equal'] = compare(outcomes['ours'], outcomes['naive'], tolerance_of(subject))
    results['ratios'] = {**ratios(seconds), **stage_ratio(shares)}
    return results


def stage_ratio(shares: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of the staged episodes: all stages over those of the encoders, median."""
    values = [sum(s.values()) / sum(s.get(name, 0.0) for name in ENCODERS) for s in shares]
    return {'all stages / encoder stages': summary(values)['median']}


def images_of(model: FSSAM, dataset: Any) -> Tensor:
    """Pixels (K + 1, 3, S, S) of the first episode, as the model takes them."""
    inputs = model.data_preprocessor(pseudo_collate([dataset[0]]))['inputs']
    return torch.cat([inputs['query'], inputs['support'].flatten(0, 1)])


def encoder_jobs(model: FSSAM, images: Tensor, context: Any) -> dict[str, Any]:
    """The bare encoders, an image at a time; the prior encoder also with explicit softmax."""

    @torch.no_grad()
    def each(function: Any) -> None:
        with context:
            for image in images.split(1):
                function(image)

    prior = model.prior_encoder

    def sam2(image: Tensor) -> Any:
        return model.sam2.encode_image(model.normalise(image))

    jobs = {'SAM 2 encoder': lambda: each(sam2)}
    if prior is None or prior.reads_sam2:  # the latter runs nothing of its own
        return jobs
    jobs['prior encoder'] = lambda: each(lambda image: prior(image, None))
    if type(prior) is DINOv2:
        size = (prior.image_size, prior.image_size)
        jobs['prior encoder, explicit softmax'] = lambda: each(
            lambda image: explicit_prior(prior.vit, prior.normalise(up(image, size)))
        )
    return jobs


def ratios(seconds: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Of medians: the episode over the bare encoders, the explicit prior encoder over ours, the
    naive episode over ours."""
    times = {name: entry['median'] for name, entry in seconds.items()}
    bare = sum(times.get(name, 0.0) for name in ENCODERS)
    out = {'episode / bare encoders': times['episode'] / bare}
    if 'prior encoder, explicit softmax' in times:
        explicit = times['prior encoder, explicit softmax']
        out['explicit prior encoder / ours'] = explicit / times['prior encoder']
    if 'naive episode' in times:
        out['naive episode / ours'] = times['naive episode'] / times['episode']
    return out


def tables(results: dict[str, Any]) -> list[str]:
    """What is printed."""
    rows = [seconds_row(name, entry) for name, entry in results['seconds'].items()]
    whole = sum(entry['seconds']['median'] for entry in results['stages'].values())
    peak = results['machine']['matmul_flops']
    staged = []
    for name, entry in results['stages'].items():
        spent, flops = entry['seconds']['median'], entry['flops']
        speed = f'{100 * flops / spent / peak:.0f} %' if flops and spent else None
        share = f'{100 * spent / whole:.1f} %'
        staged.append(seconds_row(name, entry['seconds'], share, flops / 1e9, speed))
    return [
        table(['job, interleaved', *SECONDS], rows),
        table(['stage', *SECONDS, 'share', 'GFLOP', 'of matmul peak'], staged),
        table(['ratio of medians', ''], [[k, v] for k, v in results['ratios'].items()]),
        f'{results["images"]} images, {results["images_per_second"]:.2f} images/s; peak memory of '
        f'the process {mib(results["peak_bytes"])}',
    ]
