"""SANSA against a directory of reference tensors: architecture, weights, adapters, cases, units.

What a stage of SAM 2 gave is read where it is given, by hooks on its modules.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from parity_reference import Comparer, Entry, Row, gradient_stages, row_of
from parity_sam2 import arch_of, change_weights, without_dropout
from torch import Tensor, nn

from mmfss.batching import take
from mmfss.checkpoints.weights import load_state, read_state
from mmfss.encoders.sam2.adapters import Adapter
from mmfss.encoders.sam2.prompts import OBJECT
from mmfss.methods.sansa.prompts import PointPrompt, box_prompt, point_prompt

#: set by the case, or by the method
IGNORED = ('image_size', 'pred_obj_scores', 'fixed_no_obj_ptr')
TRUNK = 'image_encoder.trunk.'


class SANSA(Comparer):
    """See :class:`parity_reference.Comparer`."""

    method = 'SANSA'

    @classmethod
    def recognises(cls, index: Mapping) -> bool:
        """By its name."""
        return str(index.get('method') or index.get('set') or '').lower() == 'sansa'

    def parts(self) -> dict[str, Callable[[], list[Row]]]:
        return {'units': self.units}

    def run(self, name: str) -> tuple[dict[str, Tensor], list[Row]]:
        case = self.ref.case(name)
        model = self.build(case)
        training = case['mode'] == 'train'
        frames, masks = self.frames(case)
        with torch.set_grad_enabled(training), watched(model.sam2) as seen:
            stages = run_case(model, frames, masks, case, seen)
        if not training:
            return stages, []
        losses = model.loss_of(stages.pop('trace'), masks[:, : case['shots']], masks[:, -1])
        stages['loss.focal'], stages['loss.dice'] = losses['loss_focal'], losses['loss_dice']
        stages['loss'] = sum(losses.values())
        stages['loss'].backward()
        names = [our_name(key) for key in case['grads']['names']]
        grads = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
        lacking = [key for key in names if key not in grads]
        if lacking:
            return detached(stages), [Row.failed(name, 'grad', f'no gradient on {lacking[:4]}')]
        stages.update(gradient_stages([grads[key] for key in names]))
        extra = sorted(set(grads) - set(names))
        note = f'gradient on {extra[:5]}' if extra else ''
        return detached(stages), [Row(name, 'grad.none', float(len(extra)), 0, note=note)]

    # ------------------------------------------------------------------------------- inputs
    def frames(self, case: Entry) -> tuple[Tensor, Tensor]:
        """Pictures (B, T, 3, H, W) RGB 0..255 and masks (B, T, H, W) uint8, supports first."""
        data = self.ref.npz(self.ref.index['inputs']['file'])
        images, masks = torch.from_numpy(data['images']), torch.from_numpy(data['masks'])
        queries = [q if isinstance(q, list) else [q] for q in case['query_index']]
        numbers = torch.tensor(
            [[*some, *q] for some, q in zip(case['support_index'], queries, strict=True)]
        )
        height, width = images.shape[-2:]
        top, bottom, left, right = case.get('crop') or (0, height, 0, width)
        images = images[numbers][..., top:bottom, left:right].float()
        masks = (masks[numbers][..., top:bottom, left:right] == 1).to(torch.uint8)
        override = case.get('mask_override')
        if override not in (None, 'empty', 'tiny'):
            raise ValueError(f'{case.where}: mask_override {override!r} is not known')
        if override:
            masks[:, : case['shots']] = 0
        if override == 'tiny':
            masks[:, : case['shots'], 200:203, 310:312] = 1
        return images, masks

    # -------------------------------------------------------------------------------- model
    def arch(self) -> dict:
        """SAM 2's, without dropout."""
        told = str(self.ref.index['arch']['base'])
        found = re.search(r'\b(tiny|small|base[ _]?plus|large)\b', told)
        if found is None:
            raise ValueError(f'{self.ref.index.where}: no size of SAM 2 named in {told!r}')
        version = 'sam2.1' if '2.1' in told else 'sam2'
        size = re.sub('[ _]?plus', '_plus', found[1])
        arch = arch_of(self.ref.index['sam2_overrides'], IGNORED)
        return dict(without_dropout(arch), base=f'{version}_{size}')

    def build(self, case: Entry):
        """Our model for a case with its weights, every key accounted for."""
        if case['mode'] not in ('train', 'eval'):
            raise ValueError(f"{case.where}: mode must be 'train' or 'eval', got {case['mode']!r}")
        adapters = dict(stages=case['adapter_stages'], channel_factor=case['channel_factor'])
        sam2 = dict(
            arch=self.arch(), image_size=case['image_size'], checkpoint=None, adapters=adapters
        )
        kind = case['prompt_arg']
        model = MODELS.build(dict(type='SANSA', sam2=sam2, prompt=kind))
        base = str(self.ref.root / self.ref.index['weights']['base'])
        state = {k: v.float() for k, v in read_state(base, 'SAM 2', 'model').items()}
        change_weights(state, case)
        file = str(self.ref.root / case['adapters'])
        own = {our_name(k).removeprefix('sam2.'): v for k, v in torch.load(file).items()}
        load_state(model.sam2, {**model.sam2.fitting(state), **own}, f'{base} with {file}')
        return model.train(case['mode'] == 'train')

    # -------------------------------------------------------------------------------- units
    def units(self) -> list[Row]:
        """Single functions; scribbles are random, and to look at."""
        data = self.ref.npz('units.npz')
        found: dict[str, Any] = adapter_unit(data)
        for key in data:
            kind, number, what = (*key.split('.'), '', '')[:3]
            at = f'{kind}.{number}'
            if (kind, what) == ('resize', 'out'):
                mask = torch.from_numpy(data[f'{at}.in'])[None, None].float()
                side = (data[key].shape[-1],) * 2
                found[key] = F.interpolate(mask, side, mode='bilinear', antialias=True)[0, 0] > 0
            elif (kind, what) == ('box', 'box'):
                box = box_prompt(torch.from_numpy(data[f'{at}.mask']) == 1)
                found[key] = box.coords.flatten()
            elif (kind, what) == ('point', 'seed'):
                torch.manual_seed(int(data[key]))
                prompt = point_prompt(torch.from_numpy(data[f'{at}.mask']) == 1, 20)
                found[f'{at}.coords'], found[f'{at}.labels'] = prompt.coords, prompt.labels
            elif (kind, what) == ('loss', 'frames'):
                found.update(loss_unit(data, at))
        if 'rescale.in' in data:
            coords, size = torch.from_numpy(data['rescale.in']), data['rescale.from_hw'].tolist()
            labels = torch.ones(len(coords), dtype=torch.int32)
            prompt = PointPrompt(coords, labels, (size[0], size[1]))
            found['rescale.out'] = prompt.at(1024, coords.device)[0][0]
        given = ('.in', '.x', '.mask', '.seed', '.logits', '.target', '.frames', '.from_hw')
        rows = []
        for key, want in data.items():
            if key.startswith('scribble.') or key.endswith(given) and key not in found:
                continue
            if key.startswith('adapter.') and key not in found:
                continue  # its weights
            if key not in found:
                rows.append(Row.failed('units', key, 'not compared'))
                continue
            exact = key.startswith(('resize', 'box', 'point'))
            got, want = (np.asarray(x, np.float64).ravel() for x in (found[key], want))
            if got.shape != want.shape:
                rows.append(Row.failed('units', key, f'{got.shape} instead of {want.shape}'))
                continue
            scale = max(1.0, np.abs(want).max(initial=0))
            atol, rl2 = (0.0, 0.0) if exact else (1e-5 * scale, 1e-5)
            rows.append(row_of('units', key, got, want, atol, rl2))
        return rows


def our_name(key: str) -> str:
    """Ours of a name ``blocks.{i}.adapter.{part}``."""
    return f'sam2.{TRUNK}{key}'.replace('.adapter.', '.mlp.adapter.')


def detached(stages: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach() for key, value in stages.items()}


@contextmanager
def watched(sam2: nn.Module):
    """Within, inputs and outputs of SAM 2's parts are noted: name -> calls (inputs, output)."""
    parts = {
        'trunk': sam2.image_encoder.trunk,
        'decoder': sam2.sam_mask_decoder,
        'prompts': sam2.sam_prompt_encoder,
        'pointer': sam2.obj_ptr_proj,
        'shrunk': sam2.mask_downsample,
        'memory': sam2.memory_encoder,
        **{f'enc.block{i}': block for i, block in enumerate(sam2.image_encoder.trunk.blocks)},
        **{f'layer{i}': layer for i, layer in enumerate(sam2.memory_attention.layers)},
    }
    for i, block in enumerate(sam2.image_encoder.trunk.blocks):
        if hasattr(block.mlp, 'adapter'):
            parts[f'enc.adapter{i}'] = block.mlp.adapter
    seen: dict[str, list] = defaultdict(list)
    handles = [
        part.register_forward_hook(
            lambda module, inputs, kwargs, output, name=name: seen[name].append(
                (inputs or tuple(kwargs.values()), output)
            ),
            with_kwargs=True,
        )
        for name, part in parts.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def prompts_of(case: Entry, masks: Tensor) -> list[PointPrompt | None]:
    """Prompts of the B K supports; None for masks."""
    size, found = tuple(masks.shape[-2:]), []
    points = case.get('points') or {}
    for mask_of_episode in masks:
        for k, kind in enumerate(case['prompts']):
            if kind == 'mask':
                found.append(None)
            elif kind == 'box':
                found.append(box_prompt(mask_of_episode[k] == 1))
            else:
                coords = torch.tensor(points[str(k)], dtype=torch.float32)
                labels = torch.full((len(coords),), OBJECT, dtype=torch.int32)
                found.append(PointPrompt(coords, labels, size))
    return found


def run_case(model, frames: Tensor, masks: Tensor, case: Entry, seen: dict) -> dict[str, Any]:
    """All stages of a case; of a training case with ``trace``, which the loss reads."""
    batch, count = frames.shape[:2]
    shots, size = case['shots'], tuple(frames.shape[-2:])
    features = model.encode_image(frames.flatten(0, 1))
    stages: dict[str, Any] = {
        'pre.images': torch.cat([inputs[0] for inputs, _ in seen['trunk']]),
        **{f'enc.feat{i}': level for i, level in enumerate((*features.high_res, features.top))},
        **{
            key: torch.cat([output for _, output in calls])
            for key, calls in seen.items()
            if key.startswith('enc.')
        },
    }
    rows = [b * count + k for b in range(batch) for k in range(shots)]
    supports = take(features, torch.tensor(rows))
    seen.clear()
    prompts = prompts_of(case, masks[:, :shots])
    shown = model._encode(supports, masks[:, :shots], prompts, with_logits=True)
    clip = model._clip(supports, shown, shots)
    stages.update(of_supports(model, seen, prompts, shown, shots))
    queries = [
        take(features, torch.tensor([b * count + j for b in range(batch)]))
        for j in range(shots, count)
    ]
    seen.clear()
    found = model.track(queries, clip)
    for n, one in enumerate(found):
        mark = str(n) if len(found) > 1 else ''
        stages.update(of_query(seen, one.trace, n, mark))
    low = [shown.logits.squeeze(1).unflatten(0, (batch, shots))]
    low += [one.trace.decoded.low_res for one in found]
    output = F.interpolate(torch.cat(low, 1), size, mode='bilinear')
    stages['output'] = output.flatten(0, 1)
    if model.training:
        stages['trace'] = replace(found[-1].trace, supports=low[0])
    return stages


def of_supports(
    model, seen: dict, prompts: Sequence[PointPrompt | None], shown, shots: int
) -> dict[str, Tensor]:
    """Stages ``sup.*`` of B K supports."""
    side = model.sam2.image_size
    decoded = [output for _, output in seen['decoder']]
    ((inputs, memory),) = seen['memory']
    stages = {
        'sup.multimasks': torch.cat([one[0] for one in decoded]),
        'sup.ious': torch.cat([one[1] for one in decoded]),
        'sup.tokens': torch.cat([one[2] for one in decoded]),
        'sup.dec_low_res': shown.logits,
        'sup.obj_ptr': shown.pointers,
        'sup.low_res': shown.low,
        'sup.high_res': F.interpolate(shown.low, (side, side), mode='bilinear'),
        'sup.mem_mask': inputs[1],
        'sup.mem': memory['vision_features'],
    }
    if seen['shrunk']:
        stages['sup.mask'] = torch.cat([inputs[0] for inputs, _ in seen['shrunk']]) > 0
        stages['sup.mask_prompt'] = torch.cat([output for _, output in seen['shrunk']])
    if any(prompts):
        told = [prompt.at(side, shown.low.device) if prompt else None for prompt in prompts]
        for k in range(shots):
            mark = f'sup{k}' if shots > 1 else 'sup'
            mine = [i for i in range(k, len(prompts), shots) if told[i] is not None]
            if mine and len({told[i][1].shape for i in mine}) == 1:
                stages[f'{mark}.coords'] = torch.cat([told[i][0] for i in mine])
                stages[f'{mark}.labels'] = torch.cat([told[i][1] for i in mine])
                stages[f'{mark}.sparse'] = torch.cat([seen['prompts'][i][1][0] for i in mine])
    return stages


def of_query(seen: dict, trace, number: int, mark: str) -> dict[str, Tensor]:
    """Stages of the ``number``-th target; ``mark`` is it where there are several."""
    grid = trace.attended.shape[-2:]
    memory, pos, pointers = trace.frames.tokens()
    decoded = trace.decoded
    layers = {
        f'attn{mark}.{key}': calls[number][1].transpose(1, 2).unflatten(-1, grid)
        for key, calls in seen.items()
        if key.startswith('layer')
    }
    return {
        **layers,
        f'attn{mark}.memory': memory,
        f'attn{mark}.memory_pos': pos,
        f'attn{mark}.output': trace.attended,
        'attn.num_obj_ptr_tokens': torch.tensor(float(pointers)),
        f'query{mark}.multimasks': decoded.candidates,
        f'query{mark}.ious': decoded.ious,
        f'query{mark}.tokens': decoded.tokens,
        f'query{mark}.best': decoded.best,
        f'query{mark}.dec_low_res': decoded.low_res,
        f'query{mark}.obj_ptr': seen['pointer'][number][1],
        f'query{mark}.mem': seen['memory'][number][1]['vision_features'],
    }


def adapter_unit(data: Entry) -> dict[str, Tensor]:
    """Output of an adapter, and the gradients of the sum of its squares."""
    if 'adapter.x' not in data:
        return {}
    rank, width = data['adapter.down.weight'].shape
    adapter = Adapter(width, rank)
    names = [name for name, _ in adapter.named_parameters()]
    state = {name: torch.from_numpy(data[f'adapter.{name}']) for name in names}
    adapter.load_state_dict(state)
    x = torch.from_numpy(data['adapter.x']).requires_grad_()
    out = adapter(x)
    out.square().sum().backward()
    grads = {f'adapter.grad.{name}': p.grad for name, p in adapter.named_parameters()}
    return {'adapter.out': out.detach(), 'adapter.grad.x': x.grad, **grads}


def loss_unit(data: Entry, at: str) -> dict[str, Tensor]:
    """Both losses of the last frames of each clip, and the gradient of their sum."""
    target, frames = torch.from_numpy(data[f'{at}.target']), int(data[f'{at}.frames'])
    logits = torch.from_numpy(data[f'{at}.logits']).requires_grad_()
    counted = logits.unflatten(0, target.shape[:2])[:, -frames:]
    losses = MODELS.build(dict(type='FocalDiceLoss'))(counted, target[:, -frames:])
    sum(losses.values()).backward()
    return {
        f'{at}.focal': losses['loss_focal'].detach(),
        f'{at}.dice': losses['loss_dice'].detach(),
        f'{at}.grad': logits.grad,
    }
