"""Shapes-5i: a generated few-shot segmentation benchmark, 20 classes in 4 folds of 5.

A class is a form (star, key, ...) filled with a texture (stripes, dots, ...) that it shares with
one class of another fold. Colours are drawn anew for every instance, from one distribution, so
neither colour nor texture names a class. A scene holds 1 to 4 objects of 1 to 3 classes, and
often a textured blob of no class, which may hide a part of them, on a textured background with
uneven light, noise and sometimes blur.

Picture i of a split depends on ``(seed, split, i)`` alone. The layout is drawn in relative
coordinates and does not depend on the image size. Random numbers are PCG64 doubles only, and
arithmetic is exact to the bit (see ``shapes_drawing.py``), so other versions of numpy or OpenCV
make the same pixels. Written in the layout of VOC::

    OUT/JPEGImages/<id>.png               colour
    OUT/SegmentationClassAug/<id>.png     8 bit: 0 background, 1..20 classes, 255 ignore
    OUT/ImageSets/Segmentation/{train,val}.txt
    OUT/shapes5i.json                     what was made; written last
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mmfss.datasets.shapes_scenes import SPLITS, render_sample
from mmfss.files import atomic

SHAPES_CLASSES = (
    'star', 'ring', 'cross', 'crescent', 'heart',
    'gear', 'arrow', 'triangle', 'drop', 'flower',
    'bolt', 'key', 'horseshoe', 'fish', 'hourglass',
    'comb', 'mushroom', 'tree', 'pinwheel', 'ell',
)  # yapf: disable
SHAPES_MIN_AREA = 128
"""A class qualifies in an image from this many pixels on: 2048 px at 512 px, scaled to 128 px."""

MANIFEST = 'shapes5i.json'
MARKER = 'shapes5i.partial'
_VERSION = 1
_IMAGES, _LABELS, _LISTS = 'JPEGImages', 'SegmentationClassAug', 'ImageSets/Segmentation'


@dataclass(frozen=True)
class ShapesSpec:
    """What to generate; equal specs give equal pixels.

    Args:
        seed: any integer >= 0.
        train, val: number of images of each split, >= 1.
        image_size: side in pixels, 32..1024.
    """

    seed: int = 0
    train: int = 420
    val: int = 200
    image_size: int = 128

    def __post_init__(self) -> None:
        limits = dict(seed=(0, 2**32 - 1), train=(1, 99999), val=(1, 99999), image_size=(32, 1024))
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ValueError(
                    f'{name} of Shapes-5i must be an integer from {low} to {high}, got {value!r}'
                )

    def ids(self, split: str) -> list[str]:
        """Names of a split's images, in order."""
        return [f'{split}_{i:05d}' for i in range(getattr(self, split))]

    def manifest(self) -> dict:
        """The content of ``shapes5i.json``."""
        return dict(
            name='Shapes-5i',
            version=_VERSION,
            **asdict(self),
            min_area=SHAPES_MIN_AREA,
            classes=list(SHAPES_CLASSES),
        )


def _write(path: Path, content: bytes) -> None:
    with atomic(path) as part:
        part.write_bytes(content)


def _write_png(path: Path, picture: np.ndarray) -> None:
    import cv2  # when it is needed: folds of all benchmarks are read without it

    done, content = cv2.imencode('.png', picture)
    if not done:
        raise OSError(f'OpenCV could not encode {path}')
    _write(path, content.tobytes())


def _folders(out: Path) -> tuple[Path, Path, Path]:
    return out / _IMAGES, out / _LABELS, out / _LISTS


def _expected_files(out: Path, spec: ShapesSpec) -> set[Path]:
    images, labels, lists = _folders(out)
    files = {lists / f'{split}.txt' for split in SPLITS}
    for split in SPLITS:
        for name in spec.ids(split):
            files |= {images / f'{name}.png', labels / f'{name}.png'}
    return files


def is_complete(out_dir: str | Path, spec: ShapesSpec) -> bool:
    """Whether a directory holds exactly what the spec asks for (by manifest and file names)."""
    out = Path(out_dir)
    try:
        found = json.loads((out / MANIFEST).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    return found == spec.manifest() and all(f.is_file() for f in _expected_files(out, spec))


def _check_ours(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f'{out} is a file; Shapes-5i needs a directory: choose another path')
    ours = any((out / name).exists() for name in (MANIFEST, MARKER))
    if not ours and out.is_dir() and any(out.iterdir()):
        raise ValueError(
            f'{out} is not empty and holds no generated Shapes-5i (no {MANIFEST}); nothing was '
            'written: choose an empty or new directory'
        )


def _remove_others(out: Path, spec: ShapesSpec) -> None:
    """Remove what an earlier spec, or an interrupted run, left in our folders."""
    keep = _expected_files(out, spec)
    for folder in _folders(out):
        for path in folder.iterdir():
            if path.is_file() and path not in keep:
                path.unlink()


def write_shapes(out_dir: str | Path, spec: ShapesSpec | None = None) -> bool:
    """Generate the benchmark; nothing is done where it is complete already.

    An interrupted run leaves no manifest, and the next one starts anew. A directory made from
    another spec is made over.

    Returns:
        Whether anything was generated.

    Raises:
        ValueError: where the path is a file, or is a directory with files of something else.
    """
    out, spec = Path(out_dir), spec or ShapesSpec()
    if is_complete(out, spec):
        return False
    _check_ours(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()
    (out / MANIFEST).unlink(missing_ok=True)
    images, labels, lists = _folders(out)
    for folder in (images, labels, lists):
        folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        for index, name in enumerate(spec.ids(split)):
            image, label = render_sample(spec.seed, split, index, spec.image_size)
            _write_png(images / f'{name}.png', image)
            _write_png(labels / f'{name}.png', label)
        _write(lists / f'{split}.txt', ''.join(f'{n}\n' for n in spec.ids(split)).encode())
    _remove_others(out, spec)
    _write(out / MANIFEST, (json.dumps(spec.manifest(), indent=2) + '\n').encode())
    (out / MARKER).unlink(missing_ok=True)
    return True


@dataclass(frozen=True)
class FoldCounts:
    """Images of one split as a fold sees them.

    ``without``: show no pixel of a novel class (what training may use); ``qualifying``: have a
    novel class at the minimum area; ``fewest_base``, ``fewest_novel``: the least number of images
    that a base class (among ``without``) and a novel class qualify in.
    """

    without: int
    qualifying: int
    fewest_base: int
    fewest_novel: int


def class_areas(out_dir: str | Path, split: str) -> np.ndarray:
    """Pixels of each class in each image of a generated split: int64 (images, 20)."""
    import cv2

    _, labels, lists = _folders(Path(out_dir))
    names = (lists / f'{split}.txt').read_text().split()
    areas = np.zeros((len(names), len(SHAPES_CLASSES)), dtype=np.int64)
    for row, name in zip(areas, names):
        label = cv2.imread(str(labels / f'{name}.png'), cv2.IMREAD_UNCHANGED)
        if label is None:
            raise FileNotFoundError(
                f'{labels / name}.png is missing or broken; delete '
                f'{Path(out_dir) / MANIFEST} and generate again'
            )
        row[:] = np.bincount(label.ravel(), minlength=256)[1 : 1 + len(SHAPES_CLASSES)]
    return areas


def fold_counts(out_dir: str | Path, split: str, novel: tuple[int, ...]) -> FoldCounts:
    """Count the images of a generated split for the novel classes (1..20) of a fold."""
    areas = class_areas(out_dir, split)
    held_out = np.isin(np.arange(1, len(SHAPES_CLASSES) + 1), novel)
    enough = areas >= SHAPES_MIN_AREA
    without = ~areas[:, held_out].any(axis=1)
    return FoldCounts(
        without=int(without.sum()),
        qualifying=int(enough[:, held_out].any(axis=1).sum()),
        fewest_base=int(enough[without][:, ~held_out].sum(axis=0).min()),
        fewest_novel=int(enough[:, held_out].sum(axis=0).min()),
    )
