"""Colours of labels."""

from __future__ import annotations


def label_palette(num_classes: int) -> list[list[int]]:
    """RGB colours of the labels 0..C in PASCAL VOC's scheme: C + 1 distinct triples."""
    palette = []
    for label in range(num_classes + 1):
        colour, rest = [0, 0, 0], label
        for shift in range(7, -1, -1):
            for channel in range(3):
                colour[channel] |= ((rest >> channel) & 1) << shift
            rest >>= 3
        palette.append(colour)
    return palette
