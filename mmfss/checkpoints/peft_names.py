"""State dicts whose parts were wrapped by PEFT for LoRA, under the names of mmfss.

FS-SAM2's ``best_model.pt`` has SAM 2 below ``model.``. Its parts with LoRA are
``model.PART.base_model.model.REST``, where wrapped layers keep their weights in ``base_layer`` and
have LoRA in ``lora_A.default`` and ``lora_B.default`` beside it (PEFT 0.17). Here a layer keeps its
name, with ``lora.down`` and ``lora.up`` below it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from mmfss.words import listed

_TOP, _WRAPPED = 'model.', '.base_model.model.'
_LORA = re.compile(r'\.lora_([AB])\.(\w+)\.weight$')


def from_peft(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """A state dict under the names of mmfss's SAM 2 with LoRA.

    Args:
        state: of the file.
        source: what messages call it.

    Raises:
        ValueError: no such file, or adapters of other kinds.
    """
    whole = all(key.startswith(_TOP) for key in state)
    if not whole or not any(_LORA.search(key) for key in state):
        raise ValueError(
            f'{source} is no checkpoint of FS-SAM2: expected names that begin with {_TOP!r}, some '
            f'with lora_A and lora_B in them, got {listed(list(state), 6)}'
        )
    renamed = {}
    for key, value in state.items():
        name = key.removeprefix(_TOP).replace(_WRAPPED, '.', 1).replace('.base_layer.', '.')
        found = _LORA.search(name)
        if found and found[2] == 'default':
            name = f'{name[: found.start()]}.lora.{"down" if found[1] == "A" else "up"}'
        elif 'lora_' in name or name in renamed:
            raise ValueError(
                f'{source} has {key}, which is no weight of one plain LoRA; adapters of other '
                'kinds, and several side by side, are not taken'
            )
        renamed[name] = value
    return renamed


def check_lora(expected: Mapping[str, Tensor], got: Mapping[str, Tensor], source: str) -> None:
    """Compare LoRA in two state dicts: its layers, and its rank in each part.

    Args:
        expected: of the configured model.
        got: of a file, under the same names.
        source: what messages call it.

    Raises:
        ValueError: they differ; the message names the option of the config.
    """
    mine, theirs = _ranks(expected), _ranks(got)
    problems = []
    for part in sorted({name.split('.')[0] for name in (*mine, *theirs)}):
        own = {name for name in mine if name.split('.')[0] == part}
        other = {name for name in theirs if name.split('.')[0] == part}
        for names, what in (
            (other - own, f'LoRA on layers of {part} which the config leaves alone'),
            (own - other, f'no LoRA on layers of {part} which the config adapts'),
        ):
            if names:
                problems.append(
                    f'{what}: {listed(sorted(names), 4)}; set model.lora.{part}.targets'
                )
        ranks = {theirs[name] for name in own & other}
        wanted = {mine[name] for name in own & other}
        if ranks != wanted:
            problems.append(
                f'LoRA of rank {", ".join(map(str, sorted(ranks)))} in {part}, where the config '
                f'has {", ".join(map(str, sorted(wanted)))}; set model.lora.{part}.rank'
            )
    if problems:
        raise ValueError(
            f'{source} does not fit the config. It has {". It has ".join(problems)}. The factor '
            'alpha / rank of LoRA is not in the file: alpha must be that of its training'
        )


def _ranks(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Layer -> rank."""
    end = '.lora.down'
    return {key.removesuffix(end): len(v) for key, v in state.items() if key.endswith(end)}
