"""One cold episode, stage by stage, against the bare encoders on the same images."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from mmengine.dataset import pseudo_collate

from benchmarks.naive import explicit_prior
from benchmarks.pictures import FoldSpec, episodes_of
from benchmarks.report import SECONDS, mib, spread, table
from benchmarks.running import Episodes, Outcome, compare, tolerance_of
from benchmarks.stages import ENCODERS, PRIOR
from benchmarks.subject import at_least, folder, subject_of
from benchmarks.timing import clock_of, interleaved, parameters, peak_bytes, summary
from mmfss.encoders.dinov2 import DINOv2
from mmfss.functional import up
from mmfss.methods.base import FewShotModel

HELP = 'one cold K-shot episode, stage by stage'
_EXPLICIT = f'{PRIOR}, explicit softmax'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument('--shots', type=int, default=1, help='K (%(default)s)')
    parser.add_argument('--no-naive', action='store_true', help='leave the baseline out')


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure.

    Returns:
        ``machine``, ``parameters``, ``seconds`` of the interleaved jobs, ``stages`` (of each
        seconds, ``flops`` and the bytes ``held``, see :func:`benchmarks.memory.held_by_stage`),
        ``ratios``, ``images_per_second``, ``peak_bytes`` of this process after ours, and ``equal``
        to the baseline.
    """
    at_least(args, 1, 'shots')
    subject = subject_of(args)
    compared = subject.has_naive() and not args.no_naive
    with folder(args.data) as root:
        spec = FoldSpec.asked(args, subject.side, max(6, args.shots + 1), max(2, args.shots + 1))
        dataset = episodes_of(root, spec, subject.side, args.shots, 2)
        model = subject.build()
        repeats = args.repeats or (2 if args.quick else 7)
        whole = Episodes(model, dataset, subject)
        staged = Episodes(model, dataset, subject, staged=True)
        inputs = model.data_preprocessor(pseudo_collate([dataset[0]]))['inputs']
        images = torch.cat([inputs['query'], inputs['support'].flatten(0, 1)])
        outcomes: dict[str, Outcome] = {}
        jobs: dict[str, Callable[[], Any]] = {
            'episode': lambda: outcomes.update(ours=whole.run(1)),
            **encoder_jobs(model, images, subject.context()),
        }
        whole.run(1)
        peak = peak_bytes(subject.target)
        if compared:
            naive = Episodes(subject.build_naive(), dataset, subject)
            jobs['naive episode'] = lambda: outcomes.update(naive=naive.run(1))
        seconds = interleaved(jobs, repeats, clock_of(subject.target))
        shares = [staged.run(1).stages for _ in range(repeats)]
        flops = whole.flops()
        held = whole.held()
    times = {name: entry['median'] for name, entry in seconds.items()}
    encoding = set(ENCODERS.values())
    results: dict[str, Any] = dict(
        machine=subject.machine(args.quick),
        parameters=parameters_of(model),
        images=len(images),
        seconds=seconds,
        stages={
            name: dict(
                seconds=summary([s.get(name, 0.0) for s in shares]),
                flops=flops.get(name, 0),
                held=held.get(name, dict(tensors=0, arrays=0)),
            )
            for name in shares[0]
        },
        images_per_second=len(images) / times['episode'],
        peak_bytes=peak,
    )
    if compared:
        results['equal'] = compare(outcomes['ours'], outcomes['naive'], tolerance_of(subject))
    bare = sum(times[name] for name in encoding & set(times))
    ratios = results['ratios'] = {}
    if bare:  # none where a method reads no image
        ratios['episode / bare encoders'] = times['episode'] / bare
    if _EXPLICIT in times:
        ratios['explicit prior encoder / ours'] = times[_EXPLICIT] / times[PRIOR]
    if compared:
        ratios['naive episode / ours'] = times['naive episode'] / times['episode']
    if bare:
        of_stages = [sum(s.values()) / sum(s[name] for name in encoding & set(s)) for s in shares]
        ratios['all stages / encoder stages'] = summary(of_stages)['median']
    return results


def encoder_jobs(model: FewShotModel, images: torch.Tensor, context: Any) -> dict[str, Any]:
    """The bare encoders, an image at a time; DINOv2 also with explicit softmax."""

    @torch.no_grad()
    def each(function: Callable) -> None:
        with context:
            for image in images.split(1):
                function(image)

    names = dict.fromkeys([*model.query_encoders, *model.support_encoders])
    jobs: dict[str, Any] = {
        ENCODERS.get(name, name): partial(each, model.encoders[name]) for name in names
    }
    prior = model.encoders.get('prior_encoder')
    if PRIOR in jobs and type(prior) is DINOv2:
        size = (prior.image_size, prior.image_size)
        jobs[_EXPLICIT] = lambda: each(
            lambda image: explicit_prior(prior.vit, prior.normalise(up(image, size)))
        )
    return jobs


def parameters_of(model: FewShotModel) -> dict[str, dict[str, int]]:
    """Of the encoders, of all, and of the parts of SAM 2 in the place of the whole."""
    named = [(ENCODERS.get(name, name), e) for name, e in model.encoders.items() if name != 'sam2']
    if 'sam2' in model.encoders:
        named += [
            ('SAM 2 image encoder', model.sam2.image_encoder),
            ('SAM 2 mask decoder', model.sam2.sam_mask_decoder),
            ('SAM 2 memory encoder', model.sam2.memory_encoder),
            ('memory attention', model.sam2.memory_attention),
        ]
    return parameters([*named, ('all', model)])


def tables(results: dict[str, Any]) -> list[str]:
    """What is printed."""
    rows = [[name, *spread(entry, 1000)] for name, entry in results['seconds'].items()]
    whole = sum(entry['seconds']['median'] for entry in results['stages'].values())
    peak = results['machine']['matmul_flops']
    staged = []
    for name, entry in results['stages'].items():
        spent, flops = entry['seconds']['median'], entry['flops']
        speed = f'{100 * flops / spent / peak:.0f} %' if flops and spent else None
        share = f'{100 * spent / whole:.1f} %'
        held = [f'{entry["held"][kind] / 2**20:.1f}' for kind in ('tensors', 'arrays')]
        staged.append([name, *spread(entry['seconds'], 1000), share, flops / 1e9, speed, *held])
    return [
        table(['job, interleaved', *SECONDS], rows),
        table(
            ['stage', *SECONDS, 'share', 'GFLOP', 'of matmul peak', 'tensors MiB', 'arrays MiB'],
            staged,
        ),
        table(['ratio of medians', ''], [[k, v] for k, v in results['ratios'].items()]),
        f'{results["images"]} images, {results["images_per_second"]:.2f} images/s; peak memory of '
        f'the process {mib(results["peak_bytes"])}',
    ]
