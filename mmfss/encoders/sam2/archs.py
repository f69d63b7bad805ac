"""Architectures of SAM 2: the YAML files of the sam2 package, with overrides."""

from __future__ import annotations

import copy
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import sam2
from hydra.utils import get_class
from omegaconf import OmegaConf

ARCHS = {
    f'{version}_{size}': f'configs/{version}/{version}_hiera_{letter}.yaml'
    for version in ('sam2', 'sam2.1')
    for size, letter in (('tiny', 't'), ('small', 's'), ('base_plus', 'b+'), ('large', 'l'))
}
"""Name -> YAML in the sam2 package; official weights of the same names are in
:mod:`mmfss.checkpoints.official`."""

OF_OBJECT_SCORE = re.compile(
    r'no_obj_ptr$|sam_mask_decoder\.(obj_score_token|pred_obj_score_head)\.'
)
"""Names of the 8 tensors that a SAM 2 without object score does not have."""


def arch_config(arch: str | dict | None) -> dict:
    """The ``model`` section of a packaged YAML with the overrides of ``arch`` merged in."""
    overrides = _plain(arch) if isinstance(arch, dict) else {}
    name = overrides.pop('base', None) if isinstance(arch, dict) else arch
    if name not in ARCHS:
        raise ValueError(
            f'model.sam2.arch must be one of {sorted(ARCHS)}, or a dict whose "base" is one of '
            f'them, got {arch!r}'
        )
    if 'image_size' in overrides:
        raise ValueError('set the side of the images in model.sam2.image_size, not in its arch')
    cfg = copy.deepcopy(_packaged(ARCHS[name]))
    _merge(cfg, overrides, ARCHS[name], 'model')
    return cfg


@cache
def _packaged(file: str) -> dict:
    """The ``model`` section of a YAML of the sam2 package."""
    return OmegaConf.to_container(OmegaConf.load(Path(sam2.__file__).parent / file).model)


def _plain(value: Any) -> Any:
    """A copy with plain dicts and lists: OmegaConf refuses mmengine's ConfigDict."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value


def _merge(cfg: dict, overrides: dict, source: str, where: str) -> None:
    allowed = _options(cfg)
    for key, value in overrides.items():
        if key not in allowed:
            raise ValueError(
                f'model.sam2.arch sets {where}.{key}, which {source} of the sam2 package does '
                f'not have; allowed there: {sorted(allowed)}'
            )
        # another class (_target_) replaces the node: options of two classes do not mix
        if isinstance(value, dict) and isinstance(cfg.get(key), dict) and '_target_' not in value:
            _merge(cfg[key], value, source, f'{where}.{key}')
        else:
            cfg[key] = value


def _options(cfg: dict) -> set[str]:
    """What a node of the YAML may set: its entries and the arguments of its ``_target_``."""
    names = set(cfg)
    # along the mro, as *args and **kwargs go on to the parents
    for cls in inspect.getmro(get_class(cfg['_target_'])) if '_target_' in cfg else ():
        named = inspect.signature(cls.__init__).parameters.values()
        names |= {p.name for p in named if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return names - {'self', 'weights_path'}  # the latter is read without the checks of load_sam2
