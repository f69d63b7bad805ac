"""What a training was set to, as its checkpoints record it, and how a resumed one differs.

Pure functions. The record is ``meta['mmfss_settings']``: parts of the config in plain values, and
what no config says alone: processes, iterations of an epoch, loop, seed and others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mmfss.checkpoints.record import deciding

SETTINGS_KEY = 'mmfss_settings'
#: entries of the config that a training depends on
PARTS = (
    'model', 'train_dataloader', 'val_dataloader', 'val_evaluator', 'val_cfg', 'train_cfg',
    'optim_wrapper', 'param_scheduler', 'auto_scale_lr',
)  # fmt: skip
#: of the model, what does not change what is trained: where weights come from, what costs time
_OF_MODEL_WITHOUT_EFFECT = ('checkpoint', 'chunk', 'compile', 'init_cfg', 'pretrained')
#: starts of entries on which the learning rate of an iteration depends
_OF_SCHEDULE = (
    'optim_wrapper', 'param_scheduler', 'auto_scale_lr', 'train_cfg.max', 'iterations', 'processes',
    'train_dataloader.batch_size',
)  # fmt: skip
_UNSET = 'unset'


class Difference(NamedTuple):
    """An entry, its value in the checkpoint and the one of now; 'unset' where it is not there."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f'{self.key}: {self.before} -> {self.now}'

    @property
    def of_schedule(self) -> bool:
        """Whether the learning rate, or another value of the optimizer, may depend on it."""
        return self.key.startswith(_OF_SCHEDULE)

    @property
    def refused(self) -> bool:
        """Whether the training of the checkpoint cannot go on with it."""
        of_model = self.key.startswith('model.') or self.key == 'model'
        of_shots = self.key.startswith('train_dataloader.') and self.key.endswith('.shots')
        fixed = ('optim_wrapper.optimizer', 'optim_wrapper.optimizer.type', 'loop', 'seed')
        return of_model or of_shots or self.key in fixed


def describe_settings(cfg: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a training.

    Args:
        cfg: Its config.
        others: Entries beside the parts of the config, in plain values.

    Returns:
        Dicts, lists, texts and numbers alone, which a checkpoint may hold; classes and other
        things as their names.
    """
    parts = {name: _recordable(deciding(cfg.get(name))) for name in PARTS}
    parts['model'] = _without(parts['model'], _OF_MODEL_WITHOUT_EFFECT)
    return dict(parts, **others)


def _recordable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _recordable(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_recordable(entry) for entry in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    return getattr(value, '__name__', None) or str(value)


def _without(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, Mapping):
        return {k: _without(entry, names) for k, entry in value.items() if k not in names}
    if isinstance(value, list):
        return [_without(entry, names) for entry in value]
    return value


def differences(before: Any, now: Any, path: str = '') -> Iterator[Difference]:
    """What differs between two records, entry by entry; lists of unequal length as a whole."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in [*before, *(key for key in now if key not in before)]:
            here = f'{path}.{key}' if path else str(key)
            yield from differences(before.get(key, _UNSET), now.get(key, _UNSET), here)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for place, (one, other) in enumerate(zip(before, now)):
            yield from differences(one, other, f'{path}.{place}')
    elif before != now:
        yield Difference(path, before, now)


def check_settings(found: Sequence[Difference], source: str, path: str) -> None:
    """Refuse to resume where the two trainings are not one.

    Args:
        found: The differences.
        source: What messages call the checkpoint, e.g. 'checkpoint epoch_3.pth'.
        path: Its file.

    Raises:
        ValueError: Another model, number of shots, optimizer, kind of loop or seed; all of them
            are named, with what to do.
    """
    refused = [str(difference) for difference in found if difference.refused]
    if refused:
        raise ValueError(
            f'{source} cannot be resumed with other settings than it was trained with: '
            f'{"; ".join(refused)} (checkpoint -> now). One run has one model, optimizer, number '
            'of shots and seed. Resume with the values of the checkpoint, or start a run of its '
            f'own from its weights: leave out --resume, give --cfg-options load_from={path} and '
            'another --work-dir'
        )
