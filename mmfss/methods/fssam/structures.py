"""What the steps of FSSAM hand to each other.

Shapes: N images, B episodes, K shots, S image side, (h, w) a grid of features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmfss.encoders.sam2.memory_attention import MemoryFrames
from mmfss.encoders.sam2.model import DecodedMasks, SAM2Features
from mmfss.methods.fssam.prompts import Prototypes, PseudoMasks
from mmfss.methods.fssam.refinement import RefinedMemory


@dataclass(frozen=True)
class ImageFeatures:
    """Features of N images.

    Attributes:
        sam2: SAM 2's.
        prior: (N, C, h, w) of the prior encoder, None without one.
        tokens: (N, n, D) what the memory attention makes of them before it reads any memory; None
            where it has not been asked yet.
    """

    sam2: SAM2Features
    prior: Tensor | None
    tokens: Tensor | None = None


@dataclass(frozen=True)
class SupportState:
    """All that a query needs to know of the K supports of B episodes.

    Attributes:
        prototypes: of the prompt generator.
        refinement: (B, K, M) memory prototypes, None without refinement.
        frames: memories and pointers of the supports, for whoever wants to look at them.
        attention: what the memory attention keeps of them.
    """

    prototypes: Prototypes | None
    refinement: Tensor | None
    frames: MemoryFrames
    attention: Any


@dataclass(frozen=True)
class Segmentation:
    """Result for B queries.

    Attributes:
        logits: (B, 1, S, S).
        decoded: all outputs of the mask decoder.
        pseudo_masks, query_frames, refined: what led there; None where the part is absent.
        attended: (B, D, h, w) query features after memory attention.
    """

    logits: Tensor
    decoded: DecodedMasks
    attended: Tensor
    pseudo_masks: PseudoMasks | None = None
    query_frames: MemoryFrames | None = None
    refined: RefinedMemory | None = None
