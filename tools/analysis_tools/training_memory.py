"""Bytes that a training step of SANSA keeps for its backward pass; nothing is computed.

    python tools/analysis_tools/training_memory.py [--arch sam2_large] [--shots 1] [--batch 1]

Runs the forward pass on tensors that have a size and no values (torch's FakeTensorMode), and sums
up what autograd keeps. Once as it is: the trunk's stages before the first adapter are frozen and
leave no graph, and of the first support only the tokens of the mask decoder are computed, as the
loss does not read its mask. Once with that mask too, as the published program computes it. Once
with a graph from the pixels on besides, as a network keeps it in which something before the
adapters learns. Weights, gradients and the optimizer come on top, the same all ways.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from mmseg.registry import MODELS
from torch import Tensor
from torch._subclasses import FakeTensorMode

if importlib.util.find_spec('mmfss') is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import mmfss  # noqa: F401  (registers the models)
from mmfss.checkpoints.conversion import without_weights


def kept_bytes(
    arch: str, shots: int, batch: int, decode: bool = False, from_pixels: bool = False
) -> tuple[int, int]:
    """Bytes of distinct tensors that autograd keeps: of encoding all images, and in all."""
    adapters = dict(stages=(2, 3), channel_factor=0.3)
    sam2 = dict(arch=arch, checkpoint=None, adapters=adapters)
    model = without_weights(lambda: MODELS.build(dict(type='SANSA', sam2=sam2))).train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device='cpu')
        weights = {p.untyped_storage()._cdata for p in model.parameters()}
        seen: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                seen.setdefault(storage._cdata, tensor)  # held, so that no address comes twice
            return tensor

        def total() -> int:
            return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())

        side = model.image_size
        images = torch.rand(batch * (1 + shots), 3, side, side, requires_grad=from_pixels)
        masks = torch.ones(batch, shots, side, side, dtype=torch.uint8)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            supports = model.encode_image(images[batch:], 'support')
            query = model.encode_image(images[:batch])
            encoding = total()
            shown = model._shown(supports, masks, with_logits=decode or shots > 1)
            trace = model.segment(query, model._clip(supports, shown, shots)).trace
            if shots > 1:
                logits = shown.logits.squeeze(1).unflatten(0, (batch, shots))
                trace = replace(trace, supports=logits)
            losses = model.loss_of(trace, masks, masks[:, 0])
        assert all(loss.requires_grad for loss in losses.values())
        return encoding, total()


def main(argv: Sequence[str] | None = None) -> None:
    """Print both ways."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--arch', default='sam2_large')
    parser.add_argument('--shots', type=int, default=1)
    parser.add_argument('--batch', type=int, default=1)
    args = parser.parse_args(argv)
    for name, options in (
        ('as it is', {}),
        ('with the mask of the first support', dict(decode=True)),
        ('and a graph from the pixels on', dict(decode=True, from_pixels=True)),
    ):
        encoding, whole = kept_bytes(args.arch, args.shots, args.batch, **options)
        print(
            f'{args.arch}, batch {args.batch}, {args.shots}-shot, {name}: {whole / 2**30:.2f} GiB '
            f'kept, {encoding / 2**30:.2f} of them of the images'
        )


if __name__ == '__main__':
    main()
