"""A directory of reference tensors: its architecture, weights, cases and our model for them."""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from mmseg.registry import MODELS
from omegaconf import OmegaConf
from torch import Tensor

from mmfss.checkpoints.weights import load_strict

# without effect on what is compared, or set from the size of the images
IGNORED_OVERRIDES = ('_target_', 'dynamic_multimask', 'binarize_mask', 'fill_hole_area')
IGNORED_OVERRIDES += ('image_size', 'feat_sizes')
YAML_NAMES = {'t': 'tiny', 's': 'small', 'b+': 'base_plus', 'l': 'large'}


class Reference:
    """A directory of reference tensors.

    Raises:
        FileNotFoundError: the directory or one of its files is not there.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not (self.root / 'index.json').is_file():
            raise FileNotFoundError(
                f'{self.root} has no index.json; give a directory of reference tensors'
            )
        self.index = json.loads((self.root / 'index.json').read_text())

    @cached_property
    def images(self) -> Tensor:
        return self._inputs('images')

    @cached_property
    def masks(self) -> Tensor:
        return self._inputs('masks')

    def _inputs(self, key: str) -> Tensor:
        return torch.from_numpy(np.load(self.root / self.index['inputs']['file'])[key])

    @cached_property
    def image_size(self) -> int:
        return self.images.shape[-1]

    def case(self, name: str) -> dict:
        return self.index['cases'][name]

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        return dict(np.load(self.root / self.case(name).get('file', f'{name}.npz')))

    def weights(self, kind: str) -> str:
        names = [n for n in self.index['weights'] if n.startswith(kind)]
        if len(names) != 1:
            raise ValueError(f'{self.root}: expected one weight file of {kind}, got {names}')
        return str(self.root / names[0])

    def sam2_arch(self) -> dict:
        found = re.search(r'(sam2(?:\.1)?)_hiera_(t|s|b\+|l)(?!\w)', self.index['sam2_base_config'])
        if found is None:
            raise ValueError(f'no SAM 2 config named in {self.index["sam2_base_config"]!r}')
        kept = [
            item.lstrip('+').removeprefix('model.')
            for item in self.index['sam2_hydra_overrides']
            if not any(word in item for word in IGNORED_OVERRIDES)
        ]
        arch = OmegaConf.to_container(OmegaConf.from_dotlist(kept))
        return dict(base=f'{found[1]}_{YAML_NAMES[found[2]]}', **arch)

    def prior_encoder(self) -> dict:
        names = ('embed_dim', 'depth', 'num_heads', 'img_size', 'patch_size', 'mlp_ratio')
        names += ('num_register_tokens', 'interpolate_antialias', 'interpolate_offset', 'qkv_bias')
        dino = self.index['dino']
        arch = {name: dino[name] for name in names if name in dino}
        arch['ffn_layer'] = 'swiglu' if 'swiglu' in dino.get('ffn_layer', 'mlp') else 'mlp'
        shape = next(
            case['stages']['dino.query_last']['full_shape']
            for case in self.index['cases'].values()
            if 'dino.query_last' in case['stages']
        )
        side = shape[-1] * dino.get('patch_size', 14)
        return dict(type='DINOv2', arch=arch, image_size=side, checkpoint=None)

    def build(self, case: dict, load: bool = True):
        """Our model for a case, dropout off, weights loaded strictly unless ``load`` is false."""
        arch = OmegaConf.create(self.sam2_arch())
        layer = 'memory_attention.layer'
        for name in ('dropout', 'self_attention.dropout', 'cross_attention.dropout'):
            OmegaConf.update(arch, f'{layer}.{name}', 0.0)
        model = MODELS.build(
            dict(
                type='FSSAM',
                sam2=dict(
                    arch=OmegaConf.to_container(arch), image_size=self.image_size, checkpoint=None
                ),
                prior_encoder=self.prior_encoder(),
                prompt_generator=dict(type='PseudoPromptGenerator'),
                memory_refinement=dict(
                    type='IterativeMemoryRefinement',
                    num_iters=case['num_refine'],
                    version=case['ver_refine'],
                ),
                memory_attention=dict(type='SupportCalibratedMemoryAttention'),
            )
        )
        if load:
            load_strict(model.sam2, self.weights('sam2'), 'SAM 2', key='model')
            load_strict(model.prior_encoder.vit, self.weights('dino'), 'DINOv2')
        return model.train(case['mode'] == 'train')

    def batch(self, name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Query (B, 3, S, S), supports (B, K, 3, S, S), support masks and query labels."""
        case = self.case(name)
        query = torch.tensor(case['query_index'])
        support = torch.tensor(case['support_index'])
        masks = self.masks[support]
        if case.get('support_mask_override'):
            packed = self.arrays(name)['in.support_mask']
            bits = np.unpackbits(packed, axis=-1)[..., : self.image_size]
            masks = torch.from_numpy(bits).reshape(masks.shape)
        return self.images[query].float(), self.images[support].float(), masks, self.masks[query]
