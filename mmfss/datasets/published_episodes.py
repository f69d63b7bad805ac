"""Episodes that others fixed, read from their files.

FS-SAM2's test episodes as ``.npz``: for each fold F and K the arrays ``NAME.foldF.Kshot.query``
(N,), ``.class`` (N,) and ``.support`` (N, K), NAME being ``pascal`` or ``coco``. Classes are label
values. Images of PASCAL are positions in VOC 2012's list ``val`` in alphabetical order, those of
COCO are image ids of ``val2014``.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np

from mmfss.datasets.class_index import ClassIndex
from mmfss.datasets.folds import FoldSplit
from mmfss.datasets.sampling import Episode

_NAMES = {'pascal-5i': 'pascal', 'coco-20i': 'coco'}
_VAL_IMAGES = 1449  # of VOC 2012


def read_episodes(
    path: str | os.PathLike, split: FoldSplit, shots: int, index: ClassIndex
) -> list[Episode]:
    """The episodes of a fold and K.

    Args:
        path: File as above.
        split: The fold.
        shots: K.
        index: That of the test data, whose ids are the names of images.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is damaged or has nothing of this fold and K; images that the data lack, or
            that do not show the class.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'file of episodes not found: {path}')
    if split.benchmark not in _NAMES:
        raise ValueError(
            f'files of episodes are of {", ".join(_NAMES)}, the config is of {split.benchmark}'
        )
    start = f'{_NAMES[split.benchmark]}.fold{split.fold}.{shots}shot.'
    try:
        with np.load(path) as content:
            names = list(content)
            arrays = {part: content[start + part] for part in ('query', 'class', 'support')}
    except KeyError:
        raise ValueError(
            f'{path} has no {start}query, .class and .support; it has {", ".join(sorted(names))}'
        ) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f'{path} is damaged or no .npz file of arrays: {error}') from error
    queries, classes, supports = arrays['query'], arrays['class'], arrays['support']
    shapes = [array.shape for array in (queries, classes, supports)]
    if queries.ndim != 1 or shapes != [queries.shape, queries.shape, (len(queries), shots)]:
        raise ValueError(
            f'{path}: {start}query, .class and .support must be (N,), (N,) and (N, {shots}), got '
            f'{", ".join(map(str, shapes))}'
        )
    image_of = _images(split.benchmark, index)
    episodes = []
    rows = np.column_stack([classes, queries, supports]).tolist()
    for i, (class_id, *numbers) in enumerate(rows):
        images = [image_of.get(number, '') for number in numbers]
        shown = [class_id in index.areas.get(image, ()) for image in images]
        wrong = [number for number, good in zip(numbers, shown) if not good]
        if wrong or class_id not in split.novel or len(set(images)) < len(images):
            raise ValueError(
                f'{path}: episode {i} of {start} is of class {class_id} and images {numbers}; the '
                f'fold has the classes {list(split.novel)}, and images {wrong} are not there or do '
                'not show the class. Use the images and labels of the published lists'
            )
        episodes.append(Episode(i, class_id, images[0], tuple(images[1:])))
    return episodes


def _images(benchmark: str, index: ClassIndex) -> dict[int, str]:
    """Number in the file -> image id here."""
    if benchmark == 'coco-20i':  # COCO_val2014_000000000042
        return {int(image.rpartition('_')[2]): image for image in index.areas}
    if len(index) != _VAL_IMAGES:
        raise ValueError(
            f'images of these episodes are positions in the {_VAL_IMAGES} of VOC 2012 val, and the '
            f'data of the config have {len(index)}; use ImageSets/Segmentation/val.txt as it is'
        )
    return dict(enumerate(sorted(index.areas)))
