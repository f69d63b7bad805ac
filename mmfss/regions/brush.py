"""Label Studio's code of brush labels, ``"format": "rle"``: a list of bytes.

As https://github.com/thi-ng/umbrella (packages/rle-pack) defines it, of the image in RGBA, row by
row, four values a pixel. Bits, the highest of each byte first::

    32  number of values       5  bits of a value, less one       4 x 4  sizes of counts, less one
    then for each run:  1  whether one value is repeated,  2  which size,  size  count less one,
                        8  the value; or as many values as are counted

What is written has runs alone, sizes 3, 4, 8 and 16, and 255 in all channels of the region, as
Label Studio's own converter. The alpha channel is what counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_SIZES = (3, 4, 8, 16)
_HEAD = 32 + 5 + 4 * 4
_VALUE = 8


def brush_code(mask: np.ndarray) -> list[int]:
    """The code of a mask, bool (H, W)."""
    flat = mask.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(np.r_[0, edges, flat.size]) * 4
    values = np.where(flat[np.r_[0, edges]], 255, 0)
    most = 1 << _SIZES[-1]
    pieces = -(-lengths // most)  # a run of more than 65536 values is several
    values = np.repeat(values, pieces)
    counts = np.full(len(values), most)
    counts[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * most
    which = np.searchsorted([1 << size for size in _SIZES], counts)
    sizes = np.array(_SIZES)[which]
    # numbers and how many bits each has, in the order of the bits
    numbers = np.stack([4 + which, counts - 1, values], 1).ravel()  # 4: the value is repeated
    widths = np.stack([np.full(len(sizes), 3), sizes, np.full(len(sizes), _VALUE)], 1).ravel()
    head = [flat.size * 4, _VALUE - 1, *(size - 1 for size in _SIZES)]
    numbers = np.r_[head, numbers].astype(np.uint32)
    widths = np.r_[[32, 5, 4, 4, 4, 4], widths]
    ends = np.cumsum(widths)
    bits = np.zeros(int(ends[-1]), np.uint8)
    for place in range(32):
        some = widths > place
        bits[ends[some] - 1 - place] = numbers[some] >> place & 1
    return np.packbits(bits).tolist()


def brush_mask(code: Sequence[int], height: int, width: int) -> np.ndarray:
    """The mask bool (height, width) of a code: where alpha is more than one half.

    Raises:
        ValueError: It is no list of bytes, cut off, of another size or form.
    """
    if isinstance(code, int):  # of which bytes() makes as many zeros
        raise ValueError('a brush label must be a list of bytes, got a number')
    try:
        data = bytes(code)
    except (TypeError, ValueError) as error:
        raise ValueError(f'a brush label must be a list of bytes ({error})') from error
    at = 0

    def read(bits: int) -> int:
        nonlocal at
        at += bits
        if at > 8 * len(data):
            raise ValueError('a brush label is cut off')
        whole = int.from_bytes(data[(at - bits) >> 3 : (at + 7) >> 3], 'big')
        return whole >> (-at % 8) & ((1 << bits) - 1)

    number, wide = read(32), read(5) + 1
    if number != 4 * height * width:
        raise ValueError(
            f'a brush label is of {number // 4} pixels, its image is of {width} x {height} '
            '(width x height)'
        )
    if wide != _VALUE:
        raise ValueError(f'a brush label has values of {wide} bits, allowed are {_VALUE}')
    sizes = [read(4) + 1 for _ in range(4)]
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    values = np.zeros(number, np.uint8)
    done = 0
    while done < number:
        kind = read(3)
        end = done + read(sizes[kind & 3]) + 1
        if end > number:
            raise ValueError(f'a brush label has more than {number} values')
        if kind & 4:
            values[done:end] = read(_VALUE)
        else:
            there = bits[at : at + _VALUE * (end - done)]
            if len(there) < _VALUE * (end - done):
                raise ValueError('a brush label is cut off')
            values[done:end] = np.packbits(there)
            at += len(there)
        done = end
    return (values[3::4] > 127).reshape(height, width)
