"""Images with annotations: files of all forms become one source, of the images that they mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from mmfss.datasets.account import Account, Reason
from mmfss.datasets.preparation.folder_layouts.image_names import ImageNames
from mmfss.datasets.preparation.folder_layouts.source import Sample, Source
from mmfss.datasets.preparation.folder_layouts.tree import (
    IMAGE_FOLDER,
    IMAGES,
    Item,
    Tree,
    split_of,
)
from mmfss.datasets.preparation.own_coco import OwnCoco
from mmfss.words import listed

UNLISTED = Reason(
    'image that no annotation file names, left out', 'annotate it, or leave it as it is'
)
OTHERWISE_NAMED = Reason(
    'image found by the end of its name, not by all of it',
    'nothing, if the images are right',
    False,
)


def annotated_source(
    layout: str,
    tree: Tree,
    files: Sequence[OwnCoco],
    images: Path | None = None,
) -> Source:
    """One source of all annotation files of a folder.

    Args:
        layout: What it is called.
        tree: The folder.
        files: What they say; their categories of one name are one class.
        images: Where the images are, if not below the folder.

    Raises:
        FileNotFoundError: No folder of images, or images that are not there; they are named.
        ValueError: No annotations, a name that fits several images, an image of two records.
    """
    account = Account()
    photos = [i for i in (tree if images is None else Tree(images)).items if i.suffix in IMAGES]
    parts = [_part(found.file, tree) for found in files]
    names = dict.fromkeys(name for found in files for name in found.classes)
    class_of = {name: class_id for class_id, name in enumerate(names, 1)}
    split_of_photo = {photo.path: photo.split for photo in photos}
    chosen: dict[Path, Sample] = {}
    named: list[dict[str, Path]] = []
    for found, part in zip(files, parts):
        inside = [i.path for i in photos if not part or i.split == part] or [*split_of_photo]
        roots = [tree.root / IMAGE_FOLDER, found.file.parent, tree.root]
        known = ImageNames([images] if images else roots, inside)
        everywhere = ImageNames([], split_of_photo) if len(inside) < len(photos) else None
        labels = {c: class_of[found.classes[i - 1]] for c, i in found.labels.items()}
        absent: list[str] = []
        meant: dict[str, Path] = {}
        for image_id, record in found.images.items():
            name = str(record['file_name'])
            file = known.find(name) or (everywhere and everywhere.find(name))
            if not file:
                absent.append(name)
                continue
            if file in chosen:
                raise ValueError(
                    f'image {file} is named twice, by {name!r} in {found.file} and in '
                    f'{chosen[file].file}; keep one of the two, or give --images'
                )
            meant[name] = file
            if not any(file == root / name for root in known.roots):
                account.add(OTHERWISE_NAMED, what=name, file=file)
            rows = [
                {**row, 'category_id': labels[row['category_id']]}
                for row in found.annotations.get(image_id, [])
            ]
            size = record['height'], record['width']
            split = record.get('split') or part or split_of_photo[file]
            chosen[file] = Sample('', {}, rows, size, split, record.get('file', found.file))
        if absent:
            raise FileNotFoundError(_not_there(found, absent, photos, images or tree.root))
        named.append(meant)
    used = [photo for photo in photos if photo.path in chosen]
    root = images or tree.images_root(used)
    samples = [
        replace(sample, image=file.relative_to(root).as_posix())
        for file, sample in sorted(chosen.items())
    ]
    for found, meant in zip(files, named):  # all call an image what its sample calls it
        for reason, row in found.account:
            file = meant.get(row.file)
            place = row.file if file is None else file.relative_to(root).as_posix()
            account.add(reason, row.class_name, row.what, place)
    for photo in photos:
        if photo.path not in chosen and (root in photo.path.parents):
            account.add(UNLISTED, file=photo.path)
    unused = sorted({name for found in files for name in found.unused} - {*class_of})
    remark = f'{len(unused)} categories without annotations left out: {listed(unused)}'
    return Source(
        layout,
        root,
        tuple(class_of),
        samples,
        {class_id: class_id for class_id in class_of.values()},
        (remark,) if unused else (),
        account=account,
    )


def _part(file: Path, tree: Tree) -> str:
    """The split that the folder or name of an annotation file says, e.g. instances_val2017."""
    part = next((item.split for item in tree.items if item.path == file), '')
    words = re.split(r'[\W_]+', file.stem)
    said = [split for split in map(split_of, words) if split not in ('', 'default')]
    return part or (said[0] if said else '')


def _not_there(found: OwnCoco, absent: list[str], photos: list[Item], folder: Path) -> str:
    there = listed([photo.path for photo in photos], 3) if photos else 'none'
    stems = {photo.path.stem.casefold() for photo in photos}
    remedy = 'say with --images DIR where they are, or take those that are gone out of the file'
    if all(PurePosixPath(name.replace('\\', '/')).stem.casefold() in stems for name in absent):
        remedy = 'they are there with another ending: change it in file_name'
    return (
        f'{len(absent)} of {len(found.images)} images of {found.file} are not below {folder}: '
        f'image not found: {listed(absent, 5)}; images there are {there}; {remedy}'
    )
