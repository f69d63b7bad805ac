"""The files of a user's folder, each at its place but for the names of splits in its path.

``images/train/1.jpg`` and ``train/images/1.jpg`` are both ``images/1.jpg`` of the part 'train', and
``img_dir/train`` with ``ann_dir/train`` are images and masks: readers of layouts never meet a name
of a split, so that none can take one for a class.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from mmfss.files import walk
from mmfss.words import listed

PHOTOS = ('.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff', '.jp2', '.avif')
IMAGES = (*PHOTOS, '.png')
MASKS = ('.png', '.bmp', '.tif', '.tiff')
IMAGE_FOLDER, MASK_FOLDER = 'images', 'masks'

_SPLITS = {
    'train': 'train training trainset trainingset trn trainingsdaten entrenamiento entrainement '
    'apprentissage addestramento treino treinamento',
    'val': 'val valid validation valset validationset dev minival validierung validierungsdaten '
    'validacion validacao validazione',
    'test': 'test testing testset testdev eval evaluation holdout testdaten prueba pruebas teste',
    'trainval': 'trainval',
    'default': 'default',  # what CVAT calls the part of a task that has none
}
_SPLIT_OF = {word: split for split, words in _SPLITS.items() for word in words.split()}
_KINDS = {
    IMAGE_FOLDER: 'images image imgs img photos photo jpegimages input inputs rgb originals '
    'bilder fotos imagenes imagens immagini',
    MASK_FOLDER: 'masks mask ann anns annot annots annotations annotation labels label gt '
    'groundtruth groundtruths target targets seg segs segmentation segmentations segmentationclass '
    'masken mascaras masques maschere',
}
_KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words.split()}
_FILLERS = {'dir', 'folder', 'set', 'data', 'dataset', 'png', 'jpg'}
_YEAR = re.compile(r'(?:19|20)\d\d$')
_NUMBERED = re.compile(r'([^\W\d_]+)[\W_]*\d+$')  # train_1, fold2
_PARTS = {'fold', 'kfold', 'split', 'subset', 'batch'}


def split_of(name: str) -> str:
    """'train', 'val', 'test', 'trainval' or 'default' if the name of a folder says this and
    nothing else ('Valid', 'train2017', 'test_set'), else ''."""
    split, kind = _meaning(name)
    return '' if kind else split


@lru_cache(10000)
def _meaning(name: str) -> tuple[str, str]:
    """The split and kind of files that a folder's name says; '' what it does not say, and both
    where it says something else too."""
    plain = ''.join(c for c in unicodedata.normalize('NFKD', name) if not unicodedata.combining(c))
    apart = re.sub(r'(?<=[a-z0-9])(?=[A-Z])', ' ', plain)  # TrainDataset
    words = [_YEAR.sub('', word) for word in re.split(r'[\W_]+', apart.casefold())]
    words = [word for word in words if word]
    joined = ''.join(words)
    both = {joined} if joined in _SPLIT_OF or joined in _KIND_OF else {*words}
    splits = [_SPLIT_OF[word] for word in both if word in _SPLIT_OF]
    kinds = [_KIND_OF[word] for word in both if word in _KIND_OF]
    known = all(word in _FILLERS or word in _SPLIT_OF or word in _KIND_OF for word in both)
    if not known or len(set(splits)) > 1 or len(set(kinds)) > 1:
        return '', ''
    return (splits or [''])[0], (kinds or [''])[0]


def _kinds(folder: Path, names: Iterable[str], below: Mapping[Path, set[str]]) -> dict[str, str]:
    """``{name: IMAGE_FOLDER or MASK_FOLDER}`` of the folders in a folder, where both stand beside
    each other; one of images may have any name if it is the only other one."""
    kinds = {name: kind for name in names if (kind := _meaning(name)[1])}
    if IMAGE_FOLDER not in kinds.values():
        other = [n for n in names if not any(_meaning(n)) and below[folder / n] & {*IMAGES}]
        drawn = [below[folder / name] for name in kinds]
        photos = {*PHOTOS} - {*MASKS}
        if (
            len(other) == 1
            and any(s & {*MASKS} for s in drawn)
            and not any(s & photos for s in drawn)
        ):
            kinds[other[0]] = IMAGE_FOLDER
    return kinds if {*kinds.values()} == {IMAGE_FOLDER, MASK_FOLDER} else {}


@dataclass(frozen=True)
class Item:
    """A file.

    Args:
        path: Where it is.
        folders: Those that it is in, below the user's folder, without names of splits; folders of
            images and of masks that stand beside each other are 'images' and 'masks'.
        split: Its part, '' for none.
    """

    path: Path
    folders: tuple[str, ...]
    split: str

    @property
    def suffix(self) -> str:
        """In lower case."""
        return self.path.suffix.lower()

    def key(self, depth: int) -> tuple[str, ...]:
        """What an image and its mask have in common: split, folders from a depth on, stem."""
        return self.split, *self.folders[depth:], self.path.stem


class Tree:
    """All files of a folder; links to folders are followed.

    Args:
        root: The folder; FileNotFoundError, with ``forms`` as what is expected, if there is none.
    """

    def __init__(self, root: Path, forms: str = 'give an existing folder') -> None:
        if not root.is_dir():
            raise FileNotFoundError(f'folder {root} not found; {forms}')
        self.root = root
        files: list[Path] = []
        self.inside: dict[Path, list[str]] = {root: []}
        """Folder -> names of the folders in it."""
        for path, is_folder in sorted(walk(root)):
            if is_folder:
                self.inside[path] = []
                self.inside[path.parent].append(path.name)
            else:
                files.append(path)
        below: dict[Path, set[str]] = defaultdict(set)  # suffixes
        for path in files:
            for folder in path.parents:
                below[folder].add(path.suffix.lower())
                if folder == root:
                    break
        kinds = {folder: _kinds(folder, names, below) for folder, names in self.inside.items()}
        masked = any(MASK_FOLDER in some.values() for some in kinds.values())
        self._places: dict[Path, tuple[tuple[str, ...], str]] = {root: ((), '')}
        for folder, names in self.inside.items():
            above, split = self._places[folder]
            known = all(any(_meaning(name)) for name in names)
            for name in names:
                part, kind = _meaning(name)
                here: tuple[str, ...] = (kinds[folder].get(name, name),)
                if kind == IMAGE_FOLDER and known and not kinds[folder]:
                    here = (IMAGE_FOLDER,) if masked else ()  # images alone are no class
                elif part and not kind:
                    here = ()
                elif name not in kinds[folder]:
                    part = ''
                self._places[folder / name] = ((*above, *here), split or part)
        self.items = []
        for path in files:
            folders, split = self._places[path.parent]
            self.items.append(Item(path, folders, '' if split == 'default' else split))

    @cached_property
    def _by_start(self) -> dict[tuple[str, ...], list[Item]]:
        index = defaultdict(list)
        for item in self.items:
            for depth in range(min(len(item.folders), 2) + 1):
                index[item.folders[:depth]].append(item)
        return index

    @cached_property
    def _names(self) -> dict[tuple[str, ...], set[str]]:
        index = defaultdict(set)
        for folders, _ in self._places.values():
            for depth, name in enumerate(folders):
                index[folders[:depth]].add(name)
        return index

    def under(self, *start: str, suffixes: Iterable[str] | None = None) -> list[Item]:
        """Files in a folder and below, of these endings; ``start`` has at most two names."""
        found = self._by_start.get(start, [])
        return found if suffixes is None else [i for i in found if i.suffix in suffixes]

    def names(self, *start: str) -> list[str]:
        """Names of the folders in a folder, splits left out, sorted; empty ones, too."""
        return sorted(self._names.get(start, ()))

    def lone_masks(self) -> str:
        """Name of the folder at the top that has masks without images beside it, by its name
        alone; '' if there is none."""
        full = {item.folders[0] for item in self.items if item.folders and item.suffix in IMAGES}
        named = [name for name in full if _meaning(name)[1] == MASK_FOLDER]
        sure = [name for name in named if name.casefold() == 'segmentationclass' or len(full) == 1]
        return sure[0] if sure and IMAGE_FOLDER not in full else ''

    def place(self, name: str) -> Path:
        """The folder at the top that :meth:`names` calls so, the root if there are several."""
        found = [path for path, (folders, _) in self._places.items() if folders == (name,)]
        return found[0] if len(found) == 1 else self.root

    def named(self, *names: str) -> list[Item]:
        """Files of these names, in any case, that lie at the top or in the folder of a split, of
        images or of masks."""
        tops = ((), (IMAGE_FOLDER,), (MASK_FOLDER,))
        wanted = {name.casefold() for name in names}
        return [i for i in self.items if i.folders in tops and i.path.name.casefold() in wanted]

    def check_no_split_beside_classes(self) -> None:
        """ValueError where folders with the names of splits, and marks in them, stand beside others
        that hold images: are they classes?"""
        filled = {p for i in self.items if i.suffix in IMAGES for p in i.path.parents}
        marks = ('.json', *(suffix for suffix in MASKS if suffix not in PHOTOS))
        marked = {p for i in self.items if i.suffix in marks for p in i.path.parents}
        for folder, names in self.inside.items():
            full = [name for name in names if folder / name in filled]
            splits = [name for name in full if split_of(name) and folder / name in marked]
            others = [name for name in full if not any(_meaning(name))]
            others = [name for name in others if name.casefold() != 'not']
            if splits and others:
                raise ValueError(
                    f'{folder}: {listed(splits, 4)} are names of splits, which are never classes, '
                    f'and stand beside {listed(others, 4)}; rename a folder that is a class (e.g. '
                    f'{splits[0]} to {splits[0]}_object), or put the others into their split'
                )

    def check_no_numbered_part(self, classes: Iterable[str]) -> None:
        """ValueError where classes are called as numbered parts are, such as train_1 or fold2."""
        found = [(name, _NUMBERED.match(name)) for name in sorted(classes)]
        parts = [n for n, m in found if m and (split_of(m[1]) or m[1].casefold() in _PARTS)]
        if parts:
            raise ValueError(
                f'{self.root}: {listed(parts, 4)} would be classes, and are names of numbered '
                'parts; if they are parts, put what they hold into one folder, or into train, val '
                f'and test; a folder that is a class needs another name (e.g. {parts[0]}_object)'
            )

    def images_root(self, photos: Iterable[Item]) -> Path:
        """The folder that names of images are relative to: that of all images, else the root."""
        first = {item.path.relative_to(self.root).parts[0] for item in photos}
        top = first.pop() if len(first) == 1 else ''
        folder = self.root / top
        known = self._places.get(folder, ((), ''))[0] == (IMAGE_FOLDER,)
        return folder if known or _meaning(top)[1] == IMAGE_FOLDER else self.root

    def said(self, items: Iterable[Item]) -> list[str]:
        """Their paths below the root, sorted."""
        return sorted(item.path.relative_to(self.root).as_posix() for item in items)


def paired(
    folders: tuple[Path, Path],
    photos: list[Item],
    drawn: list[Item],
    depths: tuple[int, int],
    prompts: bool = False,
    alone: bool = False,
) -> Iterator[tuple[Item, Item | None]]:
    """Images and masks of equal place and name but for the suffix, or for the tail of a mask
    (``x_mask.png``), or for the split where only one of the two says it.

    Args:
        folders: Where images and masks are, for messages.
        photos, drawn: Images and masks.
        depths: At which depth the places of images and masks begin.
        prompts: Whether prompts may be there, for messages.
        alone: An image needs no mask.

    Raises:
        ValueError: Two of one name, images without mask, masks without image; all are named.
    """
    by_key: list[dict[tuple[str, ...], Item]] = []
    for items, depth in zip((photos, drawn), depths):
        keys = defaultdict(list)
        for item in items:
            keys[item.key(depth)].append(item)
        twice = [i.path for group in keys.values() if len(group) > 1 for i in group]
        if twice:
            raise ValueError(
                f'{len(twice)} files differ by their suffix alone: {listed(twice)}; remove or '
                'rename all but one of a name'
            )
        by_key.append({key: group[0] for key, group in keys.items()})
    images, masks = by_key
    for other in (_without_tail, _without_split):
        for key in [key for key in masks if key not in images]:
            found = other(key, images)
            if found is not None and found not in masks:
                masks[found] = masks.pop(key)
    lone_images = [i.path for key, i in images.items() if key not in masks and not alone]
    lone_masks = [i.path for key, i in masks.items() if key not in images]
    if lone_images or lone_masks:
        said = [
            f'{len(lone)} {what} in {folder}: {listed(lone)}'
            for lone, what, folder in (
                (lone_images, 'images have no mask', folders[1]),
                (lone_masks, 'masks have no image', folders[0]),
            )
            if lone
        ]
        raise ValueError(
            f'{"; ".join(said)}; an image and its mask have one name, or that of the mask ends in '
            f'_mask; masks are {", ".join(MASKS)} (JPEG alters values), and .png beside their '
            f'images; images are {", ".join(IMAGES)}; folders of either are called '
            f'{IMAGE_FOLDER} and {MASK_FOLDER}'
            f'{"; a prompt x.json may replace one" if prompts else ""}'
        )
    return ((image, masks.get(key)) for key, image in images.items())


_MASK_TAIL = re.compile(r'[_\-. ]+(masks?|seg|segmentation|labels?|gt|annotation)$', re.IGNORECASE)
_IMAGE_TAILS = ('', '_image', '_img', '_rgb', '_photo', '_sat')


def without_mask_tail(stem: str) -> str:
    """``x`` of ``x_mask``, and '' of what has no such tail."""
    found = _MASK_TAIL.search(stem)
    return stem[: found.start()] if found else ''


def _without_tail(
    key: tuple[str, ...], images: dict[tuple[str, ...], Item]
) -> tuple[str, ...] | None:
    """The key of the image of a mask whose name has a tail."""
    stem = without_mask_tail(key[-1])
    keys = [(*key[:-1], f'{stem}{tail}') for tail in _IMAGE_TAILS if stem]
    return next((one for one in keys if one in images), None)


def _without_split(
    key: tuple[str, ...], images: dict[tuple[str, ...], Item]
) -> tuple[str, ...] | None:
    """The key of the image of a mask, where only one of them lies in the folder of a split."""
    splits = ('',) if key[0] else ('', *_SPLITS)
    found = [(split, *key[1:]) for split in splits if (split, *key[1:]) in images]
    return found[0] if len(found) == 1 else None
