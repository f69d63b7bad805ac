"""Masks of two values: a folder per class, images too or of masks alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mmfss.datasets.account import Account, Reason
from mmfss.datasets.preparation.folder_layouts.by_value import beside, left_out
from mmfss.datasets.preparation.folder_layouts.source import Sample, Source
from mmfss.datasets.preparation.folder_layouts.tree import (
    IMAGE_FOLDER,
    IMAGES,
    MASK_FOLDER,
    MASKS,
    Item,
    Tree,
    paired,
    without_mask_tail,
)
from mmfss.words import listed

PROMPT = '.json'
NOT = 'not'
"""Name of the folders of negatives, below that of their class."""
Place = tuple[tuple[str, ...], tuple[str, ...]]
"""Folders of the images and masks of a class."""
UNMARKED = Reason(
    'image without a mask of any class, left out',
    'add an empty (black) mask of a class if it shows none, or remove it',
)


def find_classes(tree: Tree, prompts: bool, forms: str) -> Source:
    """The source of a folder per class, with masks beside images, or in folders beside them.

    Args:
        tree: The folder.
        prompts: A file x.json may be in the place of a missing mask.
        forms: What is expected, for messages.

    Raises:
        ValueError: No class, images and masks do not fit, negatives of no class.
    """
    tree.check_no_split_beside_classes()
    by_kind = {IMAGE_FOLDER, MASK_FOLDER} <= {*tree.names()}
    tops = [IMAGE_FOLDER, MASK_FOLDER] if by_kind else []
    names = {name for top in tops for name in tree.names(top)} if by_kind else {*tree.names()}
    if not names:
        raise ValueError(f'{tree.root} has no folder of a class; {forms}')
    images = tree.place(IMAGE_FOLDER) if by_kind else tree.root
    if NOT in map(str.casefold, names):
        raise ValueError(
            f'{images / NOT} is of no class; images of what a class is not go into the folder of '
            f'that class, {images}/<class>/{NOT}'
        )
    tree.check_no_numbered_part(names)
    classes = tuple(sorted(names))
    found: dict[bool, list[Sample]] = {False: [], True: []}
    used = {item.path for item in tree.items if prompts and item.suffix == PROMPT}
    for class_id, name in enumerate(classes, 1):
        places: list[Place] = [((name,), (name,))]
        if by_kind:
            places = [((IMAGE_FOLDER, name), (MASK_FOLDER, name))]
        elif {IMAGE_FOLDER, MASK_FOLDER} <= {*tree.names(name)}:
            nots = [n for n in tree.names(name) if n.casefold() == NOT]
            places = [
                ((name, IMAGE_FOLDER), (name, MASK_FOLDER)),
                *(((name, n),) * 2 for n in nots),
            ]
        for place in places:
            for negative, there in found.items():
                for photo, mask in _class_pairs(tree, place, prompts, negative):
                    used |= {one.path for one in (photo, mask) if one}
                    image = photo.path.relative_to(images).as_posix()
                    masks = {class_id: mask.path} if mask else {}
                    split = photo.split or (mask.split if mask else '')
                    there.append(Sample(image, masks, split=split, class_id=class_id))
    inner = [] if by_kind else [name for name in classes if _only_folders(tree, name)]
    below = listed([f'{n}/{i}' for n in inner for i in tree.names(n)])
    said = f'folders in that of a class are no classes: {below}; if they are, give {tree.root}/'
    merged = said + ' or '.join(inner[:2]) if inner else ''
    return Source(
        'classes',
        images,
        classes,
        found[False],
        remarks=tuple(filter(None, [merged, left_out(tree, used)])),
        negatives=tuple(found[True]),
    )


def _only_folders(tree: Tree, name: str) -> bool:
    """Whether the images of a class are all in several folders of its own, as classes would be."""
    folders = {item.folders[1:2] for item in tree.under(name, suffixes=IMAGES)}
    names = {*tree.names(name)} - {IMAGE_FOLDER, MASK_FOLDER}
    return () not in folders and len([n for n in names if n.casefold() != NOT]) > 1


def _class_pairs(
    tree: Tree, place: Place, prompts: bool, negative: bool
) -> Iterable[tuple[Item, Item | None]]:
    """Images with masks in two folders of a class, or in one: what lies in a folder ``not``, or
    all else."""

    def of_kind(items: Iterable[Item]) -> list[Item]:
        inside = ((item, map(str.casefold, item.folders[1:])) for item in items)
        return [item for item, folders in inside if (NOT in folders) == negative]

    first, second = place
    files = of_kind(tree.under(*second))
    asked = [item for item in files if prompts and item.suffix == PROMPT]
    if first == second:
        photos, drawn = beside([item for item in files if item.suffix in IMAGES])
        # a PNG without a photo is the photo beside a prompt, and of negatives always
        needs = drawn if negative else asked
        alone = {item.key(0) for item in needs} - {item.key(0) for item in photos}
        alone -= _tailed(drawn, photos)
        photos = photos + [item for item in drawn if item.key(0) in alone]
        drawn = [item for item in drawn if item.key(0) not in alone]
    else:
        photos = [i for i in of_kind(tree.under(*first)) if i.suffix in IMAGES]
        drawn = [item for item in files if item.suffix in MASKS]
    depths = len(first), len(second)
    there = {item.key(depths[1]) for item in drawn}
    drawn = drawn + [item for item in asked if item.key(depths[1]) not in there]
    photos = sorted(photos, key=lambda item: item.path)
    folders = tree.root.joinpath(*first), tree.root.joinpath(*second)
    return paired(folders, photos, drawn, depths, prompts, alone=negative)


def find_masks_by_class(tree: Tree) -> Source:
    """The source of images in one folder with masks in a folder per class beside it; an image may
    show several classes, which may overlap.

    Raises:
        ValueError: Masks without image, two of one name, no mask of any image.
    """
    account = Account()
    photos = tree.under(IMAGE_FOLDER, suffixes=IMAGES)
    classes = tuple(tree.names(MASK_FOLDER))
    tree.check_no_numbered_part(classes)
    images, root = tree.images_root(photos), tree.place(IMAGE_FOLDER)
    masks: dict[Path, dict[int, Path]] = {photo.path: {} for photo in photos}
    for class_id, name in enumerate(classes, 1):
        drawn = tree.under(MASK_FOLDER, name, suffixes=MASKS)
        for photo, mask in paired(
            (root, tree.place(MASK_FOLDER) / name), photos, drawn, (1, 2), alone=True
        ):
            if mask is not None:
                masks[photo.path][class_id] = mask.path
    used = {path for found in masks.values() for path in found.values()} | {*masks}
    samples = []
    for photo in photos:
        found = masks[photo.path]
        if found:
            name = photo.path.relative_to(images).as_posix()
            samples.append(Sample(name, found, split=photo.split))
        else:
            account.add(UNMARKED, file=photo.path)
    return Source(
        'classes',
        images,
        classes,
        samples,
        remarks=tuple(filter(None, [left_out(tree, used)])),
        blank=True,
        account=account,
    )


def _tailed(items: Iterable[Item], photos: Iterable[Item]) -> set[tuple[str, ...]]:
    """Keys of masks ``x_mask`` of photos ``x``."""
    known = {item.key(0) for item in photos}
    stems = ((item.key(0), without_mask_tail(item.path.stem)) for item in items)
    return {key for key, stem in stems if (*key[:-1], stem) in known}
