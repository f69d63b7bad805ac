"""Object pointers without the masks: bit for bit those of upstream's ``_use_mask_as_output``."""

from __future__ import annotations

import pytest
import torch
from tiny_models import DIM, SIZE, encoded, randomised, tiny_arch

from mmfss.encoders.sam2.model import SAM2, build_sam2

VERSIONS = ['sam2_small', 'sam2.1_small']
OPTIONS = [
    dict(),
    dict(soft_no_obj_ptr=True),
    dict(fixed_no_obj_ptr=False),
    dict(soft_no_obj_ptr=True, fixed_no_obj_ptr=False),
    dict(pred_obj_scores_mlp=False),
    dict(use_mlp_for_obj_ptr_proj=False),
    dict(use_multimask_token_for_obj_ptr=False),
    dict(pred_obj_scores=False, pred_obj_scores_mlp=False, fixed_no_obj_ptr=False),
]


def model_of(version: str, **options) -> SAM2:
    torch.manual_seed(0)
    return randomised(build_sam2(dict(tiny_arch(version), **options), SIZE)).eval()


def inputs(model: SAM2):
    """Features of 4 images and a mask of each: soft, binary, empty, one pixel."""
    g = torch.Generator().manual_seed(0)
    features = encoded(model, torch.randn(4, 3, SIZE, SIZE, generator=g))
    masks = torch.rand(4, 1, SIZE, SIZE, generator=g)
    masks[1] = (masks[1] > 0.5).float()
    masks[2:] = 0
    masks[3, 0, 5, 7] = 1
    return features, masks


def upstream(model: SAM2, features, masks: torch.Tensor) -> torch.Tensor:
    return model._use_mask_as_output(features.top, list(features.high_res), masks)[5]


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('options', OPTIONS, ids=lambda options: '-'.join(options) or 'as it is')
@torch.no_grad()
def test_pointer_is_upstreams(version, options):
    model = model_of(version, **options)
    features, masks = inputs(model)
    want = upstream(model, features, masks)
    assert want.shape == (4, DIM) and want.abs().max() > 0.1
    assert torch.equal(model.encode_pointer(features, masks), want)
    if not model.pred_obj_scores:
        return
    pointers = []
    head = model.sam_mask_decoder.pred_obj_score_head
    last = head.layers[-1] if hasattr(head, 'layers') else head
    for score in (-3.0, 3.0):  # the object is not there, is there
        last.weight.zero_()
        last.bias.fill_(score)
        pointers.append(model.encode_pointer(features, masks))
        assert torch.equal(pointers[-1], upstream(model, features, masks))
    assert (pointers[0] - pointers[1])[0].abs().max() > 0.1  # and it matters


@torch.no_grad()
def test_without_pointers_in_the_encoder_they_are_zeros():
    model = model_of('sam2_small')
    features, masks = inputs(model)
    model.use_obj_ptrs_in_encoder = False
    assert torch.equal(model.encode_pointer(features, masks), torch.zeros(4, DIM))


@pytest.mark.parametrize('version', VERSIONS)
def test_gradients_are_upstreams(version):
    model = model_of(version)
    features, masks = inputs(model)
    grads = []
    for encode in (model.encode_pointer, lambda *args: upstream(model, *args)):
        model.zero_grad()
        encode(features, masks).square().sum().backward(retain_graph=True)
        grads.append({k: p.grad for k, p in model.named_parameters() if p.grad is not None})
    learned = {k for k, grad in grads[0].items() if grad.any()}
    assert learned == {k for k, grad in grads[1].items() if grad.any()}
    assert any('transformer' in key for key in learned)
    for key in learned:
        torch.testing.assert_close(grads[0][key], grads[1][key])


@torch.no_grad()
def test_several_masks_of_an_image_are_encoded_as_if_alone():
    model = model_of('sam2.1_small')
    features, masks = inputs(model)
    others = masks.flip(-1)
    memory, pos = model.encode_memory(features, torch.cat([masks, others]))
    for i, alone in enumerate((masks, others)):
        want, want_pos = model.encode_memory(features, alone)
        torch.testing.assert_close(memory[4 * i : 4 * i + 4], want)
        assert torch.equal(pos[4 * i : 4 * i + 4], want_pos)
