"""From a part of a model to what OpenVINO runs: from disk, or converted, compared, kept there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from torch import Tensor

from . import converted as openvino
from . import left_out, quantised
from .converted import Converted, NotConverted
from .kept import KeptModels
from .parts import Part
from .settings import RuntimeSettings

if TYPE_CHECKING:
    from openvino import Model

_LEFT_OUT = 'left_out'
_LOOKED_AT = 8
"""So many calibration photos at most are compared with torch."""


class Conversions:
    """Gives what runs a part in the arithmetic that is asked for.

    Args:
        settings: of the runtimes.
        kept: where models are kept.
    """

    def __init__(self, settings: RuntimeSettings, kept: KeptModels) -> None:
        self.settings, self.kept = settings, kept
        self._account: dict[str, Any] | None = None

    def precision(self, part: Part) -> str:
        """In which a part is run."""
        return 'fp32' if part.is_pass else self.settings.precision

    def int8(self) -> dict[str, Any]:
        """What int8 is fitted to; the photos are read for it once."""
        if self._account is None:
            self._account = quantised.account(self._photos(), self.settings.ignored)
        return self._account

    def _photos(self) -> list[Path]:
        return quantised.photos_of(self.settings.calibration or ())

    def of(self, part: Part, about: Mapping[str, Any]) -> Converted:
        """What runs a part; its ``settings`` say what keys of features must know of it.

        Args:
            part: it.
            about: its weights and code, as ``part.about`` tells.

        Raises:
            NotConverted: it cannot be run, or gives other numbers than torch.
        """
        precision = self.precision(part)
        known = ('weights', 'modules', 'code', 'torch', 'mmfss')
        of = dict(
            {name: about[name] for name in known},
            **part.made_of,
            openvino=openvino.version(),
        )
        if precision != 'fp32':
            of['near'] = precision, left_out.NEAR[precision]
        if precision == 'int8':
            of['int8'] = self.int8()
        key = digest(of)
        path = self.kept.model(key)
        # one without a count was being tried when its process was stopped
        count = self.kept.record(key).get(_LEFT_OUT) if path is not None else None
        made = _compiled(path, precision) if path is not None and count in left_out.COUNTS else None
        if made is None:
            self.kept.drop(key)  # what is there cannot be used
            made, count = self._new(key, of, part)
            self.kept.note(key, **{_LEFT_OUT: count})
        elif part.is_pass:
            given = part.given()
            _check(made, part, given, part.in_torch(given), precision)
        made.settings = self._settings(part, of, count)
        return made

    def _settings(self, part: Part, of: Mapping[str, Any], count: int) -> dict[str, Any]:
        precision = self.precision(part)
        found = dict(name='openvino', version=of['openvino'], precision=precision, device='cpu')
        if not part.is_pass:
            found.update(steps=of['steps'])
        if precision == 'int8':
            found.update(int8=of['int8'], bf16=openvino.has_bf16())
        return found if precision == 'fp32' else {**found, _LEFT_OUT: count}

    # ------------------------------------------------------------------ to make one

    def _new(self, key: str, of: Mapping[str, Any], part: Part) -> tuple[Converted, int]:
        """Converted, compared and kept; and how many products are left out of its precision."""
        precision, given = self.precision(part), part.given()
        truth = part.in_torch(given)  # before the conversion, see there
        model = openvino.converted(part.module(), given)

        def made(count: int, model: Model) -> Converted:
            def write(file: Path) -> None:
                left_out.save(model, file, count if precision == 'bf16' else 0)

            path = self.kept.keep_model(key, of, write)
            one = None if path is None else _compiled(path, precision)
            if one is None:
                one = Converted.by_file(write, precision)
            try:
                _check(one, part, given, truth, precision)
            except NotConverted:
                self.kept.drop(key)
                raise
            return one

        if precision == 'fp32':
            return made(0, model), 0
        photos = self._photos() if precision == 'int8' else []
        looked_at, ready = [(given, truth)], model
        if photos:
            some = photos[:: -(-len(photos) // _LOOKED_AT)]
            pixels = quantised.pixels(some, tuple(given[0].shape[-2:]))
            images = [(torch.from_numpy(image),) for image in pixels]
            looked_at = [(image, part.in_torch(image)) for image in images]
        for count in left_out.COUNTS:
            if photos:
                names = left_out.names(model, count)
                ready = quantised.quantised(model, photos, self.settings.ignored, names)
            self.kept.drop(key)
            one = made(count, ready)
            far = fmean(openvino.far_from(one(*image), true) for image, true in looked_at)
            if far <= left_out.NEAR[precision]:
                break
        if count and is_main_process():
            print_log(
                f'{part.title}: {precision} leaves out its first {count} products of matrices, '
                f'with which its features are {far:.2g} from those of torch (relative L2)',
                'current',
            )
        return one, count


def _check(
    made: Converted,
    part: Part,
    given: Sequence[Tensor],
    truth: Sequence[Tensor],
    precision: str,
) -> None:
    """Make sure that a converted model gives what torch gives, at its second call, too.

    Raises:
        NotConverted: it does not.
    """
    for _ in range(2):
        try:
            found = made(*given)
        except (RuntimeError, TypeError, ValueError) as error:
            raise NotConverted(openvino.first_line(error)) from error
        fault = part.check(found, truth, precision)
        if fault is not None:
            raise NotConverted(f"its numbers are not torch's ({fault})")


def _compiled(path: Path, precision: str) -> Converted | None:
    """A model that is kept; None where it cannot be read."""
    try:
        return Converted(path, precision)
    except NotConverted:
        return None


def digest(of: Any) -> str:
    """A key: SHA-256 of JSON types."""
    return hashlib.sha256(json.dumps(of, sort_keys=True, default=str).encode()).hexdigest()
