"""Episodes whose images are deferred: which pipelines allow it, and how they then run.

The pixels of an image may be left for later only where they depend on nothing but its file. The
label takes the same way as ever; in the place of the image goes a stand-in of its size.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import cv2
import mmcv
import numpy as np
import PIL
from mmcv.transforms import Pad
from mmengine.dataset import Compose
from PIL import features

from mmfss.datasets.transforms import RESIZE, BinarizeLabel, LoadImage, LoadLabel
from mmfss.features.images import ImageSteps
from mmfss.features.modules import code_of

_LABEL = (LoadLabel, BinarizeLabel)
_ALLOWED = (LoadImage, *_LABEL, *RESIZE, Pad)


def check_deferrable(pipeline: Compose, name: str) -> None:
    """Check that the pixels a pipeline gives depend on the image file alone.

    Args:
        pipeline: The transforms.
        name: What messages call it.

    Raises:
        ValueError: It does not begin with ``LoadImage``, or a transform is not known to be
            deterministic; the message names it.
    """
    first = pipeline.transforms[0] if pipeline.transforms else None
    if type(first) is not LoadImage:
        got = type(first).__name__ if pipeline.transforms else 'no transform'
        raise ValueError(
            f'images cannot be deferred: {name} must begin with LoadImage, got {got}; '
            'put LoadImage first, or set defer_images=False'
        )
    for place, transform in enumerate(pipeline.transforms):
        kind = type(transform)
        again = place and kind is LoadImage
        said = not inspect.isroutine(transform) and getattr(transform, 'deterministic', False)
        if (kind in _ALLOWED or said is True) and not again:
            continue
        together = 'may be random or look at image and label together'
        why = 'reads the image again' if again else together
        raise ValueError(
            f'images cannot be deferred: {kind.__name__} in {name} {why}, and features are kept '
            'only of pixels that depend on the file alone. Allowed are '
            f'{", ".join(sorted({cls.__name__ for cls in _ALLOWED}))}, and a class with an '
            'attribute deterministic = True that works on an image without its label. Take '
            f'{kind.__name__} out, or set defer_images=False'
        )


def image_steps(pipeline: Compose, name: str = 'the pipeline') -> ImageSteps:
    """The image transforms of a pipeline, with a digest of what decides about pixels: classes and
    their state in their order, the code behind them, and the versions of what they call.

    Raises:
        ValueError: As :func:`check_deferrable`, or a transform holds what has no description.
    """
    check_deferrable(pipeline, name)
    steps = tuple(t for t in pipeline.transforms if type(t) not in _LABEL)
    packages = dict(
        Pillow=PIL.__version__, cv2=cv2.__version__, mmcv=mmcv.__version__, numpy=np.__version__
    )
    decoders = {kind: features.version(kind) for kind in ('jpg', 'jpg_2000', 'webp', 'libtiff')}
    versions = {**packages, **decoders, 'machine': platform.machine()}
    code = code_of({}, [ImageSteps, *map(type, steps)])
    said = [versions, code, *(_description(step, name) for step in steps)]
    text = json.dumps(said, sort_keys=True, separators=(',', ':'))
    return ImageSteps(steps, hashlib.sha256(text.encode()).hexdigest())


def _description(transform: Any, name: str) -> dict[str, Any]:
    kind = type(transform)
    where = f'{kind.__name__} in {name}'
    state = {key: _plain(value, where) for key, value in vars(transform).items()}
    if kind not in _ALLOWED and kind.__module__ not in code_of({}, [kind]):
        raise ValueError(
            f'images cannot be deferred: {where} is defined in no file, so that it cannot be told '
            'when its code changes. Put it into a module, or set defer_images=False'
        )
    return dict(type=f'{kind.__module__}.{kind.__qualname__}', state=state)


def _plain(value: Any, where: str) -> Any:
    """A value of a transform in JSON types, such that other values give other text."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return _plain(value.item(), where)
    if isinstance(value, np.ndarray) and value.dtype != object:
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return dict(array=digest, dtype=str(value.dtype), shape=list(value.shape))
    if isinstance(value, (list, tuple)):
        return [_plain(entry, where) for entry in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(entry, where) for key, entry in value.items()}
    raise ValueError(
        f'images cannot be deferred: {where} holds a {type(value).__name__}, and it must be told '
        'when that changes. Let it hold numbers, texts, arrays, lists and dicts of them, or set '
        'defer_images=False'
    )


# ------------------------------------------------------------------------- without pixels
def deferred_pipeline(pipeline: Compose) -> Compose:
    """A pipeline that reads of an image only its size: labels and sizes come out as ever, and
    ``img`` as a stand-in of the right shape."""
    return Compose([_stand_in(transform) for transform in pipeline.transforms])


def _stand_in(transform: Any) -> Callable[[dict], dict | None]:
    if type(transform) is LoadImage:
        return partial(_read_size, load=transform)
    if type(transform) in _LABEL:
        return transform
    fixed = type(transform) in RESIZE and transform.scale is not None
    return partial(_resize_label if fixed else _on_blank, transform=transform)


def _blank(shape: Sequence[int]) -> np.ndarray:
    """(H, W, 3) zeros that take no memory."""
    return np.broadcast_to(np.uint8(0), (*shape, 3))


def _read_size(results: dict, load: LoadImage) -> dict:
    """LoadImage, of the header alone."""
    shape = load.shape_of(results['img_path'])
    results.update(img=_blank(shape), img_shape=shape, ori_shape=shape)
    return results


def _resize_label(results: dict, transform: Any) -> dict | None:
    """Resize to a given scale, of the label alone: mmcv's leaves an absent image out."""
    height, width = results['img'].shape[:2]
    new_width, new_height = transform.scale
    if transform.keep_ratio:
        new_width, new_height = mmcv.rescale_size((width, height), transform.scale)
    if min(new_width, new_height) < 1:  # fails as ever
        return _on_blank(results, transform)
    del results['img']
    results = transform(results)
    results.update(
        img=_blank((new_height, new_width)),
        img_shape=(new_height, new_width),
        scale_factor=(new_width / width, new_height / height),
        keep_ratio=transform.keep_ratio,
    )
    return results


def _on_blank(results: dict, transform: Any) -> dict | None:
    """Any other transform, on an image of zeros."""
    results['img'] = np.zeros_like(results['img'], order='C')
    return transform(results)
