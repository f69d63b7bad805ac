"""The weights that their authors publish and that methods start from: what there is, and where.

Nothing here fetches. ``checkpoint='official'`` of an encoder takes the file that lies in one of
:func:`folders`; ``mmfss weights fetch`` (:mod:`mmfss.checkpoints.fetching`) puts it there, or a
person by hand.

Sizes are those that dl.fbaipublicfiles.com answers with, as several public records have them.
Checksums are only those that the authors state, in the names of the files: the first digits of the
MD5 (SAM) or, as torch.hub has it, of the SHA-256 (DINOv3).
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import hub

from mmfss.files import PART_SUFFIX

VARIABLE = 'MMFSS_WEIGHTS'
"""Of the environment: the folder of weights, in the place of torch.hub's."""
OFFICIAL = 'official'
"""What a config says as ``checkpoint`` of an encoder."""
_FILES = 'https://dl.fbaipublicfiles.com'
_DINOV3_PAGE = 'https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/'


@dataclass(frozen=True)
class Official:
    """A published file.

    Attributes:
        kind: of the encoder: ``sam2``, ``dinov2``, ``sam1``, ``dinov3``.
        arch: its arch there.
        file: its name, which it also has in the folder of weights.
        bytes: its size; None where no record is at hand.
        url: where it is; '' for a gated one, which is handed out on ``page``.
        page: its authors' page.
        licence: its licence.
        digest: kind and first digits of its checksum where its authors state them.
    """

    kind: str
    arch: str
    file: str
    bytes: int | None
    url: str
    page: str
    licence: str = 'Apache-2.0'
    digest: tuple[str, str] | None = None

    @property
    def name(self) -> str:
        """What it is called in commands and messages: ``sam2_small``, ``dinov2_base``."""
        return self.arch if self.arch.startswith(self.kind) else f'{self.kind}_{self.arch}'


def _all() -> Iterator[Official]:
    page = 'https://github.com/facebookresearch/sam2'
    for version, date, sizes in (
        ('sam2', '072824', (155906050, 184309650, 323493298, 897952466)),
        ('sam2.1', '092824', (156008466, 184416285, 323606802, 898083611)),
    ):
        for size, count in zip(('tiny', 'small', 'base_plus', 'large'), sizes):
            file = f'{version}_hiera_{size}.pt'
            url = f'{_FILES}/segment_anything_2/{date}/{file}'
            yield Official('sam2', f'{version}_{size}', file, count, url, page)
    page = 'https://github.com/facebookresearch/dinov2'
    for arch, count in zip(
        ('small', 'base', 'large', 'giant'), (88283115, 346378731, 1217586395, 4546108579)
    ):
        code = f'dinov2_vit{arch[0]}14'
        file = f'{code}_pretrain.pth'
        yield Official('dinov2', arch, file, count, f'{_FILES}/dinov2/{code}/{file}', page)
    page = 'https://github.com/facebookresearch/segment-anything'
    for arch, count, md5 in (
        ('vit_b', 375042383, '01ec64'),
        ('vit_l', 1249524607, '0b3195'),
        ('vit_h', 2564550879, '4b8939'),
    ):
        file = f'sam_{arch}_{md5}.pth'
        url = f'{_FILES}/segment_anything/{file}'
        yield Official('sam1', arch, file, count, url, page, digest=('md5', md5))
    for arch, sha in (('small', '08c60483'), ('base', '73cec8be'), ('large', '8aa4cbdd')):
        file = f'dinov3_vit{arch[0]}16_pretrain_lvd1689m-{sha}.pth'
        licence, digest = 'DINOv3 License', ('sha256', sha)
        yield Official('dinov3', arch, file, None, '', _DINOV3_PAGE, licence, digest)


WEIGHTS = {one.name: one for one in _all()}
"""All of them, by name."""


def official(kind: str, arch: str | dict) -> Official:
    """The published weights of an arch.

    Args:
        kind: ``sam2``, ``dinov2``, ``sam1`` or ``dinov3``.
        arch: of the encoder.

    Raises:
        ValueError: an arch of your own (a dict), or one without official weights.
    """
    if not isinstance(arch, str):
        raise ValueError(
            f"checkpoint='{OFFICIAL}' needs an arch by name; an arch of your own (a dict) has no "
            f'{OFFICIAL} weights. Give a path, or None to start from random weights'
        )
    found = {one.arch: one for one in WEIGHTS.values() if one.kind == kind}
    if arch not in found:
        raise ValueError(
            f"checkpoint='{OFFICIAL}' of {kind} is for an arch out of {list(found)}, got {arch!r}. "
            'Give a path, or None to start from random weights'
        )
    return found[arch]


def folders() -> list[Path]:
    """Where official weights are looked for, in this order; they are fetched to the first.

    ``$MMFSS_WEIGHTS`` where it is set, then torch.hub's folder, ``~/.cache/torch/hub/checkpoints``
    where no variable of torch says otherwise: what other programs fetched to it is taken.
    """
    own = os.environ.get(VARIABLE)
    return [*([Path(own).expanduser()] if own else []), Path(hub.get_dir(), 'checkpoints')]


def local_file(one: Official) -> Path | None:
    """The file of some weights, where it is there."""
    return next(
        (path for path in (place / one.file for place in folders()) if path.is_file()), None
    )


def official_file(kind: str, arch: str | dict) -> str:
    """Path of the official weights of an arch; nothing is fetched.

    Args:
        kind, arch: see :func:`official`.

    Raises:
        ValueError: see :func:`official`; or half of a file, or no file of weights, lies there.
        FileNotFoundError: it is not there; the message has the command that fetches it, and where
            to put it by hand, or the page of a gated one.
    """
    one = official(kind, arch)
    need([one])
    path = str(local_file(one))
    fault = fault_of(path, one.bytes)
    if fault:
        raise ValueError(f'{path}, which should hold {one.name}, {fault}. {remedy([one])}')
    return path


@contextmanager
def checkpoint_file(kind: str, arch: str | dict, checkpoint: str) -> Iterator[str]:
    """Path that an encoder's weights are loaded from, around the loading.

    Args:
        kind, arch: see :func:`official`.
        checkpoint: a path, or ``official``.

    Raises:
        FileNotFoundError, ValueError: see :func:`official_file`; a ValueError of the loading says
            of official weights what to do about the file.
    """
    if checkpoint != OFFICIAL:
        yield checkpoint
        return
    path, one = official_file(kind, arch), official(kind, arch)
    try:
        yield path
    except ValueError as error:
        raise ValueError(
            f'{error} {path} has the name of {one.name} and is not it: remove it. {remedy([one])}'
        ) from error


def need(wanted: Iterable[Official]) -> None:
    """Check that weights are there, before anything is done with them.

    Raises:
        FileNotFoundError: some are not; the message has one command for all that may be fetched.
    """
    missing = [one for one in dict.fromkeys(wanted) if local_file(one) is None]
    if not missing:
        return
    halves = [place / (one.file + PART_SUFFIX) for one in missing for place in folders()]
    raise FileNotFoundError(
        f'official weights are not there: {", ".join(one.name for one in missing)} (looked in '
        f'{" and ".join(map(str, folders()))}). {remedy(missing)}'
        + ''.join(f'. {half} is of a fetch that goes on' for half in halves if half.is_file())
    )


def remedy(missing: Sequence[Official]) -> str:
    """How to get weights: the one command, and where to put them by hand."""
    said = []
    if fetched := [one for one in missing if one.url]:
        said.append(
            f'Run `mmfss weights fetch {" ".join(one.name for one in fetched)}`; or, without a '
            f'network, put into {folders()[0]} what is at {", ".join(one.url for one in fetched)}'
        )
    if gated := [one for one in missing if not one.url]:
        said.append(
            f'{", ".join(one.name for one in gated)} is gated: ask for it at {gated[0].page} and '
            f'put {", ".join(one.file for one in gated)} into {folders()[0]}, or give as '
            'checkpoint the path of it, or of a copy under the names of timm or transformers (.pth '
            'or .safetensors)'
        )
    return '. '.join(said)


def fault_of(path: str | os.PathLike[str], count: int | None = None) -> str:
    """What is wrong with a file of weights, as far as its two ends tell; '' for nothing.

    Args:
        path: the file.
        count: bytes that it should have, for a form whose end says nothing.
    """
    with open(path, 'rb') as file:
        start = file.read(64)
    if start.startswith(b'PK'):
        return '' if zipfile.is_zipfile(path) else 'is cut off: its end is missing'
    if start.startswith(b'\x80'):  # a pickle, as torch wrote before 1.6
        return 'is cut off' if os.path.getsize(path) < (count or 0) else ''
    if not start:
        return 'is empty'
    if start.lstrip().startswith(b'<'):
        return 'is a web page that was saved under this name'
    return 'is no file of torch.save'


def official_in(cfg: Any, key: str = '') -> Iterator[Official]:
    """The official weights that a config of a model asks for, wherever in it.

    Args:
        cfg: dicts and lists; a dict with ``checkpoint='official'`` is of an encoder.
        key: under which it stands, which says the kind where it has no type.
    """
    if isinstance(cfg, Mapping):
        if cfg.get('checkpoint') == OFFICIAL:
            kinds = dict.fromkeys(one.kind for one in WEIGHTS.values())
            called = str(cfg.get('type') or key).lower()
            kind = next((kind for kind in kinds if called.startswith(kind)), None)
            if kind is not None:
                yield official(kind, cfg.get('arch', 'base'))
        for name, value in cfg.items():
            yield from official_in(value, name)
    elif isinstance(cfg, (list, tuple)):
        for value in cfg:
            yield from official_in(value, key)
