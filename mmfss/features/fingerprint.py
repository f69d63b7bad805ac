"""Key of frozen modules: a hash of all that determines what they give for an image.

Covered are weights and buffers, the classes and settings of all submodules, the source text of
those classes, the versions of their packages, torch, the device and its arithmetic, and what the
caller adds. Not covered are forward hooks and methods replaced on an instance.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmfss.features.entries import FORMAT
from mmfss.features.modules import code_of, settings_of

_FLAGS = (
    # older and newer names of torch's switches; those that a version lacks are None
    'torch.get_float32_matmul_precision',
    'torch.are_deterministic_algorithms_enabled',
    'torch.backends.mkldnn.enabled',
    'torch.backends.cuda.matmul.allow_tf32',
    'torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction',
    'torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction',
    'torch.backends.cuda.flash_sdp_enabled',
    'torch.backends.cuda.mem_efficient_sdp_enabled',
    'torch.backends.cuda.math_sdp_enabled',
    'torch.backends.cuda.cudnn_sdp_enabled',
    'torch.backends.cudnn.allow_tf32',
    'torch.backends.cudnn.benchmark',
    'torch.backends.cudnn.deterministic',
    'torch.backends.cudnn.enabled',
    'torch.backends.fp32_precision',
    'torch.backends.cuda.matmul.fp32_precision',
    'torch.backends.cudnn.conv.fp32_precision',
    'torch.backends.mkldnn.matmul.fp32_precision',
    'torch.backends.mkldnn.conv.fp32_precision',
)


@dataclass(frozen=True)
class Fingerprint:
    """Hexadecimal SHA-256 ``key`` of ``about``, which says in JSON types what was hashed."""

    key: str
    about: dict[str, Any]


def fingerprint(
    modules: Mapping[str, nn.Module],
    settings: Mapping[str, Any],
    classes: Sequence[type] = (),
    alone: Sequence[str] = (),
) -> Fingerprint:
    """Key and description of modules as they are now.

    Reads all weights (about a second for 500 MB); :class:`WeightsVersion` tells cheaply whether
    it must be done again.

    Args:
        modules: what gives the features, by name.
        settings: what else decides about them, such as the autocast dtype; of JSON types.
        classes, alone: whose code runs the modules, beside their own; see
            :func:`mmfss.features.modules.code_of`.

    Raises:
        ValueError: no module; settings that JSON cannot hold; weights on the meta device.
    """
    if not modules:
        raise ValueError('modules must hold at least one module, got none')
    tensors = list(_named_tensors(modules))
    device = next((tensor.device for _, tensor in tensors), torch.device('cpu'))
    about = dict(
        what=sorted(modules),
        format=FORMAT,
        mmfss=_mmfss_version(),
        torch=torch.__version__,
        device=_device_name(device),
        arithmetic=arithmetic(),
        dtype=sorted({str(tensor.dtype).removeprefix('torch.') for _, tensor in tensors}),
        parameters=sum(tensor.numel() for _, tensor in tensors),
        weights=_weights_digest(tensors),
        modules=_digest(_json(settings_of(modules), 'attributes of the modules')),
        code=_digest(_json(code_of(modules, classes, alone), 'sources of the modules')),
        settings=dict(settings),
    )
    return _of(about)


def with_settings(made: Fingerprint, **settings: Any) -> Fingerprint:
    """The fingerprint with further settings; no weight is read again."""
    return _of(dict(made.about, settings=dict(made.about['settings'], **settings)))


def _of(about: Mapping[str, Any]) -> Fingerprint:
    text = _json(about, 'settings')
    return Fingerprint(hashlib.sha256(text.encode()).hexdigest(), json.loads(text))


class WeightsVersion:
    """Tells whether modules are as they were when this was made.

    Seen are parameters and buffers that were changed in place, replaced or moved, submodules that
    were replaced, and modules that went into or out of training mode; below 0.3 ms for 600 tensors.
    Writing through ``tensor.data``, or to tensors made in inference mode, leaves no trace that
    torch shows. A copy, or what another process gets, holds for nothing: it is of other tensors.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._modules: list[tuple] = []
        self._entries: list[tuple] = []
        self._tensors: list[tuple] = []
        self._uncounted: list[tuple] = []
        stack = [*modules]
        while stack:
            module = stack.pop()
            holders = (module._parameters, module._buffers, module._modules)
            self._modules.append((module, module.training, sum(len(holder) for holder in holders)))
            for holder in holders:
                for name, value in holder.items():
                    if isinstance(value, Tensor):
                        # weak: an old weight need not stay because nobody asks any more
                        seen = weakref.ref(value), value.data_ptr()
                        if value.is_inference():  # its changes are not counted
                            self._uncounted.append((holder, name, *seen))
                        else:
                            self._tensors.append((holder, name, *seen, value._version))
                    else:
                        self._entries.append((holder, name, value))
            stack += [child for child in module._modules.values() if child is not None]

    def holds(self) -> bool:
        """Whether all is as it was; never for a copy, nor where there is no module."""
        for module, training, size in self._modules:
            now = len(module._parameters) + len(module._buffers) + len(module._modules)
            if module.training is not training or now != size:
                return False
        for holder, name, value in self._entries:
            if holder.get(name, self) is not value:
                return False
        for holder, name, seen, place, changes in self._tensors:
            value = holder.get(name)
            if value is None or seen() is not value or value.data_ptr() != place:
                return False
            if value._version != changes:
                return False
        for holder, name, seen, place in self._uncounted:
            value = holder.get(name)
            if value is None or seen() is not value or value.data_ptr() != place:
                return False
        return bool(self._modules)

    def __reduce__(self) -> tuple[type, tuple[list]]:
        return type(self), ([],)


def _named_tensors(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, Tensor]]:
    """All parameters and buffers, persistent or not, by name."""
    for name, module in sorted(modules.items()):
        for path, part in module.named_modules(prefix=name, remove_duplicate=False):
            for kind in (part._parameters, part._buffers):
                for key, tensor in kind.items():
                    if tensor is not None:
                        yield f'{path}.{key}', tensor


def _weights_digest(tensors: list[tuple[str, Tensor]]) -> str:
    for name, tensor in tensors:
        if tensor.is_meta:
            raise ValueError(f'{name} is on the meta device and has no values; load weights first')
    threads = max(1, min(4, torch.get_num_threads()))
    with ThreadPoolExecutor(threads) as pool:  # hashing leaves Python's lock
        return _digest(''.join(pool.map(_tensor_digest, tensors)))


def _tensor_digest(named: tuple[str, Tensor]) -> str:
    name, tensor = named
    # memory order decides which kernels run
    digest = hashlib.blake2b(
        f'{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.stride()}\0'.encode(),
        digest_size=32,
    )
    digest.update(_raw(tensor).data)
    return digest.hexdigest()


def _raw(tensor: Tensor) -> np.ndarray:
    """The values as bytes; on the CPU without a copy where they are contiguous."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy()


def _device_name(device: torch.device) -> str:
    if device.type == 'cuda':
        cudnn = torch.backends.cudnn.version()
        name = torch.cuda.get_device_name(device)
        return f'cuda: {name}, CUDA {torch.version.cuda}, cuDNN {cudnn}'
    if device.type == 'cpu':
        return f'cpu: {torch.backends.cpu.get_cpu_capability()}'
    return device.type


def arithmetic() -> dict[str, Any]:
    """Switches of torch that change the last bits of results, as they are set now."""
    return {name.removeprefix('torch.'): _flag(name) for name in _FLAGS}


def _flag(name: str) -> Any:
    """Value of a switch of torch, None where this version has none or will not tell (it does not
    when older and newer names of one switch were used)."""
    value: Any = torch
    try:
        for step in name.split('.')[1:]:
            value = getattr(value, step)
        value = value() if callable(value) else value
    except (AttributeError, RuntimeError):
        return None
    return value if isinstance(value, bool | int | str) else str(value)


def _json(value: Any, what: str) -> str:
    try:
        return json.dumps(value, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f'{what} must be of JSON types (None, bool, int, float, str, list, dict with str '
            f'keys): {error}'
        ) from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _mmfss_version() -> str:
    from mmfss import __version__  # not yet there while the package is being imported

    return __version__
