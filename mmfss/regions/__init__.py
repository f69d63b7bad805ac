"""A region of an image in every form that labelling tools and datasets have for it.

A region is a mask, bool (H, W). Pixel (x, y) is the square from corner (x, y) to (x + 1, y + 1),
and outlines run along the borders of pixels. Each form is written and read here, in one place:

=============================  ====================================================================
:mod:`.outlines`               polygons with holes, and as one polygon with seams; figures
:mod:`.coco`                   COCO's polygons and run-length codes, as text or as a list
:mod:`.brush`                  Label Studio's brush code
:mod:`.parts`                  what CVAT (XML and SDK) and LabelMe store with a box around it
=============================  ====================================================================

What goes out and comes back is the same to the pixel, where an outline was not simplified.
"""

from mmfss.regions.brush import brush_code, brush_mask
from mmfss.regions.coco import code_of, decoded, mask_code, region_code, run_lengths
from mmfss.regions.outlines import (
    Outline,
    check_tolerance,
    ellipse,
    filled,
    joined,
    outlines_of,
    rectangle,
)
from mmfss.regions.parts import (
    cropped,
    cvat_attributes,
    cvat_mask,
    cvat_points,
    cvat_points_mask,
    labelme_mask,
    labelme_shape,
    placed,
)

__all__ = [
    'Outline',
    'brush_code',
    'brush_mask',
    'check_tolerance',
    'code_of',
    'cropped',
    'cvat_attributes',
    'cvat_mask',
    'cvat_points',
    'cvat_points_mask',
    'decoded',
    'ellipse',
    'filled',
    'joined',
    'labelme_mask',
    'labelme_shape',
    'mask_code',
    'outlines_of',
    'placed',
    'rectangle',
    'region_code',
    'run_lengths',
]
