"""Which runtime is asked for, and with which arithmetic."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mmfss.arguments import one_of

KINDS = ('auto', 'torch', 'openvino')
PRECISIONS = ('fp32', 'bf16', 'int8')
VARIABLE = 'MMFSS_RUNTIME'
"""Of the environment: the kind where nobody says one."""


@dataclass(frozen=True)
class RuntimeSettings:
    """What a config has as ``model.encoder_runtime``: a kind alone, or a dict of these.

    Attributes:
        type: 'torch'; 'openvino', which other arithmetic than fp32 is asked of too; 'auto', the
            faster one in fp32 by measurement, see :class:`.choice.Runtimes`.
        precision: 'fp32'; 'bf16'; 'int8', in bf16 what is not quantised where the CPU has it.
        calibration: photos that int8 is fitted to: a folder of them, or files.
        ignored: regular expressions of names of operations that int8 leaves out.
        directory: where converted models are kept; None: ``$XDG_CACHE_HOME/mmfss/openvino``, by
            default ``~/.cache/mmfss/openvino``.

    Raises:
        ValueError: another kind or precision, int8 without calibration, or calibration that
            nothing would read.
    """

    type: str
    precision: str = 'fp32'
    calibration: str | tuple[str, ...] | None = None
    ignored: tuple[str, ...] = ()
    directory: str | None = None

    def __post_init__(self) -> None:
        one_of('encoder_runtime.type', self.type, KINDS)
        one_of('encoder_runtime.precision', self.precision, PRECISIONS)
        if self.type == 'torch' and self.precision != 'fp32':
            raise ValueError(
                f'encoder_runtime: torch has no precision {self.precision!r} of its own; for '
                "bfloat16 autocast give --amp (amp=True), for OpenVINO's leave the runtime out"
            )
        if self.precision == 'int8' and not self.calibration:
            raise ValueError(
                'encoder_runtime: int8 is fitted to photos. Give some like those it will see: '
                '--calibration FOLDER (encoder_runtime.calibration); 30 to 300 of them, and of a '
                "benchmark --calibration base, which takes images of its training classes"
            )
        if self.precision != 'int8' and (self.calibration or self.ignored):
            raise ValueError(
                f'encoder_runtime: calibration is of int8, the precision is {self.precision}; '
                'leave it out, or give --precision int8'
            )

    @property
    def named(self) -> bool:
        """Whether OpenVINO is asked for, and nothing else will do."""
        return self.type == 'openvino' or self.precision != 'fp32'

    @property
    def root(self) -> Path:
        """Where models and decisions are kept."""
        if self.directory is not None:
            return Path(self.directory).expanduser().absolute()
        home = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
        return Path(home) / 'mmfss' / 'openvino'

    @classmethod
    def of(cls, value: str | Mapping[str, Any] | RuntimeSettings | None) -> RuntimeSettings:
        """From what a config has; None: the kind in MMFSS_RUNTIME, else 'auto'.

        Raises:
            ValueError: see the class; no such entry.
        """
        if isinstance(value, RuntimeSettings):
            return value
        if value is None or isinstance(value, str):
            value = dict(type=value or None)
        allowed = [field.name for field in fields(cls)]
        if not isinstance(value, Mapping) or set(value) - set(allowed):
            raise ValueError(
                f'model.encoder_runtime must be one of {list(KINDS)}, or a dict with some of '
                f'{allowed}, got {value!r}'
            )
        given = {key: _plain(entry) for key, entry in value.items() if entry is not None}
        return cls(**{'type': os.environ.get(VARIABLE) or 'auto', **given})


def merged(
    config: str | Mapping[str, Any] | None, given: str | Mapping[str, Any]
) -> dict[str, Any]:
    """What a config says, with what was given in the place of its entries. A precision or a runtime
    that takes the place of int8 takes its calibration along."""
    ours, theirs = (dict(type=v) if isinstance(v, str) else dict(v or {}) for v in (config, given))
    found = {**ours, **theirs}
    if 'precision' not in theirs and theirs.get('type') in ('auto', 'torch'):
        found.pop('precision', None)
    if found.get('precision', 'fp32') != 'int8':
        for name in {'calibration', 'ignored'} - set(theirs):
            found.pop(name, None)
    return found


def asked(
    runtime: str | Mapping[str, Any] | None,
    precision: str | None = None,
    calibration: str | os.PathLike | Sequence[str] | None = None,
) -> dict[str, Any] | None:
    """What ``model.encoder_runtime`` is to be by options of these names; None where none is given.

    Raises:
        ValueError: see :class:`RuntimeSettings`.
    """
    given = dict(runtime) if isinstance(runtime, Mapping) else dict(type=runtime)
    given.update({k: v for k, v in dict(precision=precision, calibration=calibration).items() if v})
    given = {key: _plain(value) for key, value in given.items() if value is not None}
    if not given:
        return None
    RuntimeSettings.of(given)
    return given


def _plain(value: Any) -> Any:
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    return tuple(map(str, value)) if isinstance(value, Sequence) else value
