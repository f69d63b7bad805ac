"""How values of more than 8 bits become grey values 0..255, and what is said where that loses most
of them.

8 bits of a photo show 256 grey values. What lies in a file of 16 bits may use all of its range, or
12 bits of it, or a small part anywhere in it; a file does not say. What lies in one of 32 bits, of
floats, or below zero has no range that is known, so that one must be given.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np

_SAMPLE = 2**18
"""Pixels that are looked at to say how a photo uses its range."""
_FEW, _LOSS = 100, 2  # grey values that are left, and how many times as many there were
_FEW_OF_GIVEN = 32  # the same where the range was given, or stated as another than 16 bits
_CUT_OFF = 0.01  # share of the values beyond a given range from which on it is said
_OPTIONS = (
    '--bit-depth N (values 0..2^N - 1), --value-range LOW HIGH or --percentiles LOW HIGH (in '
    'Python and configs: grey_values)'
)


class GreyValueWarning(UserWarning):
    """A photo loses most of its grey values, or bands."""


class GreyValues:
    """The range of values that black to white stand for, in photos of more than 8 bits per channel;
    those of 8 bits are as they are. Without arguments: of 16 bits (or what else a file states) the
    whole range.

    What is lost is said once by each of these objects.

    Args:
        bit_depth: N from 8 to 32: values are 0..2**N - 1, whatever the file's own depth.
        percentiles: (low, high), 0 <= low < high <= 100: black and white are these percentiles of
            the values of each photo, all channels together. Photos then differ in what a grey value
            stands for.
        limits: (low, high), low < high: the values that black and white stand for, in all photos.
        say: What is called once, with a text; default: ``warnings.warn`` with a
            :class:`GreyValueWarning`.

    Raises:
        ValueError: Out of range, or more than one of the three.
    """

    def __init__(
        self,
        bit_depth: int | None = None,
        percentiles: Sequence[float] | None = None,
        limits: Sequence[float] | None = None,
        say: Callable[[str], object] | None = None,
    ) -> None:
        given = dict(bit_depth=bit_depth, percentiles=percentiles, limits=limits)
        names = [name for name, value in given.items() if value is not None]
        if len(names) > 1:
            raise ValueError(
                f'the range of grey values is given as {" and as ".join(names)}; give one of them'
            )
        if bit_depth is not None and (
            not isinstance(bit_depth, int)
            or isinstance(bit_depth, bool)
            or not 8 <= bit_depth <= 32
        ):
            raise ValueError(
                f'bit_depth must be an integer from 8 to 32, got {bit_depth!r}; of fewer bits: '
                'limits (--value-range)'
            )
        self.bit_depth = bit_depth
        self.percentiles = _pair('percentiles', percentiles, 0, 100)
        self.limits = _pair('limits', limits, -math.inf, math.inf)
        self._say = say or _warn
        self._said: set[str] = set()
        self._lock = Lock()

    @classmethod
    def of(cls, given: GreyValues | Mapping[str, Any] | None) -> GreyValues:
        """From the arguments as a dict; None: none of them."""
        if isinstance(given, GreyValues):
            return given
        unknown = sorted(set(given or ()) - {'bit_depth', 'percentiles', 'limits'})
        if unknown:
            raise ValueError(
                f'a range of grey values has no {", ".join(map(repr, unknown))}; it is one of '
                'bit_depth, percentiles, limits'
            )
        return cls(**dict(given or {}))

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ('_lock', '_say')}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=Lock(), _say=_warn)

    def record(self) -> dict[str, Any] | None:
        """The arguments in JSON types, None without any: what a record or a key needs."""
        if self.bit_depth is not None:
            return dict(bit_depth=self.bit_depth)
        if self.percentiles is not None:
            return dict(percentiles=list(self.percentiles))
        return None if self.limits is None else dict(limits=list(self.limits))

    def to_8_bit(
        self, values: np.ndarray, name: str, bits: int | None = None, nodata: float | None = None
    ) -> np.ndarray:
        """Values as uint8.

        Args:
            values: (H, W) or (H, W, C), integers of more than 8 bits or floats.
            name: What messages call the photo.
            bits: B where the file says that values are 0..2**B - 1, else None.
            nodata: Value of pixels that hold none; it counts for no percentile, as NaN does not.

        Raises:
            ValueError: No range is known or given; the message has the one found.
        """
        if values.size and self.percentiles is not None:
            low, high = self._percentiles(values, name, nodata)
        elif self.bit_depth is not None:
            low, high = 0.0, 2.0**self.bit_depth
        elif self.limits is not None:
            low, high = self.limits
        elif bits is not None:
            low, high = 0.0, 2.0**bits
        else:
            raise ValueError(
                f'image {name} has {_kind(values)} {_found(values, nodata)}, and which of them are '
                f'black and white it does not say: give {_OPTIONS}, or convert it to 8-bit RGB'
            )
        whole = self.percentiles is None and self.limits is None
        grey = _scaled(values, low, high, whole)
        if self.percentiles is None:
            self._check_use(values, grey, low, high - whole, name, nodata)
        return grey

    def _percentiles(
        self, values: np.ndarray, name: str, nodata: float | None
    ) -> tuple[float, float]:
        held = _sample(values, nodata)
        if not held.size:
            return 0.0, 1.0
        low, high = (float(v) for v in np.percentile(held, self.percentiles))
        return (low, high) if low < high else (low, low + 1)

    def _check_use(
        self,
        values: np.ndarray,
        grey: np.ndarray,
        low: float,
        high: float,
        name: str,
        nodata: float | None,
    ) -> None:
        """Say what is lost: a narrow part of the range in use, or much of the values beyond it."""
        if 'range' in self._said:
            return
        step = _step(values)
        held = values[::step, ::step]
        there = _held(held, nodata)
        if not there.any():
            return
        kept = len(np.unique(grey[::step, ::step][there]))
        held = held[there]
        beyond = float(np.mean((held < low) | (held > high)))
        if beyond >= _CUT_OFF:
            self.say(
                'range',
                f'{beyond:.0%} of the values of image {name}, {_found(values, nodata)}, lie '
                f'outside the given range {low:g}..{high:g} and become black or white: give '
                f'another; said once',
            )
        elif (
            kept < (_FEW if (low, high) == (0, 65535) else _FEW_OF_GIVEN)
            and len(np.unique(held)) > _LOSS * kept
        ):
            self.say(
                'range',
                f'image {name} uses {_found(values, nodata)} of the {_kind(values)} '
                f'{low:g}..{high:g}, so that {kept} of 256 grey values are left of it: give '
                f'{_advice(held)}; said once',
            )

    def say(self, kind: str, text: str) -> None:
        """Say a text, where nothing of its kind was said before."""
        with self._lock:
            if kind in self._said:
                return
            self._said.add(kind)
        self._say(text)


def options_of(record: Mapping[str, Any] | None) -> list[str]:
    """The words of a command line that give the range of :meth:`GreyValues.record`."""
    words: list[str] = []
    for name, value in (record or {}).items():
        option = '--value-range' if name == 'limits' else f'--{name.replace("_", "-")}'
        words += [option, *(f'{v:.17g}' for v in np.atleast_1d(value))]
    return words


def few_left(grey: np.ndarray) -> bool:
    """Whether a photo, uint8 (H, W) or (H, W, C), shows so few grey values that others may have
    been lost."""
    step = _step(grey)
    return len(np.unique(grey[::step, ::step])) < _FEW


def _warn(text: str) -> None:
    also = '. In Python and configs: grey_values=dict(bit_depth=N), limits=..., percentiles=...'
    warnings.warn(text + also * ('--' in text), GreyValueWarning, stacklevel=2)


def _pair(
    name: str, given: Sequence[float] | None, least: float, most: float
) -> tuple[float, float] | None:
    if given is None:
        return None
    numbers = isinstance(given, (list, tuple)) and all(
        isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in given
    )
    if not numbers or len(given) != 2 or not least <= given[0] < given[1] <= most:
        within = '' if math.isinf(most) else f' from {least:g} to {most:g}'
        raise ValueError(f'{name} must be two numbers{within}, low < high, got {given!r}')
    return float(given[0]), float(given[1])


def _scaled(values: np.ndarray, low: float, high: float, whole: bool) -> np.ndarray:
    """``whole``: bins of equal width from ``low`` to below ``high``; else ``low`` and ``high`` are
    black and white themselves."""
    if whole and values.dtype.kind == 'u' and low == 0:
        shift = int(high).bit_length() - 1 - 8
        grey = values >> shift  # type: ignore[operator]
        return np.minimum(grey, 255).astype(np.uint8)
    out = np.empty(values.shape, np.uint8)
    rows = max(1, 2**22 // max(1, values[:1].size))  # at a time: floats of a large photo are larger
    for top in range(0, len(values), rows):
        part = values[top : top + rows].astype(np.float64)
        with np.errstate(invalid='ignore', over='ignore'):
            part = (part - low) * ((256 if whole else 255) / (high - low))
        part = np.nan_to_num(part, nan=0.0, posinf=255.0, neginf=0.0)
        part = np.floor(part) if whole else np.rint(part)
        out[top : top + rows] = np.clip(part, 0, 255)
    return out


def _step(values: np.ndarray) -> int:
    return max(1, math.isqrt(values.shape[0] * values.shape[1] // _SAMPLE))


def _held(values: np.ndarray, nodata: float | None) -> np.ndarray:
    """Which of the values are some."""
    there = np.isfinite(values) if values.dtype.kind == 'f' else np.ones(values.shape, bool)
    return there if nodata is None else there & (values != nodata)


def _sample(values: np.ndarray, nodata: float | None) -> np.ndarray:
    step = _step(values)
    held = values[::step, ::step]
    return held[_held(held, nodata)]


def _found(values: np.ndarray, nodata: float | None) -> str:
    """The range of all values, and that of nearly all where it is much smaller."""
    there = values[_held(values, nodata)]
    if not there.size:
        return '(none but NaN)'
    low, high = there.min(), there.max()
    near = np.percentile(_sample(values, nodata), (0.1, 99.9)) if there.size > 1000 else (low, high)
    text = f'{low:.6g}..{high:.6g}'
    if near[1] - near[0] < 0.5 * (float(high) - float(low)):
        text += f' (99.8 % of them {near[0]:.6g}..{near[1]:.6g})'
    return text


def _kind(values: np.ndarray) -> str:
    if values.dtype.kind == 'f':
        return 'float pixels'
    if values.dtype.kind == 'i' and values.dtype.itemsize <= 2:
        return 'signed 16-bit pixels'
    return f'{values.dtype.itemsize * 8}-bit pixels'


def _advice(held: np.ndarray) -> str:
    """The option that fits the values of a photo."""
    low, high = (float(v) for v in np.percentile(held, (0.1, 99.9)))
    depth = next(bits for bits in (8, 10, 12, 14, 16, 32) if high < 2**bits or bits == 32)
    first = f'--bit-depth {depth} (0..{2**depth - 1})'
    if depth >= 16 or held.dtype.kind == 'f':
        first = f'--value-range {low:.6g} {high:.6g}'
    return f'{first}, or --percentiles 1 99, which stretches each photo by itself'
