"""Checkpoints of what was trained alone: some MB of adapters beside the official weights.

Such a state dict holds the trained weights and, under :data:`BASE`, the digest of all others. These
are those of the encoders' own weight files, from which they are had again when it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from mmfss.checkpoints.weights import state_digest

BASE = 'trained_only.base_sha256'
"""Entry of the digest: (32,) uint8, the SHA-256 of names and values of what is left out."""


def only_trained(
    state: Mapping[str, Tensor], trained: Collection[str], base: bytes
) -> dict[str, Tensor]:
    """The trained entries of a state dict, with the digest of the others."""
    kept = {key: value for key, value in state.items() if key in trained}
    return {**kept, BASE: torch.tensor(list(base), dtype=torch.uint8)}


def completed(
    state: Mapping[str, Tensor],
    own: Callable[[], Mapping[str, Tensor]],
    load_base: Callable[[], None],
    source: str,
) -> dict[str, Tensor]:
    """A state dict with the weights that :func:`only_trained` left out; others as they are.

    Args:
        state: of a checkpoint.
        own: gives the model's state dict.
        load_base: loads the encoders' own weights into the model.
        source: what messages call the checkpoint.

    Raises:
        ValueError: they are not the weights that it was trained beside.
        FileNotFoundError: of ``load_base``.
    """
    if BASE not in state:
        return dict(state)
    load_base()
    kept = {key: value for key, value in state.items() if key != BASE}
    frozen = {key: value for key, value in own().items() if key not in kept}
    wanted, got = bytes(state[BASE].tolist()).hex(), state_digest(frozen).hex()
    if wanted != got:
        raise ValueError(
            f'{source} holds the {len(kept)} trained tensors alone, and the other {len(frozen)} '
            f'of this model are not those that it was trained beside (SHA-256 {got[:12]}..., '
            f'wanted {wanted[:12]}...). Set the checkpoint of each encoder of the config to the '
            'file that its training started from, and `trainable` and arch to its'
        )
    return {**frozen, **kept}
