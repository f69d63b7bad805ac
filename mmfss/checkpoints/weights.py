"""Strict loading of weights, and their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from mmengine.runner import CheckpointLoader
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mmfss.checkpoints.recognition import recognised
from mmfss.words import listed


def check_state_dict(expected: dict[str, Tensor], got: dict[str, Tensor], what: str) -> None:
    """Compare a state dict with the one that a model expects.

    Args:
        expected: the model's own ``state_dict()``.
        got: the one to be loaded.
        what: name of the model and source for the message.

    Raises:
        ValueError: keys missing, unexpected or of another shape, or values that are not finite;
            the message names them, and the encoder that the weights are of where it is known.
    """
    problems, more = [], ', ... ({rest} more)'
    missing = sorted(expected.keys() - got.keys())
    unexpected = sorted(got.keys() - expected.keys())
    if missing:
        problems.append(f'{len(missing)} missing keys: {listed(missing, 8, more=more)}')
    if unexpected:
        problems.append(f'{len(unexpected)} unexpected keys: {listed(unexpected, 8, more=more)}')
    shared = sorted(expected.keys() & got.keys())
    shapes = [
        f'{key} {tuple(got[key].shape)} instead of {tuple(expected[key].shape)}'
        for key in shared
        if got[key].shape != expected[key].shape
    ]
    if shapes:
        problems.append(f'{len(shapes)} shapes differ: {listed(shapes, 8, more=more)}')
    broken = [
        key for key in shared if got[key].is_floating_point() and not got[key].isfinite().all()
    ]
    remedies = []
    if problems:
        remedies.append(
            'Use the checkpoint that belongs to the configured arch, or set the arch to the '
            "checkpoint's."
        )
        is_of, wanted = recognised(got), recognised(expected)
        if is_of and is_of != wanted:
            problems.append(f'these weights are of {is_of}' + (wanted and f', not of {wanted}'))
    if broken:
        problems.append(
            f'{len(broken)} tensors hold NaN or infinity: {listed(broken, 8, more=more)}'
        )
        remedies.append(
            'Against NaN: use an earlier checkpoint of that training, or download the file again.'
        )
    if problems:
        raise ValueError(
            f'{what}: the weights do not fit the model. {"; ".join(problems)}. '
            + ' '.join(remedies)
        )


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of the names and values of all weights, whatever file they came from."""
    return state_digest(model.state_dict()).hex()


def state_digest(state: Mapping[str, Tensor]) -> bytes:
    """SHA-256 of the names, types, shapes and values of a state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}\n'.encode())
        content = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(content.view(torch.uint8).numpy().tobytes())
    return digest.digest()


def read_state(
    path: str, what: str, key: str | None = None, part: str | None = None
) -> dict[str, Tensor]:
    """Read a state dict from a file or URL.

    Args:
        path: local path or URL (fetched and cached by mmengine); a local one may end in
            ``.safetensors``.
        what: name of the model for messages.
        key: entry under which the file keeps the state dict; a plain state dict is taken too.
        part: beginning of the names of this model's weights in a checkpoint of tools/train.py, of
            which only these are read; None takes no such checkpoint.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file holds no state dict, or is damaged.
    """
    if str(path).endswith('.safetensors') and '://' not in str(path):
        if not Path(path).is_file():
            raise FileNotFoundError(f'{path} can not be found.')
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f'{path} holds no weights of {what}, or not all: {error}') from error
    state = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    if key is not None and isinstance(state, dict) and key in state:
        state = state[key]
    elif part is not None and isinstance(state, dict) and isinstance(state.get('state_dict'), dict):
        whole = state['state_dict']
        state = {k.removeprefix(part): v for k, v in whole.items() if k.startswith(part)}
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        inside = (
            (state.get(name) for name in ('model', 'state_dict')) if isinstance(state, dict) else ()
        )
        is_of = next(
            (said for one in inside if isinstance(one, dict) and (said := recognised(one))), ''
        )
        raise ValueError(
            f'{path} holds no state dict of {what} (a dict of name -> tensor)'
            + (is_of and f'; it holds weights of {is_of}')
        )
    return state


def load_strict(
    model: nn.Module,
    path: str,
    what: str,
    key: str | None = None,
    part: str | None = None,
    fit: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
) -> None:
    """Load a state dict from a file or URL into ``model``, every key accounted for.

    Args:
        model: module to fill.
        path: local path or URL (fetched and cached by mmengine).
        what: name of the model for messages.
        key, part: of :func:`read_state`.
        fit: what the model takes of what was read, where that is something else.

    Raises:
        FileNotFoundError: no such file.
        ValueError: see :func:`check_state_dict`; also where the file holds no state dict.
    """
    load_state(model, fit(read_state(path, what, key, part)), f'{what} from {path}')


def load_state(model: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Load a state dict into ``model``, every key accounted for, in float32.

    Raises:
        ValueError: see :func:`check_state_dict`.
    """
    check_state_dict(model.state_dict(), state, what)
    with torch.no_grad():
        full = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        model.load_state_dict(full)
