"""Published adapters of SANSA: reading, names, and which SAM 2 they are of.

The training program saves a dict ``model`` with the adapters alone, beside its optimizer and the
``argparse.Namespace`` of its options, in torch's format before 1.6. Names, behind ``module.`` or
not, are ``sam.image_encoder.trunk.blocks.{i}.adapter.{part}.{weight,bias}``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from torch import Tensor

from mmfss.checkpoints.recognition import SAM2_SIZES
from mmfss.checkpoints.weights import check_state_dict
from mmfss.safe_load import load_checkpoint
from mmfss.words import listed

PARTS = {'adapter_layer_norm_before': 'norm', 'down_proj': 'down', 'up_proj': 'up'}
"""Published name of a part of an adapter -> ours."""
_PUBLISHED = re.compile(
    rf'(?:module\.)?sam\.image_encoder\.trunk\.blocks\.(\d+)\.adapter\.({"|".join(PARTS)})\.'
    r'(weight|bias)$'
)
_COUNTERS = ('total_ops', 'total_params')
"""Ends of names of what a profiler left behind."""
_OURS = re.compile(r'sam2\.image_encoder\.trunk\.blocks\.(\d+)\.mlp\.adapter\.down\.weight$')


def read_published(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Adapters of a published file under our names. No code of the file is run.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged, needs code to load, or holds something else.
    """
    content = load_checkpoint(path, map_location='cpu', namespaces=True)
    state = content.get('model', content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise ValueError(
            f'{path} holds no adapters of SANSA: expected a dict with the entry "model", got '
            f'{type(content).__name__}'
        )
    found, strangers = {}, []
    for key, value in state.items():
        match = _PUBLISHED.match(str(key))
        if match and isinstance(value, Tensor):
            block, part, kind = match.groups()
            found[f'sam2.image_encoder.trunk.blocks.{block}.mlp.adapter.{PARTS[part]}.{kind}'] = (
                value
            )
        elif not str(key).endswith(_COUNTERS):
            strangers.append(str(key))
    if not found or strangers:
        text = 'has none' if not found else f'has {len(found)} of them and others'
        raise ValueError(
            f'{path} is no file of SANSA adapters: names in it are to be '
            'sam.image_encoder.trunk.blocks.{i}.adapter.{'
            + ','.join(PARTS)
            + '}.{weight,bias}, and it '
            f'{text}: {listed(strangers, 4, more=", ... ({total} keys)") or "no key"}'
        )
    return found


def fitted(
    theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """The tensors of ``theirs`` in the order of ``ours``, compared key by key.

    Raises:
        ValueError: of another size of SAM 2, other stages or another width, with the options that
            fit; keys missing, or values that are not finite.
    """
    shapes = [_shapes(state) for state in (theirs, ours)]
    if shapes[0] != shapes[1]:
        told = [describe(each) for each in shapes]
        options = [
            f'{option}={value}'
            for (option, value), configured in zip(told[0].items(), told[1].values())
            if value is not None and value != configured
        ]
        hint = f' Add --cfg-options {" ".join(options)}' if options else ''
        raise ValueError(
            f'{source}: its adapters are not those of the configured model. It has '
            f'{_text(shapes[0])}; the model has {_text(shapes[1])}.{hint}'
        )
    check_state_dict(dict(ours), dict(theirs), f'adapters of {source}')
    return {key: theirs[key] for key in ours}


def _shapes(state: Mapping[str, Tensor]) -> dict[int, tuple[int, int]]:
    """Number of a block -> width C and bottleneck r of its adapter."""
    return {
        int(match[1]): (int(value.shape[1]), int(value.shape[0]))
        for key, value in state.items()
        if (match := _OURS.match(key)) and value.ndim == 2
    }


def describe(shapes: Mapping[int, tuple[int, int]]) -> dict[str, object]:
    """Options of a config -> value under which adapters have these shapes; None for what the
    shapes do not tell.

    Args:
        shapes: number of a block -> width C and bottleneck r of its adapter.
    """
    widest, blocks = max((c for c, _ in shapes.values()), default=0), max(shapes, default=0) + 1
    # the last of four stages has 8 times the width of the first: SAM 2's size
    arch = SAM2_SIZES.get((widest // 8, blocks))
    stages = None
    if arch is not None:
        each = {widest * 2**stage // 8: stage for stage in range(4)}
        stages = sorted({each[c] for c, _ in shapes.values() if c in each})
    # r = int(f C), of the first block of a stage int(f C / 2): the first such f in hundredths
    factor = next(
        (
            f / 100
            for f in range(1, 201)
            if shapes
            and all(r in (int(f / 100 * c), int(f / 100 * (c // 2))) for c, r in shapes.values())
        ),
        None,
    )
    return {
        'model.sam2.arch': arch and f'sam2_{arch}',
        'model.sam2.adapters.stages': stages and f'[{",".join(map(str, stages))}]',
        'model.sam2.adapters.channel_factor': factor,
    }


def _text(shapes: Mapping[int, tuple[int, int]]) -> str:
    widths = sorted({c for c, _ in shapes.values()})
    ranks = sorted({r for _, r in shapes.values()})
    return (
        f'{len(shapes)} in blocks {min(shapes, default="-")} to {max(shapes, default="-")} of '
        f'widths {widths} with bottlenecks {ranks}'
    )
