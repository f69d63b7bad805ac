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

from mmfss.arguments import integer
from mmfss.datasets.classes import SHAPES_CLASSES
from mmfss.datasets.folds import SHAPES_MIN_AREA
from mmfss.datasets.io import read_mask, save_png
from mmfss.datasets.shapes_scenes import SPLITS, render_sample
from mmfss.files import write_text

MANIFEST = 'shapes5i.json'
MARKER = 'shapes5i.partial'
_VERSION = 1
_FOLDERS = 'JPEGImages', 'SegmentationClassAug', 'ImageSets/Segmentation'


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
            integer(f'{name} of Shapes-5i', getattr(self, name), low, high)

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


def _expected_files(out: Path, spec: ShapesSpec) -> set[Path]:
    images, labels, lists = (out / folder for folder in _FOLDERS)
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
    if out.exists() and not out.is_dir():
        raise ValueError(f'{out} is a file; Shapes-5i needs a directory: choose another path')
    ours = any((out / name).exists() for name in (MANIFEST, MARKER))
    if not ours and out.is_dir() and any(out.iterdir()):
        raise ValueError(
            f'{out} is not empty and holds no generated Shapes-5i (no {MANIFEST}); nothing was '
            'written: choose an empty or new directory'
        )
    images, labels, lists = (out / folder for folder in _FOLDERS)
    for folder in (images, labels, lists):
        folder.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()
    (out / MANIFEST).unlink(missing_ok=True)
    for split in SPLITS:
        for index, name in enumerate(spec.ids(split)):
            image, label = render_sample(spec.seed, split, index, spec.image_size)
            save_png(images / f'{name}.png', image[..., ::-1])
            save_png(labels / f'{name}.png', label)
        write_text(lists / f'{split}.txt', ''.join(f'{name}\n' for name in spec.ids(split)))
    keep = _expected_files(out, spec)  # an earlier spec, or an interrupted run, left others
    for folder in (images, labels, lists):
        for path in folder.iterdir():
            if path.is_file() and path not in keep:
                path.unlink()
    write_text(out / MANIFEST, json.dumps(spec.manifest(), indent=2) + '\n')
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


def fold_counts(out_dir: str | Path, split: str, novel: tuple[int, ...]) -> FoldCounts:
    """Count the images of a generated split for the novel classes (1..20) of a fold.

    Raises:
        FileNotFoundError: A label is missing or broken.
    """
    _, labels, lists = (Path(out_dir) / folder for folder in _FOLDERS)
    rows = []
    for name in (lists / f'{split}.txt').read_text().split():
        try:
            label = read_mask(labels / f'{name}.png')
        except (FileNotFoundError, ValueError) as error:
            raise FileNotFoundError(
                f'{labels / name}.png is missing or broken; delete '
                f'{Path(out_dir) / MANIFEST} and generate again'
            ) from error
        rows.append(np.bincount(label.ravel(), minlength=256)[1 : 1 + len(SHAPES_CLASSES)])
    areas = np.stack(rows)  # (images, 20)
    held_out = np.isin(np.arange(1, len(SHAPES_CLASSES) + 1), novel)
    enough = areas >= SHAPES_MIN_AREA
    without = ~areas[:, held_out].any(axis=1)
    return FoldCounts(
        without=int(without.sum()),
        qualifying=int(enough[:, held_out].any(axis=1).sum()),
        fewest_base=int(enough[without][:, ~held_out].sum(axis=0).min()),
        fewest_novel=int(enough[:, held_out].sum(axis=0).min()),
    )
