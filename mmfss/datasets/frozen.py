"""Episodes frozen to a file, to be replayed on the same data anywhere."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from mmfss.datasets.class_index import ClassIndex
from mmfss.datasets.folds import FoldSplit
from mmfss.datasets.sampling import Episode
from mmfss.files import write_text

FORMAT = 1
_OF_THE_DRAW = ('query_min_area', 'support_min_area', 'exclude_novel_images', 'scarce_classes')


def frozen_path(pattern: str | os.PathLike, **values: int) -> str:
    """A file name with ``{fold}``, ``{shots}`` and ``{seed}`` filled in, other braces left."""
    path = str(pattern)
    for name, value in values.items():
        path = path.replace(f'{{{name}}}', str(value))
    return path


def data_digest(index: ClassIndex) -> str:
    """Hash of image ids and class areas: equal on every machine that has the same masks."""
    digest = hashlib.sha256()
    for image, areas in sorted(index.areas.items()):
        digest.update(f'{image}\t{sorted(areas.items())}\n'.encode())
    return digest.hexdigest()


def freeze(
    path: str | os.PathLike,
    episodes: Sequence[Episode],
    split: FoldSplit,
    role: str,
    protocol: dict,
    index: ClassIndex,
) -> None:
    """Write episodes to a JSON file.

    Args:
        path: The file.
        episodes: Episodes 0, 1, 2, ...
        split, role: Fold, and which of its classes they are about.
        protocol: How they were drawn: plain values, for the record.
        index: That of the data; its digest goes into the file.
    """
    content = dict(
        format=FORMAT,
        benchmark=split.benchmark,
        fold=split.fold,
        role=role,
        classes=list(split.names(role)),
        shots=len(episodes[0].supports),
        protocol=protocol,
        data=data_digest(index),
        episodes=[[e.class_id, e.query, *e.supports] for e in episodes],
    )
    write_text(path, json.dumps(content).replace('], [', '],\n[') + '\n')


class FrozenEpisodes:
    """Replays the episodes of a file.

    Args:
        path: File of :func:`freeze`.
        split, role, shots: What the dataset is configured for.
        index: That of the data.

    Attributes:
        protocol: How they were drawn, as far as the file says, in place of what the dataset would
            have done; with a hash of the episodes.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is damaged, is of another fold, role or K, or of other data.
    """

    def __init__(
        self, path: str | os.PathLike, split: FoldSplit, role: str, shots: int, index: ClassIndex
    ) -> None:
        content = _read(path)
        expected = dict(
            format=FORMAT,
            benchmark=split.benchmark,
            fold=split.fold,
            role=role,
            classes=list(split.names(role)),
            shots=shots,
        )
        wrong = {key: content.get(key) for key, value in expected.items() if content[key] != value}
        if wrong:
            wanted = {key: expected[key] for key in wrong}
            raise ValueError(
                f'episodes file {path} is of {wrong}, the dataset is of {wanted}; use a file that '
                'was frozen for it, or change the config'
            )
        if content['data'] != data_digest(index):
            raise ValueError(
                f'episodes file {path} was frozen on other data: its images or masks are not those '
                f'of the {len(index)} images here. Restore the data, or freeze episodes anew with '
                'tools/freeze_episodes.py'
            )
        self._rows = content['episodes']
        _check_rows(path, self._rows, split.ids(role), shots, index)
        drawn = content.get('protocol')
        drawn = drawn if isinstance(drawn, dict) else {}
        self.protocol = dict(
            seed=None,
            sampler='frozen',
            order=None,
            frozen_from={key: drawn.get(key) for key in ('sampler', 'order', 'seed')},
            episodes_digest=hashlib.sha256(json.dumps(self._rows).encode()).hexdigest(),
            **{key: drawn.get(key) for key in _OF_THE_DRAW},
        )

    def __len__(self) -> int:
        return len(self._rows)

    def __call__(self, index: int) -> Episode:
        """Episode ``index`` in 0..len - 1."""
        class_id, query, *supports = self._rows[index]
        return Episode(index, class_id, query, tuple(supports))


def _read(path: str | os.PathLike) -> dict:
    if not Path(path).is_file():
        raise FileNotFoundError(
            f'episodes file not found: {path}; make it with tools/freeze_episodes.py'
        )
    try:
        content = json.loads(Path(path).read_text(encoding='utf-8'))
        for key in ('format', 'benchmark', 'fold', 'role', 'classes', 'shots', 'data', 'episodes'):
            content[key]
        return content
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'episodes file {path} is cut off or damaged ({error!r}); copy it again'
        ) from error


def _check_rows(
    path: str | os.PathLike, rows: list, classes: Sequence[int], shots: int, index: ClassIndex
) -> None:
    """Refuse rows that no sampler gives."""
    if not rows:
        raise ValueError(f'episodes file {path} has no episodes')
    for number, row in enumerate(rows):
        class_id, *images = row
        good = (
            class_id in classes
            and len(set(images)) == shots + 1
            and all(class_id in index.areas.get(image, ()) for image in images)
        )
        if not good:
            raise ValueError(
                f'episodes file {path}: episode {number} is {row}; expected a class of the fold, '
                f'and a query and {shots} supports, different images that show the class'
            )
