"""What a user's folder holds, in the words of all readers: samples, classes, parts."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mmfss.datasets.account import Account
from mmfss.words import listed

Colour = tuple[int, int, int]
VALUES = 0
"""In the place of a class: the mask has a value for each class."""


@dataclass(frozen=True)
class Sample:
    """An image.

    Args:
        image: Its path in the image folder, with '/'.
        masks: ``{class id: its mask of two values}``, or a prompt file where those are asked for;
            or ``{VALUES: its mask of class values}``; empty for annotations, and of a negative of
            which all counts.
        annotations: In COCO's form.
        shape: (height, width) as the annotations say; (0, 0): they do not, or there are masks.
        split: The user's part that it is of: 'train', 'val', 'test', 'trainval'; '' for none.
        file: Where the annotations are.
        class_id: Of an image in the folder of a class; 0 of others.
    """

    image: str
    masks: Mapping[int, Path] = field(default_factory=dict)
    annotations: Sequence[dict] = ()
    shape: tuple[int, int] = (0, 0)
    split: str = ''
    file: Path | None = None
    class_id: int = 0


@dataclass(frozen=True)
class Meaning:
    """What is in masks of class values.

    Args:
        names: What says so, for messages.
        labels: ``{value: class id}``, 0 background, 255 ignored.
        colours: ``{(red, green, blue): class id}`` in the place of values; None: values count.
        guessed: No file says so: there is one class, and its name is made up.
    """

    names: str
    labels: Mapping[int, int] = field(default_factory=dict)
    colours: Mapping[Colour, int] | None = None
    guessed: bool = False

    @property
    def by_value(self) -> bool:
        """Whether each value is its class id."""
        return self.colours is None and all(v == label for v, label in self.labels.items())


@dataclass(frozen=True)
class Source:
    """What a folder holds.

    Args:
        layout: One of :data:`LAYOUTS`.
        images: The image folder.
        classes: Names of the classes 1..C.
        samples: Its images, sorted.
        labels: ``{category id: class id}`` of annotations.
        remarks: What was left out and why, in words.
        negatives: Images of what their class is not, of layout 'classes'; all of an image where
            there is no mask or prompt.
        meaning: Of masks of class values.
        blank: Masks without an object are right: the image shows none.
        account: What was left out, or read otherwise than it says.
    """

    layout: str
    images: Path
    classes: tuple[str, ...]
    samples: list[Sample]
    labels: dict[int, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    negatives: tuple[Sample, ...] = ()
    meaning: Meaning | None = None
    blank: bool = False
    account: Account = field(default_factory=Account)

    @property
    def splits(self) -> dict[str, list[str]]:
        """``{part: its images}`` of the user's own parts, training first; 'trainval' is 'train'
        where there is no other. Empty where there are none."""
        parts: dict[str, list[str]] = {}
        for name in ('train', 'val', 'trainval', 'test'):
            found = [sample.image for sample in self.samples if sample.split == name]
            if found:
                parts[name] = found
        if 'train' not in parts and 'trainval' in parts:
            parts = {'train': parts.pop('trainval'), **parts}
        return parts


def check_names(source: Source) -> None:
    """Names go into lists, a line each, and under the output folder.

    Raises:
        ValueError: One that a list cannot hold, 'background', two classes whose names differ by
            case or spaces alone, or two images of one name.
    """
    first: dict[str, str] = {}
    for name in source.classes:
        if name.strip().casefold() == 'background':
            raise ValueError(
                f'{name!r} cannot be a class: it is value 0, and all that no class covers; take '
                'what is marked so out, or rename it'
            )
        other = first.setdefault(
            ' '.join(unicodedata.normalize('NFC', name).casefold().split()), name
        )
        if other != name:
            raise ValueError(
                f'the classes {other!r} and {name!r} differ by case or spaces alone; give them one '
                'name if they are one class, or names that tell them apart'
            )
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
