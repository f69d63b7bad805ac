"""GF-SAM against a directory of reference tensors: episodes, and units of points and votes.

Architecture, sides and options are those of the index; resizing starts from the decoded photos.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from parity_reference import Comparer, Row, compare_stage
from PIL import Image
from torch import Tensor

from mmfss.functional import resize_mask
from mmfss.methods.gf_sam.matching import Maps, max_map, points_of, similarities
from mmfss.methods.gf_sam.votes import (
    GridMasks,
    clusters,
    last_resort,
    states,
    vote_consistency,
    vote_foreground,
)

#: settings of the reference that ours has fixed
FIXED = {'dinov2': dict(layer_norm_eps=1e-6, layer_scale=True), 'sam': dict(mask_threshold=0.0)}


class GFSAM(Comparer):
    """See :class:`parity_reference.Comparer`."""

    method = 'GF-SAM'

    @classmethod
    def recognises(cls, index: Mapping) -> bool:
        return str(index.get('method')).lower().replace('-', '') == 'gfsam'

    def parts(self) -> dict[str, Callable[[], list[Row]]]:
        units = self.ref.index.get('units') or {}
        return {
            f'unit_{name}': self._points if name == 'points' else self._unit(name) for name in units
        }

    # ------------------------------------------------------------------------------- episodes
    def run(self, name: str) -> tuple[dict[str, Tensor], list[Row]]:
        case, model = self.ref.case(name), self.model
        side = model.image_size
        shape = case['stages'].get('enc.target_in', {}).get('full_shape')
        model.encoder.image_size = shape[-1] if shape else model.encoder.image_size
        model.encoder.resize = 'antialias' if case.get('antialias') else 'centres'
        query = self.photo(case['query'])
        supports = torch.cat([self.photo(number) for number in case['support']])
        masks = torch.cat([self.mask(number) for number in case['support']])[None]
        if case.get('empty_support_mask'):
            masks = torch.zeros_like(masks)
        with torch.no_grad():
            encoded, known = model.encode_image(query), model.encode_image(supports, 'support')
            state = model.encode_support(known, masks)
            result = model.segment(encoded, state)
            sides = model.compared(encoded).shape[-2:]
            stages = trace_stages(result.trace[0], sides, side)
            rest = self._background_max(model, encoded, state).unflatten(-1, sides)
        tokens = encoded['encoder'][-1].flatten(2).mT
        stages |= {
            'in.target': query[0] / 255,
            'in.support_masks': resize_mask(masks.float(), sides)[0],
            'enc.target_in': model.encoder.prepared(query),
            'enc.support_in': model.encoder.prepared(supports),
            'enc.target_tokens': tokens,
            'enc.target': model.compared(encoded).flatten(2).mT,
            'enc.support': model.compared(known).flatten(2).mT,
            'sim.neg_max': rest,
            'sam.image_u8': query[0].permute(1, 2, 0).to(torch.uint8),
            'sam.features': encoded['sam1'][0],
            'pred': result.logits[0, 0] >= 0,
        }
        # the reference's names of some stages end in a side: masks.nearest_37
        named = {name: re.sub(r'_\d+$', '', name) for name in case['stages']}
        return stages | {name: stages[stem] for name, stem in named.items() if stem in stages}, []

    @staticmethod
    def _background_max(model, encoded: dict, state) -> Tensor:
        """(1, P): a map that the method makes and does not use."""
        query = model.compared(encoded)[0].flatten(1).T
        shots = zip(state.features[0], state.inside[0])
        maps = [max_map(similarities(one, query), 1 - inside) for one, inside in shots]
        return torch.stack(maps).mean(0, keepdim=True)

    def photo(self, number: int) -> Tensor:
        """(1, 3, S, S) RGB 0..255: squeezed with PIL's bilinear filter."""
        side = self.model.image_size
        image = Image.fromarray(self.ref.inputs[f'image{number}']).convert('RGB')
        pixels = np.array(image.resize((side, side), Image.Resampling.BILINEAR))
        return torch.from_numpy(pixels).permute(2, 0, 1)[None].float()

    def mask(self, number: int) -> Tensor:
        """(1, S, S) uint8 in {0, 1}, resized by torch's nearest."""
        mask = torch.from_numpy(self.ref.inputs[f'mask{number}'] == 1).float()
        side = self.model.image_size
        return F.interpolate(mask[None, None], (side, side))[0].to(torch.uint8)

    @cached_property
    def model(self):
        """Of the index' architecture, with the directory's weights."""
        arch = self.ref.index['arch']
        for part, values in FIXED.items():
            for key, value in values.items():
                if arch[part].get(key, value) != value:
                    raise ValueError(
                        f'{arch.where}[{part!r}]: {key} is {arch[part][key]!r}, and mmfss has '
                        f'{value!r} alone'
                    )
        dino = dict(arch['dinov2'])
        dino['num_register_tokens'] = dino.pop('registers', 0)
        for key in FIXED['dinov2']:
            dino.pop(key, None)
        sam = sam1_arch(arch['sam'])
        model = MODELS.build(
            dict(
                type='GFSAM',
                image_size=sam['img_size'],
                encoder=dict(
                    type='DINOv2',
                    arch=dino,
                    image_size=dino['img_size'],
                    checkpoint=self.ref.one_file('dinov2*.pth'),
                    final_norm=False,
                    resize='centres',
                ),
                sam1=dict(type='SAM1', arch=sam, checkpoint=self.ref.one_file('sam*.pth')),
            )
        )
        model.init_weights()
        return model.eval()

    # ---------------------------------------------------------------------------------- units
    def _unit(self, name: str) -> Callable[[], list[Row]]:
        return lambda: self._votes(name)

    def _votes(self, name: str) -> list[Row]:
        """Crafted masks and maps into the votes."""
        case, data = f'unit_{name}', self.ref.npz(f'unit_{name}.npz')
        listed = self.ref.index['units'][name]['stages']

        def bits(key: str) -> Tensor:
            width = listed[key]['full_shape'][-1]
            return torch.from_numpy(np.unpackbits(data[key], axis=-1, count=width)).bool()

        masks, hot = bits('in.masks'), bits('in.hot')
        mean, background = (torch.from_numpy(data[f'in.{k}_mean'])[0] for k in ('pos', 'neg'))
        features = torch.from_numpy(data['in.features']).float()[0]
        grid, side, sides = points_of(hot.float(), hot.numel()), masks.shape[-1], mean.shape
        stages = vote_stages(
            masks, grid, Maps(mean, mean, background), similarities(features, features),
            torch.from_numpy(data['class.foreground_given']) == 1
            if 'class.foreground_given' in data else None,
        )  # fmt: skip
        chosen = masks[stages.pop('chosen')]
        stages['pred'] = chosen.any(0)
        # the largest mean of the map over a chosen mask that lies on a pixel
        full = F.interpolate(mean[None, None], (side, side), mode='bilinear')[0, 0]
        prob = torch.zeros(side, side)
        for mask in chosen:
            if mask.any():
                prob = torch.where(mask, torch.maximum(prob, full[mask].mean()), prob)
        stages |= {'prob': prob[None], 'points.grid': grid, 'points.hot': hot}
        stages['points.sam'] = grid * side // torch.tensor(sides[::-1])
        rows = []
        for stage, meta in listed.items():
            if stage.startswith('in.') or stage == 'class.foreground_given':
                continue
            if stage not in stages:
                rows.append(Row.failed(case, stage, 'not compared'))
                continue
            bound = self.ref.tolerance(stage, meta)
            rows.append(compare_stage(case, stage, stages[stage], meta, data.get(stage), bound))
        return rows

    def _points(self) -> list[Row]:
        """Maps into the choice of points."""
        data, rows = self.ref.npz('unit_points.npz'), []
        side = self.ref.index['arch']['sam']['image_encoder']['img_size']
        for key in sorted(key for key in data if key.endswith('.map')):
            values = torch.from_numpy(data[key])[0]
            grid = points_of(values)
            ours = dict(grid=grid, sam=grid * side // torch.tensor(values.shape[::-1]))
            for kind, points in ours.items():
                stage = key.replace('map', kind)
                want = data[stage]
                if want.shape != tuple(points.shape):
                    note = f'{len(points)} points instead of {len(want)}'
                    rows.append(Row.failed('unit_points', stage, note))
                else:
                    error = float(np.abs(points.numpy() - want).max()) if len(want) else 0.0
                    rows.append(Row('unit_points', stage, error, 0.0))
        return rows


def sam1_arch(sam: Mapping) -> dict:
    """Arguments of :class:`mmfss.encoders.sam1.SAM1` for the index' entry."""
    image, decoder = dict(sam['image_encoder']), sam['mask_decoder']
    image.pop('layer_norm_eps', None)
    transformer = decoder['transformer']
    return dict(
        **image,
        mask_in_chans=sam['prompt_encoder']['mask_in_chans'],
        num_multimask_outputs=decoder['num_multimask_outputs'],
        iou_head_depth=decoder['iou_head_depth'],
        iou_head_hidden_dim=decoder['iou_head_hidden_dim'],
        transformer_depth=transformer['depth'],
        transformer_mlp_dim=transformer['mlp_dim'],
        transformer_num_heads=transformer['num_heads'],
    )


def trace_stages(trace, sides: tuple[int, int], side: int) -> dict[str, Tensor]:
    """What :meth:`mmfss.methods.gf_sam.GFSAM.segment` came through, by the reference's names."""
    maps, points, masks = trace.maps, trace.points, trace.masks
    early = {
        'sim.pos_mean': maps.mean[None],
        'sim.pos_max': maps.max[None],
        'sim.neg_mean': maps.background[None],
        'sim.pos_mean_half': maps.half,
        'prior.cross': points.cross[None],
        'prior.neg_std': points.negative[None],
        'prior.filtered': points.filtered[None],
        'points.hot': points.hot,
        'points.grid': points.grid,
        'points.sam': trace.pixels,
    }
    if trace.masks is None:  # no point at all
        return early
    area, total = [], torch.zeros(side, side)
    for some in trace.low_res.split(8):
        full = F.interpolate(some, (side, side), mode='bilinear', align_corners=False)[:, 0] > 0
        area.append(full.sum((1, 2)))
        total += full.sum(0)
    x, y = points.grid.T
    return early | {
        'sam.low_res': trace.low_res,
        'sam.iou': trace.ious,
        'masks.area': torch.cat(area),
        'masks.sum': total,
        'masks.nearest': masks.corners,
        'masks.bilinear': masks.soft(masks.taps).unflatten(-1, sides),
        'cluster.cover': masks.corners[:, y, x],
        'cluster.labels': trace.labels,
        'class.positive_region': (maps.agreement > 0)[None],
        'class.foreground': trace.foreground,
        'class.scores': trace.scores,
        'consist.distance': trace.consistency.distance,
        'consist.similarity_over_distance': trace.consistency.weighted,
        'consist.union_similarity': trace.union_maps.unflatten(-1, sides),
        'consist.selected': trace.consistency.agrees,
        'consist.state': trace.state,
    }


def vote_stages(
    full: Tensor, grid: Tensor, maps: Maps, cosines: Tensor, given: Tensor | None
) -> dict[str, Tensor]:
    """The votes on whole masks (n, T, T) bool, and ``chosen`` (n,) bool.

    Args:
        given: (n,) bool in the place of the first vote's result.
    """
    sides = maps.mean.shape
    masks = GridMasks.read(full, full.shape[-1], tuple(sides))
    x, y = grid.T
    cover = masks.corners[:, y, x]
    labels = clusters(cover)
    keep, scores = vote_foreground(masks.soft(masks.taps), labels, maps)
    taps = torch.stack([masks.taps[labels == a].any(0) for a in range(int(labels.max()) + 1)])
    votes, union = vote_consistency(masks.soft(taps), labels, grid, sides[1], cosines)
    state = states(votes.agrees, keep if given is None else given)
    chosen = state == 1
    if not full[chosen].any():
        chosen = last_resort(state, scores)
    return {
        'cluster.cover': cover,
        'cluster.labels': labels,
        'class.positive_region': (maps.agreement > 0)[None],
        'class.foreground': keep,
        'class.scores': scores,
        'consist.distance': votes.distance,
        'consist.similarity_over_distance': votes.weighted,
        'consist.union_similarity': union.unflatten(-1, sides),
        'consist.selected': votes.agrees,
        'consist.state': state,
        'chosen': chosen,
    }
