"""Which images make up episode i: a function of (seed, i) alone. No file is opened here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from mmfss.datasets.class_index import ClassIndex
from mmfss.datasets.folds import FoldSplit

# Streams of random numbers under one seed; 3 is that of the augmentation (episode_loading.py).
_ORDER, _DRAW, _CLASS_ORDER, _IMAGE_ORDER = 1, 2, 4, 5


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
        images_of: For each class the ids of its query images, in list order; a class that no
            image qualifies for has an empty tuple.
        supports_of: For each class the ids of its support images, in list order.
        shown_in: For each query image those of the classes that it shows, be it a single pixel.
    """

    images: tuple[str, ...]
    classes_of: dict[str, tuple[int, ...]]
    images_of: dict[int, tuple[str, ...]]
    supports_of: dict[int, tuple[str, ...]]
    shown_in: dict[str, tuple[int, ...]]

    @cached_property
    def position(self) -> dict[int, dict[str, int]]:
        """Position of each support image in its class's list."""
        return {
            c: {image: i for i, image in enumerate(images)}
            for c, images in self.supports_of.items()
        }

    @cached_property
    def classes(self) -> tuple[int, ...]:
        """The classes that have a query image, ascending."""
        return tuple(c for c, images in sorted(self.images_of.items()) if images)

    def scarce(self, shots: int) -> dict[int, int]:
        """Number of support images of the classes that have a query, but not K + 1 supports."""
        counts = {c: len(self.supports_of[c]) for c in self.classes}
        return {c: count for c, count in counts.items() if count <= shots}


def build_pool(
    index: ClassIndex,
    classes: Iterable[int],
    min_area: int,
    excluded: Iterable[int] = (),
    support_min_area: int | None = None,
) -> EpisodePool:
    """Images with a qualifying class.

    Args:
        index: Pixels per class and image.
        classes: Class ids that episodes may be about.
        min_area: Pixels from which on a class counts in a query image.
        excluded: Class ids of which no image may hold a single pixel.
        support_min_area: The same for support images; None takes ``min_area``.
    """
    wanted, banned = sorted(set(classes)), set(excluded)
    needed = min_area if support_min_area is None else support_min_area
    classes_of: dict[str, tuple[int, ...]] = {}
    shown_in: dict[str, tuple[int, ...]] = {}
    images_of: dict[int, list[str]] = {c: [] for c in wanted}
    supports_of: dict[int, list[str]] = {c: [] for c in wanted}
    for image, areas in index.areas.items():
        if not banned.isdisjoint(areas):
            continue
        found = [c for c in wanted if c in areas] if len(wanted) < len(areas) else sorted(areas)
        for c in found:
            if c in supports_of and areas[c] >= needed:
                supports_of[c].append(image)
        qualifying = tuple(c for c in found if c in images_of and areas[c] >= min_area)
        if qualifying:
            classes_of[image] = qualifying
            shown_in[image] = tuple(c for c in found if c in images_of)
            for c in qualifying:
                images_of[c].append(image)
    return EpisodePool(
        tuple(classes_of),
        classes_of,
        {c: tuple(images) for c, images in images_of.items()},
        {c: tuple(images) for c, images in supports_of.items()},
        shown_in,
    )


def check_pool(
    pool: EpisodePool, split: FoldSplit, role: str, shots: int, min_area: int, source: str
) -> None:
    """Refuse a pool that cannot give K-shot episodes.

    Raises:
        ValueError: No image qualifies, or a class has 1..K support images where K + 1 are
            needed. Classes without any image are not drawn and pass.
    """
    area = f'at least {min_area} pixels in {source}'
    if not pool.images:
        raise ValueError(
            f'no image has {area} of a {role} class of {split.benchmark} fold {split.fold} '
            f'({", ".join(split.names(role))}); choose another fold or '
            'list, lower min_area, or set exclude_novel_images=False if all images were left '
            'out for pixels of novel classes'
        )
    scarce = {split.name(c): count for c, count in pool.scarce(shots).items()}
    if scarce:
        counts = ', '.join(f'{name}: {count}' for name, count in scarce.items())
        raise ValueError(
            f'{shots}-shot episodes need {shots + 1} images of a class with {area}; too few '
            f'of {counts}. Add images, lower shots or min_area, or leave these classes out '
            "with scarce_classes='drop'"
        )


class EpisodeDraw:
    """Draws episode i from a pool; subclasses choose its query and class.

    The supports are uniform among the other support images of the class, without repetition.

    Args:
        pool: What to draw from; every class with a query in it has K + 1 supports.
        shots: K.
        seed: Any integer >= 0.
        shuffle: Random order of queries instead of list order, where the sampler walks a list.
    """

    def __init__(self, pool: EpisodePool, shots: int, seed: int, shuffle: bool) -> None:
        self.pool, self.shots, self.seed, self.shuffle = pool, shots, seed, shuffle

    def __call__(self, index: int) -> Episode:
        """Episode ``index`` >= 0."""
        draws = self.random_numbers(index)
        query, class_id = self.choose(index, draws)
        others = self.pool.supports_of[class_id]
        own = self.pool.position[class_id].get(query, len(others))
        room = len(others) - (own < len(others))
        chosen = draws.choice(room, size=self.shots, replace=False)
        supports = tuple(others[int(i) + (i >= own)] for i in chosen)
        return Episode(index, class_id, query, supports)

    def random_numbers(self, index: int) -> np.random.Generator:
        """What draws episode ``index``."""
        return np.random.default_rng([self.seed, _DRAW, index])

    def choose(self, index: int, draws: np.random.Generator) -> tuple[str, int]:
        """Query image and class of episode ``index``."""
        raise NotImplementedError


class ImageListSampler(EpisodeDraw):
    """'image_list': walks the image list; the class is uniform among those the image holds.

    Episode i takes image ``i % N`` of pass ``i // N``; every pass is in a new random order
    when ``shuffle`` is set, else in list order. As in FSSAM, HMNet, BAM.
    """

    def __init__(self, pool: EpisodePool, shots: int, seed: int, shuffle: bool) -> None:
        super().__init__(pool, shots, seed, shuffle)
        self._order = (-1, np.empty(0, np.int64))  # the last pass asked for

    def choose(self, index: int, draws: np.random.Generator) -> tuple[str, int]:
        """Query image and class of episode ``index``."""
        sweep, place = divmod(index, len(self.pool.images))
        if self.shuffle:
            if self._order[0] != sweep:
                order = np.random.default_rng([self.seed, _ORDER, sweep])
                self._order = (sweep, order.permutation(len(self.pool.images)))
            place = int(self._order[1][place])
        query = self.pool.images[place]
        classes = self.pool.classes_of[query]
        return query, classes[int(draws.integers(len(classes)))]


class UniformClassSampler(EpisodeDraw):
    """'uniform_class': the class is uniform among those with images, then the image among its.

    As HSNet, SANSA, Matcher and GF-SAM draw COCO-20i; unlike there, supports never repeat.
    """

    def choose(self, index: int, draws: np.random.Generator) -> tuple[str, int]:
        """Query image and class of episode ``index``."""
        class_id = self.pool.classes[int(draws.integers(len(self.pool.classes)))]
        images = self.pool.images_of[class_id]
        return images[int(draws.integers(len(images)))], class_id


class BalancedSampler(EpisodeDraw):
    """'balanced': every class has its share, every image of a class comes before one repeats.

    Any C successive episodes i C .. (i + 1) C - 1 are about the C classes once each, in a random
    order; the queries of a class are its images in a random order, a new one each pass.
    """

    def choose(self, index: int, draws: np.random.Generator) -> tuple[str, int]:
        """Query image and class of episode ``index``."""
        turn, place = divmod(index, len(self.pool.classes))
        order = permutation(len(self.pool.classes), self.seed, _CLASS_ORDER, turn)
        class_id = self.pool.classes[int(order[place])]
        images = self.pool.images_of[class_id]
        sweep, place = divmod(turn, len(images))
        order = permutation(len(images), self.seed, _IMAGE_ORDER, class_id, sweep)
        return images[int(order[place])], class_id


class FSSAM2Sampler(EpisodeDraw):
    """'fs_sam2': the very episodes of FS-SAM2's test on PASCAL-5i, with seed 42.

    Episode i takes image ``i % N`` of the list, and a class that is uniform among those that the
    image shows, be it with a single pixel. Its validation has the same episodes.
    """

    def random_numbers(self, index: int) -> np.random.Generator:
        """As published: (seed, index, epoch + 1), and a test has epoch -1."""
        return np.random.default_rng((self.seed, index, 0))

    def choose(self, index: int, draws: np.random.Generator) -> tuple[str, int]:
        """Query image and class of episode ``index``."""
        query = self.pool.images[index % len(self.pool.images)]
        classes = [c for c in self.pool.shown_in[query] if self.pool.images_of[c]]
        return query, classes[int(draws.integers(len(classes)))]


class FSSAM2ClassSampler(FSSAM2Sampler):
    """'fs_sam2_by_class': the same for COCO-20i: the class is uniform, then the image among its."""

    def choose(self, index: int, draws: np.random.Generator) -> tuple[str, int]:
        """Query image and class of episode ``index``."""
        class_id = self.pool.classes[int(draws.integers(len(self.pool.classes)))]
        images = self.pool.images_of[class_id]
        return images[int(draws.integers(len(images)))], class_id


@lru_cache(maxsize=2048)
def permutation(size: int, *key: int) -> np.ndarray:
    """A random order of 0..size - 1, the same for the same key."""
    return np.random.default_rng(key).permutation(size)


SAMPLERS: dict[str, type[EpisodeDraw]] = {
    'image_list': ImageListSampler,
    'uniform_class': UniformClassSampler,
    'balanced': BalancedSampler,
    'fs_sam2': FSSAM2Sampler,
    'fs_sam2_by_class': FSSAM2ClassSampler,
}
"""How queries and classes are drawn, by name."""


def drop_scarce(pool: EpisodePool, shots: int) -> Sequence[int]:
    """The classes that have a query and at least K + 1 supports."""
    scarce = pool.scarce(shots)
    return [c for c in pool.classes if c not in scarce]
