"""Which runtime runs the steps of which encoder, and what comes after the encoders: by name, or the
faster one by measurement."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from torch import Tensor, nn

from mmfss.encoders.base import Encoder, Step

from . import converted as openvino
from . import quantised
from .conversion import Conversions, digest
from .converted import Converted, NotConverted
from .kept import KeptModels
from .machine import cpu
from .parts import FirstSteps, Part, Pass, parameters_of
from .settings import RuntimeSettings

LEAST_PARAMETERS = 10_000_000
"""Of an encoder that 'auto' asks the question for: smaller ones take some tens of milliseconds an
image, and a conversion takes as long as hundreds of these."""
_GAIN = 0.95
_TURNS = 3


class Runtimes:
    """Chooses, converts, and holds what is converted: a model for each encoder and image size, and
    for each part of the light pass (what comes after the encoders) and number of supports.

    OpenVINO runs steps on CPUs alone. By name it runs all encoders. With 'auto' it runs, in fp32,
    encoders of :data:`LEAST_PARAMETERS` or more, where it is installed, can convert them and
    is at least 5 % faster than torch: both are timed once on noise, and what came out is kept on
    disk by encoder, image size, machine, versions and number of threads. Under autocast and for
    encoders that ``torch.compile`` compiles 'auto' is torch. The light pass is timed in the same
    way, on what it is first given, where OpenVINO is asked for by name; with 'auto' it is torch's:
    it is converted for each number of supports, which takes as long as tens of images or more.

    A line in the log says once what an encoder is run by, and why; :attr:`record` says it to
    records: by encoder, and under names that begin with 'light pass' of the rest, which torch and
    OpenVINO may both run, with other numbers of supports. A copy starts with nothing converted.

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
        self._conversions = Conversions(settings, self.kept)
        self.record: dict[str, dict[str, Any]] = {}
        self._decided: dict[tuple[str, Hashable], dict[str, Any]] = {}  # by name and place
        self._said: set[str] = set()
        self._ready: dict[Hashable, tuple[str, Converted]] = {}
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
        said = dict(int8=self._conversions.int8()) if precision == 'int8' else {}
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
        device = next((p.device.type for p in parameters_of(steps)), 'cpu')
        autocast = torch.is_autocast_enabled(device)
        return self._runner(FirstSteps(name, about, encoder, steps, size, device, autocast))

    def of_pass(
        self,
        name: str,
        owner: nn.Module,
        run: nn.Module,
        given: Sequence[Tensor],
        about: Callable[[], Mapping[str, Any]],
    ) -> Converted | None:
        """What runs a part of the light pass; None for torch.

        Always in fp32, whatever the encoders have: here it is decided which pixels count, in a
        small share of the time. The first time in a process, what comes out is compared with what
        torch gives for the same; it stays in torch where any value is off by more than 1e-3 of the
        largest one, where it cannot be converted, or is not faster so, though OpenVINO was asked
        for by name; with 'auto' always.

        Args:
            name: in records, which begins with 'light pass'.
            owner: the model.
            run: what runs it in torch: takes tensors, gives a tuple of tensors; for inputs of other
                shapes another one.
            given: what it is to be run with, on the CPU, without autocast.
            about: describes the model, as :func:`mmfss.features.fingerprint.fingerprint` does.
        """
        if not self.settings.named:
            return None
        return self._runner(Pass(name, about, owner, run, tuple(given)))

    def _runner(self, part: Part) -> Converted | None:
        which = part.name, part.place
        if self._decided.get(which, {}).get('runtime') == 'torch':
            return None
        if part.place not in self._ready and not part.may_be_tried():
            return None  # asked again when it is next run
        if which not in self._decided:
            self._decide(part)
        return None if self._decided[which]['runtime'] == 'torch' else self._convert(part)

    # ------------------------------------------------------------------ to decide

    def _decide(self, part: Part) -> None:
        if not isinstance(part, FirstSteps):  # a pass may be slower by OpenVINO
            self._measure(part)
            return
        on_cpu = part.device == 'cpu'
        if self.settings.named:
            self.check(torch.device(part.device))
            self._settle(part, 'openvino', 'asked for by name')
        elif not on_cpu or part.parameters < LEAST_PARAMETERS:
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
        part: Part,
        runtime: str,
        why: str,
        times: Mapping[str, float] | None = None,
        quiet: bool = False,
    ) -> None:
        """Remember what runs a part, and say so."""
        precision = self._conversions.precision(part)
        found: dict[str, Any] = dict(runtime=runtime, why=why, **(times or {}))
        if runtime == 'openvino':
            found = dict(found, version=openvino.version(), precision=precision)
            if precision == 'int8':
                found['int8'] = self._conversions.int8()
        self._decided[part.name, part.place] = found
        others = [one for (name, _), one in self._decided.items() if name == part.name]
        self.record[part.name] = joined(*others, found) if part.is_pass else found
        what = f'OpenVINO {openvino.version()}, {precision}' if runtime == 'openvino' else 'torch'
        line = f'{part.title} ({part.kind.__name__}) is run by {what}: {why}'
        if not quiet and is_main_process() and line not in self._said:
            self._said.add(line)
            print_log(line, 'current')

    def _measure(self, part: Part) -> None:
        """Take the faster one, by what is kept or by some turns."""
        of = dict(
            encoder=f'{part.kind.__module__}.{part.kind.__qualname__}',
            **part.made_of,
            settings=part.settings,
            machine=(cpu().name, sorted(cpu().flags)),
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            openvino=openvino.version(),
        )
        key = digest(of)
        with self.kept.alone():
            known = self.kept.decision(key)
            if known is None:
                if is_main_process():
                    print_log(
                        f'{part.title}: converting and timing it once for this machine, which may '
                        'take a minute', 'current'
                    )  # fmt: skip
                try:
                    times = self._times(part)
                    known = dict(times, runtime=_faster(**times), why=_compared(**times))
                except NotConverted as error:
                    known = dict(runtime='torch', why=f'OpenVINO cannot run it: {error}')
                of.update(settings=digest(of['settings']), machine=cpu().name)
                self.kept.keep_decision(key, dict(known, of=of))
        times = {name: known[name] for name in ('torch_ms', 'openvino_ms') if name in known}
        self._settle(part, known['runtime'], f'{known.get("why")}', times)

    def _times(self, part: Part) -> dict[str, float]:
        """Best of some turns each, which take turns: another process slows down both."""
        given, theirs = part.given(), self._converted(part, part.about())
        ways: dict[str, Callable[[], Any]] = dict(
            torch_ms=lambda: part.in_torch(given), openvino_ms=lambda: theirs(*given)
        )
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(_TURNS):
            for name, run in ways.items():
                start = time.perf_counter()
                run()
                found[name].append(1000 * (time.perf_counter() - start))
        return {name: round(min(times), 2) for name, times in found.items()}

    # ------------------------------------------------------------------ to convert

    def _convert(self, part: Part) -> Converted | None:
        """The converted part as its weights are now; None where that fails, of 'auto' and of a
        pass."""
        said = part.about()
        held = self._ready.get(part.place)
        if held is not None and held[0] == said['weights']:
            return held[1]
        try:
            with self.kept.alone():
                made = self._converted(part, said)
        except NotConverted as error:
            why = f'OpenVINO cannot run it: {error}'
            if self.settings.named and not part.is_pass:
                raise ValueError(
                    f'encoder {part.name}: {why}. Leave the runtime out, which then falls back to '
                    'torch'
                ) from error
            self._settle(part, 'torch', why)
            return None
        if 'left_out' in made.settings:
            self._decided[part.name, part.place]['left_out'] = made.settings['left_out']
        return made

    def _converted(self, part: Part, about: Mapping[str, Any]) -> Converted:
        made = self._conversions.of(part, about)
        self._ready[part.place] = about['weights'], made
        return made


def joined(*records: Mapping[str, Any]) -> dict[str, Any]:
    """One record, of :attr:`Runtimes.record`, of what ran a part several times: the last, or both
    runtimes where these differ."""
    kinds: dict[str, Any] = {}
    for one in records:
        several = {name: one[name] for name in ('torch', 'openvino') if name in one}
        kinds.update(several or {one['runtime']: one})
    return dict(runtime='both', **kinds) if len(kinds) > 1 else dict(records[-1])


def _faster(torch_ms: float, openvino_ms: float) -> str:
    return 'openvino' if openvino_ms < _GAIN * torch_ms else 'torch'


def _compared(torch_ms: float, openvino_ms: float) -> str:
    return f'{openvino_ms:.3g} ms an image by OpenVINO, {torch_ms:.3g} by torch'
