"""Annotations in COCO's format (polygons and run-length codes): read, checked, decoded, painted."""

from __future__ import annotations

import importlib.util
import json
import os
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from mmfss.regions import code_of, decoded
from mmfss.words import repeated

CROWD = 255


@dataclass(frozen=True)
class Instances:
    """Content of an annotation file.

    Args:
        file: The file.
        digest: SHA-256 of it, in hex.
        categories: ``{category id: name}``, ascending.
        images: ``{image id: record with file_name, height and width}`` in the file's order.
        annotations: ``{image id: its annotations}``.
    """

    file: Path
    digest: str
    categories: dict[int, str]
    images: dict[int, dict]
    annotations: Mapping[int, list[dict]]

    @property
    def labels(self) -> dict[int, int]:
        """``{category id: label from 1 on}`` in the order of the category ids."""
        return {category: label for label, category in enumerate(self.categories, 1)}

    @property
    def image_counts(self) -> dict[int, int]:
        """``{category id: images with an annotation of it}``, ascending, those without left out."""
        per_image = ({row['category_id'] for row in rows} for rows in self.annotations.values())
        return dict(sorted(Counter(c for found in per_image for c in found).items()))


def find_annotations(folders: Sequence[Path], name: str) -> Path:
    """The first of the folders' files of this name that exists, else the first."""
    paths = [folder / name for folder in folders]
    return next((path for path in paths if path.is_file()), paths[0])


def need_pycocotools() -> None:
    """ValueError with the command that installs pycocotools, where it is not."""
    if importlib.util.find_spec('pycocotools') is None:
        raise ValueError('pycocotools is not installed; pip install pycocotools')


def read_instances(file: str | os.PathLike, remedy: str) -> Instances:
    """Read and check an annotation file.

    Args:
        file: JSON with ``categories``, ``images`` and ``annotations``. An image without
            ``file_name`` gets the folder and name at the end of its ``coco_url`` (LVIS).
        remedy: What to do about a bad one, for the messages.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is cut off or no such JSON; an id, file name or category name occurs
            twice; annotations are of images or categories that it does not have.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f'annotations not found: {file}; {remedy}')
    data = file.read_bytes()
    try:
        content = json.loads(data)
        categories = {c['id']: str(c['name']) for c in content['categories']}
        for image in content['images']:
            if 'file_name' not in image and 'coco_url' in image:
                image['file_name'] = '/'.join(image['coco_url'].split('/')[-2:])
        images = {i['id']: i for i in content['images']}
        sizes = [(str(i['file_name']), int(i['height']), int(i['width'])) for i in images.values()]
        annotations: Mapping[int, list[dict]] = defaultdict(list)
        for annotation in content['annotations']:
            annotation['id'], annotation['category_id'], annotation['segmentation']
            annotations[annotation['image_id']].append(annotation)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{file} is cut off or no file of instances in COCO format ({error!r}); {remedy}'
        ) from error
    _check_unique(file, 'category ids', (c['id'] for c in content['categories']), remedy)
    _check_unique(file, 'category names', categories.values(), remedy)
    _check_unique(file, 'image ids', (i['id'] for i in content['images']), remedy)
    _check_unique(file, 'file names of images', (name for name, *_ in sizes), remedy)
    _check_known(file, content['annotations'], 'image_id', images, 'images', remedy)
    _check_known(file, content['annotations'], 'category_id', categories, 'categories', remedy)
    return Instances(
        file, sha256(data).hexdigest(), dict(sorted(categories.items())), images, annotations
    )


def _check_unique(file: Path, what: str, values: Iterable[Hashable], remedy: str) -> None:
    if twice := repeated(values):
        raise ValueError(
            f'{file} has {len(twice)} {what} more than once: {twice[:5]}; each must occur once; '
            f'{remedy}'
        )


def _check_known(
    file: Path, annotations: list[dict], key: str, known: Mapping, what: str, remedy: str
) -> None:
    lost = [a['id'] for a in annotations if a[key] not in known]
    if lost:
        raise ValueError(
            f'{file} has {len(lost)} annotations whose {key} is not among its {len(known)} '
            f'{what}: annotations {lost[:5]}; {remedy}'
        )


def encode(annotation: dict, height: int, width: int) -> dict | None:
    """The run-length code of an annotation of an image of height x width; None if it is empty.

    Polygons of fewer than three points enclose nothing.

    Raises:
        ValueError: Malformed, or of another size than the image; names the annotation.
    """
    try:
        return code_of(annotation['segmentation'], height, width)
    except (ValueError, KeyError, TypeError) as error:
        raise _wrong(annotation, error) from error


def decode(annotation: dict, height: int, width: int) -> np.ndarray:
    """bool (height, width) of an annotation, all False if it is empty; errors of :func:`encode`."""
    return decoded(encode(annotation, height, width), height, width)


def _wrong(annotation: dict, error: Exception) -> ValueError:
    name = annotation.get('name') or f'annotation {annotation.get("id")}'
    return ValueError(
        f'segmentation of {name} is wrong: {error}; download or export the annotations again'
    )


def paint(
    annotations: Sequence[dict], labels: Mapping[int, int], height: int, width: int
) -> tuple[np.ndarray, int]:
    """The label map of an image: crowds as 255, on them the instances from large to small.

    Of instances of equal area the later id is on top.

    Args:
        annotations: Those of the image.
        labels: ``{category id: label}``.
        height, width: Of the image.

    Returns:
        uint8 (height, width), and how many annotations cover no pixel.

    Raises:
        ValueError: As for :func:`encode`.
    """
    from pycocotools import mask as coder

    parts = []
    for annotation in annotations:
        code = encode(annotation, height, width)
        if code is not None:
            crowd = bool(annotation.get('iscrowd', 0))
            value = CROWD if crowd else labels[annotation['category_id']]
            rank = not crowd, -int(coder.area(code)), annotation['id']
            parts.append((rank, value, code))
    # codes run down the columns, and so do the pixels in memory
    mask = np.zeros((height, width), np.uint8, order='F')
    for _, value, code in sorted(parts, key=lambda part: part[0]):
        np.copyto(mask, value, where=decoded(code, height, width))
    return np.ascontiguousarray(mask), len(annotations) - len(parts)
