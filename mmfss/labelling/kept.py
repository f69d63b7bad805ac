"""What the labels of an image were decided by, kept as it was: ``scores/<name>.npz``.

Object scores, the logits of each class, and masks of single objects where the method finds such:
about 0.6 MB for each class at 512 pixels.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmfss.apis.prediction import Prediction
from mmfss.files import atomic
from mmfss.labelling.folder import KEPT, stem_of


def kept_file(out: Path, name: str) -> Path:
    """Where the scores of an image are kept."""
    return out / KEPT / f'{stem_of(name)}.npz'


def keep_scores(out: Path, name: str, prediction: Prediction) -> None:
    """Keep what the labels of an image were decided by."""
    arrays = dict(scores=prediction.scores, size=np.array(prediction.labels.shape))
    parts = dict(enumerate(prediction.parts))
    some = {'logits': prediction.logits, **{f'part{i}': p for i, p in parts.items()}}
    for key, array in some.items():
        if array is not None:
            arrays[key], arrays[f'{key}_shape'] = _packed(array), np.array(array.shape)
    arrays['parts'] = np.array(len(parts))
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    with atomic(kept_file(out, name), flush=False) as part:
        part.write_bytes(file.getvalue())


def read_scores(
    out: Path, name: str, classes: tuple[str, ...], thresholds: np.ndarray
) -> Prediction:
    """What an image gives with other thresholds, (N,) float32.

    Raises:
        FileNotFoundError, ValueError: Nothing was kept, or the file is damaged.
    """
    path = kept_file(out, name)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            parts = tuple(
                _unpacked(arrays, f'part{i}') if f'part{i}' in arrays else None
                for i in range(int(arrays['parts']))
            )
            height, width = (int(side) for side in arrays['size'])
            scores, logits = arrays['scores'], _unpacked(arrays, 'logits')
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile and numpy raise what they like on damaged files
        raise ValueError(f'{path} is damaged ({error}); label the image again') from error
    return Prediction.make(classes, scores, thresholds, logits, (height, width), name, parts)


def _packed(array: np.ndarray) -> np.ndarray:
    """Bytes of equal weight together, which halves what zlib makes of floats."""
    data = np.ascontiguousarray(array, np.float32).view(np.uint8).reshape(-1, 4).T.tobytes()
    return np.frombuffer(zlib.compress(data, 6), np.uint8)


def _unpacked(arrays: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    data = np.frombuffer(zlib.decompress(arrays[key].tobytes()), np.uint8)
    return data.reshape(4, -1).T.copy().view(np.float32).reshape(arrays[f'{key}_shape'])
