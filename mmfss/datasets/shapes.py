"""Shapes-5i: a generated few-shot segmentation benchmark."""
from __future__ import annotations

SHAPES_CLASSES = (
    'star', 'ring', 'cross', 'crescent', 'heart',
    'gear', 'arrow', 'triangle', 'drop', 'flower',
    'bolt', 'key', 'horseshoe', 'fish', 'hourglass',
    'comb', 'mushroom', 'tree', 'pinwheel', 'ell',
)  # yapf: disable
SHAPES_MIN_AREA = 128
"""A class qualifies in an image from this many pixels on: 2048 px at 512 px, scaled to 128 px."""
