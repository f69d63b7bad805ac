"""Label photos with a folder that ``mmfss export`` wrote: numpy, Pillow and one runtime, no torch.

    python OUT/runner.py PHOTOS LABELS                      # classes that are baked in
    python OUT/runner.py PHOTOS LABELS --support SUPPORT    # else SUPPORT/<class>/x.jpg + x.png

This file is copied into each exported folder and needs nothing else of mmfss. It reads photos as
``mmfss label`` reads those of 8 bits per channel, and decides pixels as it does; LABELS/ann_dir
gets the same palette PNGs (0 is background, 1..N the classes), LABELS/scores.csv the object scores.

Exit status: 0 all photos are labelled, 1 some failed, 2 wrong arguments or input.

Shapes: N classes, K supports of each, S side of the model's images, (H, W) size of a photo.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
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
        files = dict(manifest['files'])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path} is damaged ({error!r}); export anew') from error
    if found != (FORMAT, VERSION):
        raise ValueError(
            f'{path} is of format {found[0]} {found[1]}, this runner reads {FORMAT} {VERSION}; '
            'take the runner.py of that folder'
        )
    for name, about in files.items():
        file = root / name
        if not file.is_file():
            raise FileNotFoundError(f'{file} is missing; copy the folder whole, or export anew')
        if sha256_of(file) != about['sha256']:
            raise ValueError(
                f'{file} is not the file that was exported (its SHA-256 is another); copy it '
                'again, or export anew'
            )
    return manifest


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
        runtime: 'openvino' or 'onnx'.
        threads: at most; None takes all cores.

    Raises:
        ValueError: the runtime is not installed.
    """

    def __init__(
        self, folder: Path, about: Mapping[str, Any], runtime: str, threads: int | None = None
    ) -> None:
        self.about = about
        path, names = str(folder / about['file']), list(about['outputs'])
        if runtime == 'openvino':
            try:
                import openvino
            except ImportError:
                raise ValueError('this export runs on OpenVINO: pip install openvino') from None
            # a CPU with bfloat16 would take it by itself, and other masks come out
            options: dict[str, Any] = {'INFERENCE_PRECISION_HINT': 'f32'}
            if threads is not None:
                options['INFERENCE_NUM_THREADS'] = threads
            compiled = openvino.Core().compile_model(path, 'CPU', options)

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
        """Its outputs, of inputs in the order of the manifest."""
        named = zip(self.about['inputs'], arrays, strict=True)
        # what nothing in the graph reads, a runtime may have left out of its inputs
        return self._run({one['name']: array for one, array in named if one['name'] in self._there})


# ------------------------------------------------------------------------------------------ photos
def read_photo(path: str | os.PathLike) -> np.ndarray:
    """A photo upright as its EXIF tag says, uint8 (H, W, 3) RGB; alpha is dropped.

    Raises:
        ValueError: it cannot be read, is an animation, or of more than 8 bits per channel.
    """
    try:
        with Image.open(path) as image:
            kind, frames = image.format, getattr(image, 'n_frames', 1)
            image.load()
            image = ImageOps.exif_transpose(image)
    except Exception as error:  # decoders of broken files raise what they like
        raise ValueError(f'image {path} cannot be read ({error})') from error
    if kind not in READ:
        raise ValueError(
            f'image {path} is {kind}, which this runner does not read; save it as JPEG or PNG, or '
            'label it with mmfss label'
        )
    if frames > 1 and kind != 'MPO':
        raise ValueError(f'image {path} has {frames} frames; save the one that you mean')
    if image.mode.startswith(('I', 'F')):
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
        how = dict(pillow_bilinear=Image.BILINEAR, pillow_bicubic=Image.BICUBIC)[resize]
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
        runtime = self.manifest['runtime']
        self.graphs = {
            name: Graph(root, about, runtime, threads)
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
            support: class -> its K pairs of a photo uint8 (H, W, 3) RGB and where the class is,
                bool (H, W).

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
        if not support:
            raise ValueError('there is no class; give at least one')
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
            ValueError: there is no support yet.
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
    """Supports of SUPPORT/<class>/x.jpg + x.png, the mask being a palette or grey PNG; the object
    has the value 1 where any mask has one, else 255.

    Raises:
        FileNotFoundError, ValueError: no such folder, no class, a photo without a mask or a mask of
            another size or kind.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f'folder of supports {root} not found')
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for place in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith('.')):
        photos = [p for p in photos_below(place) if p.suffix.lower() != '.png']
        if not photos:
            raise ValueError(f'{place} holds no photo; give {place}/x.jpg and its mask x.png')
        found[place.name] = [(read_photo(p), _read_mask(p.with_suffix('.png'))) for p in photos]
    if not found:
        raise ValueError(f'{root} holds no class; give {root}/<class>/x.jpg and its mask x.png')
    masks = [mask for pairs in found.values() for _, mask in pairs]
    value = 1 if any((mask == 1).any() for mask in masks) else 255
    for name, pairs in found.items():
        for image, mask in pairs:
            if image.shape[:2] != mask.shape:
                raise ValueError(
                    f'a mask of class {name} is {mask.shape}, its photo {image.shape[:2]} (height, '
                    'width); they must be alike'
                )
        found[name] = [(image, mask == value) for image, mask in pairs]
    return found


def _read_mask(path: Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f'mask {path} of a support is not there')
    with Image.open(path) as image:
        if image.mode not in ('P', 'L', '1'):
            raise ValueError(f'mask {path} must be a palette or 8-bit grey PNG, got {image.mode}')
        return np.array(image, np.uint8)


def label_folder(labeller: Labeller, photos: str | os.PathLike, out: str | os.PathLike) -> int:
    """Label all photos in a folder; the number of those that failed, each of which is a line on
    stderr.

    Raises:
        FileNotFoundError, ValueError: see :func:`photos_below`, or two photos have one label file.
    """
    root, target = Path(photos), Path(out)
    found = photos_below(root)
    places = [target / 'ann_dir' / p.relative_to(root).with_suffix('.png') for p in found]
    taken: dict[Path, Path] = {}
    for path, place in zip(found, places):
        if (other := taken.setdefault(place, path)) is not path:
            raise ValueError(f'{other} and {path} would have one label file; rename one of them')
    target.mkdir(parents=True, exist_ok=True)
    failed = 0
    with open(target / 'scores.csv', 'w', newline='', encoding='utf-8') as file:
        table = csv.writer(file)
        table.writerow(['image', 'classes', *labeller.classes])
        for row in _rows(labeller, root, found, places):
            if row is None:
                failed += 1
            else:
                table.writerow(row)
    print(f'{len(found) - failed} labelled, {failed} failed: {target / "ann_dir"}')
    return failed


def _rows(
    labeller: Labeller, root: Path, found: Sequence[Path], places: Sequence[Path]
) -> Iterator[list[str] | None]:
    for path, place in zip(found, places):
        try:
            labels, scores = labeller(read_photo(path))
        except (ValueError, MemoryError) as error:
            print(f'failed: {error or path}', file=sys.stderr)
            yield None
            continue
        picture = Image.fromarray(labels)
        picture.putpalette(palette(len(labeller.classes)))
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f'.{place.name}.part')
        picture.save(part, 'PNG', compress_level=3)
        os.replace(part, place)
        seen = [name for n, name in enumerate(labeller.classes, 1) if (labels == n).any()]
        scored = [f'{score:.4f}' for score in scores]
        yield [path.relative_to(root).as_posix(), ' '.join(seen), *scored]


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
    args = parser.parse_args(argv)
    try:
        labeller = Labeller(args.model, args.threads)
        if args.support is not None:
            labeller.set_support(read_support(args.support))
        elif not labeller.classes:
            raise ValueError('this export has no support set in it; give one with --support')
        labeller.set_thresholds(args.threshold)
        return 1 if label_folder(labeller, args.photos, args.labels) else 0
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main())
