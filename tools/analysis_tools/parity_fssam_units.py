"""Single functions of FSSAM against the ``units.npz`` of reference tensors, for check_parity.py.

Every array that is no input of a function is compared; one that nothing here knows is a failing
row. ``*_released`` (what published code does with several supports) and ``corr_max`` /
``fg_sim_max`` (intermediate values that the method does not use) are left out by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
from sam2.modeling.sam.transformer import RoPEAttention
from torch import Tensor

from mmfss.functional import masked_average
from mmfss.methods.fssam.attention import SupportCalibratedAttention
from mmfss.methods.fssam.prompts import PseudoPromptGenerator
from mmfss.methods.fssam.refinement import IterativeMemoryRefinement
from mmfss.methods.losses import squared_dice_loss

LEFT_OUT = re.compile(r'released|corr_max|fg_sim_max')
INPUTS = re.compile(
    r'\.weight\.|\.(feat|mask|query|support|memory_mask|q|k|v|x|logits|target)$'
    r'|^refine\.'
)
# absolute for values up to 1, relative L2; rescaling relu(fg - bg) magnifies rounding
BOUNDS, AE_BOUNDS = (1e-5, 2e-5), (1e-3, 1e-4)


def check_units(units: Mapping[str, np.ndarray], device: torch.device | str = 'cpu') -> list[tuple]:
    """Compare all outputs.

    Args:
        units: arrays by name.
        device: where ours are computed.

    Returns:
        (name, max abs error, its bound, relative L2 error, its bound, note) of each output.
    """
    data = {key: torch.from_numpy(np.asarray(units[key])).to(device) for key in units}
    ours = {}
    for part in (_average, _prototypes, _refinement, _dice, _attention):
        ours.update(part(data))
    rows = []
    for key, want in data.items():
        if key in ours:
            rows.append(_row(key, ours[key].detach().cpu(), want.cpu()))
        elif not INPUTS.search(key) and not LEFT_OUT.search(key):
            rows.append((key, float('nan'), 0, float('nan'), 0, 'not compared'))
    return rows


def _row(key: str, ours: Tensor, want: Tensor) -> tuple:
    if ours.numel() != want.numel():
        note = f'shape {list(ours.shape)} instead of {list(want.shape)}'
        return (key, float('nan'), 0, float('nan'), 0, note)
    ours, want = ours.double().reshape(want.shape), want.double()
    rl2 = ((ours - want).norm() / want.norm().clamp(min=1e-12)).item()
    atol, bound = AE_BOUNDS if key.endswith('.ae') else BOUNDS
    atol *= max(1.0, want.abs().max().item())
    return (key, (ours - want).abs().max().item(), atol, rl2, bound, '')


def _average(data: dict[str, Tensor]) -> dict[str, Tensor]:
    if 'wgap.feat' not in data:
        return {}
    return {'wgap.out': masked_average(data['wgap.feat'], data['wgap.mask'][:, 0])}


def _prototypes(data: dict[str, Tensor]) -> dict[str, Tensor]:
    """``protoK``: fg, bg, ae before the mean over K shots; one query for all K."""
    out = {}
    generator = PseudoPromptGenerator()
    for name in {key.split('.')[0] for key in data if re.fullmatch(r'proto\d+\.support', key)}:
        support, mask = data[f'{name}.support'], data[f'{name}.mask']
        if support.ndim == 4:  # one shot
            support, mask = support[:, None], mask[:, None]
        query = data.get(f'{name}.query', data.get('proto1.query'))
        side = data[f'{name}.fg'].shape[-1]
        made = generator(query, generator.encode_support(support, mask[:, :, 0]), side)
        for kind in ('fg', 'bg', 'ae'):
            out[f'{name}.{kind}'] = getattr(made, f'{kind}_per_shot')
    return out


def _refinement(data: dict[str, Tensor]) -> dict[str, Tensor]:
    """``refineK.VERSION.I.*``: memory and prior of K shots after iteration I."""
    out = {}
    keys = [re.fullmatch(r'refine(\d+)\.(\w+)\.(\d+)\.mem', key) for key in data]
    for shots, version, last in {match.groups() for match in keys if match}:
        suffix = '' if shots == '1' else shots
        batch = len(data['refine.qry_fg'])
        support = data[f'refine.sup{suffix}'].unflatten(0, (batch, -1))
        masks = data[f'refine.sup{suffix}_mask'].unflatten(0, (batch, -1))[:, :, 0]
        refine = IterativeMemoryRefinement(num_iters=int(last), version=version)
        made = refine(
            data['refine.qry_fg'],
            data['refine.qry_ae'],
            data['refine.prior_fg'],
            data['refine.prior_ae'],
            refine.encode_support(support, masks),
        )
        out[f'prior_mem{shots}'] = made.support_relevance
        for i, step in enumerate(made.steps, 1):
            out[f'refine{shots}.{version}.{i}.mem'] = step.memory
            out[f'refine{shots}.{version}.{i}.prior_ae'] = step.prior_ae
    return out


def _dice(data: dict[str, Tensor]) -> dict[str, Tensor]:
    if 'dice.logits' not in data:
        return {}
    logits = data['dice.logits'].clone().requires_grad_()
    loss = squared_dice_loss(logits, data['dice.target'])
    loss.backward()
    return {'dice.loss': loss, 'dice.grad': logits.grad}


def _attention(data: dict[str, Tensor]) -> dict[str, Tensor]:
    """``attn.hN.sK``: N heads, K shots, plain and calibrated; ``self_attn``: stock attention."""
    out = {}
    for name in {key.split('.weight.')[0] for key in data if '.weight.' in key}:
        weights = {
            key.split('.weight.')[1]: value
            for key, value in data.items()
            if key.startswith(f'{name}.weight.')
        }
        if name == 'self_attn':
            out[f'{name}.out'] = _build(RoPEAttention, weights, 1)(*[data[f'{name}.x']] * 3)
            continue
        heads = int(re.search(r'\.h(\d+)', name)[1])
        ours = _build(SupportCalibratedAttention, weights, heads)
        plain = _build(RoPEAttention, weights, heads)
        for case in [key[:-2] for key in data if re.fullmatch(rf'{re.escape(name)}\.s\d+\.k', key)]:
            q, k, v = data[f'{name}.q'], data[f'{case}.k'], data[f'{case}.v']
            masks = data[f'{case}.memory_mask'].unflatten(0, (len(q), -1))[:, :, 0]
            pointers = 4 * (masks.shape[1] + 1)
            out[f'{case}.plain'] = plain(q, k, v, num_k_exclude_rope=pointers)
            out[f'{case}.calibrated'] = calibrated(ours, q, k, v, masks)
    return out


def _build(kind: type, weights: dict[str, Tensor], heads: int) -> RoPEAttention:
    inner, dim = weights['q_proj.weight'].shape
    attention = kind(
        embedding_dim=dim,
        num_heads=heads,
        downsample_rate=dim // inner,
        kv_in_dim=weights['k_proj.weight'].shape[1],
        rope_k_repeat=True,
        feat_sizes=(4, 4),
    )
    attention.load_state_dict(weights)
    return attention.to(weights['q_proj.weight'].device).eval()


def calibrated(
    attention: SupportCalibratedAttention, q: Tensor, k: Tensor, v: Tensor, masks: Tensor
) -> Tensor:
    """Calibrated attention on flat token lists.

    Args:
        attention: the module.
        q: (B, n, D).
        k, v: (B, (K + 1) n + (K + 1) P, M): K support blocks, the query's block, then the
            pointers in the same order.
        masks: (B, K, h, w), h w = n.
    """
    shots, n = masks.shape[1], masks.shape[-2] * masks.shape[-1]
    start = (shots + 1) * n
    per_frame = (k.shape[1] - start) // (shots + 1)

    def split(x: Tensor) -> tuple[Tensor, ...]:
        middle = start + shots * per_frame
        support = x[:, : shots * n].unflatten(1, (shots, n))
        return support, x[:, shots * n : start], x[:, start:middle], x[:, middle:]

    (ks, kq, ks_ptr, kq_ptr), (vs, vq, vs_ptr, vq_ptr) = split(k), split(v)
    support = attention.encode_support(ks, vs, ks_ptr, vs_ptr, masks)
    return attention(q, kq, vq, kq_ptr, vq_ptr, support)
