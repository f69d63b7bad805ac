"""Images with masks of a value for each class: in two folders, or side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

from mmfss.datasets.account import Account, Reason
from mmfss.datasets.preparation.folder_layouts.class_names import (
    IGNORED,
    NAME_FILES,
    UNNAMED,
    Named,
    find_names,
)
from mmfss.datasets.preparation.folder_layouts.source import VALUES, Meaning, Sample, Source
from mmfss.datasets.preparation.folder_layouts.tree import (
    IMAGE_FOLDER,
    IMAGES,
    MASK_FOLDER,
    MASKS,
    PHOTOS,
    Item,
    Tree,
    paired,
    split_of,
    without_mask_tail,
)
from mmfss.words import listed

NO_NAMES = (
    'classes.txt not found; write the names of the values 1, 2, ... into it, one a line. '
    'Masks of one class go into a folder of its name: SRC/images/<class>, SRC/masks/<class>'
)
UNMASKED = Reason(
    'image of a part without any mask, left out',
    'add the masks of that part (folder), or take the part away',
)
UNLISTED = Reason(
    'image that no list in ImageSets names, left out', 'add its name to a list, or remove the lists'
)


def find_values(tree: Tree, images: Path | None = None) -> Source:
    """The source of a folder of images and masks of class values.

    Args:
        tree: The folder.
        images: Where the images are, if not beside the masks.

    Raises:
        FileNotFoundError, ValueError: No masks, no images, or they do not fit.
    """
    account = Account()
    folders, photos, drawn, depths = _places(tree, images)
    photos, drawn = _listed_ones(tree, photos, drawn, account)
    masked = {item.split for item in drawn}
    if not masked.isdisjoint(item.split for item in photos):
        for item in photos:
            if item.split not in masked:
                account.add(UNMASKED, file=item.path)
        photos = [item for item in photos if item.split in masked]
    classes, meaning = _names(tree)
    root = images or tree.images_root(photos)
    samples = [
        Sample(
            photo.path.relative_to(root).as_posix(),
            {VALUES: mask.path},
            split=photo.split or mask.split,
        )
        for photo, mask in paired(folders, photos, drawn, depths)
        if mask is not None
    ]
    known = (*photos, *drawn, *tree.named(*NAME_FILES), *_lists(tree))
    used = {item.path for item in known}
    remarks = [left_out(tree, used)]
    if meaning.guessed:
        remarks.append(
            f'nothing names the class, so it is called {UNNAMED!r}: write its name into '
            f'{tree.root / "classes.txt"}'
        )
    return Source(
        'values',
        root,
        classes,
        samples,
        remarks=tuple(filter(None, remarks)),
        meaning=meaning,
        blank=True,
        account=account,
    )


def _names(tree: Tree) -> Named:
    named = find_names(tree)
    if named is not None:
        return named
    meaning = Meaning('1 and', {0: 0, 1: 1, IGNORED: IGNORED}, guessed=True)
    return (UNNAMED,), meaning


def _places(
    tree: Tree, images: Path | None
) -> tuple[tuple[Path, Path], list[Item], list[Item], tuple[int, int]]:
    """Folders of images and masks, the files in them, and the depth at which names begin."""
    tops = tree.names()
    masks = MASK_FOLDER if IMAGE_FOLDER in tops and MASK_FOLDER in tops else tree.lone_masks()
    if not masks:
        named = find_names(tree) is not None
        photos, drawn = beside([i for i in tree.under(suffixes=IMAGES) if named or not i.folders])
        if photos and drawn and images is None:
            return (tree.root, tree.root), photos, drawn, (0, 0)
        if not named:
            raise FileNotFoundError(f'{tree.root}/{NO_NAMES}')
        raise FileNotFoundError(
            f'{tree.root} has no masks: neither a folder masks (ann_dir, SegmentationClass) beside '
            'one of images, nor x_mask.png beside x.jpg'
        )
    drawn = tree.under(masks, suffixes=MASKS)
    if images is not None:
        photos = [item for item in Tree(images).items if item.suffix in IMAGES]
        return (images, tree.place(masks)), photos, drawn, (0, 1)
    if IMAGE_FOLDER not in tops:
        raise FileNotFoundError(
            f'{tree.root} has masks in {masks} and no images (JPEGImages): export again with '
            'images ("Save images" in CVAT), or say where they are with --images DIR'
        )
    photos = tree.under(IMAGE_FOLDER, suffixes=IMAGES)
    return (tree.place(IMAGE_FOLDER), tree.place(masks)), photos, drawn, (1, 1)


def beside(items: list[Item]) -> tuple[list[Item], list[Item]]:
    """Of files in one place the images, and the masks that are named after one: ``x.png`` or
    ``x_mask.png`` of ``x.jpg``, ``x_mask.png`` of ``x.png``."""
    photos = [item for item in items if item.suffix in PHOTOS]
    drawn = [item for item in items if item.suffix == '.png']
    known = {item.key(0) for item in photos}
    tailed = {(*item.key(0)[:-1], without_mask_tail(item.path.stem)) for item in drawn} - known
    more = [item for item in drawn if item.key(0) in tailed]
    return sorted(photos + more, key=lambda item: item.path), [
        item for item in drawn if item.key(0) not in tailed
    ]


def _listed_ones(
    tree: Tree, photos: list[Item], drawn: list[Item], account: Account
) -> tuple[list[Item], list[Item]]:
    """Of a folder with VOC's lists, ImageSets/Segmentation/<part>.txt, what they name, of the part
    that they say: there may be many more images than masks."""
    part: dict[str, str] = {}
    for item in sorted(_lists(tree), key=lambda item: split_of(item.path.stem) == 'trainval'):
        for line in item.path.read_text(encoding='utf-8-sig').splitlines():
            path = PurePosixPath(line.strip())
            path = path.with_suffix('') if path.suffix.lower() in IMAGES else path
            name = '/'.join(folder for folder in path.parts if not split_of(folder))
            if name and not part.get(name):
                part[name] = split_of(item.path.stem).replace('default', '')
    if not part:
        return photos, drawn
    found: list[list[Item]] = []
    for items in (photos, drawn):
        named = [(item, '/'.join((*item.folders[1:], item.path.stem))) for item in items]
        found.append([replace(i, split=i.split or part[n]) for i, n in named if n in part])
        for item, name in named if items is photos else ():
            if name not in part:
                account.add(UNLISTED, file=item.path)
    if not found[0]:
        raise ValueError(
            f'the lists in {tree.root / "ImageSets"} name none of the images, but '
            f'{listed(list(part), 3)}; write names without suffix, or take the lists away'
        )
    return found[0], found[1]


def _lists(tree: Tree) -> list[Item]:
    """VOC's lists of images with masks."""
    found = tree.under('ImageSets', suffixes=('.txt',))
    return [item for item in found if item.folders[1:2] != ('Main',)]


def left_out(tree: Tree, used: set[Path]) -> str:
    """A remark about the other files; '' if there are none."""
    others = tree.said(item for item in tree.items if item.path not in used)
    return f'{len(others)} other files left out: {listed(others)}' if others else ''
