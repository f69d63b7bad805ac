"""The model that is measured: of a config, with random weights of one seed."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmfss.encoders.compiling import PARTS
from mmseg.registry import MODELS

from benchmarks.naive import FAST_ONLY, NaiveFSSAM, naive_config
from mmfss.configs import find_config
from mmfss.methods.fssam.model import FSSAM

ARCHS = {'full': 'fss_sam2_pascal_1shot', 'small': 'fss_sam2_shapes_1shot'}
_PATCH = 14


@dataclass(frozen=True)
class Subject:
    """What is measured, in plain types.

    Args:
        config: name or path of a config with a model of type FSSAM; its weights are not loaded.
        image_size: side in pixels; None keeps the config's. The prior encoder's grows with it.
        device: 'auto' takes the GPU where there is one.
        threads: of torch, on the CPU.
        seed: of the weights.
        amp: run under bfloat16 autocast.
        compile: ``torch.compile`` of the encoders.
        channels_last: memory layout of SAM 2's convolutions; None keeps the config's.
        checkpointing: activation checkpointing of the memory attention in training.

    Raises:
        ValueError: See :func:`checked_device`; a model of another type.
    """

    config: str = ARCHS['full']
    image_size: int | None = None
    device: str = 'auto'
    threads: int = 2
    seed: int = 0
    amp: bool = False
    compile: bool = False
    channels_last: bool | None = None
    checkpointing: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As keyword arguments."""
        return asdict(self)

    @property
    def target(self) -> torch.device:
        """The device."""
        return checked_device(self.device)

    @property
    def side(self) -> int:
        """Side S of the images that the model takes."""
        return int(self.model_config()['sam2']['image_size'])

    def prepare(self) -> None:
        """Set the number of threads of this process."""
        if self.threads < 1:
            raise ValueError(f'--threads must be >= 1, got {self.threads}')
        torch.set_num_threads(self.threads)

    def context(self) -> AbstractContextManager:
        """Autocast, or nothing."""
        return torch.autocast(self.target.type, torch.bfloat16) if self.amp else nullcontext()

    def model_config(self) -> dict[str, Any]:
        """The model's config without checkpoints and options of speed, at the side asked for."""
        cfg = dict(Config.fromfile(find_config(self.config)).to_dict().get('model') or {})
        if cfg.get('type') != 'FSSAM':
            raise ValueError(
                f'{self.config} has a model of type {cfg.get("type")!r}; benchmarks measure FSSAM: '
                'use one of configs/fss_sam2_*.py'
            )
        model = {k: copy.deepcopy(v) for k, v in cfg.items() if k not in FAST_ONLY}
        model['sam2']['checkpoint'] = None
        if self.channels_last is not None:
            model['sam2']['channels_last'] = self.channels_last
        prior = model.get('prior_encoder')
        if prior and 'checkpoint' in prior:
            prior['checkpoint'] = None
        if self.image_size is not None:
            old, model['sam2']['image_size'] = model['sam2']['image_size'], self.image_size
            if prior and 'image_size' in prior:
                step = _PATCH if prior['type'] == 'DINOv2' else 32
                patches = round(prior['image_size'] * self.image_size / old / step)
                prior['image_size'] = max(1, patches) * step
        return model

    def build(self, cache: dict[str, Any] | None = None, encode_batch: int = 1) -> FSSAM:
        """The model in eval mode on the device; the same weights each time.

        Args:
            cache: arguments of its FeatureCache, None for none.
            encode_batch: images that its encoders take at a time.
        """
        cfg = self.model_config()
        options: dict[str, Any] = {}
        if cache is not None:
            options['feature_cache'] = dict(type='FeatureCache', **cache)
        if encode_batch != 1:
            options['encode_batch'] = encode_batch
        if self.compile:
            parts = [p for p in PARTS if p != 'prior_encoder' or cfg.get('prior_encoder')]
            options['compile'] = dict(parts=parts)
        if self.checkpointing:
            attention = cfg.get('memory_attention') or dict(type='SAM2MemoryAttention')
            cfg['memory_attention'] = dict(attention, checkpoint=True)
        return self._seeded(lambda: MODELS.build({**cfg, **options}))

    def build_naive(self) -> NaiveFSSAM:
        """The baseline with the same weights: they are drawn in the same order."""
        return self._seeded(lambda: NaiveFSSAM(**naive_config(self.model_config())))

    def _seeded(self, make: Callable[[], FSSAM]) -> FSSAM:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = make()
            model.init_weights()
        return model.to(self.target).eval()


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
