"""Label photos with a folder that ``mmfss export`` wrote: numpy, Pillow and one runtime, no torch.

    python OUT/runner.py PHOTOS LABELS                      # classes that are baked in
    python OUT/runner.py PHOTOS LABELS --support SUPPORT    # else SUPPORT/<class>/x.jpg + x.png

This file is copied into each exported folder and needs nothing else of mmfss: hence one file. It
reads photos as ``mmfss label`` reads those of 8 bits per channel, and decides pixels as it does.

    LABELS/ann_dir/<name>.png  palette PNG of 0 (background) and 1..N, as large as the upright photo
    LABELS/classes.csv         label, name and colour of each class
    LABELS/scores.csv          of each photo and class its object score, whether it is there, its
                               share of the pixels
    LABELS/failed.csv          photos that could not be labelled, and why

Exit status: 0 all photos are labelled, 1 some failed, 2 wrong arguments or input, or LABELS cannot
be written.

Shapes: N classes, K supports of each, S side of the model's images, (H, W) size of a photo.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

MANIFEST = 'manifest.json'
FORMAT, VERSION = 'mmfss-export', 1
SUFFIXES = (
    '.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.jp2', '.avif', '.ppm', '.pgm',
    '.gif', '.heic', '.heif',
)  # fmt: skip
"""Endings of what is taken for a photo; those that are not read are refused one by one."""
READ = ('JPEG', 'MPO', 'PNG', 'BMP', 'WEBP', 'GIF')
"""Forms that Pillow gives just as they are stored; in others mmfss looks closer than this file."""
UNKNOWN = 255
"""Of the mask of a support: where nobody knows."""
MAX_CLASSES = 254
FORMULA = ('=', '+', '-', '@', '\t', '\r', "'")
"""How texts begin that a spreadsheet would run, or take the apostrophe of."""
STRIP = 256  # rows of a photo that are decided at a time
_AWAY = np.float32(-1e-30)  # the background's value, see :func:`decide`
_BELOW_ZERO = np.float32(-1e-45)


# ------------------------------------------------------------------------------- exported folder
def read_manifest(folder: str | os.PathLike) -> dict[str, Any]:
    """What an exported folder says of itself, once all its files are found to be whole.

    Raises:
        FileNotFoundError, ValueError: no exported folder, one of another version, a file that is
            missing or is not the one that was exported.
    """
    root = Path(folder)
    path = root / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f'{root} is no folder of mmfss export: it has no {MANIFEST}')
    try:
        manifest = json.loads(path.read_text(encoding='utf-8'))
        found = (manifest['format'], manifest['format_version'])
        files = {name: about['sha256'] for name, about in manifest['files'].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{path} is damaged ({error!r}); export anew') from error
    if found != (FORMAT, VERSION):
        raise ValueError(
            f'{path} is of format {found[0]} {found[1]}, this runner reads {FORMAT} {VERSION}; '
            'take the runner.py of that folder'
        )
    if manifest.get('sha256') != sha256_of_manifest(manifest):
        raise ValueError(
            f'{path} is not as it was exported (its SHA-256 is another); copy it again, or export '
            'anew; thresholds are given by --threshold'
        )
    for name, digest in files.items():
        file = root / name
        if not file.is_file():
            raise FileNotFoundError(f'{file} is missing; copy the folder whole, or export anew')
        if sha256_of(file) != digest:
            raise ValueError(
                f'{file} is not the file that was exported (its SHA-256 is another); copy it '
                'again, or export anew'
            )
    return manifest


def sha256_of_manifest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of all that a manifest says beside its own."""
    rest = {name: value for name, value in manifest.items() if name != 'sha256'}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def sha256_of(path: str | os.PathLike) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


class Graph:
    """One exported graph in its runtime, in float32 on the CPU.

    Args:
        folder: of the export.
        about: its entry of the manifest.
        manifest: of the export.
        threads: at most; None takes all cores.

    Raises:
        ValueError: the runtime is not installed, or does not take the graph.
    """

    def __init__(
        self,
        folder: Path,
        about: Mapping[str, Any],
        manifest: Mapping[str, Any],
        threads: int | None = None,
    ) -> None:
        self.about = about
        path = str(folder / about['file'])
        made = ', '.join(f'{name} {version}' for name, version in manifest['versions'].items())
        self._failed = f'cannot be run; it was made with {made}: install these versions'
        with self._refusing():
            self._open(path, manifest['runtime'], threads)

    def _open(self, path: str, runtime: str, threads: int | None) -> None:
        names = list(self.about['outputs'])
        if runtime == 'openvino':
            try:
                _core()
            except ImportError:
                raise ValueError('this export runs on OpenVINO: pip install openvino') from None
            # a CPU with bfloat16 would take it by itself, and other masks come out
            options: dict[str, Any] = {'INFERENCE_PRECISION_HINT': 'f32'}
            if threads is not None:
                options['INFERENCE_NUM_THREADS'] = threads
            compiled = _core().compile_model(path, 'CPU', options)

            def run(feed: dict[str, np.ndarray]) -> list[np.ndarray]:
                found = compiled(feed)
                return [np.array(found[name]) for name in names]

            there = {name for port in compiled.inputs for name in port.names}
        else:
            try:
                import onnxruntime
            except ImportError:
                raise ValueError(
                    'this export runs on ONNX Runtime: pip install onnxruntime'
                ) from None
            session = onnxruntime.SessionOptions()
            if threads is not None:
                session.intra_op_num_threads = threads
            loaded = onnxruntime.InferenceSession(path, session, ['CPUExecutionProvider'])

            def run(feed: dict[str, np.ndarray]) -> list[np.ndarray]:
                return loaded.run(names, feed)

            there = {one.name for one in loaded.get_inputs()}
        self._run, self._there = run, there

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Its outputs, of inputs in the order of the manifest.

        Raises:
            ValueError: the runtime fails.
        """
        named = zip(self.about['inputs'], arrays, strict=True)
        # what nothing in the graph reads, a runtime may have left out of its inputs
        feed = {one['name']: array for one, array in named if one['name'] in self._there}
        with self._refusing():
            return self._run(feed)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, MemoryError):
            raise
        except Exception as error:  # of kinds that each runtime has for itself
            said = ' '.join(f'{error}'.split())[:300]
            raise ValueError(f'graph {self.about["file"]} {self._failed} ({said})') from error


@cache
def _core() -> Any:
    """Of OpenVINO, one in a process: as cores come and go, memory of others is damaged."""
    import openvino

    return openvino.Core()


# ------------------------------------------------------------------------------------------ photos
def read_photo(path: str | os.PathLike) -> np.ndarray:
    """A photo upright as its EXIF tag says, uint8 (H, W, 3) RGB; alpha is dropped.

    Raises:
        ValueError: it cannot be read, is an animation, or of more than 8 bits per channel.
    """
    try:
        with Image.open(path) as file:
            kind, frames = file.format, getattr(file, 'n_frames', 1)
            stored = f'{file.tile[0][3]}' if file.tile else ''  # Pillow drops bits of colours
            file.load()
            image = ImageOps.exif_transpose(file)
    except Exception as error:  # decoders of broken files raise what they like
        raise ValueError(f'image {path} cannot be read ({error})') from error
    if kind not in READ:
        raise ValueError(
            f'image {path} is {kind}, which this runner does not read; save it as JPEG or PNG, or '
            'label it with mmfss label'
        )
    if frames > 1 and kind != 'MPO':
        raise ValueError(f'image {path} has {frames} frames; save the one that you mean')
    if image.mode.startswith(('I', 'F')) or (kind == 'PNG' and '16' in stored):
        raise ValueError(
            f'image {path} has more than 8 bits per channel; convert it to 8, or label it with '
            'mmfss label'
        )
    return np.asarray(image.convert('RGB'))


def photos_below(folder: str | os.PathLike) -> list[Path]:
    """Photos in a folder and below, sorted, hidden ones left out.

    Raises:
        FileNotFoundError, ValueError: no such folder, or nothing in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f'folder of images {root} not found; give an existing folder')
    found = [
        path
        for path in root.rglob('*')
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith('.') for part in path.relative_to(root).parts)
    ]
    if not found:
        raise ValueError(f'folder {root} holds no image with an ending out of {SUFFIXES}')
    return sorted(found)


def as_input(image: np.ndarray, side: int, resize: str) -> np.ndarray:
    """uint8 (H, W, 3) RGB -> float32 (1, 3, S, S), as graphs take it."""
    if resize == 'bilinear':
        small = resized(image, side)
    else:
        how = Image.Resampling[resize.removeprefix('pillow_').upper()]
        small = np.asarray(Image.fromarray(image).resize((side, side), how))
    return np.ascontiguousarray(small.transpose(2, 0, 1)[None], dtype=np.float32)


def resized(image: np.ndarray, side: int) -> np.ndarray:
    """uint8 (H, W, C) -> (side, side, C), bilinear, to the last bit as OpenCV's ``resize``: weights
    of 11 bits, and shifts in its order."""
    height, width = image.shape[:2]
    if (height, width) == (side, side):
        return image
    if (height, width) == (2 * side, 2 * side):  # OpenCV takes the mean of four there
        wide = image.astype(np.int64)
        rows = wide[0::2] + wide[1::2]
        return ((rows[:, 0::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)
    top, bottom, above, below = _taps(height, side, False)
    left, right, before, after = _taps(width, side, True)

    def across(rows: np.ndarray) -> np.ndarray:
        lines = image[rows].astype(np.int64)
        found = lines[:, left] * before[:, None] + lines[:, right] * after[:, None]
        return found >> 4

    total = (above[:, None, None] * across(top) >> 16) + (
        below[:, None, None] * across(bottom) >> 16
    )
    return np.clip((total + 2) >> 2, 0, 255).astype(np.uint8)


def _taps(size: int, side: int, stop: bool) -> tuple[np.ndarray, ...]:
    """The two places that each of ``side`` is mixed of, and their weights times 2048."""
    place = ((np.arange(side) + 0.5) * (1.0 / (side / size)) - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int64)
    part = (place - first).astype(np.float32)
    if stop:  # along rows OpenCV takes the last place whole; along columns it mixes it with itself
        part[(first < 0) | (first >= size - 1)] = 0
        first = np.clip(first, 0, size - 1)
    weights = [np.rint(one * np.float32(2048)).astype(np.int64) for one in (1 - part, part)]
    return np.clip(first, 0, size - 1), np.clip(first + 1, 0, size - 1), *weights


def nearest(mask: np.ndarray, side: int) -> np.ndarray:
    """(H, W) -> (side, side) by nearest neighbour, as OpenCV does."""
    rows, columns = (
        np.minimum(np.floor(np.arange(side) * (1.0 / (side / n))).astype(np.int64), n - 1)
        for n in mask.shape
    )
    return mask[rows][:, columns]


# ---------------------------------------------------------------------------------------- decision
def decide(
    logits: np.ndarray, scores: np.ndarray, thresholds: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """The label map of a photo: of the classes whose score reaches their threshold the largest
    product of score and logit counts, from 0 on; where none does, background.

    Args:
        logits: (N, S, S) float32.
        scores, thresholds: (N,) float32.
        size: (H, W); logits are brought to it, bilinear with the corner pixels on each other.

    Returns:
        uint8 (H, W).
    """
    entered = []
    for label, (one, score, threshold) in enumerate(zip(logits, scores, thresholds), 1):
        value = np.maximum(score, np.float32(1e-6)) * one
        if score >= threshold and value.max() >= _AWAY:
            entered.append((label, value))
    labels = np.zeros(size, np.uint8)
    for start in range(0, size[0], STRIP):
        rows = slice(start, min(start + STRIP, size[0]))
        best: np.ndarray | None = None
        for label, value in entered:
            value = value[rows] if value.shape == size else enlarged(value, size, rows)
            ahead = value >= 0 if best is None else value > best
            labels[rows][ahead] = label
            best = np.maximum(value, _BELOW_ZERO if best is None else best)
    return labels


def enlarged(value: np.ndarray, size: tuple[int, int], rows: slice) -> np.ndarray:
    """Some rows of (S, S) float32 at ``size``: bilinear, ``align_corners=True`` of torch."""
    low, high, part = _between(value.shape[0], size[0])
    part = part[rows, None]
    lines = value[low[rows]] * (1 - part) + value[high[rows]] * part
    low, high, part = _between(value.shape[1], size[1])
    return lines[:, low] * (1 - part) + lines[:, high] * part


def _between(size: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scale = np.float32((size - 1) / (target - 1)) if target > 1 else np.float32(0)
    place = np.arange(target, dtype=np.float32) * scale
    low = np.minimum(place.astype(np.int64), size - 1)
    return low, np.minimum(low + 1, size - 1), place - low.astype(np.float32)


def palette(count: int) -> list[int]:
    """RGB of the labels 0..count in PASCAL VOC's scheme, one after the other."""
    colours = []
    for label in range(count + 1):
        colour, rest = [0, 0, 0], label
        for shift in range(7, -1, -1):
            for channel in range(3):
                colour[channel] |= ((rest >> channel) & 1) << shift
            rest >>= 3
        colours += colour
    return colours


# ------------------------------------------------------------------------------------------ labels
class Labeller:
    """Marks classes in photos by an exported folder.

    Args:
        folder: of the export.
        threads: of the runtime, at most; None takes all cores.

    Attributes:
        manifest: see ``docs/export.md``.
        classes, thresholds: names and float32 (N,); of an export without a support set they come
            with :meth:`set_support`.

    Raises:
        FileNotFoundError, ValueError: see :func:`read_manifest` and :class:`Graph`.
    """

    def __init__(self, folder: str | os.PathLike, threads: int | None = None) -> None:
        root = Path(folder)
        self.manifest = read_manifest(root)
        self.side, self.resize = self.manifest['image_size'], self.manifest['resize']
        self.graphs = {
            name: Graph(root, about, self.manifest, threads)
            for name, about in self.manifest['graphs'].items()
        }
        self.classes: tuple[str, ...] = tuple(self.manifest['classes'] or ())
        self.thresholds = np.array(self.manifest['thresholds'] or (), np.float32)
        self._states: list[Sequence[np.ndarray]] = []

    @property
    def baked(self) -> bool:
        """Whether a support set is in the graph."""
        return 'image' in self.graphs

    def set_support(self, support: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]]) -> None:
        """Show an export without a support set its classes.

        Args:
            support: class -> its K pairs of a photo uint8 (H, W, 3) RGB and its mask (H, W), bool
                or uint8: 1 the object, 255 unknown, 0 the rest.

        Raises:
            ValueError: the classes are in the graph already; the method's supports have no static
                graph; there is no class, or one has another number of supports than K.
        """
        shots = self.manifest['shots']
        if self.baked:
            raise ValueError(
                f'this export has its support set in the graph ({", ".join(self.classes)}) and '
                'takes no other; export without --support, or with another one'
            )
        if 'support' not in self.graphs:
            raise ValueError(
                f'{self.manifest["method"]} has no static graph of its supports: '
                f'{self.manifest["why_no_support"]}; export it with --support'
            )
        if not 1 <= len(support) <= MAX_CLASSES:
            raise ValueError(f'there must be 1 to {MAX_CLASSES} classes, got {len(support)}')
        states = []
        for name, pairs in support.items():
            if len(pairs) != shots:
                raise ValueError(
                    f'class {name} has {len(pairs)} supports, this export takes {shots}; give as '
                    f'many, or export with --shots {len(pairs)}'
                )
            encoder = self.graphs.get('support_encoder', self.graphs.get('encoder'))
            assert encoder is not None
            every = [encoder(as_input(image, self.side, self.resize)) for image, _ in pairs]
            masks = np.stack([nearest(mask.astype(np.uint8), self.side) for _, mask in pairs])
            features = [np.concatenate(level) for level in zip(*every)]
            states.append(self.graphs['support'](*features, masks[None]))
        self.set_states(dict(zip(support, states)))

    def set_states(self, states: Mapping[str, Sequence[np.ndarray]]) -> None:
        """Take what was made of the supports elsewhere: class -> state and prototypes, as the light
        pass takes them."""
        self.classes, self._states = tuple(states), list(states.values())
        self.thresholds = np.full(len(states), self.manifest['threshold'], np.float32)

    def set_thresholds(self, given: Sequence[str]) -> None:
        """Take thresholds of the command line: a number for all classes, CLASS=NUMBER for some.

        Raises:
            ValueError: no number in 0..1, or no such class.
        """
        for text in sorted(given, key=lambda text: '=' in text):
            name, _, number = text.rpartition('=')
            try:
                value = float(number)
            except ValueError:
                value = -1.0
            if not 0 <= value <= 1:
                raise ValueError(
                    f'a threshold must be a number in 0..1 or CLASS=NUMBER, got {text!r}'
                )
            if name and name not in self.classes:
                raise ValueError(
                    f'--threshold {text}: there is no class {name!r}; this export has '
                    f'{len(self.classes)}: {", ".join(self.classes)}'
                )
            places = [self.classes.index(name)] if name else range(len(self.classes))
            self.thresholds[list(places)] = value

    def maps(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits (N, S, S) and object scores (N,) of a photo uint8 (H, W, 3) RGB.

        Raises:
            ValueError: there is no support yet, or the runtime fails.
        """
        pixels = as_input(image, self.side, self.resize)
        if self.baked:
            logits, scores = self.graphs['image'](pixels)
            return logits[0], scores[0]
        if not self._states:
            raise ValueError('this export has no support set in it; give one with --support')
        features = self.graphs['encoder'](pixels)
        found = [self.graphs['light'](*features, *state) for state in self._states]
        return (
            np.concatenate([logits[0] for logits, _ in found]),
            np.concatenate([scores[0] for _, scores in found]),
        )

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels uint8 (H, W), and object scores (N,), of a photo uint8 (H, W, 3) RGB."""
        logits, scores = self.maps(image)
        return decide(logits, scores, self.thresholds, image.shape[:2]), scores


def read_support(folder: str | os.PathLike) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Supports of SUPPORT/<class>/x.jpg + x.png, the mask being a palette or grey PNG: 1 the object
    and 255 unknown, or 255 the object in all of them.

    Returns:
        class -> pairs of photo and mask, see :meth:`Labeller.set_support`.

    Raises:
        FileNotFoundError, ValueError: no such folder, no class, a photo without a mask, a mask of
            another size, kind or values, or one that marks nothing or everything.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f'folder of supports {root} not found')
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for place in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith('.')):
        photos = [p for p in photos_below(place) if p.suffix.lower() != '.png']
        if not photos:
            raise ValueError(f'{place} holds no photo; give {place}/x.jpg and its mask x.png')
        found[place.name] = [(read_photo(p), read_mask(p.with_suffix('.png'))) for p in photos]
        for path, (image, mask) in zip(photos, found[place.name]):
            if image.shape[:2] != mask.shape:
                raise ValueError(
                    f'the mask of {path} is {mask.shape}, the upright photo {image.shape[:2]} '
                    '(height, width); they must be alike'
                )
    if not found:
        raise ValueError(f'{root} holds no class; give {root}/<class>/x.jpg and its mask x.png')
    by_255 = not any((mask == 1).any() for pairs in found.values() for _, mask in pairs)
    for name, pairs in found.items():
        if by_255:
            pairs[:] = [(image, (mask == UNKNOWN).astype(np.uint8)) for image, mask in pairs]
        for number, (_, mask) in enumerate(pairs, 1):
            some, rest = (mask == 1).any(), (mask == 0).any()
            if not some or not rest:
                raise ValueError(
                    f'mask {number} of class {name} marks {"every" if some else "no"} pixel with '
                    f'{UNKNOWN if by_255 else 1}; mark the object, and leave some background'
                )
    return found


def read_mask(path: Path) -> np.ndarray:
    """The mask of a support, uint8 (H, W) of 0, 1 and 255.

    Raises:
        FileNotFoundError, ValueError: it is not there, cannot be read, or has another form or other
            values.
    """
    if not path.is_file():
        raise FileNotFoundError(f'mask {path} of a support is not there')
    try:
        with Image.open(path) as image:
            stored = f'{image.tile[0][3]}' if image.tile else ''
            mode, values = image.mode, np.array(image)
    except Exception as error:  # see read_photo
        raise ValueError(f'mask {path} cannot be read ({error})') from error
    if mode not in ('P', 'L', '1'):
        raise ValueError(f'mask {path} must be a palette or 8-bit grey PNG, got {mode}')
    values = values.astype(np.uint8) // {'L;2': 85, 'L;4': 17}.get(stored, 1)  # Pillow spreads them
    odd = sorted({*np.unique(values).tolist()} - {0, 1, UNKNOWN})
    if odd:
        raise ValueError(
            f'mask {path} has the values {odd[:8]}, allowed are 0, 1 and {UNKNOWN}; save it '
            'without smoothing'
        )
    return values


def label_folder(
    labeller: Labeller,
    photos: str | os.PathLike,
    out: str | os.PathLike,
    overwrite: bool = False,
) -> int:
    """Label all photos in a folder; the number of those that failed, each of which is a line on
    stderr.

    Args:
        labeller: with its classes.
        photos: searched with the folders below it.
        out: see the module's docstring; beside ``photos``.
        overwrite: write into a folder that has labels.

    Raises:
        FileNotFoundError, ValueError: see :func:`photos_below`; the folders lie in each other,
            there are labels already, or two photos have one label file.
        OSError: something cannot be written.
    """
    places = _places(Path(photos), Path(out), overwrite)
    names = labeller.classes
    colours = np.reshape(palette(len(names)), (-1, 3)).tolist()[1:]
    parts = [f'{name} {part}' for name in names for part in ('score', 'present', 'share')]
    failed = 0
    with ExitStack() as stack:
        table = partial(_table, stack, Path(out))
        note_class = table('classes.csv', 'label', 'name', 'red', 'green', 'blue')
        for label, (name, colour) in enumerate(zip(names, colours), 1):
            note_class(label, name, *colour)
        note = table('scores.csv', 'image', *parts)
        note_failed = table('failed.csv', 'image', 'error')
        for path, place in places.items():
            name = path.relative_to(photos).as_posix()
            try:
                labels, scores = labeller(read_photo(path))
            except (ValueError, MemoryError) as error:
                failed += 1
                note_failed(name, error)
                print(f'failed: {name}: {error}', file=sys.stderr)
                continue
            _write_label(place, labels, len(names))
            areas = np.bincount(labels.ravel(), minlength=len(names) + 1)[1:].tolist()
            cells = [
                (f'{s:.6f}', +(n > 0), f'{n / labels.size:.6f}') for s, n in zip(scores, areas)
            ]
            note(name, *(cell for some in cells for cell in some))
    print(f'{len(places) - failed} labelled, {failed} failed: {Path(out) / "ann_dir"}')
    return failed


def _places(root: Path, target: Path, overwrite: bool) -> dict[Path, Path]:
    """Photos with the files of their labels, once nothing stands against writing them."""
    one, other = root.resolve(), target.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise ValueError(
            f'the photos {root} and the labels {target} lie in each other; then labels would be '
            'taken for photos. Give a folder beside the photos'
        )
    places: dict[Path, Path] = {}
    owners: dict[Path, Path] = {}
    for path in photos_below(root):
        place = target / 'ann_dir' / path.relative_to(root).with_suffix('.png')
        if place in owners:
            raise ValueError(
                f'{owners[place]} and {path} would have one label file; rename one of them'
            )
        places[path], owners[place] = place, path
    if (target / 'ann_dir').exists() and not overwrite:
        raise ValueError(f'{target} has labels already; give another folder, or --overwrite')
    return places


def _table(stack: ExitStack, folder: Path, name: str, *head: str) -> Callable[..., None]:
    """What writes a row to a CSV file, which the stack closes."""
    folder.mkdir(parents=True, exist_ok=True)
    file = open(folder / name, 'w', newline='', encoding='utf-8')  # noqa: SIM115
    writer = csv.writer(stack.enter_context(file))

    def write(*cells: Any) -> None:
        writer.writerow(map(as_cell, cells))

    write(*head)
    return write


def as_cell(value: Any) -> str:
    """A value as a cell of a CSV file; a text that spreadsheets would run as a formula gets an
    apostrophe before it, as in the tables of ``mmfss label``."""
    text = f'{value}'
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text.startswith(FORMULA) else text
    return text


def _write_label(path: Path, labels: np.ndarray, classes: int) -> None:
    """Write a palette PNG, whole or not at all."""
    picture = Image.fromarray(labels)
    picture.putpalette(palette(classes))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name}.part')
    try:
        picture.save(part, 'PNG', compress_level=3)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; its exit status."""
    parser = argparse.ArgumentParser(description='Label photos with an export of mmfss.')
    parser.add_argument('photos', help='folder of photos, with the folders below it')
    parser.add_argument('labels', help='folder for the labels')
    parser.add_argument('--model', default=Path(__file__).parent, help='the exported folder')
    parser.add_argument('--support', help='folder <class>/x.jpg + x.png, where none is baked in')
    parser.add_argument(
        '--threshold',
        action='append',
        default=[],
        metavar='NUMBER|CLASS=NUMBER',
        help='of the object score, in the place of those of the export; may be repeated',
    )
    parser.add_argument('--threads', type=int, help='of the runtime, at most')
    parser.add_argument('--overwrite', action='store_true', help='where LABELS has labels already')
    args = parser.parse_args(argv)
    try:
        if args.threads is not None and args.threads < 1:
            raise ValueError(f'--threads must be a whole number >= 1, got {args.threads}')
        labeller = Labeller(args.model, args.threads)
        if args.support is not None:
            labeller.set_support({} if labeller.baked else read_support(args.support))
        elif not labeller.classes:
            raise ValueError('this export has no support set in it; give one with --support')
        labeller.set_thresholds(args.threshold)
        return 1 if label_folder(labeller, args.photos, args.labels, args.overwrite) else 0
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('stopped; what is labelled stays', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(main())
