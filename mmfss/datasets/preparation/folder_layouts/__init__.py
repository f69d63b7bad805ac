"""Where images, masks and class names are in a user's folder: the layouts.

::

    classes   SRC/<class>/x.jpg + x.png (or x_mask.png), or SRC/<class>/{images/x.jpg,masks/x.png},
              or SRC/images/<class>/x.jpg + SRC/masks/<class>/x.png, or SRC/images/x.jpg +
              SRC/masks/<class>/x.png; masks of two values.
              In a folder SRC/<class>/not, negatives: x.jpg alone does not show the class, with a
              mask it marks where the class is not
    values    SRC/images/x.jpg + SRC/masks/x.png (img_dir, ann_dir; JPEGImages, SegmentationClass),
              or x.jpg + x_mask.png; masks of class values, or of colours; and SRC/classes.txt,
              class_names.txt, labels.txt, labelmap.txt or _classes.csv
    coco      SRC/images/x.jpg + SRC/annotations.json, or files of any name in COCO's format
    labelme   SRC/x.jpg + SRC/x.json
    via       SRC/x.jpg + VIA's JSON or CSV
    cvat      SRC/images/x.jpg + SRC/annotations.xml ("CVAT for images")
    label_studio  SRC/images/x.jpg + JSON or JSON-MIN of Label Studio, or tasks with predictions
    yolo      SRC/images/x.jpg + SRC/labels/x.txt (or beside) + SRC/data.yaml or SRC/classes.txt

Folders with the names of splits (train, valid, test, ...), at any place, are parts and no classes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mmfss.datasets.preparation.folder_layouts.annotated import annotated_source
from mmfss.datasets.preparation.folder_layouts.by_class import (
    NOT,
    PROMPT,
    find_classes,
    find_masks_by_class,
)
from mmfss.datasets.preparation.folder_layouts.by_value import beside, find_values
from mmfss.datasets.preparation.folder_layouts.class_names import find_names
from mmfss.datasets.preparation.folder_layouts.cvat import read_cvat
from mmfss.datasets.preparation.folder_layouts.forms import (
    COCO,
    CVAT,
    LABEL_STUDIO,
    LABELME,
    NO_COCO_YET,
    PROMPT_FORM,
    VIA,
    YOLO,
    foreign,
    form_of,
    forms_of,
    tool_of,
)
from mmfss.datasets.preparation.folder_layouts.label_studio import read_label_studio
from mmfss.datasets.preparation.folder_layouts.labelme import read_labelme
from mmfss.datasets.preparation.folder_layouts.source import (
    VALUES,
    Meaning,
    Sample,
    Source,
    check_names,
)
from mmfss.datasets.preparation.folder_layouts.tree import (
    IMAGE_FOLDER,
    IMAGES,
    MASK_FOLDER,
    MASKS,
    Item,
    Tree,
    without_mask_tail,
)
from mmfss.datasets.preparation.folder_layouts.via import read_via
from mmfss.datasets.preparation.folder_layouts.yolo import read_yolo
from mmfss.datasets.preparation.instances import need_pycocotools
from mmfss.datasets.preparation.own_coco import read_own_coco
from mmfss.words import listed

__all__ = [
    'ANNOTATED',
    'LAYOUTS',
    'NOT',
    'PROMPT',
    'VALUES',
    'Meaning',
    'Sample',
    'Source',
    'find_source',
    'tool_of',
]
ANNOTATED = (COCO, LABELME, VIA, CVAT, LABEL_STUDIO, YOLO)
LAYOUTS = ('classes', 'values', *ANNOTATED)
_FORMS = (
    'expected one of: a folder per class, SRC/<class>/x.jpg with x.png; SRC/images/x.jpg with '
    'SRC/masks/x.png of class values and SRC/classes.txt with the names; SRC/images with '
    'SRC/annotations.json in COCO format; what LabelMe, VIA, CVAT, Label Studio, '
    'Roboflow and YOLO export (docs/datasets/folder.md)'
)


def find_source(
    src: Path,
    layout: str = 'auto',
    images: Path | None = None,
    annotations: Path | None = None,
    prompts: bool = False,
    crowd: str = 'object',
) -> Source:
    """List what is in a folder; annotations are read, masks are not.

    Args:
        src: The folder.
        layout: One of :data:`LAYOUTS`, or 'auto'.
        images: Where the images are, if not below SRC; of layout values and of annotations.
        annotations: The file of annotations, if not to be found in SRC.
        prompts: In the layout 'classes' a file x.json may be in the place of a missing mask.
        crowd: What COCO's ``iscrowd: 1`` is; see :func:`.own_coco.read_own_coco`.

    Raises:
        FileNotFoundError: There is no such folder or file.
        ValueError: No known layout (with the tool that the folder comes from, where files tell),
            images without mask or masks without image, two images or masks of one name, names that
            a list cannot hold, negatives of no class.
    """
    tree = Tree(src, _FORMS)
    if layout not in ('auto', *LAYOUTS):
        raise ValueError(f'layout must be auto or one of {", ".join(LAYOUTS)}, got {layout!r}')
    if annotations is not None and not annotations.is_file():
        raise FileNotFoundError(f'annotations not found: {annotations}; export it again')
    forms = forms_of(tree) if annotations is None else _form(annotations)
    if layout == 'auto':
        layout = _layout(tree, forms, annotations is not None)
    if prompts and layout == LABELME and forms.get(PROMPT_FORM):
        raise ValueError(
            f'{forms[PROMPT_FORM][0]} is a prompt and {forms[LABELME][0]} is of LabelMe; a folder '
            'is of one of them: put them into two, or outline all in LabelMe'
        )
    if (images is not None and layout == 'classes') or (annotations and layout not in ANNOTATED):
        raise ValueError(
            f'--images and --annotations are of layout {", ".join(ANNOTATED)} (--images of values, '
            f'too), this is {layout!r}'
        )
    try:
        source = _read(tree, layout, forms, images, prompts, crowd)
        _check_images(source, src)
    except (ValueError, FileNotFoundError) as error:
        told = foreign(tree, forms)
        if not told and LABELME in forms:
            told = f'{forms[LABELME][0]} is from LabelMe, and there are masks, which count'
        if told and layout not in forms:
            raise ValueError(f'{told}. As layout {layout}: {error}') from error
        raise
    check_names(source)
    return source


def _check_images(source: Source, src: Path) -> None:
    if not source.samples and source.negatives:
        raise ValueError(
            f'{src} has only images of what classes are not ({len(source.negatives)}, in folders '
            f'{NOT!r}); mark at least one image of each class beside them'
        )
    if not source.samples:
        raise ValueError(f'{src} has no images (layout {source.layout}); {_FORMS}')


def _form(annotations: Path) -> dict[str, list[Path]]:
    """``{form: files}`` of a file that a person names: COCO's where it is of no known form."""
    form = form_of(annotations)
    form = COCO if form in ('', NO_COCO_YET) else form
    if form not in ANNOTATED:
        raise ValueError(
            f'{annotations} is no file of annotations in COCO format, of VIA, CVAT or Label Studio'
            f'{f", but from {tool}" if (tool := tool_of(annotations)) else ""}'
        )
    return {form: [annotations]}


def _layout(tree: Tree, forms: dict[str, list[Path]], named: bool) -> str:
    """The layout of a folder.

    Annotation files count where there are no masks, or a person names one, or its name says it.
    """
    usual = {'annotations.json', '_annotations.coco.json'}
    masked = tree.lone_masks() != '' or _has_masks(tree)
    for form in ANNOTATED:
        files = forms.get(form, [])
        sure = named or any(file.name.casefold() in usual for file in files)
        if files and (sure or not masked):
            return form
    if named or (forms.get(NO_COCO_YET) and not masked):
        return COCO
    if tree.lone_masks():
        return 'values'
    if _mask_items(tree):
        return 'classes' if _by_class(tree) else 'values'
    names = find_names(tree)
    top = beside([item for item in tree.items if item.folders == () and item.suffix in IMAGES])
    if tree.names() and (names is None or {*tree.names()} <= {*names[0]}):
        return 'classes'
    return 'values' if names is not None or all(top) else 'classes'


def _mask_items(tree: Tree) -> list[Item]:
    kinds = {IMAGE_FOLDER, MASK_FOLDER} <= {*tree.names()}
    return tree.under(MASK_FOLDER, suffixes=MASKS) if kinds else []


def _has_masks(tree: Tree) -> bool:
    """Whether there are masks in folders of their own, or beside an image."""
    if any(MASK_FOLDER in item.folders[:2] and item.suffix in MASKS for item in tree.items):
        return True
    photos, drawn = beside([item for item in tree.items if item.suffix in IMAGES])
    known = {item.key(0) for item in photos}
    tails = {(*item.key(0)[:-1], without_mask_tail(item.path.stem)) for item in drawn}
    return not known.isdisjoint({item.key(0) for item in drawn} | tails)


def _by_class(tree: Tree) -> bool:
    """Whether folders of masks are classes: not if names say what values mean, or masks lie in none
    or in the folders of the images."""
    drawn = {item.folders[1:2] for item in _mask_items(tree)}
    folders = {name for names in drawn for name in names}
    own = folders.isdisjoint(tree.names(IMAGE_FOLDER))
    return bool(folders) and () not in drawn and (own or find_names(tree) is None)


def _read(
    tree: Tree,
    layout: str,
    forms: dict[str, list[Path]],
    images: Path | None,
    prompts: bool,
    crowd: str,
) -> Source:
    if layout == 'values':
        return find_values(tree, images)
    if layout == 'classes':
        own = {item.folders[1] for item in _mask_items(tree) if len(item.folders) > 1}
        if own and own.isdisjoint(tree.names(IMAGE_FOLDER)):
            return find_masks_by_class(tree)
        return find_classes(tree, prompts, _FORMS)
    need_pycocotools()
    files = forms.get(layout, [])
    if layout == LABELME:
        order = find_names(tree)
        found = read_labelme(tree, files, () if order is None else order[0])
    elif layout == VIA:
        found = read_via(files)
    elif layout == CVAT:
        found = read_cvat(files)
    elif layout == LABEL_STUDIO:
        found = read_label_studio(files)
    elif layout == YOLO:
        found = read_yolo(tree, files, images)
    else:
        files = files or forms.get(NO_COCO_YET) or [tree.root / 'annotations.json']
        found = [read_own_coco(file, crowd) for file in files]
    if not found:
        raise FileNotFoundError(f'{tree.root} has no file of {layout}; {_FORMS}')
    source = annotated_source(layout, tree, found, images)
    blank = [file for file in forms.get(NO_COCO_YET, []) if file not in files]
    drawn = [str(item.path) for item in _mask_items(tree)]
    for there, said in (
        (blank, 'files without annotations left out'),
        (drawn, 'masks left out: annotations count (--layout values or classes reads masks)'),
    ):
        if there:
            said = f'{len(there)} {said}: {listed(there)}'
            source = replace(source, remarks=(*source.remarks, said))
    return source
