"""Which runtime runs the steps of which encoder: by name, or the faster one by measurement."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from torch import Tensor

from mmfss.encoders.base import Encoder, Step
from mmfss.features.modules import settings_of

from . import converted as openvino
from . import quantised
from .converted import Converted, NotConverted
from .kept import KeptModels
from .machine import cpu
from .settings import RuntimeSettings

LEAST_PARAMETERS = 10_000_000
"""Of an encoder that 'auto' asks the question for: smaller ones take some tens of milliseconds an
image, and a conversion takes as long as hundreds of these."""
_GAIN = 0.95
_TURNS = 3
_FAR = dict(fp32=1e-3, bf16=0.25, int8=1.0)
"""How far (relative L2, on noise) a converted model may be from torch's; what lies beyond is no
matter of rounding, but a fault of the conversion."""


@dataclass(frozen=True)
class _Part:
    """The first steps of an encoder, for images of one size; see :meth:`Runtimes.of`."""

    name: str
    encoder: Encoder
    steps: Sequence[Step]
    size: tuple[int, int]
    about: Callable[[], Mapping[str, Any]]
    device: str
    autocast: bool

    @property
    def place(self) -> tuple:
        """What is decided and held by, in this process."""
        return self.name, len(self.steps), self.size, self.device, self.autocast


class Runtimes:
    """Chooses, converts, and holds what is converted, one model for each encoder and image size.

    OpenVINO runs steps on CPUs alone. By name it runs all that it is given. With 'auto' it runs, in
    fp32, encoders of :data:`LEAST_PARAMETERS` or more, where it is installed, can convert them and
    is at least 5 % faster than torch: both are timed once on noise, and what came out is kept on
    disk by encoder, image size, machine, versions and number of threads. Under autocast and for
    encoders that ``torch.compile`` compiles 'auto' is torch.

    A line in the log says once what an encoder is run by, and why; :attr:`record` says it to
    records. A copy starts with nothing converted.

    Args:
        settings: of :meth:`RuntimeSettings.of`.
        compiled: names of encoders that torch compiles.

    Raises:
        ValueError: OpenVINO is asked for by name, and is not there or too old, or goes together
            with ``compiled``; bf16 on a CPU that has none; int8 without NNCF.
    """

    def __init__(self, settings: RuntimeSettings, compiled: Sequence[str] = ()) -> None:
        self.settings, self.compiled = settings, tuple(compiled)
        self.kept = KeptModels(settings.root)
        self.record: dict[str, dict[str, Any]] = {}
        self._decided: dict[tuple, dict[str, Any]] = {}
        self._ready: dict[tuple, tuple[str, Converted]] = {}
        self._account: dict[str, Any] | None = None
        if settings.named:
            self._check()

    def __reduce__(self) -> tuple[type[Runtimes], tuple]:
        return Runtimes, (self.settings, self.compiled)

    def _check(self) -> None:
        if self.compiled:
            raise ValueError(
                f'model.compile of {list(self.compiled)} and OpenVINO by name both want to run the '
                'encoders; leave one of them out'
            )
        fault = openvino.missing()
        if fault is not None:
            raise ValueError(f'encoder_runtime openvino: {fault}')
        if self.settings.precision == 'bf16' and not openvino.has_bf16():
            raise ValueError(
                'encoder_runtime: bf16 is slower than fp32 on this CPU, which has neither '
                'avx512_bf16 nor amx_bf16; use fp32, or int8 if the CPU has avx512_vnni or avx_vnni'
            )
        if self.settings.precision == 'int8':
            quantised.check()

    def check(self, device: torch.device) -> None:
        """Make sure that what is asked for by name can be had on a device.

        Raises:
            ValueError: OpenVINO, and the device is not the CPU.
        """
        if self.settings.named and device.type != 'cpu':
            raise ValueError(
                f'encoder_runtime openvino runs encoders on the CPU, the model is on {device}; '
                'give --device cpu, or leave the runtime out'
            )

    @property
    def arithmetic(self) -> dict[str, Any]:
        """What of the settings changes numbers by more than rounding; empty in fp32."""
        precision = self.settings.precision
        said = dict(int8=self._int8()) if precision == 'int8' else {}
        return {} if precision == 'fp32' else dict(precision=precision, **said)

    def of(
        self,
        name: str,
        encoder: Encoder,
        steps: Sequence[Step],
        size: tuple[int, int],
        about: Callable[[], Mapping[str, Any]],
    ) -> Converted | None:
        """What runs the first steps of an encoder; None for torch.

        Args:
            name: of the encoder in its model.
            encoder: it.
            steps: its first ones, none of them in training.
            size: (H, W) of the images.
            about: describes the steps, as :func:`mmfss.features.fingerprint.fingerprint` does.

        Raises:
            ValueError: OpenVINO is asked for by name, and cannot run this.
        """
        if self.settings.type == 'torch':
            self.record.setdefault(name, dict(runtime='torch', why='asked for by name'))
            return None
        if not steps:
            return None
        device = next((p.device.type for p in _parameters(steps)), 'cpu')
        autocast = torch.is_autocast_enabled(device)
        part = _Part(name, encoder, steps, tuple(size), about, device, autocast)
        if part.place not in self._decided:
            self._decide(part)
        if self._decided[part.place]['runtime'] == 'torch':
            return None
        return self._convert(part)

    # ------------------------------------------------------------------ to decide

    def _decide(self, part: _Part) -> None:
        on_cpu = part.device == 'cpu'
        if self.settings.named:
            self.check(torch.device(part.device))
            self._settle(part, 'openvino', 'asked for by name')
        elif not on_cpu or sum(p.numel() for p in _parameters(part.steps)) < LEAST_PARAMETERS:
            why = 'small' if on_cpu else f'on {part.device}'
            self._settle(part, 'torch', why, quiet=True)
        elif part.name in self.compiled:
            self._settle(part, 'torch', 'compiled by torch', quiet=True)
        elif part.autocast:
            self._settle(part, 'torch', "autocast is torch's")
        elif (fault := openvino.missing()) is not None:
            self._settle(part, 'torch', fault)
        else:
            self._measure(part)

    def _settle(
        self,
        part: _Part,
        runtime: str,
        why: str,
        times: Mapping[str, float] | None = None,
        quiet: bool = False,
    ) -> None:
        """Remember what runs an encoder, and say so."""
        found: dict[str, Any] = dict(runtime=runtime, why=why, **(times or {}))
        if runtime == 'openvino':
            precision = self.settings.precision
            found = dict(found, version=openvino.version(), precision=precision)
            if precision == 'int8':
                found['int8'] = self._int8()
        self._decided[part.place] = self.record[part.name] = found
        if not quiet and is_main_process():
            what = f'OpenVINO {found["version"]}, {precision}' if 'version' in found else 'torch'
            kind = type(part.encoder).__name__
            print_log(f'Encoder {part.name} ({kind}) is run by {what}: {why}', 'current')

    def _measure(self, part: _Part) -> None:
        """Take the faster one, by what is kept or by some images."""
        of = dict(
            encoder=f'{type(part.encoder).__module__}.{type(part.encoder).__qualname__}',
            arch=part.encoder.arch,
            steps=len(part.steps),
            size=part.size,
            settings=settings_of({f'{i}.{k}': m for i, s in enumerate(part.steps)
                                  for k, m in s.modules.items()}),
            machine=(cpu().name, sorted(cpu().flags)),
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            openvino=openvino.version(),
        )  # fmt: skip
        key = _digest(of)
        with self.kept.alone():
            known = self.kept.decision(key)
            if known is None:
                if is_main_process():
                    print_log(
                        f'Encoder {part.name}: converting and timing it once for this machine, '
                        'which may take a minute', 'current'
                    )  # fmt: skip
                try:
                    times = self._times(part)
                    known = dict(times, runtime=_faster(**times), why=_compared(**times))
                except NotConverted as error:
                    known = dict(runtime='torch', why=f'OpenVINO cannot run it: {error}')
                of.update(settings=_digest(of['settings']), machine=cpu().name)
                self.kept.keep_decision(key, dict(known, of=of))
        times = {name: known[name] for name in ('torch_ms', 'openvino_ms') if name in known}
        self._settle(part, known['runtime'], f'{known.get("why")}', times)

    def _times(self, part: _Part) -> dict[str, float]:
        """Best of some turns each, which take turns: another process slows down both."""
        images, theirs = _noise(part.size), self._converted(part, part.about())
        ways: dict[str, Callable[[], Any]] = dict(
            torch_ms=lambda: _in_torch(part.steps, images), openvino_ms=lambda: theirs(images)
        )
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(_TURNS):
            for name, run in ways.items():
                start = time.perf_counter()
                run()
                found[name].append(1000 * (time.perf_counter() - start))
        return {name: round(min(times), 2) for name, times in found.items()}

    # ------------------------------------------------------------------ to convert

    def _convert(self, part: _Part) -> Converted | None:
        """The converted steps as their weights are now; None where that fails, of 'auto'."""
        said = part.about()
        held = self._ready.get(part.place)
        if held is not None and held[0] == said['weights']:
            return held[1]
        try:
            with self.kept.alone():
                return self._converted(part, said)
        except NotConverted as error:
            why = f'OpenVINO cannot run it: {error}'
            if self.settings.named:
                raise ValueError(
                    f'encoder {part.name}: {why}. Leave the runtime out, which then falls back to '
                    'torch'
                ) from error
            self._settle(part, 'torch', why)
            return None

    def _converted(self, part: _Part, about: Mapping[str, Any]) -> Converted:
        """From disk, or made and kept there.

        Raises:
            NotConverted: it cannot be.
        """
        precision = self.settings.precision
        known = ('weights', 'modules', 'code', 'torch', 'mmfss')
        of = dict(
            {name: about[name] for name in known},
            arch=part.encoder.arch,
            steps=len(part.steps),
            size=part.size,
            openvino=openvino.version(),
        )
        if precision == 'int8':
            of['int8'] = self._int8()
        key = _digest(of)
        settings = dict(
            name='openvino',
            version=openvino.version(),
            precision=precision,
            device='cpu',
            steps=len(part.steps),
            **({'int8': of['int8'], 'bf16': openvino.has_bf16()} if precision == 'int8' else {}),
        )
        path = self.kept.model(key)
        made = None if path is None else _compiled(path, precision)
        if made is None:
            made = self._new(key, of, part)
        made.settings = settings
        self._ready[part.place] = about['weights'], made
        return made

    def _int8(self) -> dict[str, Any]:
        """What int8 is fitted to; the photos are read for it once."""
        if self._account is None:
            photos = quantised.photos_of(self.settings.calibration or ())
            self._account = quantised.account(photos, self.settings.ignored)
        return self._account

    def _new(self, key: str, of: Mapping[str, Any], part: _Part) -> Converted:
        """Convert, keep, and compare with torch."""
        precision, images = self.settings.precision, _noise(part.size)
        truth = _in_torch(part.steps, images)  # before the conversion, see there
        model = openvino.converted(part.encoder, part.steps, images)
        if precision == 'int8':
            photos = quantised.photos_of(self.settings.calibration or ())
            model = quantised.quantised(model, photos, self.settings.ignored)
        path = self.kept.keep_model(key, of, lambda file: openvino.save(model, file))
        if path is not None:
            made = _compiled(path, precision)
            if made is not None and openvino.far_from(made(images), truth) <= _FAR[precision]:
                return made
            self.kept.drop(key)
        made = Converted(model, precision)
        far = openvino.far_from(made(images), truth)
        if not far <= _FAR[precision]:
            raise NotConverted(f"its numbers are not torch's (relative L2 {far:.1e})")
        return made


def _parameters(steps: Sequence[Step]) -> Iterator[Tensor]:
    return (p for step in steps for module in step.modules.values() for p in module.parameters())


def _compiled(path: Path, precision: str) -> Converted | None:
    """A model that is kept; None where it cannot be read."""
    try:
        return Converted(path, precision)
    except NotConverted:
        return None


@torch.no_grad()
def _in_torch(steps: Sequence[Step], images: Tensor) -> tuple[Tensor, ...]:
    levels: tuple[Tensor, ...] = (images,)
    with torch.autocast('cpu', enabled=False):
        for step in steps:
            levels = step.run(*levels)
    return levels


def _noise(size: tuple[int, int]) -> Tensor:
    return 255 * torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))


def _faster(torch_ms: float, openvino_ms: float) -> str:
    return 'openvino' if openvino_ms < _GAIN * torch_ms else 'torch'


def _compared(torch_ms: float, openvino_ms: float) -> str:
    return f'{openvino_ms:.0f} ms an image by OpenVINO, {torch_ms:.0f} by torch'


def _digest(of: Any) -> str:
    return hashlib.sha256(json.dumps(of, sort_keys=True, default=str).encode()).hexdigest()
