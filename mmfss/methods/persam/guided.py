"""SAM's mask decoder as PerSAM changes it inside: a pass through the modules of sam2's.

Shapes: C channels of SAM's features, (h, w) their grid, P points, n tokens, T side of SAM's images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmfss.encoders.sam1 import SAM1


def guided_decode(
    sam: SAM1, features: Tensor, coords: Tensor, labels: Tensor, target: Tensor, guide: Tensor
) -> tuple[Tensor, Tensor]:
    """The mask of points by SAM's mask decoder with two changes inside.

    Target-guided attention: where the tokens of both layers look at the image, ``guide`` is added
    to their attention. Target-semantic prompting: ``target`` is added to all tokens, see below.

    Args:
        features: (1, C, h, w).
        coords, labels: (1, P, 2) x, y in SAM's image, and (1, P).
        target: (C,).
        guide: (h, w) in [0, 1].

    Returns:
        (1, 1, T/4, T/4) float32 logits of the single-mask token and (1, 1) predicted IoU.
    """
    decoder = sam.mask_decoder
    transformer = decoder.transformer
    prompts, dense = sam.prompt_encoder(points=(coords, labels), boxes=None, masks=None)
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])[None]
    keys = (features + dense).flatten(2).mT
    places = sam.prompt_encoder.get_dense_pe().flatten(2).mT
    # the sum is also what stands for the tokens' position in every later step
    tokens = torch.cat([own, prompts], 1) + target
    queries = tokens
    for number, layer in enumerate(transformer.layers):
        if number:
            queries = queries + target
        if layer.skip_first_layer_pe:
            queries = layer.self_attn(queries, queries, queries)
        else:
            q = queries + tokens
            queries = queries + layer.self_attn(q, q, queries)
        queries = layer.norm1(queries)
        attention = layer.cross_attn_token_to_image
        seen = guided_attention(attention, queries + tokens, keys + places, keys, guide.flatten())
        queries = layer.norm2(queries + seen)
        queries = layer.norm3(queries + layer.mlp(queries))
        told = layer.cross_attn_image_to_token(keys + places, queries + tokens, queries)
        keys = layer.norm4(keys + told)
    last = transformer.final_attn_token_to_image
    seen = last(queries + tokens + target, keys + places, keys)
    queries = transformer.norm_final_attn(queries + seen)
    image = decoder.output_upscaling(keys.mT.unflatten(2, features.shape[-2:]))
    kernel = decoder.output_hypernetworks_mlps[0](queries[:, 1])
    logits = (kernel[:, None] @ image.flatten(2)).unflatten(2, image.shape[-2:])
    return logits.float(), decoder.iou_prediction_head(queries[:, 0])[:, :1].float()


def guided_attention(
    attention: nn.Module, q: Tensor, k: Tensor, v: Tensor, guide: Tensor
) -> Tensor:
    """sam2's ``Attention`` of (1, n, C) on (1, h w, C) with ``guide`` (h w,) in it."""
    heads = attention.num_heads
    q = attention._separate_heads(attention.q_proj(q), heads)
    k = attention._separate_heads(attention.k_proj(k), heads)
    v = attention._separate_heads(attention.v_proj(v), heads)
    # A = softmax(softmax(q k^T / sqrt(d)) + g): the outer one of numbers in [0, 2] is nearly even
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    weights = (weights + guide).softmax(-1)
    return attention.out_proj(attention._recombine_heads(weights.to(v.dtype) @ v))
