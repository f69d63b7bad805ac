"""What several subcommands share: options, the machine, operations of each stage."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop

from benchmarks.pictures import PICTURES, FoldSpec
from benchmarks.running import AMP_TOLERANCE, TOLERANCE, Episodes
from benchmarks.stages import Stages, rules_of
from benchmarks.subject import ARCHS, Subject
from benchmarks.timing import matmul_peak, parameters
from mmfss.datasets.episodes import EpisodicDataset
from mmfss.methods.fssam.model import FSSAM

NOT_SETTINGS = (
    'json',
    'compare',
    'data',
    'figure',
    'subcommand',
    'run',
    'from_training',
    'from_evaluation',
)
"""Options that do not decide about what is measured."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of all subcommands."""
    model = parser.add_argument_group('what is measured')
    which = model.add_mutually_exclusive_group()
    which.add_argument('--config', help='name or path of a config with a model of type FSSAM')
    which.add_argument(
        '--arch', choices=ARCHS, default='full', help=f'short for the config: {ARCHS} (%(default)s)'
    )
    model.add_argument('--image-size', type=int, help="side in pixels (default: the config's)")
    model.add_argument('--device', default='auto', help='auto, cpu, cuda, cuda:1 (%(default)s)')
    model.add_argument('--threads', type=int, default=2, help='of torch on the CPU (%(default)s)')
    model.add_argument('--seed', type=int, default=0, help='of weights and pictures (%(default)s)')
    model.add_argument('--amp', action='store_true', help='bfloat16 autocast')
    model.add_argument('--compile', action='store_true', help='torch.compile')
    model.add_argument(
        '--channels-last',
        action=argparse.BooleanOptionalAction,
        help="memory layout of SAM 2's convolutions (default: the config's); never of the baseline",
    )
    data = parser.add_argument_group('generated pictures')
    data.add_argument('--data', metavar='DIR', help='keep them there (default: a temporary folder)')
    data.add_argument('--pictures', choices=PICTURES, default='photos', help='(%(default)s)')
    data.add_argument('--photo-size', type=int, nargs=2, default=(500, 375), metavar=('W', 'H'))
    run = parser.add_argument_group('measuring')
    run.add_argument('--repeats', type=int, help='turns that count (default: by subcommand)')
    run.add_argument('--quick', action='store_true', help='as little as gives all figures')
    run.add_argument('--json', metavar='FILE', help='write everything there')
    run.add_argument('--compare', metavar='FILE', help='an earlier --json of the same settings')


def subject_of(args: argparse.Namespace) -> Subject:
    """The subject that the options name; its threads are set.

    Raises:
        ValueError: No such device, or an option out of range.
    """
    if args.repeats is not None and args.repeats < 1:
        raise ValueError(f'--repeats must be >= 1, got {args.repeats}')
    subject = Subject(
        config=args.config or ARCHS[args.arch],
        image_size=args.image_size,
        device=args.device,
        threads=args.threads,
        seed=args.seed,
        amp=args.amp,
        compile=args.compile,
        channels_last=args.channels_last,
    )
    _ = subject.target
    subject.prepare()
    return subject


def fold_spec(args: argparse.Namespace, images: int, per_class: int = 6) -> FoldSpec:
    """What pictures the options ask for."""
    width, height = args.photo_size
    if args.pictures == 'shapes':
        side = min(1024, subject_of(args).side)
        width = height = side
    return FoldSpec(images, args.pictures, width, height, per_class, args.seed)


def tolerance_of(subject: Subject) -> float:
    """Of logits, relative to the largest."""
    return AMP_TOLERANCE if subject.amp else TOLERANCE


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """Options that decide about what is measured, in plain types."""
    values = {k: v for k, v in vars(args).items() if k not in NOT_SETTINGS}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def machine_of(subject: Subject, quick: bool = False) -> dict[str, Any]:
    """Measured now: threads, and operations per second of a big matrix product."""
    dtype = torch.bfloat16 if subject.amp else torch.float32
    return dict(
        device=str(subject.target),
        threads=torch.get_num_threads(),
        matmul_flops=matmul_peak(subject.target, dtype, 512 if quick else 2048),
        matmul_dtype=str(dtype).removeprefix('torch.'),
    )


def model_parts(model: FSSAM) -> dict[str, dict[str, int]]:
    """Parameters of the parts of a model."""
    sam2 = model.sam2
    named = [
        ('SAM 2 image encoder', sam2.image_encoder),
        ('SAM 2 mask decoder', sam2.sam_mask_decoder),
        ('SAM 2 memory encoder', sam2.memory_encoder),
        ('memory attention', sam2.memory_attention),
        ('all', model),
    ]
    if model.prior_encoder is not None:
        named.insert(0, ('prior encoder', model.prior_encoder))
    return parameters(named)


def _cpu_attention_flops(query: Any, key: Any, value: Any, *rest: Any, **more: Any) -> int:
    return sdpa_flop(query, key, value)


def flop_counter() -> FlopCounterMode:
    """torch's counter, with the attention of CPUs, which it leaves out."""
    name = '_scaled_dot_product_flash_attention_for_cpu'
    custom = {getattr(torch.ops.aten, name): _cpu_attention_flops}
    return FlopCounterMode(display=False, custom_mapping=custom)


def stage_flops(model: FSSAM, dataset: EpisodicDataset, subject: Subject) -> dict[str, float]:
    """Operations (a multiplication and an addition are two) of the first episode, by stage;
    matrix products, convolutions and attention are counted."""
    counter = flop_counter()
    stages = Stages(rules_of(model, dataset), lambda: float(counter.get_total_flops()))
    runner = Episodes(model, dataset, context=subject.context())
    runner.stages = stages
    with counter:
        return runner.run(1).stages
