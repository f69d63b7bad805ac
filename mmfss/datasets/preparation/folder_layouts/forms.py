"""Which tool wrote a file: by what is in it, and for those that are not read, what to export."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmfss.datasets.preparation.folder_layouts.class_names import NAME_FILES
from mmfss.datasets.preparation.folder_layouts.tree import IMAGES, MASKS, Item, Tree
from mmfss.datasets.preparation.folder_layouts.yolo import is_yolo

COCO, NO_COCO_YET, LABELME, VIA, CVAT = 'coco', 'coco without annotations', 'labelme', 'via', 'cvat'
LABEL_STUDIO, YOLO = 'label_studio', 'yolo'
PROMPT_FORM = 'prompt'
_MANY = 20  # JSON files of a folder from which on there is one for each image

_FOREIGN: dict[str, str] = {
    'coco results': 'a list of predictions in COCO format; add its "images" and "categories" to it',
    'datumaro': 'Datumaro; convert it: datum convert -i DIR -if datumaro -f coco_instances -o OUT',
    'supervisely': 'Supervisely; export "COCO" (app "Export to COCO") or "Pascal VOC" there',
    'darwin': 'V7 Darwin; export "COCO" there',
    'labelbox': 'Labelbox; export and convert it to COCO (labelbox.data.serialization)',
    'createml': 'CreateML, which has boxes alone; export "COCO Segmentation" there',
    'geojson': 'a GIS or QuPath (GeoJSON); rasterise it to masks of the size of the images',
    'via 3': 'VIA 3; annotate images with VIA 2, or export "COCO" there',
    'fiftyone': 'FiftyOne; export with dataset_type=fiftyone.types.COCODetectionDataset',
    'cvat video': 'CVAT, of a video; export "CVAT for images 1.1", "COCO 1.0" or "Segmentation '
    'mask 1.1" there',
    'voc boxes': 'Pascal VOC or LabelImg (XML), which have boxes alone; draw outlines, or give the '
    'boxes as prompts to mmfss label',
    'yolo alone': 'YOLO, and no labels/x.txt with outlines are there; export it again with labels',
    'cvat backup': 'a CVAT backup; export "COCO 1.0" or "Segmentation mask 1.1" there',
    'arrays': 'NumPy or MATLAB, which are no images; save the masks as 8-bit PNG',
    'records': 'TensorFlow (TFRecord); export "COCO" where they were made',
    'volumes': 'medical imaging (volumes); save slices as PNG, images and masks alike',
    'archive': 'an archive that is not unpacked; unpack it and give its folder',
}


def form_of(file: Path) -> str:
    """What a JSON, XML, CSV or text file is: one of the names above, or of the tools that are not
    read; '' for anything else.

    Raises:
        OSError: It cannot be read.
    """
    if file.suffix.lower() == '.xml':
        return _form_of_xml(file)
    if file.suffix.lower() == '.txt':
        return YOLO if is_yolo(file) else ''
    if file.suffix.lower() == '.csv':
        with open(file, 'rb') as opened:
            return VIA if b'region_shape_attributes' in opened.readline() else ''
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return ''
    return next((name for name, fits in _FORMS.items() if fits(content)), '')


def _form_of_xml(file: Path) -> str:
    with open(file, 'rb') as opened:
        head = opened.read(1 << 20)
    if b'<annotations' in head and b'<track' in head:
        return 'cvat video'
    if b'<annotations' in head and (b'<image ' in head or b'<meta>' in head):
        return CVAT
    return 'voc boxes' if b'<annotation' in head and b'<bndbox' in head else ''


def _has(*keys: str) -> Callable[[Any], bool]:
    return lambda content: isinstance(content, dict) and {*keys} <= {*content}


def _first_has(*keys: str) -> Callable[[Any], bool]:
    return lambda content: isinstance(content, list) and _has(*keys)(next(iter(content), None))


def _is_via(content: Any) -> bool:
    if _has('_via_img_metadata')(content):
        return True
    entries = [*content.values()] if isinstance(content, dict) else []
    return bool(entries) and all(_has('filename', 'regions')(entry) for entry in entries)


def _is_empty_coco(content: Any) -> bool:
    return _has('images', 'annotations')(content) and content['annotations'] == []


_FORMS: dict[str, Callable[[Any], bool]] = {
    NO_COCO_YET: _is_empty_coco,
    COCO: _has('images', 'annotations', 'categories'),
    LABELME: lambda c: _has('shapes')(c) and bool({'imagePath', 'imageHeight', 'version'} & {*c}),
    VIA: _is_via,
    'via 3': _has('project', 'file', 'view', 'metadata'),
    'datumaro': _has('items', 'categories'),
    'supervisely': lambda c: _has('objects', 'size')(c) or _has('classes', 'projectType')(c),
    'darwin': _has('item', 'annotations'),
    'fiftyone': _has('samples'),
    'geojson': _has('features'),
    'labelbox': lambda c: _first_has('data_row')(c) or _has('data_row')(c),
    LABEL_STUDIO: lambda c: (
        _first_has('data', 'annotations')(c)
        or _has('data', 'annotations')(c)
        or _first_has('annotation_id', 'annotator')(c)
        or _first_has('data', 'predictions')(c)
    ),
    'coco results': _first_has('image_id', 'category_id'),
    'createml': _first_has('image', 'annotations'),
    PROMPT_FORM: lambda c: (
        isinstance(c, dict) and bool(c) and {*c} <= {'box', 'points', 'scribbles'}
    ),
}


def forms_of(tree: Tree) -> dict[str, list[Path]]:
    """``{form: files}`` of the annotation files of a folder, those of a file for each image, too.

    Of many files in one folder some tell for all.
    """
    found: dict[str, list[Path]] = {}
    folders: dict[tuple[Path, str], list[Item]] = {}
    for item in tree.items:
        if item.suffix in ('.json', '.xml', '.csv', '.txt'):
            folders.setdefault((item.path.parent, item.suffix), []).append(item)
    for (_, suffix), items in folders.items():
        if suffix == '.txt':  # of a photo without objects it is empty
            items = [i for i in items if i.path.name.casefold() not in NAME_FILES]
            if any(is_yolo(item.path) for item in items[:_MANY]):
                found.setdefault(YOLO, []).extend(item.path for item in items)
            continue
        many = len(items) > _MANY
        some = (items[0], items[len(items) // 2], items[-1]) if many else ()
        of_all = next(filter(None, (form_of(item.path) for item in some)), '')
        for item in items:
            form = of_all if many else form_of(item.path)
            if not form and item.path.name.casefold() == 'annotations.json':
                form = COCO  # its reader says what is wrong with it
            if form:
                found.setdefault(form, []).append(item.path)
    if LABELME in found:  # whose reader says what is wrong with a file that is cut off
        known = {file for files in found.values() for file in files}
        photos = {item.path.stem for item in tree.items if item.suffix in IMAGES}
        found[LABELME] += [
            item.path
            for item in tree.items
            if item.suffix == '.json' and item.path.stem in photos
            if item.path not in known and _cut_off(item.path)
        ]
    return found


def _cut_off(file: Path) -> str:
    """Why a file is no JSON; '' if it is some."""
    try:
        json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        return f'{file} is cut off or no JSON ({error}); save or export it again'
    return ''


def foreign(tree: Tree, forms: dict[str, list[Path]]) -> str:
    """What wrote a folder that is not read, in words with the file that tells, and what to export
    instead; '' if nothing tells."""
    for form, files in forms.items():
        if form in _FOREIGN:
            return f'{files[0]} is from {_FOREIGN[form]}'
    for form, pattern, needs in _BY_NAME:
        items = [i for i in tree.items if re.fullmatch(pattern, i.path.name, re.IGNORECASE)]
        if items and needs(tree, items):
            return f'{items[0].path} is from {_FOREIGN[form]}'
    for item in [i for i in tree.items if i.suffix == '.json'][:_MANY]:
        if told := _cut_off(item.path):
            return told
    return ''


def tool_of(file: Path) -> str:
    """The tool that a JSON file is from, with what to export there, if it is one that is not read,
    or 'LabelMe' and the like; '' if nothing tells."""
    form = form_of(file)
    known = {LABELME: 'LabelMe', COCO: 'a tool that writes COCO format', VIA: 'VIA'}
    known[LABEL_STUDIO] = 'Label Studio'
    return _FOREIGN.get(form) or known.get(form, '')


def _text_for_images(tree: Tree, items: Sequence[Item]) -> bool:
    """Whether text files are named after images."""
    stems = {item.path.stem for item in tree.items if item.suffix in (*IMAGES, *MASKS)}
    lines = (item for item in items if item.path.suffix.lower() == '.txt')
    named = [item for item in lines if item.path.stem in stems]
    return bool(named) or any(i.suffix in ('.yaml', '.yml') for i in items)


_BY_NAME: tuple[tuple[str, str, Callable[[Tree, Sequence[Item]], bool]], ...] = (
    ('cvat backup', r'task\.json|manifest\.jsonl', lambda tree, items: True),
    ('yolo alone', r'data\.ya?ml|dataset\.ya?ml|.*\.txt', _text_for_images),
    ('arrays', r'.*\.(npy|npz|mat)', lambda tree, items: True),
    ('records', r'.*\.tfrecords?', lambda tree, items: True),
    ('volumes', r'.*\.(nii|nii\.gz|nrrd|mha|dcm)', lambda tree, items: True),
    ('archive', r'.*\.(zip|tar|tgz|gz|7z|rar)', lambda tree, items: len(items) == len(tree.items)),
)
