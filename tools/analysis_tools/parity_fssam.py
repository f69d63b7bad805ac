"""FSSAM against a directory of reference tensors: its architecture, weights, cases, constants.

Directories of another size are read alike: the architecture is that of the index, the sides are
those of the images. Cases marked ``released`` record what published code does with several
supports, which is not what the method means.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property

import numpy as np
import torch
from mmseg.registry import MODELS
from parity_fssam_stages import run_case
from parity_fssam_units import check_units
from parity_reference import Comparer, Entry, Row, slice_of
from parity_sam2 import arch_of, without_dropout
from torch import Tensor

from mmfss.checkpoints.weights import load_strict

# without effect on what is compared, or set from the size of the images
IGNORED_OVERRIDES = ('_target_', 'dynamic_multimask', 'binarize_mask', 'fill_hole_area')
IGNORED_OVERRIDES += ('image_size', 'feat_sizes')
YAML_NAMES = {'t': 'tiny', 's': 'small', 'b+': 'base_plus', 'l': 'large'}
#: what a directory's constants are of: no case is run
PLAIN = dict(mode='eval', num_refine=0, ver_refine='v1')


class FSSAM(Comparer):
    """See :class:`parity_reference.Comparer`."""

    method, any_device = 'FSSAM', True

    @classmethod
    def recognises(cls, index: Mapping) -> bool:
        """By its name, or, the first of these directories having no ``method``, by its form."""
        if 'method' in index:
            return str(index['method']).lower() == 'fssam'
        form = {'sam2_base_config', 'sam2_hydra_overrides', 'dino'} <= set(index)
        return form or bool(re.search('golden|fssam', str(index.get('set', 'golden'))))

    def left_out(self) -> dict[str, str]:
        entries = {name: self.ref.index['cases'][name] for name in self.ref.cases}
        return {
            name: 'records published code, not the method'
            for name, case in entries.items()
            if isinstance(case, dict) and case.get('five_shot_variant') == 'released'
        }

    def run(self, name: str) -> tuple[dict[str, Tensor], list[Row]]:
        case = self.ref.case(name)
        model = self.build(case)
        found = run_case(model, *(tensor.to(self.device) for tensor in self.batch(name)))
        stages = {stage: value.cpu() for stage, value in found.items()}
        if case['mode'] == 'eval':
            return stages, []
        return stages, check_gradients(model, case, self.ref.arrays(name), name)

    def parts(self) -> dict[str, Callable[[], list[Row]]]:
        return {'constants': self.check_constants, 'units': self.unit_rows}

    def unit_rows(self) -> list[Row]:
        """Single functions, see ``parity_fssam_units.py``."""
        return [Row('units', *row) for row in check_units(self.ref.npz('units.npz'), self.device)]

    # ------------------------------------------------------------------------------- inputs
    @cached_property
    def inputs(self) -> tuple[Tensor, Tensor]:
        """Images uint8 (N, 3, S, S) and masks uint8 (N, S, S) in {0, 1, 255}."""
        data = self.ref.npz(self.ref.index['inputs']['file'])
        images, masks = (torch.from_numpy(data[key]) for key in ('images', 'masks'))
        square = images.ndim == 4 and images.shape[1] == 3 and images.shape[-1] == images.shape[-2]
        if not square or masks.shape != (len(images), *images.shape[-2:]):
            raise ValueError(
                f'{data.where}: images must be (N, 3, S, S) and masks (N, S, S), got '
                f'{list(images.shape)} and {list(masks.shape)}'
            )
        return images, masks

    @property
    def image_size(self) -> int:
        return self.inputs[0].shape[-1]

    def batch(self, name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Query (B, 3, S, S), supports (B, K, 3, S, S), support masks and query labels.

        Raises:
            ValueError: numbers of images that there are not, or packed masks of another size.
        """
        case, (images, masks) = self.ref.case(name), self.inputs
        query, support = torch.tensor(case['query_index']), torch.tensor(case['support_index'])
        numbers = torch.cat([query.flatten(), support.flatten()])
        if query.ndim != 1 or support.ndim != 2 or len(query) != len(support):
            raise ValueError(
                f'{case.where}: query_index must be (B,) and support_index (B, K), got '
                f'{case["query_index"]} and {case["support_index"]}'
            )
        if numbers.min() < 0 or numbers.max() >= len(images):
            raise ValueError(
                f'{case.where}: images {numbers.tolist()} of {len(images)} in the file of inputs'
            )
        support_masks = masks[support]
        if case.get('support_mask_override'):
            arrays = self.ref.arrays(name)
            bits = np.unpackbits(arrays['in.support_mask'], axis=-1)[..., : self.image_size]
            if bits.size != support_masks.numel():
                raise ValueError(
                    f'{arrays.where}: in.support_mask unpacked is {bits.shape}, the support masks '
                    f'are {list(support_masks.shape)}'
                )
            support_masks = torch.from_numpy(bits).reshape(support_masks.shape)
        return images[query].float(), images[support].float(), support_masks, masks[query]

    # -------------------------------------------------------------------------------- model
    def weights(self, kind: str) -> str:
        """Path of the weight file whose name begins with ``kind``."""
        files = self.ref.index['weights']
        names = [name for name in files if name.startswith(kind)]
        if len(names) != 1:
            raise ValueError(f'{files.where}: expected one weight file of {kind}, got {names}')
        return str(self.ref.root / names[0])

    def sam2_arch(self) -> dict:
        config = self.ref.index['sam2_base_config']
        found = re.search(r'(sam2(?:\.1)?)_hiera_(t|s|b\+|l)(?!\w)', config)
        if found is None:
            raise ValueError(f'{self.ref.index.where}: no SAM 2 config named in {config!r}')
        arch = arch_of(self.ref.index['sam2_hydra_overrides'], IGNORED_OVERRIDES)
        return dict(base=f'{found[1]}_{YAML_NAMES[found[2]]}', **arch)

    def prior_encoder(self) -> dict:
        """The side of its images is told by the shape of its features in the first case."""
        names = ('embed_dim', 'depth', 'num_heads', 'img_size', 'patch_size', 'mlp_ratio')
        names += ('num_register_tokens', 'interpolate_antialias', 'interpolate_offset', 'qkv_bias')
        dino = self.ref.index['dino']
        arch = {name: dino[name] for name in names if name in dino}
        arch['ffn_layer'] = 'swiglu' if 'swiglu' in dino.get('ffn_layer', 'mlp') else 'mlp'
        prior = dict(type='DINOv2', arch=arch, checkpoint=None)
        for case in self.ref.cases:
            with suppress(
                ValueError, TypeError, IndexError
            ):  # a damaged case is no concern of the others
                grid = self.ref.case(case)['stages']['dino.query_last']['full_shape'][-1]
                return dict(prior, image_size=grid * dino.get('patch_size', 14))
        return prior

    def build(self, case: Mapping, load: bool = True):
        """Our model for a case, dropout off, weights loaded strictly unless ``load`` is false."""
        if case['mode'] not in ('train', 'eval'):
            raise ValueError(f"mode must be 'train' or 'eval', got {case['mode']!r}")
        model = MODELS.build(
            dict(
                type='FSSAM',
                sam2=dict(
                    arch=without_dropout(self.sam2_arch()),
                    image_size=self.image_size,
                    checkpoint=None,
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
        return model.to(self.device).train(case['mode'] == 'train')

    def check_constants(self) -> list[Row]:
        """Position tables and other constants."""
        stored = self.ref.npz('constants.npz')
        ours = self.constants()
        rows = []
        for key, value in stored.items():
            name, _, index = key.partition('[')
            if name not in ours:
                rows.append(Row.failed('constants', key, 'not compared'))
                continue
            got = ours[name].cpu().double().numpy()
            got = got[slice_of('[' + index)] if index else got
            if got.shape != value.shape and name.startswith('hiera'):
                got = got[::4, ::4]  # stored so, without saying it
            if got.shape != value.shape:
                note = f'shape {got.shape} instead of {value.shape}'
                rows.append(Row.failed('constants', key, note))
                continue
            rows.append(Row('constants', key, float(np.abs(got - value).max()), 2e-5))
        return rows

    @torch.no_grad()
    def constants(self) -> dict[str, Tensor]:
        """Position tables of our model and its tokens without a point, by the names of the file."""
        model = self.build(PLAIN)
        sam2, size = model.sam2, self.image_size
        there = dict(device=self.device)
        out = sam2.image_encoder(torch.zeros(1, 3, size, size, **there))
        empty = (torch.zeros(1, 1, 2, **there), -torch.ones(1, 1, dtype=torch.int32, **there))
        memory = torch.zeros(1, sam2.mem_dim, size // 16, size // 16, **there)
        cis = sam2.memory_attention.layers[0].cross_attn_image.freqs_cis.cpu()
        vit = model.prior_encoder.vit
        side = model.prior_encoder.image_size // vit.patch_size
        trunk, prompts = sam2.image_encoder.trunk, sam2.sam_prompt_encoder
        return {
            **{f'sam2.pos{i}': pos[0] for i, pos in enumerate(out['vision_pos_enc'])},
            'mem.pos': sam2.memory_encoder.position_encoding(memory)[0],
            'sam.dense_pe': prompts.get_dense_pe()[0],
            'rope.freqs_cos': cis.real,
            'rope.freqs_sin': cis.imag,
            f'dino.pos_embed_{side}x{side}': vit.resized_pos_embed(side, side)[0],
            f'hiera.pos_embed_{size // 4}': trunk._get_pos_embed((size // 4, size // 4))[0],
            'sam.no_point_sparse': prompts(points=empty, boxes=None, masks=None)[0],
        }


def check_gradients(model, case: Entry, arrays: Entry, name: str) -> list[Row]:
    """Norms and samples of the gradients, and which parameters have none."""
    params = dict(model.sam2.named_parameters())
    grads = {key: p.grad.cpu() for key, p in params.items() if p.grad is not None}
    names, norms, samples = case['grads']['names'], arrays['grad.norms'], arrays['grad.samples']
    rows = []
    if not len(names) == len(norms) == len(samples):
        note = f'{len(names)} names, {len(norms)} norms and {len(samples)} samples'
        rows.append(Row.failed(name, 'grad', note))
    for key, norm, sample in zip(names, norms, samples):
        grad = grads.get(key)
        if grad is None:
            note = 'no gradient' if key in params else 'no such parameter'
            rows.append(Row.failed(name, f'grad {key}', note))
            continue
        bound = 1e-3 * float(norm) + 1e-6
        ours = grad.norm().item()
        rows.append(Row(name, f'grad.norm {key}', abs(ours - float(norm)), bound))
        flat = grad.flatten()[:: max(1, grad.numel() // 8)][:8].numpy()
        error = float(np.abs(flat - sample[: flat.size]).max())
        rows.append(Row(name, f'grad.sample {key}', error, bound))
    extra = sorted(set(grads) - set(names))
    note = f'gradient on {extra[:5]}' if extra else ''
    return [*rows, Row(name, 'grad.none', float(len(extra)), 0, note=note)]
