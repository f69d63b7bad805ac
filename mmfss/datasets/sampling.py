"""Which images make up episode i: a function of (seed, i) alone. No file is opened here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mmfss.datasets.class_index import ClassIndex
from mmfss.datasets.folds import FoldSplit

_ORDER, _DRAW = 1, 2  # streams of random numbers under one seed


@dataclass(frozen=True)
class Episode:
    """One episode: segment ``class_id`` in ``query`` given ``supports``.

    Args:
        index: Number i of the episode.
        class_id: Label value of its class.
        query: Image id.
        supports: K distinct image ids, none of them the query.
    """

    index: int
    class_id: int
    query: str
    supports: tuple[str, ...]


@dataclass(frozen=True)
class EpisodePool:
    """What episodes can be drawn from.

    Args:
        images: Ids of query images, in the order of the image list.
        classes_of: For each of them its qualifying classes, ascending and never empty.
        images_of: For each class the ids of the images that qualify for it, in list order;
            a class that no image qualifies for has an empty tuple.
    """

    images: tuple[str, ...]
    classes_of: dict[str, tuple[int, ...]]
    images_of: dict[int, tuple[str, ...]]

    @cached_property
    def position(self) -> dict[int, dict[str, int]]:
        """Position of each image in its class's list."""
        return {
            c: {image: i for i, image in enumerate(images)} for c, images in self.images_of.items()
        }


def build_pool(
    index: ClassIndex, classes: Iterable[int], min_area: int, excluded: Iterable[int] = ()
) -> EpisodePool:
    """Images with a qualifying class.

    Args:
        index: Pixels per class and image.
        classes: Class ids that episodes may be about.
        min_area: Pixels from which on a class counts in an image.
        excluded: Class ids of which no image may hold a single pixel.
    """
    wanted, banned = set(classes), set(excluded)
    classes_of: dict[str, tuple[int, ...]] = {}
    for image, areas in index.areas.items():
        if banned.isdisjoint(areas):
            found = tuple(c for c in index.classes(image, min_area) if c in wanted)
            if found:
                classes_of[image] = found
    images_of: dict[int, list[str]] = {c: [] for c in sorted(wanted)}
    for image, found in classes_of.items():
        for class_id in found:
            images_of[class_id].append(image)
    return EpisodePool(
        tuple(classes_of), classes_of, {c: tuple(images) for c, images in images_of.items()}
    )


def check_pool(
    pool: EpisodePool, split: FoldSplit, role: str, shots: int, min_area: int, source: str
) -> None:
    """Refuse a pool that cannot give K-shot episodes.

    Raises:
        ValueError: No image qualifies, or a class has 1..K images where K + 1 are needed.
            Classes without any image are not drawn and pass.
    """
    area = f'at least {min_area} pixels in {source}'
    if not pool.images:
        raise ValueError(
            f'no image has {area} of a {role} class of {split.benchmark} fold {split.fold} '
            f'({", ".join(split.name(c) for c in split.ids(role))}); choose another fold or '
            'list, lower min_area, or set exclude_novel_images=False if all images were left '
            'out for pixels of novel classes'
        )
    scarce = {
        split.name(c): len(images)
        for c, images in pool.images_of.items()
        if 0 < len(images) <= shots
    }
    if scarce:
        counts = ', '.join(f'{name}: {count}' for name, count in scarce.items())
        raise ValueError(
            f'{shots}-shot episodes need {shots + 1} images of a class with {area}; too few '
            f'of {counts}. Add images, lower shots or min_area, or leave these classes out '
            "with scarce_classes='drop'"
        )


def drop_scarce(
    index: ClassIndex, classes: Sequence[int], min_area: int, excluded: Sequence[int], shots: int
) -> EpisodePool:
    """The pool of the classes that have at least K + 1 images."""
    pool = build_pool(index, classes, min_area, excluded)
    kept = [c for c, images in pool.images_of.items() if len(images) > shots]
    return build_pool(index, kept, min_area, excluded)


class ImageListSampler:
    """Walks the image list: image, then a class present in it, then other images of the class.

    Episode i takes image ``i % N`` of pass ``i // N``; every pass is in a new random order
    when ``shuffle`` is set, else in list order. The class is uniform among the image's
    qualifying classes, the supports are uniform among the other qualifying images, without
    repetition.

    Args:
        pool: What to draw from; every class in it has K + 1 images or none.
        shots: K.
        seed: Any integer >= 0.
        shuffle: Random order of queries instead of list order.
    """

    def __init__(self, pool: EpisodePool, shots: int, seed: int, shuffle: bool) -> None:
        self.pool, self.shots, self.seed, self.shuffle = pool, shots, seed, shuffle
        self._order = (-1, np.empty(0, np.int64))  # the last pass asked for

    def __call__(self, index: int) -> Episode:
        """Episode ``index`` >= 0."""
        sweep, place = divmod(index, len(self.pool.images))
        query = self.pool.images[self._place(sweep, place)]
        draws = np.random.default_rng([self.seed, _DRAW, index])
        classes = self.pool.classes_of[query]
        class_id = classes[int(draws.integers(len(classes)))]
        others = self.pool.images_of[class_id]
        chosen = draws.choice(len(others) - 1, size=self.shots, replace=False)
        own = self.pool.position[class_id][query]
        supports = tuple(others[int(i) + (i >= own)] for i in chosen)
        return Episode(index, class_id, query, supports)

    def _place(self, sweep: int, place: int) -> int:
        if not self.shuffle:
            return place
        if self._order[0] != sweep:
            order = np.random.default_rng([self.seed, _ORDER, sweep])
            self._order = (sweep, order.permutation(len(self.pool.images)))
        return int(self._order[1][place])
