"""Refuses ``--cfg-options`` that would silently do nothing, and says what to write instead."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

import mmseg.registry as registries
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import Runner
from mmseg.registry import MODELS

from mmfss.methods.base import FewShotModel

#: top-level entries that the Runner reads besides its arguments
_RUNNER_READS = (
    'activation_checkpointing',
    'compile',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'sync_bn',
)
#: top-level entries with a flag of their own
_FLAGS = {'launcher': '--launcher', 'resume': '--resume'}
#: what entries without a type may hold; mmengine ignores anything else in env_cfg
_ARGUMENTS_AT = {
    'env_cfg': {'cudnn_benchmark', 'dist_cfg', 'mp_cfg', 'resource_limit'},
}
#: entries that mmengine takes out before it calls a constructor
_TAKEN_BEFORE = {
    'type',
    '_delete_',
    '_scope_',
    'priority',
    'constructor',
    'convert_to_iter_based',
    'init_cfg',
    'optimizer',
    'paramwise_cfg',
}
_ENV_VARIABLE = re.compile(r'^(\w+)\s*=.*\{\{[\'"]?\s*\$(\w+)\s*:', re.MULTILINE)


def runner_entries() -> set[str]:
    """Names of the top-level config entries that reach the Runner."""
    arguments = set(inspect.signature(Runner.__init__).parameters) - {'self', 'cfg'}
    return (arguments | set(_RUNNER_READS)) - set(_FLAGS)


def check_options(cfg: Config, options: Mapping[str, Any], command: str) -> None:
    """Check overrides before they are merged.

    Args:
        cfg: config as read from its file.
        options: ``{'train_dataloader.batch_size': 4, ...}``.
        command: how the tool was called, without options: ``python tools/train.py CONFIG``.

    Raises:
        ValueError: an override that nothing would read; the message has what to do instead.
    """
    read = runner_entries()
    for key, value in options.items():
        top = key.split('.')[0]
        if top in _FLAGS:
            raise ValueError(f'--cfg-options {key}={value} is not read; use {_FLAGS[top]}')
        if top not in read:
            raise ValueError(_unread(cfg, key, value, command, read))
        _check_nested(cfg, key, value, options)
    for key in options:
        if key.endswith('.type'):
            _check_leftovers(cfg, key, options)


def _unread(cfg: Config, key: str, value: Any, command: str, read: set[str]) -> str:
    """Message for a top-level entry that the Runner does not read."""
    start = f'--cfg-options {key}={value} would do nothing: '
    if key not in cfg:
        top = key.split('.')[0]
        return f'{start}{top!r} is no entry that the runner reads; {_hint(top, read)}'
    start += f'{key} is a variable that the config has already copied into other entries. '
    variables = dict(_ENV_VARIABLE.findall(cfg.text))
    if key in variables:
        return f'{start}Run: {variables[key]}={value} {command}'
    copies = list(_copies(cfg, key, read))
    if copies:
        return f'{start}Set those that you mean: {", ".join(copies)}'
    return f'{start}Edit the config file instead'


def _copies(cfg: Config, name: str, read: set[str]) -> Iterator[str]:
    """Paths of nested entries with the name of a variable, or with its value if that is telling."""
    wanted = cfg[name]
    telling = isinstance(wanted, (str, dict, list, tuple)) or (
        isinstance(wanted, (int, float)) and not isinstance(wanted, bool) and wanted > 16
    )

    def walk(node: Any, path: str) -> Iterator[str]:
        if isinstance(node, Mapping):
            entries = list(node.items())
        elif isinstance(node, (list, tuple)):
            entries = list(enumerate(node))
        else:
            return
        for key, entry in entries:
            here = f'{path}.{key}'
            if key == name or (telling and entry == wanted):
                yield here
            else:
                yield from walk(entry, here)

    for top in sorted(read & set(cfg)):
        yield from (path[1:] for path in walk(cfg[top], f'.{top}'))


def _check_nested(cfg: Config, key: str, value: Any, options: Mapping[str, Any]) -> None:
    """Refuse a new entry that its part, of the type it is to have, has no argument for."""
    node: Any = cfg._cfg_dict
    path: list[str] = []
    for name in key.split('.'):
        if isinstance(node, Mapping) and name not in node:
            here = '.'.join(path)
            kind = options.get(f'{here}.type', node.get('type'))
            allowed = _ARGUMENTS_AT.get(here) or arguments_of(kind)
            if allowed is None and path[:-1] == ['model']:
                allowed = _of_builder(cfg.model.get('type'), path[1])
            if allowed is not None and name not in allowed | _TAKEN_BEFORE:
                owner = here if kind is None else kind
                raise ValueError(
                    f'--cfg-options {key}={value} would do nothing: {owner} has no {name!r}; '
                    f'{_hint(name, allowed)}'
                )
            return  # all below is new too
        try:
            node = node[name] if isinstance(node, Mapping) else node[int(name)]
        except (TypeError, ValueError, IndexError):
            return  # mmengine says so when it merges
        path.append(name)


def _check_leftovers(cfg: Config, key: str, options: Mapping[str, Any]) -> None:
    """Refuse another type for a part whose other entries, which stay, it has no argument for."""
    part, kind = key.rsplit('.', 1)[0], options[key]
    node: Any = cfg._cfg_dict
    for name in part.split('.'):
        try:
            node = node[name] if isinstance(node, Mapping) else node[int(name)]
        except (KeyError, TypeError, ValueError, IndexError):
            return  # new as a whole
    allowed = arguments_of(kind)
    if allowed is None or not isinstance(node, Mapping) or options.get(f'{part}._delete_'):
        return
    left = [name for name in node if name not in allowed | _TAKEN_BEFORE]
    if left:
        raise ValueError(
            f'--cfg-options {key}={kind}: {", ".join(left)} of {node.get("type")} would stay, and '
            f'{kind} has no such entries. Add {part}._delete_=True and give all that {kind} needs'
        )


def _of_builder(kind: Any, entry: str) -> set[str] | None:
    """Arguments of what takes an entry of a method that has no type; what the method has under a
    name of its own is given there."""
    method = MODELS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(method, type) and issubclass(method, FewShotModel)):
        return None
    builder = method.builders.get(entry)
    own = set(inspect.signature(method.__init__).parameters)
    return None if builder is None else set(inspect.signature(builder).parameters) - own


def _hint(name: str, allowed: set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(allowed), n=1)
    return f'did you mean {close[0]}?' if close else f'allowed: {", ".join(sorted(allowed))}'


def arguments_of(kind: Any) -> set[str] | None:
    """Arguments of a registered class and its bases; None where they cannot be told."""
    cls = kind
    if isinstance(kind, str):
        all_registries = [r for r in vars(registries).values() if isinstance(r, Registry)]
        cls = next((r.get(kind) for r in all_registries if r.get(kind) is not None), None)
    if not inspect.isclass(cls) or hasattr(cls, 'retarget'):
        return None
    names: set[str] = set()
    for base in inspect.getmro(cls):
        if '__init__' in vars(base) and base is not object:
            for parameter in inspect.signature(base.__init__).parameters.values():
                if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                    names.add(parameter.name)
    return names - {'self'}
