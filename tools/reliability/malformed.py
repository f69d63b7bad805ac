"""Malformed files of supports: each is refused in one line that names a file, in bounded memory."""

from __future__ import annotations

import json
import random
import resource
import signal
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from PIL import Image

from mmfss.apis import FewShotInferencer
from mmfss.apis.support_folder import read_support

MOST_BYTES = 1 << 30
"""That a malformed file may make its reader take, more than it has."""
SECONDS = 20
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 0.5, 2**31, 2**70, -(2**40), 1e308, float('nan'), float('inf'), '', 'x',
    '\x00', '\ud800', '../../x', 'y' * 5000, [], {}, [[]], [None], {'a': {}}, [1, 2], [[1, 2], 3],
)  # fmt: skip


# ------------------------------------------------------------------------------- what is whole
def _photo(rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8))


def _mask(value: int = 255) -> np.ndarray:
    mask = np.zeros((40, 50), np.uint8)
    mask[8:25, 10:35] = value
    return mask


_OUTLINE = [[10, 8], [35, 8], [35, 25], [10, 25]]
_VIA = dict(
    shape_attributes=dict(
        name='polygon',
        all_points_x=[x for x, _ in _OUTLINE],
        all_points_y=[y for _, y in _OUTLINE],
    ),
    region_attributes=dict(label='cup'),
)
_CVAT = (
    '<?xml version="1.0"?><annotations><version>1.1</version><image id="0" name="0.jpg" width="50" '
    'height="40"><polygon label="cup" points="{points}"/></image><image id="1" name="1.jpg" '
    'width="50" height="40"><box label="cup" xtl="3" ytl="4" xbr="30" ybr="20"/></image>'
    '</annotations>'
).format(points=';'.join(f'{x},{y}' for x, y in _OUTLINE))


def _coco(code: dict | None = None) -> dict[str, Any]:
    outline = code or [[v for point in _OUTLINE for v in point]]
    return dict(
        images=[dict(id=i, file_name=f'{i}.jpg', width=50, height=40) for i in (0, 1)],
        categories=[dict(id=1, name='cup')],
        annotations=[
            dict(
                id=i, image_id=i, category_id=1, segmentation=outline, bbox=[10, 8, 25, 17],
                area=425, iscrowd=0,
            )
            for i in (0, 1)
        ],
    )  # fmt: skip


def write_whole(root: Path, inferencer: FewShotInferencer) -> dict[str, Path]:
    """A support set in every form that is read.

    Args:
        root: folder for them.
        inferencer: writes the support file.

    Returns:
        form -> what is given as SUPPORT.
    """
    rng, found = np.random.default_rng(0), {}

    def folder(name: str, photos: str = '') -> Path:
        found[name] = root / name
        place = root / name / photos
        place.mkdir(parents=True)
        for i in (0, 1):
            _photo(rng).save(place / f'{i}.jpg')
        return place

    place = folder('masks', 'cup')
    for i in (0, 1):
        Image.fromarray(_mask()).save(place / f'{i}.png')
    place = folder('prompts', 'cup')
    for i, prompt in enumerate((dict(box=[10, 8, 35, 25]), dict(points=[[20, 15, 1], [2, 2, 0]]))):
        (place / f'{i}.json').write_text(json.dumps(prompt))
    place = folder('values', 'images').parent
    (place / 'masks').mkdir()
    for i in (0, 1):
        Image.fromarray(_mask(1)).save(place / f'masks/{i}.png')
    (place / 'classes.txt').write_text('cup\n')
    place = folder('coco', 'images').parent
    (place / 'annotations.json').write_text(json.dumps(_coco()))
    place = folder('coco_runs', 'images').parent
    runs = dict(size=[40, 50], counts=[408, 17, *[23, 17] * 24, 23 + 15 * 40 - 8])
    (place / 'annotations.json').write_text(json.dumps(_coco(runs)))
    place = folder('labelme')
    for i in (0, 1):
        shape = dict(label='cup', points=_OUTLINE, shape_type='polygon')
        content = dict(version='5', imagePath=f'{i}.jpg', imageHeight=40, imageWidth=50)
        (place / f'{i}.json').write_text(json.dumps(dict(content, shapes=[shape])))
    place = folder('via')
    entries = {f'{i}.jpg1': dict(filename=f'{i}.jpg', regions=[_VIA]) for i in (0, 1)}
    (place / 'via.json').write_text(json.dumps(entries))
    (folder('cvat') / 'annotations.xml').write_text(_CVAT)
    found['file'] = root / 'support.safetensors'
    photos = [(np.asarray(_photo(rng)), _mask() > 0) for _ in (0, 1)]
    inferencer.set_support({'cup': photos[:1], 'Tasse': photos[1:]})
    inferencer.save_support(found['file'])
    return found


# -------------------------------------------------------------------------------- what is done
def _places(node: Any, path: tuple = ()) -> Iterator[tuple]:
    yield path
    items = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, value in items:
        yield from _places(value, (*path, key))


def _changed(content: Any, rng: random.Random) -> str:
    """JSON with one value replaced, removed or nested deeply."""
    places = list(_places(content))
    path = rng.choice(places)
    if not path:
        return json.dumps(rng.choice(ODD))
    node = content
    for key in path[:-1]:
        node = node[key]
    kind = rng.random()
    if kind < 0.15:
        del node[path[-1]]
    elif kind < 0.2:
        node[path[-1]] = 'DEEP'
        return json.dumps(content).replace('"DEEP"', '[' * 20000 + ']' * 20000)
    elif kind < 0.25:
        node[path[-1]] = 'LONG'
        return json.dumps(content).replace('"LONG"', '9' * 6000)
    else:
        node[path[-1]] = rng.choice(ODD)
    return json.dumps(content)


def _json(data: bytes, rng: random.Random) -> bytes:
    return _changed(json.loads(data), rng).encode()


def _safetensors(data: bytes, rng: random.Random) -> bytes:
    """Another header: of the tensors, or in the description of the supports."""
    (length,) = struct.unpack('<Q', data[:8])
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    kind = rng.random()
    if kind < 0.1:
        return struct.pack('<Q', rng.choice((0, 1, length * 2, 2**40, 2**64 - 1))) + data[8:]
    if kind < 0.6:
        known = header['__metadata__']
        known['mmfss-support'] = _changed(json.loads(known['mmfss-support']), rng)
        text = json.dumps(header)
    else:
        text = _changed(header, rng)
    return struct.pack('<Q', len(text.encode())) + text.encode() + rest


def _png(data: bytes, rng: random.Random) -> bytes:
    """Another size, depth or kind in the header, whose checksum fits."""
    if data[:8] != b'\x89PNG\r\n\x1a\n':
        return _bytes(data, rng)
    head = bytearray(data[12:29])
    if rng.random() < 0.5:
        size = rng.choice((0, 1, 49, 60000, 2**31 - 1)), rng.choice((0, 1, 41, 60000, 2**31 - 1))
        head[4:12] = struct.pack('>II', *size)
    else:
        place = rng.randrange(12, 17)
        head[place] = rng.choice((0, 1, 2, 3, 4, 6, 7, 16, 255))
    return data[:12] + bytes(head) + struct.pack('>I', zlib.crc32(head)) + data[33:]


def _bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 30))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _other(data: bytes, rng: random.Random) -> bytes:
    """A file of another kind under this name."""
    forms = [b'', b'\0' * 100, b'\xff\xfe\x00', b'[]', b'{}', b'null', b'PK\x03\x04', b'GIF89a']
    forms += [b'\x93NUMPY\x01\x00v\x00' + b"{'descr': '|O', 'shape': (3,), }", rng.randbytes(64)]
    return rng.choice(forms)


_OWN: dict[str, Callable[[bytes, random.Random], bytes]] = {
    '.json': _json, '.safetensors': _safetensors, '.png': _png, '.jpg': _bytes,
}  # fmt: skip


def harm(path: Path, rng: random.Random) -> str:
    """Change a file; what was done."""
    data, kind = path.read_bytes(), rng.random()
    if kind < 0.04:
        path.unlink()
        path.mkdir()
        return 'a folder in its place'
    if kind < 0.08:
        path.unlink()
        path.symlink_to(path.name)
        return 'a link to itself'
    own = _OWN.get(path.suffix, _bytes)
    change = rng.choices((own, _bytes, _cut, _other), (6, 2, 1, 1))[0]
    path.write_bytes(change(data, rng))
    return change.__name__.strip('_')


# ------------------------------------------------------------------------------ what is looked at
@contextmanager
def bounded() -> Iterator[None]:
    """Within, no more than ``MOST_BYTES`` of address space are to be had, nor ``SECONDS``."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f'more than {SECONDS} s')

    pages = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (pages + MOST_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)


def fault(support: Path, inferencer: FewShotInferencer) -> str | None:
    """What is wrong with how a support set is read; None where it is read, or refused well."""
    try:
        with bounded():
            read_support(support, inferencer)
    except TimeoutError as error:
        return f'{error}'
    except (ValueError, OSError) as error:
        text = f'{error}'
        names = [support.name, *(path.name for path in support.rglob('*'))]
        if not any(name in text for name in names):
            return f'names no file: {text[:200]}'
        if '\n' in text:
            return f'several lines: {text[:200]!r}'
        if len(text) > 2000:
            return f'{len(text)} characters: {text[:100]!r}'
    except BaseException as error:
        return f'{type(error).__name__}: {str(error)[:200]}'
    return None


def try_all(inferencer: FewShotInferencer, number: int, seed: int) -> tuple[int, list[str]]:
    """Harm files of supports and read them.

    Args:
        inferencer: whose method takes prompts.
        number: of trials.
        seed: of the first; trial i has ``seed + i``.

    Returns:
        How many were tried, and a line for each that was read badly.
    """
    bad = []
    with tempfile.TemporaryDirectory(prefix='mmfss_malformed_') as made:
        whole = write_whole(Path(made) / 'whole', inferencer)
        for name, support in whole.items():
            if problem := fault(support, inferencer):
                bad.append(f'{name}, unharmed: {problem}')
        kept = {
            name: {
                path.relative_to(support): path.read_bytes()
                for path in ([support] if support.is_file() else support.rglob('*'))
                if path.is_file()
            }
            for name, support in whole.items()
        }
        for trial in range(number):
            rng = random.Random(seed + trial)
            name = rng.choice(list(whole))
            harmed = Path(made) / f'{trial}' / whole[name].name
            for path, data in kept[name].items():
                (harmed / path).parent.mkdir(parents=True, exist_ok=True)
                (harmed / path).write_bytes(data)
            path = harmed / rng.choice(sorted(kept[name]))
            done = harm(path, rng)
            if problem := fault(harmed, inferencer):
                bad.append(f'seed {seed + trial}, {name}, {path.name}, {done}: {problem}')
    return number, bad
