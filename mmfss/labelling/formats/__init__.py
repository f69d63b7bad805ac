"""Labels in the forms of other tools, each below a folder of its name.

==========================  =======================================================================
coco-polygons               annotations.json with outlines in the place of run-length codes
labelme                     a JSON for each image, polygons (LabelMe, X-AnyLabeling)
labelme-masks               the same with mask shapes, which keep every pixel in LabelMe, too
yolo                        labels/<name>.txt with outlines, data.yaml, images.txt (YOLO-seg)
label-studio                tasks.json with predictions to import, brush labels; label_config.xml
label-studio-polygons       the same with polygons
voc                         SegmentationClass, SegmentationObject (of objects), JPEGImages,
                            ImageSets/Segmentation/train.txt, labelmap.txt (Pascal VOC, mmseg, CVAT)
==========================  =======================================================================

Outlines run along the borders of pixels; a hole hangs on a seam (:func:`mmfss.regions.joined`).
What is written here is read by ``mmfss prepare folder`` and as supports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from mmfss.labelling.folder import FORMAT_FOLDERS
from mmfss.labelling.formats.coco import CocoPolygons
from mmfss.labelling.formats.files import Form, Terms
from mmfss.labelling.formats.label_studio import LabelStudio
from mmfss.labelling.formats.labelme import LabelMe
from mmfss.labelling.formats.photos import LabelledPhoto, Region, photo_of
from mmfss.labelling.formats.voc import Voc
from mmfss.labelling.formats.yolo import Yolo
from mmfss.regions import check_tolerance

__all__ = [
    'FORMATS',
    'LabelledPhoto',
    'Region',
    'Terms',
    'check_formats',
    'photo_of',
    'write_formats',
]
_FORMS: tuple[Callable[[Path, Terms], Form], ...] = (
    CocoPolygons,
    LabelMe,
    partial(LabelMe, painted=True),
    Yolo,
    LabelStudio,
    partial(LabelStudio, painted=False),
    Voc,
)
FORMATS = dict(zip(FORMAT_FOLDERS, _FORMS, strict=True))


def check_formats(names: Sequence[str], tolerance: float) -> None:
    """Raise ValueError for a format that is none, or a tolerance of outlines that is none."""
    for name in names:
        if name not in FORMATS:
            raise ValueError(f'there is no format {name!r}; there are {", ".join(FORMATS)}')
    check_tolerance(tolerance)


def write_formats(
    names: Sequence[str], out: Path, photos: Iterable[LabelledPhoto], terms: Terms
) -> dict[str, int]:
    """Write labels in some forms.

    Files that this has written are written anew; what a person has changed since is kept.

    Args:
        names: Of :data:`FORMATS`.
        out: Where their folders go.
        photos: In the order in which they are to be; gone over once, and not without a form.
        terms: What all have in common.

    Returns:
        Of each form how many files were kept as a person has changed them.

    Raises:
        ValueError: No such form, or a tolerance that is none.
        OSError: Something cannot be written.
    """
    check_formats(names, terms.tolerance)
    forms = {name: FORMATS[name](out / name, terms) for name in dict.fromkeys(names)}
    for photo in photos if forms else ():  # each is decoded as it comes
        for form in forms.values():
            form.add(photo)
    return {name: form.finish() for name, form in forms.items()}
