"""Iterative Memory Refinement (FSSAM, section 3.3): mend the query's pseudo memory.

Shapes: B episodes, K shots, C memory channels (64), (h, w) the stride-16 grid.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmfss.functional import cosine_map, masked_average, minmax, resize_mask, up

VERSIONS = ('v1', 'v2')


@dataclass(frozen=True)
class RefinementStep:
    """One iteration: ``relevance`` b and ``prior_ae`` (B, 1, h, w), ``memory`` (B, C, h, w)."""

    relevance: Tensor
    memory: Tensor
    prior_ae: Tensor


@dataclass(frozen=True)
class RefinedMemory:
    """Refined query memory (B, C, h, w), its prior (B, 1, h, w), the support relevance ``a``
    (B, 1, h, w), and the trace of iterations."""

    memory: Tensor
    prior_ae: Tensor
    support_relevance: Tensor
    steps: list[RefinementStep] = field(default_factory=list)


class MemoryRefinement(nn.Module):
    """Interface of what mends the query memory; see :class:`IterativeMemoryRefinement`."""

    def encode_support(self, memory: Tensor, masks: Tensor) -> Tensor:
        """Prototypes (B, K, C) of support memories (B, K, C, h, w) under masks (B, K, S, S)."""
        raise NotImplementedError

    def forward(
        self,
        memory_fg: Tensor,
        memory_ae: Tensor,
        prior_fg: Tensor,
        prior_ae: Tensor,
        support_prototypes: Tensor,
    ) -> RefinedMemory:
        """Refined memory of the query."""
        raise NotImplementedError


@MODELS.register_module()
class IterativeMemoryRefinement(MemoryRefinement):
    """Move the query memory towards the parts that the support and the query itself agree on.

    No parameters; differentiable.

    Args:
        num_iters: number of iterations N >= 0 (paper: 3).
        version: ``v1`` (published default), or ``v2``, which rescales the weight to [0, 1].

    Raises:
        ValueError: ``num_iters`` negative or ``version`` unknown.
    """

    def __init__(self, num_iters: int = 3, version: str = 'v1') -> None:
        super().__init__()
        if not isinstance(num_iters, int) or num_iters < 0:
            raise ValueError(f'num_iters must be an integer >= 0, got {num_iters!r}')
        if version not in VERSIONS:
            raise ValueError(f'version must be one of {list(VERSIONS)}, got {version!r}')
        self.num_iters = num_iters
        self.version = version

    def encode_support(self, memory: Tensor, masks: Tensor) -> Tensor:
        """Prototype of each support memory.

        Args:
            memory: (B, K, C, h, w) memories of the supports.
            masks: (B, K, S, S) float in [0, 1].

        Returns:
            (B, K, C).
        """
        # p_s = gap(M_s, mask), per shot, mask soft on the grid   (IMR)
        return masked_average(memory, resize_mask(masks, memory.shape[-2:]))

    def forward(
        self,
        memory_fg: Tensor,
        memory_ae: Tensor,
        prior_fg: Tensor,
        prior_ae: Tensor,
        support_prototypes: Tensor,
    ) -> RefinedMemory:
        """Refine.

        Args:
            memory_fg, memory_ae: (B, C, h, w) memories of the query under each pseudo mask.
            prior_fg, prior_ae: (B, 1, S, S) the pseudo masks, float in [0, 1].
            support_prototypes: (B, K, C) of :meth:`encode_support`.
        """
        grid = memory_fg.shape[-2:]
        prior_fg, prior_ae = up(prior_fg, grid), up(prior_ae, grid)
        # a = mean_K minmax(cos(M_fg, p_s)); once, as neither M_fg nor the supports change
        support = minmax(cosine_map(memory_fg.unsqueeze(1), support_prototypes))
        a = support.mean(1, keepdim=True)
        steps: list[RefinementStep] = []
        for _ in range(self.num_iters):
            # b = minmax(cos(M_fg, gap(M_ae, prior_ae)))   (IMR)
            prototype = masked_average(memory_ae, prior_ae[:, 0])
            b = minmax(cosine_map(memory_fg, prototype)).unsqueeze(1)
            # w = relu(b + a - 1): above 0 only where support and query agree, a + b > 1   (v1)
            weight = F.relu(b + a - 1)
            if self.version == 'v2':
                # w = minmax(w): where they agree most, M_fg takes the place of M_ae wholly   (v2)
                weight = minmax(weight)
            # M_ae <- w M_fg + (1 - w) M_ae
            memory_ae = weight * memory_fg + (1 - weight) * memory_ae
            # prior_ae <- minmax(w prior_fg + (1 - w) prior_ae): in [0, 1] again for the next gap
            prior_ae = minmax(weight * prior_fg + (1 - weight) * prior_ae)
            steps.append(RefinementStep(b, memory_ae, prior_ae))
        return RefinedMemory(memory_ae, prior_ae, a, steps)
