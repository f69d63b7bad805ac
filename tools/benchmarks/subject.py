"""What is measured: a method of a config with random weights of one seed, and the options that say
which."""

from __future__ import annotations

import argparse
import copy
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from benchmarks.naive import FAST_ONLY, NaiveFSSAM, build_naive
from benchmarks.pictures import PICTURES
from benchmarks.timing import matmul_peak
from mmfss.commands.command_lines import ConfigArguments
from mmfss.commands.variables import check_values, check_variables, options_in_environment
from mmfss.configs import find_config
from mmfss.methods.base import FewShotModel, method_of

ARCHS = {'full': 'fss_sam2_pascal_1shot', 'small': 'fss_sam2_shapes_1shot'}
ANY_METHOD = 'fss'
BENCHMARKS = {'full': 'pascal_5i', 'small': 'shapes_5i'}
"""Of ``ANY_METHOD``, for the networks of these archs."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of all subcommands."""
    model = parser.add_argument_group('what is measured')
    which = model.add_mutually_exclusive_group()
    which.add_argument('--config', help='name or path of a config with a few-shot method')
    which.add_argument(
        '--arch', choices=ARCHS, default='full', help=f'short for the config: {ARCHS} (%(default)s)'
    )
    model.add_argument('--method', help='of configs/_base_/methods, at --arch (default: fssam)')
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


def at_least(args: argparse.Namespace, low: int, *names: str) -> None:
    """Check options; those that are None pass.

    Raises:
        ValueError: one, or one of its values, is below ``low``.
    """
    values = {f'--{name.replace("_", "-")}': getattr(args, name) for name in names}
    if any(np.min(value) < low for value in values.values() if value is not None):
        *first, last = values
        said = f'{", ".join(first)} and {last}' if first else last
        raise ValueError(f'{said} must be >= {low}, got {", ".join(map(str, values.values()))}')


def subject_of(args: argparse.Namespace) -> Subject:
    """The subject that the options name; its threads are set.

    Raises:
        ValueError: no such device or method, or an option out of range.
    """
    at_least(args, 1, 'repeats')
    given = {f.name: getattr(args, f.name) for f in fields(Subject) if hasattr(args, f.name)}
    if args.config is None:
        given['config'] = ANY_METHOD if args.method else ARCHS[args.arch]
        given['benchmark'] = BENCHMARKS[args.arch] if args.method else None
    subject = Subject(**given)
    _ = subject.target
    subject.prepare()
    return subject


@dataclass(frozen=True)
class Subject:
    """What is measured, in plain types.

    Args:
        config: name or path of a config with a few-shot method; its weights are not loaded.
        method, benchmark: METHOD and BENCHMARK for configs that read them, else None.
        image_size: side in pixels; None keeps the config's. That of encoders grows with it.
        device, threads, seed, amp, compile, channels_last: see :func:`add_options`.
        checkpointing: activation checkpointing of the memory attention in training.
        encode_batch: images that the encoders take at a time in evaluation.

    Raises:
        ValueError: See :func:`checked_device`; a model of another type.
    """

    config: str = ARCHS['full']
    method: str | None = None
    benchmark: str | None = None
    image_size: int | None = None
    device: str = 'auto'
    threads: int = 2
    seed: int = 0
    amp: bool = False
    compile: bool = False
    channels_last: bool | None = None
    checkpointing: bool = False
    encode_batch: int = 1

    @property
    def target(self) -> torch.device:
        """The device."""
        return checked_device(self.device)

    @property
    def side(self) -> int:
        """Side S of the images that the model takes."""
        return int(_sized(self.model_config())['image_size'])

    def prepare(self) -> None:
        """Set the number of threads of this process."""
        if self.threads < 1:
            raise ValueError(f'--threads must be >= 1, got {self.threads}')
        torch.set_num_threads(self.threads)

    def context(self) -> AbstractContextManager:
        """Autocast, or nothing."""
        return torch.autocast(self.target.type, torch.bfloat16) if self.amp else nullcontext()

    def machine(self, quick: bool = False) -> dict[str, Any]:
        """Measured now: threads, and operations per second of a big matrix product."""
        dtype = torch.bfloat16 if self.amp else torch.float32
        return dict(
            device=str(self.target),
            threads=torch.get_num_threads(),
            matmul_flops=matmul_peak(self.target, dtype, 512 if quick else 2048),
            matmul_dtype=str(dtype).removeprefix('torch.'),
        )

    def model_config(self) -> dict[str, Any]:
        """The model's config without checkpoints and options of speed, at the side asked for."""
        path = find_config(self.config)
        chosen = ConfigArguments(str(path), method=self.method, benchmark=self.benchmark)
        with options_in_environment(chosen):
            check_values(path)
            cfg = Config.fromfile(path)
            if self.method is not None:
                check_variables(cfg)
        method_of(cfg)
        model = {k: copy.deepcopy(v) for k, v in cfg.model.to_dict().items() if k not in FAST_ONLY}
        sized = _sized(model)
        if model.get('prompts'):
            model['prompts'] = None
        if model.get('sam2'):
            model['sam2']['checkpoint'] = None
        elif self.channels_last is not None:
            raise ValueError(f'--channels-last is an option of SAM 2, and {model["type"]} has none')
        if self.channels_last is not None:
            model['sam2']['channels_last'] = self.channels_last
        model['encoder_runtime'] = 'torch'  # that of OpenVINO is a subcommand's matter
        old = sized.setdefault('image_size', 512)
        sized['image_size'] = old if self.image_size is None else self.image_size
        for name in ('prior_encoder', 'encoder', 'sam1'):
            encoder = model.get(name) or {}
            if 'checkpoint' in encoder:
                encoder['checkpoint'] = None
            if 'image_size' in encoder and sized['image_size'] != old:
                step = 14 if encoder['type'] == 'DINOv2' else 32
                patches = round(encoder['image_size'] * sized['image_size'] / old / step)
                encoder['image_size'] = max(1, patches) * step
        return model

    def build(self, cache: dict[str, Any] | None = None) -> FewShotModel:
        """The model in eval mode on the device; the same weights each time.

        Args:
            cache: arguments of its FeatureCache, None for none.
        """
        cfg = self.model_config()
        if cache is not None:
            cfg['feature_cache'] = dict(type='FeatureCache', **cache)
        if self.checkpointing:
            attention = cfg.get('memory_attention') or dict(type='SAM2MemoryAttention')
            cfg['memory_attention'] = dict(attention, checkpoint=True)
        if self.encode_batch > 1:
            cfg['encode_batch'] = self.encode_batch
        if self.compile:
            cfg['compile'] = dict(parts=MODELS.build(cfg).query_encoders)
        return self._seeded(MODELS.build, cfg)

    def has_naive(self) -> bool:
        """Whether there is a baseline: of FSSAM alone."""
        return self.model_config()['type'] == 'FSSAM'

    def build_naive(self) -> NaiveFSSAM:
        """The baseline with the same weights: they are drawn in the same order.

        Raises:
            ValueError: there is none.
        """
        cfg = self.model_config()
        if cfg['type'] != 'FSSAM':
            raise ValueError(
                f'{self.config} has a model of type {cfg["type"]!r}, and the plain way that this '
                'is measured against is written for FSSAM alone: use one of configs/fss_sam2_*.py'
            )
        return self._seeded(build_naive, cfg)

    def _seeded(self, make: Callable[[dict], Any], cfg: dict) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = make(cfg)
            model.init_weights()
        return model.to(self.target).eval()


def _sized(model: dict[str, Any]) -> dict[str, Any]:
    """The part of a model's config that says the side of its images."""
    return model if 'image_size' in model else model.get('sam2', model)


def checked_device(name: str) -> torch.device:
    """The device of a name; 'auto' is the GPU where there is one.

    Raises:
        ValueError: torch knows no such device, or it is not here.
    """
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"--device must be auto, cpu or cuda, or one like cuda:1 that is here, got {name!r}: "
            f'{error}'
        ) from error
    return device


@contextmanager
def folder(path: str | None) -> Iterator[str]:
    """A folder for generated files: the given one, or a temporary one."""
    if path is not None:
        os.makedirs(path, exist_ok=True)
        yield path
        return
    with tempfile.TemporaryDirectory(prefix='mmfss-benchmark-') as made:
        yield made
