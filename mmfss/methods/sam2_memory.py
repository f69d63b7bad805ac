"""SAM 2 as it stands: the supports are frames of a video, the query is its next frame.

What :class:`sam2.sam2_video_predictor.SAM2VideoPredictor` (sam2 1.1.0) computes when each support
is a frame given with its mask. No training, no second encoder: the baseline of papers on few-shot
segmentation with SAM 2.

    encode_support   each support on its own: memory under its mask, object pointer
    segment          the query reads all memories and pointers -> mask decoder -> object-score gate

Each episode is a video of its own. The predictor would also put the query's result into memory, so
that a query that comes after it in the same video reads it; here nothing of a query is kept.

Shapes: B episodes, K shots, D channels of the image features, M of the memory, (h, w) their grid,
S image side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from sam2.modeling.sam2_base import NO_OBJ_SCORE
from torch import Tensor

from mmfss.arguments import integer
from mmfss.encoders.sam2.memory_attention import MemoryFrames
from mmfss.encoders.sam2.model import DecodedMasks, SAM2Features, build_sam2
from mmfss.encoders.sam2.prompts import PromptHeads, prompt_heads
from mmfss.features.images import DeferredBatch

from .base import FewShotModel, Segmentation


@dataclass(frozen=True)
class Trace:
    """What :meth:`SAM2Memory.segment` came through, for B queries.

    Attributes:
        attended: (B, D, h, w) query features after memory attention.
        decoded: all outputs of the mask decoder, before the gate.
        low_res: (B, 1, S/4, S/4) float32 logits after it.
    """

    attended: Tensor
    decoded: DecodedMasks
    low_res: Tensor


@MODELS.register_module()
class SAM2Memory(FewShotModel):
    """SAM 2's video predictor with the supports as frames that are given with their masks.

    The defaults are what ``sam2.build_sam.build_sam2_video_predictor`` gives where its compiled
    extension is absent. Two things are those of all methods here and not the predictor's: a mask of
    another size than the model's is resized by what reads the images, and the result reaches the
    size of the photo through S x S, where the predictor goes there from S/4 x S/4 directly.

    Args:
        sam2: ``dict(arch=..., checkpoint='official' | path | None)``, see
            :func:`mmfss.encoders.sam2.model.build_sam2`.
        image_size: side S of the images; SAM 2 was trained for 1024.
        object_gate: queries in which SAM 2's object score is <= 0 get -1024 everywhere, as an
            object that is not there in a video. With sliding windows leave it out: one such window
            outvotes all others at its place.
        binary_masks: the supports' masks are cut at 0 before they are encoded into memory, else
            they pass through a sigmoid.
        bfloat16_memory: memories are rounded to bfloat16, on every device.
        shots_in_order: SAM 2.1's pointers tell how long ago their frame was: the last support one
            frame, the first K, in a video of K + 1. So the order of the supports matters, and K is
            told. Else all were one frame ago, in a video of 16 or more. SAM 2.0 has no such thing.
        hole_area: holes of a mask of at most so many pixels, at S/4 x S/4, are filled with 0.1, in
            supports and result. The predictor does so with 8 where its CUDA extension was
            compiled, and nothing (0) elsewhere.
        resize: of :class:`~mmfss.methods.base.FewShotModel`; the predictor's by default.
        common: other arguments of :class:`~mmfss.methods.base.FewShotModel`.

    Raises:
        ValueError: unknown arch, a switch that is no bool, or a number out of range.
    """

    needs_checkpoint = False
    builders = {'sam2': build_sam2}

    def __init__(
        self,
        sam2: dict,
        image_size: int = 1024,
        object_gate: bool = True,
        binary_masks: bool = True,
        bfloat16_memory: bool = True,
        shots_in_order: bool = True,
        hole_area: int = 0,
        resize: str = 'pillow_bicubic',
        **common: Any,
    ) -> None:
        switches = dict(
            object_gate=object_gate,
            binary_masks=binary_masks,
            bfloat16_memory=bfloat16_memory,
            shots_in_order=shots_in_order,
        )
        for name, value in switches.items():
            if not isinstance(value, bool):
                raise ValueError(f'model.{name} must be True or False, got {value!r}')
        if 'image_size' in sam2:
            raise ValueError(
                'model.sam2.image_size is not taken by SAM2Memory: set the side of the images in '
                f'model.image_size, got {sam2["image_size"]!r}'
            )
        network = build_sam2(image_size=image_size, **sam2)
        network.binarize_mask_from_pts_for_mem_enc = binary_masks
        super().__init__(dict(sam2=network), network.image_size, resize=resize, **common)
        self.object_gate, self.shots_in_order = object_gate, shots_in_order
        self.bfloat16_memory = bfloat16_memory
        self.hole_area = integer('model.hole_area', hole_area, 0)

    def encode_image(self, images: Tensor | DeferredBatch, role: str = 'query') -> SAM2Features:
        """Features of N images, see :meth:`FewShotModel.encode_image`."""
        return self.sam2.features(*super().encode_image(images, role)['sam2'])

    def encode_support(self, features: SAM2Features, masks: Tensor) -> MemoryFrames:
        """Memories and pointers of B K images under masks (B, K, S, S), in the order of a video."""
        shots = masks.shape[1]
        flat = (masks == 1).float().flatten(0, 1).unsqueeze(1)
        memory, pos = self.sam2.encode_memory(features, flat, self.mask_logits(flat)[1])
        if self.bfloat16_memory:
            memory = memory.to(torch.bfloat16).to(memory.dtype)
        pointers = self.sam2.encode_pointer(features, flat)
        times = None
        if self.shots_in_order:
            # t_k = (K - k) / (min(K + 1, 16) - 1), k = 0..K-1: the last support is nearest
            furthest = min(shots + 1, self.sam2.max_obj_ptrs_in_encoder) - 1
            times = torch.arange(shots, 0, -1, device=masks.device) / furthest
        frames = self.sam2.memory_frames(memory, pos, pointers, shots, times)
        return self.sam2.memory_attention.encode_support(frames, masks)

    def mask_logits(self, masks: Tensor) -> tuple[Tensor, Tensor]:
        """What the memory encoder gets of masks (N, 1, S, S) in {0, 1}: the predictor keeps their
        logits at (N, 1, S/4, S/4), and brings these back to (N, 1, S, S)."""
        # z = 20 m - 10, antialiased to S/4, and up with align_corners=False
        side = self.image_size
        low = F.interpolate(
            masks * 20.0 - 10.0, (side // 4, side // 4), mode='bilinear', antialias=True
        )
        low = self._without_holes(low)
        return low, F.interpolate(low, (side, side), mode='bilinear')

    def segment(
        self, query: SAM2Features, state: MemoryFrames, truth: Tensor | None = None
    ) -> Segmentation:
        """Segment B queries given their supports, see :meth:`FewShotModel.segment`."""
        attended = self.sam2.memory_attention(*query.top_tokens(), None, state)
        attended = attended.transpose(1, 2).unflatten(-1, query.top.shape[-2:])
        decoded = self.sam2.decode(attended, query.high_res)
        low = decoded.low_res
        if self.object_gate:
            # z = -1024 where SAM 2 believes that the object is not there
            low = torch.where(decoded.object_score[..., None, None] > 0, low, NO_OBJ_SCORE)
        low = self._without_holes(low)
        logits = F.interpolate(low, (self.image_size, self.image_size), mode='bilinear')
        return Segmentation(logits, trace=Trace(attended, decoded, low))

    def _without_holes(self, logits: Tensor) -> Tensor:
        """(N, 1, h, w) with 0.1 in the place of small holes: parts of the background, neighbours
        counted along the diagonals too, of at most ``hole_area`` pixels."""
        if not self.hole_area:
            return logits
        holes = []
        for one in (logits[:, 0] <= 0).cpu().numpy().astype(np.uint8):
            _, parts, stats, _ = cv2.connectedComponentsWithStats(one, connectivity=8)
            small = stats[:, cv2.CC_STAT_AREA] <= self.hole_area
            small[0] = False  # the foreground
            holes.append(torch.from_numpy(small[parts]))
        return torch.where(torch.stack(holes)[:, None].to(logits.device), 0.1, logits)

    def compared(self, features: SAM2Features) -> Tensor:
        """SAM 2's stride-16 features (N, D, h, w)."""
        return features.top

    def not_static(self) -> dict[str, str]:
        """Filling holes of masks takes their connected parts; all else is static."""
        why = 'it fills holes, parts of each mask that are connected (hole_area=0 fills none)'
        return dict(segment=why, encode_support=why) if self.hole_area else {}

    def prompter(self, checkpoint: str | None = None) -> PromptHeads:
        """SAM 2's prompt encoder and mask decoder, see
        :func:`mmfss.encoders.sam2.prompts.prompt_heads`."""
        return prompt_heads(self.sam2, checkpoint)
