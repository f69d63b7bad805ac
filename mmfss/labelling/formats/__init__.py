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

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from mmfss.labelling.formats.coco import CocoPolygons
from mmfss.labelling.formats.files import Form, Terms
from mmfss.labelling.formats.label_studio import LabelStudio
from mmfss.labelling.formats.labelme import LabelMe
from mmfss.labelling.formats.photos import LabelledPhoto, Region, photo_of
from mmfss.labelling.formats.voc import Voc
from mmfss.labelling.formats.yolo import Yolo

__all__ = ['FORMATS', 'LabelledPhoto', 'Region', 'Terms', 'photo_of', 'write_formats']
FORMATS: Mapping[str, Callable[[Path, Terms], Form]] = {
    'coco-polygons': CocoPolygons,
    'labelme': LabelMe,
    'labelme-masks': lambda folder, terms: LabelMe(folder, terms, painted=True),
    'yolo': Yolo,
    'label-studio': LabelStudio,
    'label-studio-polygons': lambda folder, terms: LabelStudio(folder, terms, painted=False),
    'voc': Voc,
}


def write_formats(
    names: Sequence[str], out: Path, photos: Iterable[LabelledPhoto], terms: Terms
) -> dict[str, int]:
    """Write labels in some forms.

    Files that this has written are written anew; what a person has changed since is kept.

    Args:
        names: Of :data:`FORMATS`.
        out: Where their folders go.
        photos: In the order in which they are to be; gone over once.
        terms: What all have in common.

    Returns:
        How many files were kept as a person has changed them, of each form that has such.

    Raises:
        ValueError: No such form, or a tolerance that is none.
        OSError: Something cannot be written.
    """
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise ValueError(f'there is no format {unknown[0]!r}; there are {", ".join(FORMATS)}')
    forms = {name: FORMATS[name](out / name, terms) for name in dict.fromkeys(names)}
    for photo in photos:
        for form in forms.values():
            form.add(photo)
    kept = {name: form.finish() for name, form in forms.items()}
    return {name: count for name, count in kept.items() if count}
