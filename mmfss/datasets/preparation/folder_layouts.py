"""Where images, masks and class names are in a user's folder: the three layouts.

::

    classes   SRC/<class>/x.jpg + x.png, or SRC/<class>/{images/x.jpg,masks/x.png}, or
              SRC/images/<class>/x.jpg + SRC/masks/<class>/x.png; masks of two values.
              In a folder SRC/<class>/not, negatives: x.jpg alone does not show the class, with a
              mask it marks where the class is not
    values    SRC/images/x.jpg + SRC/masks/x.png + SRC/classes.txt; masks of class values
    coco      SRC/images/x.jpg + SRC/annotations.json; polygons or run-length codes
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mmfss.datasets.account import Account
from mmfss.datasets.preparation.instances import need_pycocotools
from mmfss.datasets.preparation.own_coco import read_own_coco
from mmfss.datasets.preparation.sources import read_names
from mmfss.words import listed

LAYOUTS = ('classes', 'values', 'coco')
PHOTOS = ('.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff')
IMAGES = (*PHOTOS, '.png')
PROMPT = '.json'
NOT = 'not'
"""Name of the folders of negatives, below that of their class."""
MASKS = ('.png', '.bmp', '.tif', '.tiff')
_FORMS = (
    'expected one of: a folder per class, SRC/<class>/x.jpg with x.png; SRC/images/x.jpg with '
    'SRC/masks/x.png of class values and SRC/classes.txt with the names; SRC/images with '
    'SRC/annotations.json in COCO format (docs/datasets/folder.md)'
)


@dataclass(frozen=True)
class Sample:
    """An image.

    Args:
        image: Its path in the image folder, with '/'.
        mask: Its mask file, or a prompt file where those are asked for; None for COCO.
        class_id: Class of a mask of two values; 0 where the mask has class values.
        annotations: Those of COCO.
        shape: (height, width) as COCO's file says; not known for mask files.
    """

    image: str
    mask: Path | None = None
    class_id: int = 0
    annotations: Sequence[dict] = ()
    shape: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Source:
    """What a folder holds.

    Args:
        layout: One of :data:`LAYOUTS`.
        images: The image folder.
        classes: Names of the classes 1..C.
        samples: Its images, sorted.
        labels: ``{category id: class id}`` of COCO.
        remarks: What was left out and why, in words.
        negatives: Images of what their class is not, of layout 'classes'; all of an image where
            there is no mask or prompt.
        account: What was left out, or read otherwise than it says.
    """

    layout: str
    images: Path
    classes: tuple[str, ...]
    samples: list[Sample]
    labels: dict[int, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    negatives: tuple[Sample, ...] = ()
    account: Account = field(default_factory=Account)


def find_source(
    src: Path,
    layout: str,
    images: Path | None = None,
    annotations: Path | None = None,
    prompts: bool = False,
    crowd: str = 'object',
) -> Source:
    """List what is in a folder; only COCO's annotations are read.

    Args:
        src: The folder.
        layout: One of :data:`LAYOUTS`, or 'auto'.
        images, annotations: For COCO, where they are if not SRC/images and SRC/annotations.json.
        prompts: In the layout 'classes' a file x.json may be in the place of a missing mask.
        crowd: What COCO's ``iscrowd: 1`` is; see :func:`.own_coco.read_own_coco`.

    Raises:
        FileNotFoundError: There is no such folder or file.
        ValueError: No known layout, images without mask or masks without image, two images or
            masks of one name, names that a list cannot hold, negatives of no class.
    """
    if not src.is_dir():
        raise FileNotFoundError(f'folder {src} not found; {_FORMS}')
    if layout == 'auto':
        coco = annotations is not None or (src / 'annotations.json').is_file()
        folders = src / 'images', src / 'masks'
        flat = all(folder.is_dir() and not _folders(folder) for folder in folders)
        values = flat or (src / 'classes.txt').is_file()
        layout = 'coco' if coco else 'values' if values else 'classes'
    if layout != 'coco' and not (images is None and annotations is None):
        raise ValueError(f'--images and --annotations are of layout coco, this is {layout!r}')
    if layout == 'coco':
        source = _find_coco(src, images, annotations, crowd)
    else:
        source = _find_classes(src, prompts) if layout == 'classes' else _find_values(src)
    if not source.samples and source.negatives:
        raise ValueError(
            f'{src} has only images of what classes are not ({len(source.negatives)}, in folders '
            f'{NOT!r}); mark at least one image of each class beside them'
        )
    if not source.samples:
        raise ValueError(f'{src} has no images (layout {layout}); {_FORMS}')
    _check_names(source)
    return source


def _visible(paths: Iterable[Path]) -> Iterator[Path]:
    return (p for p in paths if not p.name.startswith('.') and p.name != '__MACOSX')


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in _visible(folder.iterdir()) if p.is_dir())


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Files of these suffixes in a folder and below, sorted."""
    if not folder.is_dir():
        raise FileNotFoundError(f'folder {folder} not found; {_FORMS}')
    return sorted(p for p in _below(folder) if p.suffix.lower() in suffixes)


def _below(folder: Path) -> Iterator[Path]:
    """Files in a folder and below, none of them hidden or in a hidden folder."""
    for path in _visible(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from _below(path)
        elif path.is_file():
            yield path


def _find_classes(src: Path, prompts: bool) -> Source:
    by_kind = (src / 'images').is_dir() and (src / 'masks').is_dir()
    images = src / 'images' if by_kind else src
    names = {p.name for p in _folders(images)}
    if by_kind:
        names |= {p.name for p in _folders(src / 'masks')}
    if not names:
        raise ValueError(f'{src} has no folder of a class; {_FORMS}')
    if NOT in map(str.casefold, names):
        raise ValueError(
            f'{images / NOT} is of no class; images of what a class is not go into the folder of '
            f'that class, {images}/<class>/{NOT}'
        )
    classes = tuple(sorted(names))
    found: dict[bool, list[Sample]] = {False: [], True: []}
    others = [p.name for p in _visible(sorted(src.iterdir())) if p.is_file()]
    for class_id, name in enumerate(classes, 1):
        folder = images / name
        places = [(folder, src / 'masks' / name if by_kind else folder)]
        if not by_kind and (folder / 'images').is_dir() and (folder / 'masks').is_dir():
            beside = [(one, one) for one in _folders(folder) if one.name.casefold() == NOT]
            places = [(folder / 'images', folder / 'masks'), *beside]
        for place in places:
            for negative, listed_there in found.items():
                pairs, left_out = _class_pairs(src, place, prompts, negative)
                others += left_out
                for photo, mask in pairs:
                    image = photo.relative_to(images).as_posix()
                    listed_there.append(Sample(image, mask, class_id))
    return Source(
        'classes',
        images,
        classes,
        found[False],
        remarks=_left_out(others),
        negatives=tuple(found[True]),
    )


def _class_pairs(
    src: Path, folders: tuple[Path, Path], prompts: bool, negative: bool
) -> tuple[list[tuple[Path, Path | None]], list[str]]:
    """Images with masks in two folders of a class, or in one, and other files: what lies in a
    folder ``not``, or all else."""

    def of_kind(files: Iterable[Path]) -> list[Path]:
        inside = (map(str.casefold, file.relative_to(src).parts[:-1]) for file in files)
        return [file for file, parts in zip(files, inside) if (NOT in parts) == negative]

    folder, masks = folders
    together = masks == folder
    photos = of_kind(_files(folder, PHOTOS if together else IMAGES))
    drawn = of_kind(_files(masks, ('.png',) if together else MASKS))
    asked = of_kind(_files(masks, (PROMPT,))) if prompts else []
    if together:  # a PNG without a photo is the photo beside a prompt, and of negatives always
        needs = drawn if negative else asked
        alone = {p.with_suffix('') for p in needs} - {p.with_suffix('') for p in photos}
        photos = sorted(photos + [image for image in drawn if image.with_suffix('') in alone])
        drawn = [mask for mask in drawn if mask not in photos]
    known = {*photos, *drawn, *asked}
    there = {mask.with_suffix('') for mask in drawn}
    drawn += [prompt for prompt in asked if prompt.with_suffix('') not in there]
    files = [file for one in {folder, masks} for file in _below(one)]
    left_out = sorted(p.relative_to(src).as_posix() for p in of_kind(files) if p not in known)
    return _pairs(folders, photos, drawn, prompts, alone=negative), left_out


def _find_values(src: Path) -> Source:
    names_file = src / 'classes.txt'
    if not names_file.is_file():
        raise FileNotFoundError(
            f'{names_file} not found; write the names of the values 1, 2, ... into it, one a line. '
            'Masks of one class go into a folder of its name: SRC/images/<class>, SRC/masks/<class>'
        )
    names = read_names(names_file)
    classes = tuple(names[1:] if _is_background(names[0]) else names)
    if any(map(_is_background, classes)):
        raise ValueError(
            f'{names_file} names background as a class; it is value 0 and not listed, or first'
        )
    folders = src / 'images', src / 'masks'
    photos, drawn = _files(folders[0], IMAGES), _files(folders[1], MASKS)
    others = _others(src, set(folders), {*photos, *drawn})
    samples = [
        Sample(photo.relative_to(folders[0]).as_posix(), mask)
        for photo, mask in _pairs(folders, photos, drawn)
    ]
    return Source('values', folders[0], classes, samples, remarks=_left_out(others))


def _is_background(name: str) -> bool:
    return name.strip('_').lower() == 'background'  # labelme writes _background_


def _find_coco(src: Path, images: Path | None, annotations: Path | None, crowd: str) -> Source:
    need_pycocotools()
    file = src / 'annotations.json' if annotations is None else annotations
    if images is None:
        images = src / 'images' if (src / 'images').is_dir() else src
    found = read_own_coco(file, crowd)
    records = sorted(found.images.items(), key=lambda item: item[1]['file_name'])
    samples = [
        Sample(
            record['file_name'],
            annotations=found.annotations.get(image_id, []),
            shape=(record['height'], record['width']),
        )
        for image_id, record in records
    ]
    photos = {p.relative_to(images).as_posix() for p in _files(images, IMAGES)}
    unlisted = sorted(photos - {sample.image for sample in samples})
    remarks = [
        (found.unused, 'categories without annotations left out'),
        (unlisted, f'images that are not in {file.name} left out'),
    ]
    return Source(
        'coco',
        images,
        found.classes,
        samples,
        found.labels,
        tuple(f'{len(what)} {text}: {listed(what)}' for what, text in remarks if what),
        account=found.account,
    )


def _pairs(
    folders: tuple[Path, Path],
    photos: list[Path],
    drawn: list[Path],
    prompts: bool = False,
    alone: bool = False,
) -> list[tuple[Path, Path | None]]:
    """Images and masks of equal path but for the suffix; ``alone``: an image needs no mask."""
    by_stem: list[dict[str, Path]] = []
    for folder, files in zip(folders, (photos, drawn)):
        stems = defaultdict(list)
        for file in files:
            stems[file.relative_to(folder).with_suffix('').as_posix()].append(file)
        twice = [f for group in stems.values() if len(group) > 1 for f in group]
        if twice:
            raise ValueError(
                f'{len(twice)} files differ by their suffix alone: {listed(twice)}; remove or '
                'rename all but one of a name'
            )
        by_stem.append({stem: group[0] for stem, group in stems.items()})
    images, masks = by_stem
    lone_images = [images[stem] for stem in images if stem not in masks and not alone]
    lone_masks = [masks[stem] for stem in masks if stem not in images]
    if lone_images or lone_masks:
        raise ValueError(
            f'{len(lone_images)} images have no mask in {folders[1]}: {listed(lone_images)}; '
            f'{len(lone_masks)} masks have no image in {folders[0]}: {listed(lone_masks)}; an '
            f'image and its mask have one name; masks are {", ".join(MASKS)} (JPEG alters values), '
            f'and .png beside their images{"; a prompt x.json may replace one" if prompts else ""}'
        )
    return [(images[stem], masks.get(stem)) for stem in images]


def _others(src: Path, folders: set[Path], known: set[Path]) -> list[str]:
    files = (p for folder in folders for p in _below(folder))
    return sorted(p.relative_to(src).as_posix() for p in files if p not in known)


def _left_out(others: list[str]) -> tuple[str, ...]:
    return (f'{len(others)} other files left out: {listed(others)}',) if others else ()


def _check_names(source: Source) -> None:
    """Names go into lists, a line each, and under the output folder."""
    for name in source.classes:
        if not name.strip() or len(name.splitlines()) != 1:
            raise ValueError(f'class name {name!r} is empty or has a line break; rename it')
    for sample in source.samples:
        path = PurePosixPath(sample.image)
        if path.is_absolute() or not path.name or '..' in path.parts or '\\' in sample.image:
            raise ValueError(
                f'image {sample.image!r} must be a path below {source.images} with "/" between '
                'folders; change file_name, or give --images'
            )
        if '\t' in sample.image or len(sample.image.splitlines()) != 1:
            raise ValueError(f'image name {sample.image!r} has a tab or line break; rename it')
        if any('\ud800' <= character <= '\udfff' for character in sample.image):
            raise ValueError(
                f'image name {sample.image!r} is no UTF-8, so no list can hold it; rename it, and '
                'its mask'
            )
    stems = Counter(PurePosixPath(sample.image).with_suffix('') for sample in source.samples)
    twice = [s.image for s in source.samples if stems[PurePosixPath(s.image).with_suffix('')] > 1]
    if twice:
        raise ValueError(
            f'{len(twice)} images differ by their suffix alone: {listed(twice)}; rename all but '
            'one of a name'
        )
