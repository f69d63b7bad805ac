"""Colours laid over images: masks, maps of 0..1, errors of a prediction.

Pure functions on numpy arrays. Images are uint8 (H, W, 3) RGB.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

SUPPORT_COLOUR = (40, 100, 255)
PREDICTION_COLOUR = (255, 60, 40)
TRUTH_COLOUR = (20, 200, 60)
IGNORE_COLOUR = (255, 225, 0)
# They differ in lightness and in blue against yellow, which people of any colour vision see; a test
# measures it.
HIT_COLOUR = (90, 220, 150)
EXTRA_COLOUR = (225, 95, 0)
MISSED_COLOUR = (60, 80, 230)
_OPACITY = 0.55
_ERROR_OPACITY = 0.8  # high, so that what is below cannot turn one colour into another

NOTHING, HIT, EXTRA, MISSED, IGNORED = range(5)
#: name and colour of each kind of pixel, for the legend
ERROR_LEGEND = {
    HIT: ('hit', HIT_COLOUR),
    EXTRA: ('extra', EXTRA_COLOUR),
    MISSED: ('missed', MISSED_COLOUR),
    IGNORED: ('ignored', IGNORE_COLOUR),
}

_CLASS_COLOURS = (
    (255, 0, 170), (0, 229, 255), (200, 255, 0), (255, 140, 0), (150, 70, 255), (0, 230, 90),
    (255, 45, 45), (40, 110, 255), (255, 165, 215), (255, 215, 0), (0, 150, 140), (190, 165, 255),
)  # fmt: skip
_GOLDEN = (5**0.5 - 1) / 2
_HALO_OPACITY = 0.6
_PALE, _DARK = (255, 255, 255), (0, 0, 0)


def class_colours(num_classes: int) -> list[tuple[int, int, int]]:
    """Colours that are seen on photos: vivid ones, first those that fur, skin, wood, leaves, stone
    and shadow do not have. (Labels in palette PNGs have PASCAL's, whose first is a dark red.)

    Returns:
        RGB of the labels 0..C, all different; that of the background is black.
    """
    found = [(0, 0, 0), *_CLASS_COLOURS[:num_classes]]
    number = 0
    while len(found) <= num_classes:  # hues all round, each in four tones
        tone = ((1.0, 1.0), (0.55, 1.0), (1.0, 0.62), (0.5, 0.75))[number % 4]
        red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN % 1, *tone)
        colour = (round(255 * red), round(255 * green), round(255 * blue))
        number += 1
        if colour not in found:
            found.append(colour)
    return found


def luminance(colour: Sequence[int]) -> float:
    """Relative luminance of an RGB colour as WCAG 2 defines it, 0 (black) to 1 (white)."""
    parts = np.asarray(colour, np.float64) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def contrasting(colour: Sequence[int]) -> tuple[int, int, int]:
    """Black or white, whichever stands out more from an RGB colour."""
    bright = luminance(colour)
    return _DARK if (bright + 0.05) / 0.05 > 1.05 / (bright + 0.05) else _PALE


def _grey(image: np.ndarray) -> np.ndarray:
    """float32 (H, W, 1)."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None]


def overlay_mask(
    image: np.ndarray, mask: np.ndarray, colour: Sequence[int], outline_width: int = 0
) -> np.ndarray:
    """Tint an image where the mask is 1, turn it dull elsewhere, and yellow where it is 255.

    The outermost pixels of the mask have the bare colour, so that its shape shows on an object
    of the same colour.

    Args:
        image: uint8 (H, W, 3) RGB.
        mask: uint8 (h, w) of 0, 1, 255; brought to (H, W) by nearest neighbour.
        colour: RGB, 0..255.
        outline_width: pixels of a line along the border, half of it outside; 0 for none.

    Returns:
        uint8 (H, W, 3).
    """
    mask = cv2.resize(mask, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    out = 0.3 * image.astype(np.float32) + 0.45 * _grey(image)
    inside = mask == 1
    out[inside] = (1 - _OPACITY) * image[inside] + _OPACITY * np.array(colour, np.float32)
    # beyond the image counts as inside: its border is no border of the object
    core = cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8))
    out[inside & (core == 0)] = colour
    out[mask == 255] = IGNORE_COLOUR
    painted = np.rint(out).astype(np.uint8)
    if outline_width:
        _outline(painted, inside, colour, outline_width)
    return painted


def overlay_labels(
    image: np.ndarray,
    labels: np.ndarray,
    colours: Sequence[Sequence[int]],
    opacity: float = 0.5,
    outline_part: int = 400,
    halos: Sequence[Sequence[int]] | None = None,
) -> np.ndarray:
    """Tint and outline the labels 1..N; what is 0 stays as it is.

    Args:
        image: uint8 (H, W, 3), of any order of channels.
        labels: uint8 (H, W) of 0..N; a bool mask is 0 and 1.
        colours: of the labels 0..N, in the order of the image's channels; the first is not used.
        opacity: of the tint, 0..1.
        outline_part: the outline is this part of the longer side wide, at least one pixel.
        halos: colours of faint lines, one pixel more on both sides of the outlines, in the order of
            ``colours``: an outline shows on a photo of its own colour, too. None: there are none.

    Returns:
        uint8 (H, W, 3), a new array.
    """
    labels = labels.astype(np.uint8, copy=False)
    table = np.array(colours, np.uint8)
    tinted = cv2.addWeighted(image, 1 - opacity, table[labels], opacity, 0)
    out = np.where((labels > 0)[..., None], tinted, image)
    width = max(1, round(max(out.shape[:2]) / outline_part))
    for label in np.flatnonzero(np.bincount(labels[labels > 0])):
        here = labels == label
        if halos is not None:
            around = out.copy()
            _outline(around, here, tuple(map(int, halos[int(label)])), width + 2)
            out = cv2.addWeighted(out, 1 - _HALO_OPACITY, around, _HALO_OPACITY, 0)
        _outline(out, here, table[label].tolist(), width)
    return out


def _outline(image: np.ndarray, mask: np.ndarray, colour: Sequence[int], width: int) -> None:
    """Draw the border of a mask, bool (H, W), into an image (H, W, 3) of the same size."""
    edges, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, edges, -1, colour, width)


def overlay_heat(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Blend a map in 0..1, (h, w), from blue (0) to red (1) over a grey copy of an image.

    Returns:
        uint8 (H, W, 3), the image's size.
    """
    heat = cv2.resize(heat.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    levels = np.rint(255 * np.clip(heat, 0, 1)).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_JET)[..., ::-1].astype(np.float32)
    return np.rint(0.55 * colours + 0.45 * _grey(image)).astype(np.uint8)


def error_kinds(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """What each pixel of a prediction is.

    Args:
        prediction: (h, w) of 0, 1.
        truth: (h, w) of 0, 1, 255; 255 is ignored, whatever is predicted there.

    Returns:
        uint8 (h, w) of ``NOTHING`` (true negative), ``HIT`` (true positive), ``EXTRA`` (false
        positive), ``MISSED`` (false negative), ``IGNORED``.

    Raises:
        ValueError: The two have different sizes.
    """
    if prediction.shape != truth.shape:
        raise ValueError(
            f'prediction and truth must have one size to be compared, got {prediction.shape} and '
            f'{truth.shape}; resize the prediction to the truth (mmfss.functional.'
            'logits_to_mask)'
        )
    kinds = np.zeros(truth.shape, np.uint8)
    kinds[(prediction == 1) & (truth == 1)] = HIT
    kinds[(prediction == 1) & (truth == 0)] = EXTRA
    kinds[(prediction == 0) & (truth == 1)] = MISSED
    kinds[truth == 255] = IGNORED
    return kinds


def overlay_errors(image: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Colour the kinds of :func:`error_kinds` over a dark grey copy of an image.

    Args:
        image: uint8 (H, W, 3) RGB.
        kinds: uint8 (h, w) of 0..4; brought to (H, W) by nearest neighbour.

    Returns:
        uint8 (H, W, 3): 0.8 of the kind's colour and 0.2 of grey; 0.4 of grey where there is
        nothing; ``IGNORE_COLOUR`` where the truth is to be ignored.
    """
    kinds = cv2.resize(kinds, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    grey = _grey(image)
    out = np.repeat(0.4 * grey, 3, axis=2)
    for kind in (HIT, EXTRA, MISSED):
        here = kinds == kind
        colour = np.array(ERROR_LEGEND[kind][1], np.float32)
        out[here] = _ERROR_OPACITY * colour + (1 - _ERROR_OPACITY) * grey[here]
    out[kinds == IGNORED] = IGNORE_COLOUR
    return np.rint(out).astype(np.uint8)
