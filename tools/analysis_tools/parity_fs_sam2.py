"""FS-SAM2 against a directory of reference tensors.

The index names the architecture by overrides of a YAML of the sam2 package, the file of SAM 2's
weights and what SAM 2.1 has beyond them, and for each file of LoRA the layers with their ranks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmseg.registry import MODELS
from parity_fssam import IGNORED_OVERRIDES
from parity_reference import Comparer, Entry, Row, gradient_stages, row_of
from parity_sam2 import arch_of, change_weights, without_dropout
from torch import Tensor, nn

from mmfss.checkpoints.weights import check_state_dict, read_state
from mmfss.encoders.lora import add_lora
from mmfss.evaluation.counts import count_episode
from mmfss.functional import logits_to_mask
from mmfss.methods.fs_sam2 import LORA
from mmfss.methods.losses import BCEDiceLoss

MODES = ('eval', 'evalloss', 'train')
#: of units, whose tolerances the index does not have: of the largest value
UNITS_RTOL = 2e-6


class FSSAM2(Comparer):
    """See :class:`parity_reference.Comparer`."""

    method = 'FSSAM2'

    @classmethod
    def recognises(cls, index: Mapping) -> bool:
        """By its name."""
        name = str(index.get('method') or index.get('set') or '').lower()
        return re.sub('[^a-z0-9]', '', name).startswith('fssam2')

    def run(self, name: str) -> tuple[dict[str, Tensor], list[Row]]:
        case = self.ref.case(name)
        model = self.build(case)
        query, supports, masks, labels = self.batch(case)
        recorder = Recorder(model.sam2)
        with torch.set_grad_enabled(model.training):
            features = model.encode_image(query)
            query_maps = recorder.encoded()
            support_features = model.encode_image(supports.flatten(0, 1), 'support')
            support_maps = recorder.encoded()
            state = model.encode_support(support_features, masks)
            result = model.segment(features, state)
        recorder.close()
        trace = result.trace
        grid = trace.attended.shape[-2:]
        tokens, pos, pointers = state.tokens()

        def shot_major(x: Tensor) -> Tensor:
            return x.unflatten(0, masks.shape[:2]).transpose(0, 1).flatten(0, 1)

        def as_maps(x: Tensor) -> Tensor:
            return x.transpose(1, 2).unflatten(-1, grid)

        stages: dict[str, Tensor] = {}
        for who, maps, found, order in (
            ('query', query_maps, features, lambda x: x),
            ('sup', support_maps, support_features, shot_major),
        ):
            levels = (*found.high_res, found.top)
            maps.update({f'feat{i}': level for i, level in enumerate(levels)})
            stages.update({f'{who}.enc.{key}': order(value) for key, value in maps.items()})
        flat = (masks == 1).float().flatten(0, 1).unsqueeze(1)
        best, rows = trace.best, torch.arange(len(trace.best))
        fallback = trace.ious[:, 1:][rows, best].unsqueeze(1)
        taken = trace.ious[:, :1]
        if not model.training:
            taken = torch.where(trace.stable, taken, fallback)
        stages.update(
            {
                'sup.mem_mask': shot_major(20.0 * flat - 10.0),
                'sup.mem': shot_major(as_maps(state.spatial.flatten(0, 1))),
                'attn.memory': tokens,
                'attn.memory_pos': pos,
                'attn.num_obj_ptr_tokens': torch.tensor(pointers),
                'attn.output': trace.attended,
                **{key: as_maps(out[0]) for key, out in recorder.attention.items()},
                'dec.masks': trace.masks,
                'dec.ious': trace.ious,
                'dec.tokens': trace.tokens,
                'dec.object_score': trace.object_score,
                'dec.stability': trace.stability,
                'dec.stable': trace.stable,
                'dec.best_of_three': best,
                'dec.low_res': trace.low_res,
                'dec.iou_out': taken,
                'output': result.logits,
            }
        )
        if case['mode'] == 'eval':
            return stages, []
        logits = result.logits[:, 0]
        terms = model.loss_decode(logits, labels)
        loss = terms['loss_bce'] + terms['loss_dice']
        stages.update(
            {'loss': loss, 'loss.bce': terms['loss_bce'], 'loss.dice': terms['loss_dice']}
        )
        more: list[Row] = []
        if model.training:
            loss.backward()
            gradients, more = self.gradients(model, case, name)
            stages.update(gradients)
        return {key: value.detach() for key, value in stages.items()}, more

    def gradients(self, model, case: Entry, name: str) -> tuple[dict[str, Tensor], list[Row]]:
        """Norms and samples in the order of the case's names, and whether others have any."""
        names = case['grads']['names']
        with_grad = {k: p.grad for k, p in model.sam2.named_parameters() if p.grad is not None}
        strange = sorted(set(with_grad) ^ set(names))
        note = f'names or gradients without the other: {strange[:5]}' if strange else ''
        row = Row(name, 'grad.none', float(len(strange)), 0, note=note)
        if not set(names) <= set(with_grad):
            return {}, [row]
        return gradient_stages([with_grad[key] for key in names]), [row]

    def parts(self) -> dict[str, Callable[[], list[Row]]]:
        return {'units': self.check_units}

    def file(self, told: str) -> str:
        """Path of a file, relative to the directory: where the index says, in the directory, or in
        ``golden`` beside it."""
        name = Path(told).name
        return next((p for p in (told, name, f'../golden/{name}') if self.ref.has(p)), told)

    # ------------------------------------------------------------------------------- inputs
    @cached_property
    def photos(self) -> tuple[Tensor, Tensor]:
        """Images uint8 (N, 3, 512, 512) and masks uint8 (N, 512, 512)."""
        data = self.ref.npz(self.file(self.ref.index['inputs']['file']))
        return torch.from_numpy(data['images']), torch.from_numpy(data['masks'])

    def batch(self, case: Entry) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Query (B, 3, S, S), supports (B, K, 3, S, S), their masks (B, K, S, S), query labels.

        Raises:
            ValueError: numbers of images that there are not, or a side that is neither a multiple
                nor a part of theirs.
        """
        images, masks = self.photos
        query, support = torch.tensor(case['query_index']), torch.tensor(case['support_index'])
        if query.ndim != 1 or support.ndim != 2 or len(query) != len(support):
            raise ValueError(
                f'{case.where}: query_index must be (B,) and support_index (B, K), got '
                f'{case["query_index"]} and {case["support_index"]}'
            )
        numbers = torch.cat([query, support.flatten()])
        if numbers.min() < 0 or numbers.max() >= len(images):
            raise ValueError(
                f'{case.where}: images {numbers.tolist()} of {len(images)} in the file of inputs'
            )
        side, have = case['image_size'], images.shape[-1]
        if side % have and have % side:
            raise ValueError(f'{case.where}: image_size {side} does not go into {have} pixels')

        def sized(x: Tensor) -> Tensor:
            if side < have:
                return x[..., :: have // side, :: have // side]
            times = side // have
            return x.repeat_interleave(times, -1).repeat_interleave(times, -2)

        support_masks = (sized(masks[support]) == 1).to(torch.uint8)
        override = case.get('mask_override')
        if override not in (None, 'empty', 'tiny'):
            raise ValueError(f"{case.where}: mask_override must be 'empty' or 'tiny', {override!r}")
        if override is not None:
            support_masks = torch.zeros_like(support_masks)
            if override == 'tiny':
                support_masks[..., 200:203, 310:312] = 1
        labels = (sized(masks[query]) == 1).to(torch.uint8)
        return sized(images[query]).float(), sized(images[support]).float(), support_masks, labels

    # -------------------------------------------------------------------------------- model
    def arch(self) -> dict[str, Any]:
        told = self.ref.index['arch']['base']
        found = re.search(r'(sam2(?:\.1)?)[ _](?:hiera_)?(tiny|small|base_plus|large)', told)
        if found is None:
            raise ValueError(f'{self.ref.index.where}: no SAM 2 named in {told!r}')
        arch = arch_of(self.ref.index['sam2_overrides'], IGNORED_OVERRIDES)
        return dict(base=f'{found[1]}_{found[2]}', **without_dropout(arch))

    def lora(self, file: str) -> dict[str, dict[str, Any]]:
        """The option of the model for the layers that the index lists for a file.

        Raises:
            ValueError: a part has several ranks, or a layer is of no part.
        """
        found: dict[str, dict[str, Any]] = {}
        for path, told in self.ref.index['lora'][file].items():
            part, _, layer = path.partition('.')
            options = dict(rank=told['rank'], alpha=told['alpha'], dropout=0.0)
            mine = found.setdefault(part, dict(options, targets=[]))
            if part not in LORA or {k: mine[k] for k in options} != options:
                raise ValueError(
                    f'{self.ref.index["lora"].where}: {path} has {options}; mmfss has one rank for '
                    f'each of {list(LORA)}'
                )
            mine['targets'].append(layer)
        return found

    def build(self, case: Entry, load: bool = True):
        """Our model for a case, dropout off, weights loaded strictly unless ``load`` is false.

        Raises:
            ValueError: another mode, or weights that do not fit; every key counts.
        """
        if case['mode'] not in MODES:
            raise ValueError(f'{case.where}: mode must be one of {MODES}, got {case["mode"]!r}')
        model = MODELS.build(
            dict(
                type='FSSAM2',
                sam2=dict(arch=self.arch(), checkpoint=None),
                lora=self.lora(case['lora']),
                image_size=case['image_size'],
            )
        )
        model.train(case['mode'] == 'train')
        if not load:
            return model
        index = self.ref.index
        told = index['weights']
        state = read_state(str(self.ref.root / self.file(told['base'])), 'SAM 2', 'model')
        state = {key: value.float() for key, value in state.items()}
        state.update({k: torch.zeros(s) for k, s in (told.get('extra_keys_of_2_1') or {}).items()})
        change_weights(state, case)
        adapters = read_state(str(self.ref.root / case['lora']), 'LoRA')
        state.update({key: value.float() for key, value in adapters.items()})
        check_state_dict(model.sam2.state_dict(), state, f'{told["base"]} and {case["lora"]}')
        model.sam2.load_state_dict(state)
        return model

    # -------------------------------------------------------------------------------- units
    def check_units(self) -> list[Row]:
        """LoRA of a linear layer and of a convolution, losses, and the metric of an episode."""
        units = self.ref.npz('units.npz')
        data = {k: torch.from_numpy(np.atleast_1d(v)) for k, v in units.items()}
        ours = {**lora_units(data), **loss_units(data), **evaluation_units(data)}
        rows = []
        for key, value in data.items():
            if key not in ours:
                if not key.endswith(UNIT_INPUTS):
                    rows.append(Row.failed('units', key, 'not compared'))
                continue
            got, want = ours[key].double().numpy(), value.double().numpy()
            if got.size != want.size:
                rows.append(Row.failed('units', key, f'{got.shape} instead of {want.shape}'))
                continue
            bound = 0.0 if key.startswith('eval.') else UNITS_RTOL
            scale = float(np.abs(want).max())
            rows.append(row_of('units', key, got.ravel(), want.ravel(), bound * scale, bound))
        return rows


UNIT_INPUTS = ('.weight', '.bias', '.down', '.up', '.x', '.scale', '.logits', '.target', '.label')


def lora_units(data: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Outputs of both layers, and gradients of the sum of their squares."""
    found = {}
    for kind in ('linear', 'conv'):
        given = {k.rpartition('.')[2]: v for k, v in data.items() if k.startswith(f'lora.{kind}.')}
        out_, in_ = given['weight'].shape[:2]
        layer: nn.Module = nn.Linear(in_, out_)
        if kind == 'conv':
            layer = nn.Conv2d(in_, out_, given['weight'].shape[-1], stride=4, padding=3)
        part, rank = nn.Sequential(layer), len(given['down'])
        add_lora(part, ['0'], rank, float(given['scale']) * rank)
        layer.load_state_dict(
            {
                'weight': data[f'lora.{kind}.weight'],
                'bias': data[f'lora.{kind}.bias'],
                'lora.down': data[f'lora.{kind}.down'],
                'lora.up': data[f'lora.{kind}.up'],
            }
        )
        out = part.eval()(given['x'])
        out.square().sum().backward()
        found[f'lora.{kind}.out'] = out.detach()
        for name in ('down', 'up'):
            found[f'lora.{kind}.grad.{name}'] = getattr(layer.lora, name).grad
    return found


def loss_units(data: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for key in [key.removesuffix('.target') for key in data if key.endswith('.target')]:
        logits = data[f'{key}.logits'].clone().requires_grad_()
        loss = sum(BCEDiceLoss()(logits[:, 0], data[f'{key}.target']).values())
        loss.backward()
        found.update({f'{key}.loss': loss.detach(), f'{key}.grad': logits.grad})
    return found


def evaluation_units(data: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for key in [key.removesuffix('.label') for key in data if key.endswith('.label')]:
        label = data[f'{key}.label'][0]
        mask = logits_to_mask(data[f'{key}.logits'], tuple(label.shape))[0, 0]
        inter, union = count_episode(mask.numpy(), label.numpy())
        found[f'{key}.pred'] = mask
        found.update({f'{key}.inter': torch.tensor(inter), f'{key}.union': torch.tensor(union)})
    return found


class Recorder:
    """Outputs of SAM 2's modules in the order of calls, through forward hooks."""

    def __init__(self, sam2) -> None:
        self.encoder: dict[str, list[Tensor]] = {}
        self.attention: dict[str, list[Tensor]] = {}
        trunk = sam2.image_encoder.trunk
        blocks = {f'block{i}': block for i, block in enumerate(trunk.blocks)}
        attention = {}
        for i, layer in enumerate(sam2.memory_attention.layers):
            attention[f'attn.layer{i}'] = layer
            attention[f'attn.layer{i}.self_attn'] = layer.self_attn
            attention[f'attn.layer{i}.cross_attn'] = layer.cross_attn_image
        self._handles = [
            module.register_forward_hook(
                lambda _m, _i, out, name=name, kept=kept: kept.setdefault(name, []).append(out)
            )
            for kept, modules in (
                (self.encoder, {'patch': trunk.patch_embed, **blocks}),
                (self.attention, attention),
            )
            for name, module in modules.items()
        ]

    def encoded(self) -> dict[str, Tensor]:
        """What the trunk gave since the last time, for all images."""
        found = {name: torch.cat(outputs) for name, outputs in self.encoder.items()}
        self.encoder.clear()
        return found

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
