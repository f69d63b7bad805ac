"""PerSAM and PerSAM-F against a directory of reference tensors.

As the published program does it, and not as all methods here: SAM's image has the photo at its own
proportions and padding at right and bottom; the mask is resized as a photo.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from parity_gf_sam import sam1_arch
from parity_reference import Comparer, Entry, Row
from PIL import Image
from torch import Tensor

from mmfss.encoders.sam1 import PIXEL_MEAN, PIXEL_STD
from mmfss.methods.persam.model import Frame, similarity_of, tune

#: settings of the reference that ours has fixed; mmfss.encoders.sam1 has them
FIXED = dict(pixel_mean=list(PIXEL_MEAN), pixel_std=list(PIXEL_STD), mask_threshold=0.0)


class PerSAM(Comparer):
    """See :class:`parity_reference.Comparer`."""

    method = 'PerSAM'

    @classmethod
    def recognises(cls, index: Mapping) -> bool:
        return str(index.get('method')).lower().replace('-', '').startswith('persam')

    def run(self, name: str) -> tuple[dict[str, Tensor], list[Row]]:
        case = self.ref.case(name)
        tuned, steps = variant_of(case)
        model = self.model(tuned)
        query, frame = self.photo(self.ref.inputs[f'image{case["query"]}'])
        support, its_frame = self.photo(self.ref.inputs[f'image{case["support"]}'])
        marked = self.ref.inputs[f'mask{case["support"]}'] == 1
        drawn = np.repeat(marked[..., None] * np.uint8(case['mask_value']), 3, -1)
        with torch.no_grad():
            level, known = model.sam1.image_encoder(query), model.sam1.image_encoder(support)
            level, known = level.last_hidden_state, known.last_hidden_state
            values = model.mask_values(self.photo(drawn)[0][:, :1])[0, 0]
            target = model.target_of(known[0], values > 0)
            stages = {
                'support.mask_64_value': values,
                'support.mask_64': values > 0,
                'target.mean': target[None],
                'target.unit': F.normalize(target, dim=0)[None],
                'query.features_unit': F.normalize(level[0], dim=0),
            }
            weights = None
            if tuned:
                truth = torch.from_numpy(marked)
                point, call = model.support_call(known, target, its_frame)
                logits = its_frame.up(call.low_res)[0]
                found = tune(logits, truth, steps)
                weights = found.weights
                stages |= {
                    'train.point': point,
                    'train.first_logits': logits,
                    'train.gt': truth,
                    'train.weights': weights[:, None],
                    'train.last_dice': found.dice,
                    'train.last_focal': found.focal,
                }
            found = model.find(level, target, weights, frame)
        stages |= {
            'sim.map': similarity_of(level, target, frame)[1],
            'sim.points': found.points,
            'query.mask_of_weighted_logits': frame.up(found.first)[0, 0] > 0,
            'pred': frame.up(found.low_res)[0, 0] > 0,
        }
        if found.guide is not None:
            stages |= {'sim.standardised': found.guide, 'attn_sim': found.guide}
        for number, call in enumerate(found.calls):
            stages |= {
                f'call{number}.low_res': call.low_res[0],
                f'call{number}.iou': call.ious[0],
                f'call{number}.masks': frame.up(call.low_res)[0] > 0,
            }
            if call.mask is not None:
                stages[f'call{number}.mask_input'] = call.mask[0]
            if call.box is not None:
                stages[f'call{number}.box'] = call.box[None]
        return stages, []

    def photo(self, pixels: np.ndarray) -> tuple[Tensor, Frame]:
        """uint8 (H, W, 3) RGB as SAM takes it, (1, 3, T, T), and where it lies in that."""
        side, (height, width) = self.side, pixels.shape[:2]
        scale = side / max(height, width)
        rows, columns = (int(one * scale + 0.5) for one in (height, width))
        image = Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BILINEAR)
        values = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
        values = self.model(False).sam1.normalise(values)
        padded = F.pad(values, (0, side - columns, 0, side - rows))
        return padded, Frame((height, width), (rows, columns), side)

    @property
    def side(self) -> int:
        return self.ref.index['arch']['sam']['image_encoder']['img_size']

    def model(self, tuned: bool):
        """PerSAM-F or PerSAM of the index' architecture, with the directory's weights."""
        if tuned not in self._models:
            sam = self.ref.index['arch']['sam']
            for key, value in FIXED.items():
                if sam.get(key, value) != value:
                    raise ValueError(
                        f'{sam.where}: {key} is {sam[key]!r}, and mmfss has {value!r} alone'
                    )
            weights = self.ref.one_file('sam*.pth')
            model = MODELS.build(
                dict(
                    type='PerSAMF' if tuned else 'PerSAM',
                    sam1=dict(type='SAM1', arch=sam1_arch(sam), checkpoint=weights),
                    image_size=self.side,
                )
            )
            model.init_weights()
            self._models[tuned] = model.eval()
        return self._models[tuned]

    @cached_property
    def _models(self) -> dict:
        return {}


def variant_of(case: Entry) -> tuple[bool, int]:
    """Whether a case is of PerSAM-F, and how many steps it trains.

    Raises:
        ValueError: the index' ``variant`` is neither.
    """
    found = re.fullmatch(r'PerSAM(?:(-F), (\d+) epochs)?', case['variant'])
    if found is None:
        raise ValueError(
            f"{case.where}['variant'] must be 'PerSAM' or 'PerSAM-F, N epochs', got "
            f'{case["variant"]!r}'
        )
    return found[1] is not None, int(found[2] or 0)
