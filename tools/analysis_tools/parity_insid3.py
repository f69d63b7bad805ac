"""INSID3 against a directory of reference tensors: its architecture, weights, cases, units.

All sizes, options, photos and supports are those of the index. A support mask is ``mask == 1`` of
its photo, or ``in.support_mask`` of the case at the network's side.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.image import imresize
from mmseg.registry import MODELS
from parity_reference import Comparer, Entry, Row, compare_stage
from torch import Tensor

from mmfss.functional import RESIZES
from mmfss.methods.insid3 import INSID3 as Model
from mmfss.methods.insid3.matching import (
    average_linkage,
    backward_votes,
    forward_candidates,
    grid_masks,
)

#: what the published architecture is known by -> the only value that there is
FIXED = dict(layer_norm_eps=1e-5, rope_normalize='separate', mask_k_bias=True, layer_scale=True)
UNIT_INPUTS = re.compile(
    r'cluster\d+\.x|down\d+\.mask|forward\.(support|target|prototype|mask_grid)|match\.points'
)
LABELS = re.compile(r'cluster\d*\.labels')


class INSID3(Comparer):
    """See :class:`parity_reference.Comparer`."""

    method = 'INSID3'

    @classmethod
    def recognises(cls, index: Mapping) -> bool:
        return str(index.get('method')).lower() == 'insid3'

    def model(self, options: Mapping) -> Model:
        """With the weights of the directory and the options of a case.

        Raises:
            ValueError: an architecture that DINOv3 does not have, or no single file of weights.
        """
        arch = dict(self.ref.index['arch'])
        for key, value in FIXED.items():
            if arch.pop(key, value) != value:
                raise ValueError(f'{self.ref.index.where}: arch.{key} must be {value!r}')
        arch.update(
            mlp_ratio=arch.pop('ffn_ratio', 4), num_storage_tokens=arch.pop('storage_tokens', 4)
        )
        side, weights = options['image_size'], self.ref.one_file('*.pt*')
        encoder = dict(type='DINOv3', arch=arch, image_size=side, checkpoint=weights)
        known = ('svd_components', 'tau', 'merge_threshold')
        given = {key: options[key] for key in known if key in options}
        model = MODELS.build(dict(type='INSID3', encoder=encoder, image_size=side, **given))
        model.init_weights()
        return model.eval()

    def photo(self, number: int) -> np.ndarray:
        """uint8 (h, w, 3) RGB."""
        return self.ref.inputs[f'image{number}']

    def images(self, model: Model, numbers: Sequence[int]) -> Tensor:
        """(N, 3, S, S) RGB 0..255, resized as the method wants it."""
        side = (model.image_size, model.image_size)
        photos = [imresize(self.photo(i), side, **RESIZES[model.resize]) for i in numbers]
        return torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).float()

    def masks(self, name: str, numbers: Sequence[int], side: int) -> Tensor:
        """(1, K, S, S) uint8 in {0, 1}.

        Raises:
            ValueError: packed masks of another size.
        """
        arrays = self.ref.arrays(name)
        if 'in.support_mask' in arrays:
            bits = np.unpackbits(arrays['in.support_mask'], axis=-1)[..., :side]
            if bits.size != len(numbers) * side * side:
                raise ValueError(
                    f'{arrays.where}: in.support_mask unpacked is {bits.shape}, expected '
                    f'{len(numbers)} of {side} x {side}'
                )
            return torch.from_numpy(bits).reshape(1, len(numbers), side, side)
        inputs = self.ref.inputs
        masks = [torch.from_numpy(inputs[f'mask{i}'] == 1)[None, None].float() for i in numbers]
        small = [F.interpolate(mask, (side, side), mode='nearest') > 0.5 for mask in masks]
        return torch.cat(small, 1).to(torch.uint8)

    @torch.no_grad()
    def run(self, name: str) -> tuple[dict[str, Tensor], list[Row]]:
        case = self.ref.case(name)
        model, shots = self.model(case), list(case['support'])
        query, support = self.images(model, [case['query']]), self.images(model, shots)
        features = model.encode_image(query)
        supports = model.encode_image(support, 'support')
        masks = self.masks(name, shots, model.image_size)
        state = model.encode_support(supports, masks)
        patches = model.encode_query(features)
        found = model.segment(patches, state)
        trace, segments = found.trace[0], patches.segments[0]
        basis, free = model.basis(), state.objects.free[0]
        if basis is None:
            basis = torch.eye(free.shape[-1])
        stages = {
            'enc.target_in': model.encoder.normalise(query),
            'enc.support_in': model.encoder.normalise(support),
            'enc.target': features['encoder'][-1][0],
            'debias.projector': basis @ basis.T,
            'debias.target': (model.unit(features)[0] @ basis.T).permute(2, 0, 1),
            'debias.support': (model.unit(supports) @ basis.T).permute(0, 3, 1, 2),
            'support.mask_grid': state.objects.grid[0],
            'support.prototype': basis @ state.prototype[0],
            'match.forward_similarity': trace.forward,
            'match.votes': backward_votes(patches.free[0], free, state.objects.grid[0]).view_as(
                segments
            ),
            'match.candidates': trace.candidates,
            'cluster.labels': segments,
        }
        kept = torch.zeros_like(trace.candidates)
        if trace.growth is not None:
            grown = trace.growth
            kept = grown.kept[segments]
            stages['seed.mask'] = segments == grown.seed
            for key in ('intra', 'cross', 'area', 'score'):
                stages[f'grow.{key}_map'] = getattr(grown, key)[segments]
        mask = found.logits >= 0
        if case.get('resize_to_original', True):
            # binary mask again bilinear: cut twice, as published
            size = self.photo(case['query']).shape[:2]
            mask = F.interpolate(mask.float(), size, mode='bilinear', align_corners=False) > 0.5
        stages.update({'pred.grid': kept, 'pred': mask[0, 0]})
        if 'in.support_mask' in case['stages']:
            shape = case['stages']['in.support_mask']['full_shape']
            stages['in.support_mask'] = masks.bool().reshape(shape)
        return stages, []

    # -------------------------------------------------------------------------------- units
    def parts(self) -> dict[str, Callable[[], list[Row]]]:
        return {'units': self.unit_rows}

    @torch.no_grad()
    def unit_rows(self) -> list[Row]:
        """Single functions on what ``units.npz`` gives them."""
        arrays, entries = self.ref.npz('units.npz'), self.ref.index['units']
        listed = entries['stages']
        data = {key: unpacked(arrays[key], listed[key]) for key in listed if key in arrays}
        ours = {**self.clusters(data, entries), **self.grids(data, listed), **matches(data)}
        ours.update(self.key_points(data, entries))
        rows = []
        for key in {**listed, **arrays}:
            if UNIT_INPUTS.fullmatch(key):
                continue
            meta, stored = listed.get(key), arrays.get(key)
            tolerance = None if meta is None else self.ref.tolerance(key, meta)
            if key not in ours or tolerance is None:
                rows.append(Row.failed('units', key, 'not compared'))
                continue
            tolerance = 'same partition' if LABELS.fullmatch(key) else tolerance
            rows.append(compare_stage('units', key, ours[key], meta, stored, tolerance))
        return rows

    def clusters(self, data: Mapping[str, Tensor], entries: Entry) -> dict[str, Tensor]:
        names = [key[:-2] for key in data if re.fullmatch(r'cluster\d+\.x', key)]
        return {
            f'{name}.labels': average_linkage(data[f'{name}.x'].float(), entries[name]['tau'])
            for name in names
        }

    def grids(self, data: Mapping[str, Tensor], listed: Entry) -> dict[str, Tensor]:
        names = [key[:-5] for key in data if re.fullmatch(r'down\d+\.mask', key)]
        out = {}
        for name in names:
            size = tuple(listed[f'{name}.grid']['full_shape'])
            out[f'{name}.grid'] = grid_masks(data[f'{name}.mask'][None], size)[0][0]
        return out

    def key_points(self, data: Mapping[str, Tensor], entries: Entry) -> dict[str, Tensor]:
        if 'match.points' not in data:
            return {}
        options = entries['match']
        model = self.model(options)
        numbers = [options['support'], options['query']]
        one, other = (model.encode_image(self.images(model, [i])) for i in numbers)
        sizes = [self.photo(i).shape[:2] for i in numbers]
        points = data['match.points']
        return {
            'match.plain': model.match(one, other, points, *sizes, free=False),
            'match.debiased': model.match(one, other, points, *sizes),
        }


def matches(data: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``forward.*``: candidates there and back, by the first K supports."""
    if 'forward.target' not in data:
        return {}
    target = data['forward.target']
    rows = target.flatten(1).T.contiguous()
    support = data['forward.support'].flatten(2).transpose(1, 2).contiguous()
    forward = forward_candidates(rows @ data['forward.prototype'])
    out = {'forward.mask': forward.view(target.shape[1:])}
    for shots in range(1, len(support) + 1):
        votes = backward_votes(rows, support[:shots], data['forward.mask_grid'][:shots])
        both = forward & (votes >= -(-shots // 2))
        out[f'forward.votes_{shots}shot'] = votes.view(target.shape[1:])
        out[f'forward.candidates_{shots}shot'] = both.view(target.shape[1:])
    return out


def unpacked(stored: np.ndarray, meta: Mapping) -> Tensor:
    """A whole array; booleans are packed along the last axis."""
    if 'packed' in meta:
        return torch.from_numpy(np.unpackbits(stored, axis=-1, count=meta['full_shape'][-1]) > 0)
    return torch.from_numpy(np.asarray(stored))
