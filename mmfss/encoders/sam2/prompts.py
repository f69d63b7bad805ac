"""SAM 2's prompt encoder and mask decoder, for box and point prompts on a single image.

Few-shot methods train the mask decoder for the empty prompt of tracking, so prompts get a copy of
their own, which may hold other weights: the official ones, or those of tools/train_prompts.py. The
latter get a prompt in a second form too, drawn as the mask prompt that SAM 2's prompt encoder
takes: from random weights the decoder does not learn within minutes to find the places of point
tokens.

Shapes as in :mod:`mmfss.encoders.sam2.model`; P points, a box being two of them.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from mmfss.checkpoints.official import OFFICIAL, official_file
from mmfss.checkpoints.weights import check_state_dict, read_state
from mmfss.encoders.sam2.model import SAM2, SAM2Features

NOT_OBJECT, OBJECT, BOX_START, BOX_END = 0, 1, 2, 3
"""Labels of SAM 2's points; a box is its two corners."""
PADDING = -1
_SHARED = ('sam_mask_decoder.conv_s0.', 'sam_mask_decoder.conv_s1.')
_DRAWN = 'prompts_are_drawn'
_STRENGTH = 2.0  # of a drawn prompt, in place of a mask's logits
_STABILITY = dict(
    dynamic_multimask_via_stability=True,
    dynamic_multimask_stability_delta=0.05,
    dynamic_multimask_stability_thresh=0.98,
)
"""What ``sam2.build_sam.build_sam2`` sets for its image predictor: where the single mask is not
stable, the best of the three others is taken."""


class PromptHeads(nn.Module):
    """Copies of the heads of a SAM 2, named as there. No parameters added.

    Args:
        sam2: whose heads are copied.
        drawn: give the prompt as a mask prompt too; noted in the state dict.
    """

    def __init__(self, sam2: SAM2, drawn: bool = False) -> None:
        super().__init__()
        self.sam_prompt_encoder = copy.deepcopy(sam2.sam_prompt_encoder)
        self.sam_mask_decoder = copy.deepcopy(sam2.sam_mask_decoder)
        for name, value in _STABILITY.items():
            setattr(self.sam_mask_decoder, name, value)
        self.no_mem_embed = copy.deepcopy(sam2.no_mem_embed)
        self.drawn, self.image_size = drawn, sam2.image_size
        self._encoder = [sam2]  # in a list: no part of the heads' state
        if drawn:
            self.register_buffer(_DRAWN, torch.ones(()))
        self.directly_add_no_mem_embed = sam2.directly_add_no_mem_embed
        self._multimask = sam2.multimask_output_in_sam
        self._few = range(sam2.multimask_min_pt_num, sam2.multimask_max_pt_num + 1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> SAM2Features:
        """Features of (N, 3, S, S) RGB 0..255, of the SAM 2 that the heads follow."""
        (sam2,) = self._encoder
        return sam2.features(*sam2(images))

    def multimask(self, points: int) -> bool:
        """Whether three candidates are given for so many points, as ``SAM2Base._use_multimask``
        says: for a single point, whose object is ambiguous."""
        return self._multimask and points in self._few

    def forward(
        self, features: SAM2Features, coords: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Masks of one prompt an image, see :func:`masks_of_prompts`: three candidates for a single
        point, else one."""
        return masks_of_prompts(self, features, coords, labels, self.multimask(labels.shape[1]))


def masks_of_prompts(
    heads: SAM2 | PromptHeads,
    features: SAM2Features,
    coords: Tensor,
    labels: Tensor,
    multimask: bool = False,
) -> tuple[Tensor, Tensor]:
    """The step of ``SAM2ImagePredictor._predict``.

    Args:
        heads: a SAM 2, or copies of its heads.
        features: of N images with a prompt each, or of one image for all N prompts.
        coords: (N, P, 2) x, y in pixels of the S x S image.
        labels: (N, P) int32: see :data:`OBJECT`; :data:`PADDING` for none.
        multimask: give three candidates, or the mask of the single-mask token.

    Returns:
        (N, M, S/4, S/4) float32 logits and (N, M) predicted IoUs; M is 3 or 1.
    """
    top = features.top
    if heads.directly_add_no_mem_embed:  # that of "no memory", as on the first frame of a video
        top = top + heads.no_mem_embed.reshape(1, -1, 1, 1)
    # a drawn prompt is given beside the points, as dense prompt
    drawn = isinstance(heads, PromptHeads) and heads.drawn
    masks = draw_prompts(coords, labels, heads.image_size) if drawn else None
    sparse, dense = heads.sam_prompt_encoder(points=(coords, labels), boxes=None, masks=masks)
    logits, ious, _, _ = heads.sam_mask_decoder(
        image_embeddings=top,
        image_pe=heads.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=multimask,
        repeat_image=len(top) == 1 < len(coords),
        high_res_features=list(features.high_res),
    )
    return logits.float(), ious.float()


def draw_prompts(coords: Tensor, labels: Tensor, side: int) -> Tensor:
    """Prompts as mask prompts: + 2 on the object, -2 off it, 0 where nothing is known.

    A box is + inside and - outside; a point is a bump of the width of S / 24.

    Args:
        coords: (N, P, 2) x, y in pixels of the S x S image.
        labels: (N, P); the corners of a box come first.
        side: S.

    Returns:
        (N, 1, S/4, S/4) float32.
    """
    # centres of the stride-4 cells in pixels: 4 i + 2
    centres = 4 * torch.arange(side // 4, device=coords.device) + 2.0
    y, x = torch.meshgrid(centres, centres, indexing='ij')
    px, py = coords[..., 0, None, None], coords[..., 1, None, None]  # (N, P, 1, 1)
    # exp(-|x - p|^2 / (2 sigma^2)), sigma = S / 24
    bumps = torch.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * (side / 24) ** 2))
    sign = (labels == OBJECT).float() - (labels == NOT_OBJECT).float()
    # 2 clamp(sum_p sign_p bump_p, + 2 [in box] - 1 with a box, -1, 1); padding has sign 0
    drawn = (sign[..., None, None] * bumps).sum(1)
    boxed = labels[:, 0] == BOX_START
    if boxed.any():
        after = (x >= px[:, 0]) & (y >= py[:, 0])
        inside = after & (x < px[:, 1]) & (y < py[:, 1])
        drawn = drawn + boxed[:, None, None] * (2 * inside.float() - 1)
    return _STRENGTH * drawn.clamp(-1, 1)[:, None]


def prompt_heads(sam2: SAM2, checkpoint: str | None = None) -> PromptHeads:
    """Heads for prompts on a SAM 2, in eval mode on its device.

    Args:
        sam2: whose image encoder they follow.
        checkpoint: None for copies of its own; 'official' or a path of an official checkpoint of
            SAM 2; or a file of tools/train_prompts.py.

    Raises:
        FileNotFoundError: no such file; see :func:`mmfss.checkpoints.official.official_file`.
        ValueError: the weights do not fit, every key counts; or they belong to another image
            encoder: two convolutions of the decoder run in the image encoder, are trained only
            with it, and tell whether both belong together.
    """
    heads = PromptHeads(sam2)
    if checkpoint is not None:
        if checkpoint == OFFICIAL:
            checkpoint = official_file('sam2', sam2.arch)
        state = read_state(checkpoint, 'SAM 2 or of heads for prompts', 'model')
        heads = PromptHeads(sam2, drawn=_DRAWN in state)
        own = heads.state_dict()
        whole = any(key.startswith('image_encoder.') for key in state)
        expected = sam2.state_dict() if whole else own
        state = sam2.fitting(state) if whole else state
        check_state_dict(expected, state, f'heads for prompts from {checkpoint}')
        state = {key: state[key].float() for key in own}
        for key in (key for key in own if key.startswith(_SHARED)):
            if not torch.equal(own[key].cpu(), state[key]):
                raise ValueError(
                    f'the prompt decoder of {checkpoint} belongs to another image encoder: {key} '
                    'differs. Use the file made for this model (tools/train_prompts.py makes one), '
                    "or None for the model's own"
                )
        heads.load_state_dict(state)
    return heads.to(next(sam2.parameters()).device).requires_grad_(False).eval()
