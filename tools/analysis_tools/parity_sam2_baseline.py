"""SAM2Memory against a directory of reference tensors of SAM 2's own video predictor.

The index names the weights, in words or as a mapping: the first file is SAM 2.0's, and further ones
hold what version 2.1 has more. The architecture is in this index or in that beside the weights; the
side of the frames and K are told by the cases.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import mmcv
import numpy as np
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from parity_fssam import FSSAM
from parity_reference import Comparer, Entry, Reference, Row
from torch import Tensor

from mmfss.checkpoints.weights import check_state_dict, read_state
from mmfss.encoders.sam2.model import appears
from mmfss.functional import RESIZES

VERSIONS = {'2.0': 'sam2', '2.1': 'sam2.1'}
_FRAMES, _MASKS = 'in.frames', 'in.support_masks'
#: stages (beginnings of their names) -> their side times this is that of the frames
_SIDES = {
    _FRAMES: 1,
    _MASKS: 1,
    'support.mask_logits_for_memory': 1,
    'support.mask_logits_low': 4,
    'query.mask_logits_low': 4,
    'support.memory': 16,
}


class SAM2Baseline(Comparer):
    """See :class:`parity_reference.Comparer`."""

    method = 'SAM2Memory'

    @classmethod
    def recognises(cls, index: Mapping) -> bool:
        """By its name."""
        name = str(index.get('method') or index.get('set') or '').lower()
        return name in ('sam2memory', 'sam2_baseline') or name.startswith('sam 2 as a video model')

    @torch.no_grad()
    def run(self, name: str) -> tuple[dict[str, Tensor], list[Row]]:
        case = self.ref.case(name)
        model = self.build(case)
        side = model.image_size
        photos = [self.photo(number) for number in (*case['support'], case['query'])]
        frames = torch.cat([_frame(photo, side) for photo in photos])
        masks = torch.stack([self.mask(number, side, case) for number in case['support']])
        features = model.encode_image(frames)
        query, supports = model.encode_image(frames[-1:]), model.encode_image(frames[:-1])
        state = model.encode_support(supports, masks[None].to(torch.uint8))
        trace = model.segment(query, state).trace
        flat = masks.float().unsqueeze(1)
        low, high = model.mask_logits(flat)
        tokens, pos, pointers = state.tokens()
        output = F.interpolate(trace.low_res, photos[-1].shape[:2], mode='bilinear')
        stages = {
            _FRAMES: model.sam2.normalise(frames),
            f'{_MASKS}_{side}': masks,
            f'{_MASKS}_512': masks,  # as it is called at any side
            'support.mask_logits_low': low,
            'support.mask_logits_for_memory': high,
            'support.memory': state.spatial[0]
            .transpose(1, 2)
            .unflatten(-1, features.top.shape[-2:]),
            'support.obj_ptr': state.pointers[0].flatten(1),
            'support.object_score': appears(flat) * 20.0 - 10.0,
            'attn.memory': tokens.transpose(0, 1),
            'attn.memory_pos': pos.transpose(0, 1),
            'attn.pointers': tokens.transpose(0, 1)[-pointers:],
            'attn.pointers_pos': pos.transpose(0, 1)[-pointers:],
            'attn.output': trace.attended.flatten(2).permute(2, 0, 1),
            'dec.candidates_low': trace.decoded.candidates,
            'dec.iou': trace.decoded.ious,
            'dec.object_score': trace.decoded.object_score,
            'query.mask_logits_low': trace.low_res,
            'query.output': output,
            'pred': output[0, 0] > 0,
        }
        return stages, []

    # ------------------------------------------------------------------------------- inputs
    def photo(self, number: int) -> np.ndarray:
        """uint8 (h, w, 3) RGB."""
        return self.ref.inputs[f'image{number}']

    def mask(self, number: int, side: int, case: Entry) -> Tensor:
        """Bool (S, S): 1 is the object, bilinear with antialias, >= 0.5."""
        mask = torch.from_numpy(self.ref.inputs[f'mask{number}'] == 1).float()[None, None]
        if case.get('empty_support_mask'):
            mask = torch.zeros_like(mask)
        if mask.shape[-2:] != (side, side):
            mask = F.interpolate(mask, (side, side), mode='bilinear', antialias=True)
        return mask[0, 0] >= 0.5

    # -------------------------------------------------------------------------------- model
    def build(self, case: Entry, load: bool = True):
        """Our model for a case, in eval mode, with its weights and what is added to them.

        Raises:
            ValueError: another version, or weights that do not fit; every key counts.
        """
        version = str(case['version'])
        if version not in VERSIONS:
            raise ValueError(f'{case.where}: version must be one of {list(VERSIONS)}, {version!r}')
        files = self.weight_files()
        newer = version == '2.1'
        arch = self.architecture(files[0]).sam2_arch()
        arch['base'] = f'{VERSIONS[version]}_{arch["base"].split("_", 1)[1]}'
        side = side_of(case['stages'])
        # the layout of weights in which sam2 runs: less of the rounding that bfloat16 enlarges
        sam2 = dict(arch=arch, checkpoint=None, channels_last=False)
        model = MODELS.build(dict(type='SAM2Memory', sam2=sam2, image_size=side)).eval()
        if not load:
            return model
        state: dict[str, Tensor] = {}
        for file in files if newer else files[:1]:
            state.update(read_state(str(file), 'SAM 2', 'model'))
        state = {key: value.float() for key, value in state.items()}
        for key, value in (case.get('add_to_weights') or {}).items():
            if key not in state:
                raise ValueError(f'{case.where}: add_to_weights names {key!r}, no such parameter')
            state[key] = state[key] + torch.tensor(value)
        check_state_dict(model.sam2.state_dict(), state, f'SAM 2 {version} from {files[0]}')
        model.sam2.load_state_dict(state)
        return model

    def weight_files(self) -> list[Path]:
        """Files of weights in the order in which the index names them."""
        told = self.ref.index['weights']
        text = told if isinstance(told, str) else json.dumps(told)
        names = list(dict.fromkeys(re.findall(r'[^\s"\';,()]+\.pth?\b', text)))
        if not names:
            raise ValueError(f'{self.ref.root / "index.json"}: no weights named in {told!r}')
        return [self.ref.root / name for name in names]

    def architecture(self, weights: Path) -> FSSAM:
        """What reads the architecture: of this index, or of the one beside the weights."""
        own = 'sam2_hydra_overrides' in self.ref.index
        return FSSAM(self.ref if own else Reference(weights.parent))


def side_of(stages: Entry) -> int:
    """Side of the frames of a case, by whichever of its stages tells it.

    Raises:
        ValueError: none does.
    """
    for name, meta in stages.items():
        for stage, times in _SIDES.items():
            if name.startswith(stage):
                return times * meta['full_shape'][-1]
    raise ValueError(f'{stages.where} lists none of {list(_SIDES)}, which tell the side of frames')


def _frame(photo: np.ndarray, side: int) -> Tensor:
    """A photo as SAM2Memory takes it: float (1, 3, S, S) RGB 0..255."""
    resized = mmcv.imresize(photo, (side, side), **RESIZES['pillow_bicubic'])
    return torch.from_numpy(resized.transpose(2, 0, 1).copy()).float()[None]
