"""Masks as people have them: what a file holds, and what all files must agree on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from mmfss.datasets.account import Account, Reason
from mmfss.datasets.class_index import label_counts
from mmfss.datasets.io import BROKEN, read_mask
from mmfss.datasets.preparation.folder_layouts import VALUES, Meaning
from mmfss.datasets.preparation.sources import Colour, coded_mask
from mmfss.words import listed

IGNORED = 255
WITHOUT_PALETTE = Reason(
    'mask of grey values among masks with a palette: its values are taken to mean the same',
    'look at one of each; save all in one form',
    lost=False,
)
_WHITE_16_BIT = 65535
_BORDER, _AREA = 0.9, 0.5  # parts of the border and of the image from which on a mask is odd


def read_values(path: Path, two: bool) -> np.ndarray:
    """The values of a mask file.

    Besides palette and grey of up to 8 bits: colour whose channels are equal, alpha that is opaque
    everywhere, 16 bits whose values fit 8. In masks of ``two`` values 65535 is 255, and white drawn
    on transparency is 255 where it is opaque.

    Returns:
        uint8 (H, W).

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is truncated, no image, or of another form.
    """
    try:
        return read_mask(path)
    except ValueError as error:
        found = _unusual(path, two)
        if found is None:
            raise
        if isinstance(found, str):
            raise ValueError(f'mask {path} {found}') from error
        return found


def _unusual(path: Path, two: bool) -> np.ndarray | str | None:
    """Values of a file of a form that :func:`read_mask` does not take, or what is wrong with it;
    None where that has said it."""
    try:
        with Image.open(path) as image:
            mode, pixels = image.mode, np.asarray(image)
    except (*BROKEN, Image.DecompressionBombError):
        return None
    if mode in ('I', 'I;16', 'I;16B', 'I;16L', 'I;16N') and pixels.ndim == 2:
        if pixels.max(initial=0) <= IGNORED and pixels.min(initial=0) >= 0:
            return pixels.astype(np.uint8)
        if two and np.isin(pixels, (0, _WHITE_16_BIT)).all():
            return np.where(pixels, IGNORED, 0).astype(np.uint8)
        return (
            f"has mode {mode!r} with values up to {pixels.max()}; allowed are 0..255 "
            f'({"0 and 65535, too" if two else "255 is ignored"}): save it as 8-bit grey'
        )
    if mode not in ('RGB', 'RGBA', 'LA') or pixels.dtype != np.uint8:
        return None
    if mode in ('RGBA', 'LA'):
        alpha, pixels = pixels[..., -1], pixels[..., :-1]
        if not (alpha == 255).all():
            drawn = two and np.isin(alpha, (0, 255)).all() and (pixels[alpha == 255] == 255).all()
            if drawn:
                return np.ascontiguousarray(alpha)
            return (
                f'has mode {mode!r} and is transparent in parts, so it has no value there; flatten '
                'it onto black and save it as 8-bit grey'
            )
    if (pixels == pixels[..., :1]).all():
        return np.ascontiguousarray(pixels[..., 0])
    number = len(np.unique(pixels.reshape(-1, 3), axis=0))
    return f'has {number} colours (mode {mode!r}), allowed are values; ' + (
        'save the object white on black'
        if two
        else 'say in SRC/labelmap.txt what they mean, a '
        'line "name:red,green,blue::" for each class, or save it as label values'
    )


def palette_of(path: Path, values: Sequence[int]) -> dict[int, Colour]:
    """``{value: colour}`` of the values of a palette mask; {} for grey, and where the palette only
    repeats the values."""
    with Image.open(path) as opened:
        palette = opened.getpalette('RGB') if opened.mode == 'P' else None
    if palette is None:
        return {}
    colours = {}
    for value in values:
        red, green, blue = [*palette[3 * value : 3 * value + 3], 0, 0, 0][:3]
        colours[value] = (red, green, blue)
    grey = all(colour == (value,) * 3 for value, colour in colours.items())
    return {} if grey else colours


@dataclass(frozen=True)
class MaskContent:
    """What is known of a mask file when it has been read.

    Args:
        file: It.
        class_id: Of a mask of two values; VALUES of one of class values.
        values: Ascending.
        colours: Those that its palette gives them.
        inverted: It looks as if black were the object.
    """

    file: Path
    class_id: int
    values: tuple[int, ...]
    colours: Mapping[int, Colour] = field(default_factory=dict)
    inverted: bool = False


def content_of(
    file: Path, class_id: int, values: np.ndarray, meaning: Meaning | None = None
) -> MaskContent:
    """See :class:`MaskContent`.

    Args:
        file: The mask.
        class_id: Its class, or VALUES.
        values: What :func:`read_values` or :func:`read_labels` gives for it.
        meaning: Of class values; colours of the palette matter where it is values that count.
    """
    present = [*label_counts(values)]
    odd = False
    if 0 in present and {*present} <= {0, 1, IGNORED}:
        white = values == (1 if 1 in present else IGNORED)
        border = np.concatenate([white[0], white[-1], white[:, 0], white[:, -1]])
        odd = bool(border.mean() >= _BORDER and white.mean() > _AREA)
    by_value = class_id == VALUES and (meaning is None or meaning.by_value)
    colours = palette_of(file, present) if by_value else {}
    return MaskContent(file, class_id, tuple(present), colours, odd)


def read_labels(file: Path, meaning: Meaning) -> np.ndarray:
    """A mask of class values as labels, uint8 (H, W): 0 background, class ids, 255 ignored.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is of another form, or has a value or colour that means nothing.
    """
    if meaning.colours is not None:
        with Image.open(file) as opened:
            shape = opened.height, opened.width
        remedy = (
            'add them to the list (as "ignored" if they are borders), or save the mask without '
            'smoothing'
        )
        return coded_mask(file, meaning.colours, shape, remedy=remedy)
    values = read_values(file, two=len(meaning.labels) == 3)
    present = [*label_counts(values)]
    wrong = [value for value in present if value not in meaning.labels]
    if wrong:
        hint = (
            '; or say in SRC/labelmap.txt what the colours of its palette mean, a line '
            '"name:red,green,blue::" for each class'
        )
        raise ValueError(
            f'mask {file} has {len(wrong)} unknown values: {wrong[:5]}; {allowed(meaning)}'
            f'{hint if palette_of(file, present) else ""}'
        )
    if meaning.by_value:
        return values
    table = np.zeros(256, np.uint8)
    for value, label in meaning.labels.items():
        table[value] = label
    return table[values]


def object_in(values: np.ndarray, value: int | None) -> np.ndarray:
    """bool (H, W): where a mask of two values has the object; None: 1 if it is there, else 255."""
    if value is None:
        value = 1 if (values == 1).any() else IGNORED
    return values == value


def allowed(meaning: Meaning) -> str:
    """Which values of masks have a meaning, in words."""
    if meaning.guessed:
        return (
            'allowed are 0 and 255 (or 0, 1 and 255 = ignored), as classes.txt not found; write '
            'the names of the values 1, 2, ... into it, one a line'
        )
    known = sorted(value for value in meaning.labels if meaning.labels[value] != IGNORED)
    run = known == [*range(len(known))]
    said = f'0..{known[-1]}' if run else listed(known, 10)
    return f'allowed are {said} ({meaning.names}) and 255 = ignored'


# ------------------------------------------------------------------------ of all files together
def check_palettes(masks: Sequence[MaskContent], account: Account) -> None:
    """Refuse masks of class values whose palettes contradict each other or their values.

    Args:
        masks: All masks of a folder.
        account: Is told of masks without a palette among others with one.

    Raises:
        ValueError: A value has different colours in different files (programs that save space give
            each file a palette of its own), or 0, which is background, is coloured where another
            value is black.
    """
    seen: dict[int, dict[Colour, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for mask in masks:
        if mask.class_id == VALUES:
            for value, colour in mask.colours.items():
                seen[value][colour].append(mask.file)
    remedy = (
        'save all with one palette, or as 8-bit grey values; or say in SRC/labelmap.txt what the '
        'colours mean, a line "name:red,green,blue::" for each class, and masks are read by colour'
    )
    for value in sorted(seen):
        if len(seen[value]) > 1 and value != IGNORED:
            ways = sorted(seen[value].items(), key=lambda way: -len(way[1]))
            said = listed([f'{c} in {len(files)} masks ({files[0]})' for c, files in ways], 3)
            raise ValueError(
                f'value {value} has {len(ways)} colours (red, green, blue) in the palettes of the '
                f'masks: {said}; so values mean different things in different files: {remedy}'
            )
    if seen:
        for mask in masks:
            if mask.class_id == VALUES and not mask.colours and max(mask.values) > 0:
                account.add(WITHOUT_PALETTE, file=mask.file)
    colours = {value: next(iter(ways)) for value, ways in seen.items()}
    black = [value for value, colour in colours.items() if colour == (0, 0, 0) and value]
    if black and colours.get(0, (0, 0, 0)) != (0, 0, 0):
        raise ValueError(
            f'value 0, which is background, has the colour {colours[0]} in the palettes of the '
            f'masks, and value {black[0]} is black ({seen[black[0]][(0, 0, 0)][0]}); is that the '
            f'background? {remedy}'
        )


def object_value(
    asked: int | None, masks: Sequence[MaskContent], names: Sequence[str], mixed: bool = False
) -> int | None:
    """The value of the object in masks of two values; None where it is that of their meaning.

    Args:
        asked: What a person says; None: 1 if any mask has it, else 255.
        masks: All masks of a folder.
        names: Of the classes 1..C.
        mixed: Some masks may have 1 and some 255, as long as none has both.

    Raises:
        ValueError: Masks contradict each other or what was asked, or look inverted; they are named.
    """
    of_values = [mask for mask in masks if mask.class_id == VALUES]
    if of_values and len(names) > 1:
        if asked is not None:
            raise ValueError(
                f'--object-value is for masks of two values, these are of {len(names)} classes'
            )
        return None
    if asked is None:
        _check_not_inverted(masks, names)
    ones = [mask.file for mask in masks if 1 in mask.values]
    if of_values:
        some = any(IGNORED in mask.values for mask in masks)
        return asked if asked is not None else IGNORED if some and not ones else None
    others = [mask.file for mask in masks if 1 not in mask.values and IGNORED in mask.values]
    value = asked if asked is not None else 1 if ones else IGNORED
    wrong = others if value == 1 else ones if value == IGNORED else []
    if wrong and not mixed:
        raise ValueError(
            f'the object is {value} in some masks, but {len(wrong)} masks '
            f'{"have no 1" if value == 1 else "have a 1"}: {listed(wrong)}; in all masks the '
            'object is 255, or in all it is 1 and 255 is ignored: change these masks (or '
            '--object-value)'
        )
    return value


def _check_not_inverted(masks: Sequence[MaskContent], names: Sequence[str]) -> None:
    """Ask about masks of two values of which most of a class look inverted."""
    by_class: dict[int, list[MaskContent]] = defaultdict(list)
    for mask in masks:
        by_class[mask.class_id].append(mask)
    for class_id, some in by_class.items():
        odd = [mask.file for mask in some if mask.inverted]
        if 2 * len(odd) > len(some):
            name = names[max(class_id, 1) - 1]
            white = 1 if any(1 in mask.values for mask in some) else IGNORED
            raise ValueError(
                f'in {len(odd)} of {len(some)} masks of {name} {white} covers most of the image '
                f'and nearly all of its border: {listed(odd, 3)}; is the object what is 0 (black)? '
                f'--object-value 0 says that it is, --object-value {white} that it is not'
            )
