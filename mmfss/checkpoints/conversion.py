"""From the published FSSAM checkpoints to ours: names, checks, files.

A published checkpoint is a file of ``torch.save`` with one state dict, by itself or under a key
of ``NESTED``. Its keys are ``sam2.<official SAM 2 name>`` and ``dino.<official DINOv2 name>``, all
of them behind ``module.`` where it was saved from a distributed run. FSSAM has the same official
names behind prefixes of its own, so that a conversion renames prefixes and nothing else.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mmfss.checkpoints.recognition import dinov2_name, sam2_name
from mmfss.checkpoints.weights import check_state_dict
from mmfss.files import atomic
from mmfss.safe_load import load_checkpoint
from mmfss.words import listed

SAM2, DINO = 'sam2.', 'dino.'
#: prefix of a published name -> prefix of ours
PREFIXES: dict[str, str] = {SAM2: 'sam2.', DINO: 'prior_encoder.vit.'}
#: keys under which training code keeps the state dict in a file
NESTED = ('state_dict', 'model')

T = TypeVar('T')


class _LayersOnMeta(TorchFunctionMode):
    """Within, layers get weights that have a shape and no values.

    ``torch.device('meta')`` would do so for all tensors, but SAM 2 computes with some of them
    while it is built; those are small.
    """

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get('device') is None:
            kwargs['device'] = 'meta'
        return func(*args, **kwargs)


def without_weights(build: Callable[[], T]) -> T:
    """What ``build()`` returns, without room and time for the weights of its layers: for a model of
    which only the names and shapes of the state dict are wanted."""
    with _LayersOnMeta():
        return build()


# ------------------------------------------------------------------------------------ reading
def read_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """State dict of a file: plain or under a key of ``NESTED``, without ``module.``.

    No code of the file is run.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, needs code to load, or holds no state dict.
    """
    content = load_checkpoint(path, map_location='cpu')
    for state in (content, *(content.get(key) for key in NESTED if isinstance(content, dict))):
        if isinstance(state, dict) and state and all(_is_weight(*item) for item in state.items()):
            if all(key.startswith('module.') for key in state):
                return {key.removeprefix('module.'): value for key, value in state.items()}
            return state
    got = f'a dict of {_some(content)}' if isinstance(content, dict) else type(content).__name__
    raise ValueError(
        f'{path} holds no state dict: expected names with dense tensors, by themselves or under '
        f'one of the keys {list(NESTED)}, got {got}. Use the file of weights as it was published'
    )


def _is_weight(key: object, value: object) -> bool:
    if not (isinstance(key, str) and isinstance(value, Tensor)):
        return False
    return value.layout == torch.strided and not (value.is_quantized or value.is_meta)


def _some(names: Mapping) -> str:
    return listed([repr(key) for key in names], 6, more=', ... ({total} keys)') or 'nothing'


def as_float32(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Copies of the tensors that hold nothing but their own values, floating ones as float32.

    Returns:
        The state dict, and how many tensors were of each other floating type, e.g.
        ``{'bfloat16': 3}``.
    """
    other = Counter(
        str(value.dtype).removeprefix('torch.')
        for value in state.values()
        if value.is_floating_point() and value.dtype != torch.float32
    )
    copies = {
        key: value.detach().to(
            torch.float32 if value.is_floating_point() else value.dtype,
            copy=True,
            memory_format=torch.contiguous_format,
        )
        for key, value in state.items()
    }
    return copies, dict(other)


# ------------------------------------------------------------------------------------- naming
def published_names(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """FSSAM's state dict under the names of a published checkpoint.

    Raises:
        ValueError: some weights have no counterpart there.
    """
    return _renamed(ours, {mine: theirs for theirs, mine in PREFIXES.items()})


def _renamed(state: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> dict[str, Tensor]:
    renamed, strangers = {}, {}
    for key, value in state.items():
        prefix = next((p for p in prefixes if key.startswith(p)), None)
        if prefix is None:
            strangers[key] = value
        else:
            renamed[prefixes[prefix] + key.removeprefix(prefix)] = value
    if strangers:
        raise ValueError(
            'the configured model has weights that no published checkpoint has: '
            f'{_some(strangers)}. Those hold SAM 2 and DINOv2 alone; use a config with '
            "prior_encoder=dict(type='DINOv2', ...), such as configs/fss_sam2_pascal_1shot.py"
        )
    return renamed


def add_prior_encoder(
    state: Mapping[str, Tensor], path: str | os.PathLike[str], source: str
) -> dict[str, Tensor]:
    """A published state dict without ``dino.*`` keys, with those of an official DINOv2 file.

    Raises:
        FileNotFoundError, ValueError: of :func:`read_state`; or there are such keys already.
    """
    if any(key.startswith(DINO) for key in state):
        raise ValueError(
            f'{source} has {DINO}* keys, the weights of its own prior encoder; leave out '
            f'--prior-encoder {path}'
        )
    return {**state, **{DINO + key: value for key, value in read_state(path).items()}}


def convert_state(
    theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], source: str, official: str = ''
) -> dict[str, Tensor]:
    """Rename a published state dict, after it was compared with FSSAM's key by key.

    Args:
        theirs: published state dict.
        ours: ``state_dict()`` of the configured FSSAM; its values are not read.
        source: what messages call the checkpoint.
        official: where to find the weights of the prior encoder, for a message.

    Returns:
        The tensors of ``theirs`` under our names, in our order.

    Raises:
        ValueError: no FSSAM checkpoint, or one without prior encoder; keys missing or left over,
            other shapes or kinds of numbers, values that are not finite. Where the sizes are
            those of another arch, the message says which option sets it.
    """
    expected = published_names(ours)
    if any(key.startswith(PREFIXES[DINO]) for key in theirs):
        raise ValueError(
            f'{source} has {PREFIXES[DINO]}* keys: it is a checkpoint of mmfss already and needs '
            'no conversion'
        )
    for prefix, absent in ((SAM2, _not_published), (DINO, _no_prior_encoder)):
        if not any(key.startswith(prefix) for key in theirs):
            raise ValueError(absent(theirs, source, official))
    try:
        check_state_dict(expected, dict(theirs), f'{source} for FSSAM')
    except ValueError as error:
        hints = other_archs(theirs, expected)
        raise ValueError(' '.join([str(error), *hints])) from None
    kinds = [
        f'{key} {theirs[key].dtype} instead of {expected[key].dtype}'
        for key in expected
        if theirs[key].is_floating_point() != expected[key].is_floating_point()
    ]
    if kinds:
        raise ValueError(f'{source}: other kinds of numbers: {", ".join(kinds[:8])}')
    renamed = _renamed(theirs, PREFIXES)
    return {key: renamed[key] for key in ours}


def _not_published(theirs: Mapping[str, Tensor], source: str, official: str) -> str:
    what = 'official SAM 2 weights' if 'no_mem_embed' in theirs else 'something else'
    return (
        f'{source} is no published FSSAM checkpoint: no name in it begins with {SAM2!r}. It has '
        f'{_some(theirs)}, which looks like {what}'
    )


def _no_prior_encoder(theirs: Mapping[str, Tensor], source: str, official: str) -> str:
    return (
        f'{source} has no {DINO}* keys: it was saved without its prior encoder, which FSSAM needs. '
        'It was frozen in training, so its official weights will do: give their file with '
        '--prior-encoder PATH' + (f'; download it from {official}' if official else '')
    )


# --------------------------------------------------------------------------------------- archs
def other_archs(theirs: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Which options to set for weights of another known SAM 2 arch or DINOv2 size.

    Args:
        theirs, expected: two state dicts under published names.

    Returns:
        A sentence for each of the two encoders that is of another known arch.
    """
    hints = []
    for what, option, prefix, name_of in (
        ('SAM 2', 'model.sam2.arch', SAM2, sam2_name),
        ('DINOv2', 'model.prior_encoder.arch', DINO, dinov2_name),
    ):
        name, wanted = (
            name_of({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
            for state in (theirs, expected)
        )
        if name is not None and name != wanted:
            hints.append(f'Its {what} has the size of {name!r}: add --cfg-options {option}={name}.')
    return hints


# --------------------------------------------------------------------------------------- files


def save_whole(content: dict, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """``torch.save`` that leaves the complete file or none; makes the folder.

    Raises:
        ValueError: the file exists and may not be overwritten, or is a folder.
        OSError: the disk is full, the folder is read-only.
    """
    check_free(path, overwrite)
    with atomic(path) as partial:
        try:
            torch.save(content, partial)
        except RuntimeError as error:  # of torch's writer, which does not keep the system's reason
            text = f'{path} could not be written ({error}); is there room on the disk?'
            raise OSError(text) from error


def check_free(path: str | os.PathLike[str], overwrite: bool) -> None:
    """ValueError where a file may not be written to ``path``."""
    if Path(path).is_dir():
        raise ValueError(f'{path} is a folder; give the path of the file to write')
    if Path(path).exists() and not overwrite:
        raise ValueError(f'{path} exists; give another path, or --overwrite')
