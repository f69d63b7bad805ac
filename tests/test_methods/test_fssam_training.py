"""Which parameters learn, and in which mode each module is."""

from __future__ import annotations

import pytest
import torch
from tiny_models import build, episodes, inputs_of, samples_of, tiny_arch

TRAINED = ('sam_mask_decoder', 'memory_encoder', 'memory_attention')
#: of the trained modules, what the loss does not depend on
UNUSED = ('sam_mask_decoder.iou_prediction_head.', 'sam_mask_decoder.pred_obj_score_head.')
FROZEN_CONVS = ('sam_mask_decoder.conv_s0.', 'sam_mask_decoder.conv_s1.')
LOOSE = ('maskmem_tpos_enc', 'no_mem_embed', 'no_mem_pos_enc', 'no_obj_ptr')


def step(model) -> dict[str, torch.Tensor | None]:
    """Gradients of SAM 2's parameters after one loss."""
    data = episodes(2, 2)
    model.train()
    model.loss(inputs_of(data), samples_of(data))['loss_dice'].backward()
    return {name: p.grad for name, p in model.sam2.named_parameters()}


@pytest.mark.parametrize('base', ['sam2_small', 'sam2.1_small'])
def test_gradients_on_the_trained_modules_alone(base):
    model = build(base)
    grads = step(model)
    for name, grad in grads.items():
        trained = name.startswith(TRAINED) and not name.startswith(FROZEN_CONVS)
        assert model.sam2.get_parameter(name).requires_grad == trained, name
        if not trained or name.startswith(UNUSED):
            assert grad is None, name
        elif grad is None or not grad.any():
            # masks 0 and 4 of the decoder: the tokens of candidates that were not chosen
            assert 'output_hypernetworks_mlps' in name, name
    assert all(p.grad is None and not p.requires_grad for p in model.prior_encoder.parameters())
    assert {name for name in grads if '.' not in name} >= set(LOOSE)
    chosen = [n for n in grads if 'output_hypernetworks_mlps' in n and grads[n] is not None]
    assert chosen  # at least one candidate learns
    for part in TRAINED:
        norms = [g.norm() for n, g in grads.items() if n.startswith(part) and g is not None]
        assert torch.stack(norms).max() > 1e-6, part


def test_refinement_and_pointers_pass_the_gradient_to_the_memory_encoder():
    """Without the query's memory the gradient of the memory encoder is another one."""
    grad = step(build())['memory_encoder.out_proj.weight']
    alone = build(prompt_generator=None, memory_refinement=None, memory_attention=None)
    other = step(alone)['memory_encoder.out_proj.weight']
    assert grad.norm() > 0 and other.norm() > 0 and not torch.allclose(grad, other)


@pytest.mark.parametrize(
    'trainable',
    [
        ('sam_mask_decoder',),
        ('memory_encoder', 'memory_attention'),
        ('image_encoder', *TRAINED),
        ('image_encoder.neck', *TRAINED),
    ],
)
def test_the_allow_list_is_what_is_trained(trainable):
    model = build(trainable=[f'sam2.{name}' for name in trainable])
    grads = step(model)
    encoder = any(name.startswith('image_encoder') for name in trainable)
    for name, grad in grads.items():
        conv = name.startswith(FROZEN_CONVS)
        wanted = encoder if conv else name.startswith(tuple(f'{t}.' for t in trainable))
        assert model.sam2.get_parameter(name).requires_grad == wanted, name
        assert wanted or grad is None, name
    if encoder:
        assert grads['sam_mask_decoder.conv_s0.weight'].any()
        assert grads['image_encoder.neck.convs.0.conv.weight'].any()
        trunk = grads['image_encoder.trunk.patch_embed.proj.weight']
        assert (trunk is not None and trunk.any()) == ('image_encoder' in trainable)


def test_frozen_modules_stay_in_eval_mode():
    model = build()
    model.train()
    assert model.training
    for name, module in model.named_modules():
        own = name.removeprefix('sam2.')
        trained = own.split('.')[0] in TRAINED and not f'{own}.'.startswith(FROZEN_CONVS)
        outside = name.split('.')[0] not in model.encoders  # what an own part there would need
        if name:
            assert module.training == (outside or (trained and name.startswith('sam2.'))), name
    model.eval()
    assert not any(module.training for module in model.modules())
    model.train(True)
    assert model.sam2.memory_attention.layers[0].training and not model.sam2.training


def test_dropout_is_active_in_training_alone():
    arch = tiny_arch()
    layer = arch['memory_attention']['layer']
    layer['dropout'] = layer['cross_attention']['dropout'] = 0.5
    model = build(sam2=dict(arch=arch, image_size=64, checkpoint=None))
    data = inputs_of(episodes())
    with torch.no_grad():
        torch.manual_seed(0)
        assert torch.equal(model.run(data).logits, model.run(data).logits)
        model.train()
        assert (model.run(data).logits - model.run(data).logits).abs().max() > 1e-3


def test_a_small_step_lowers_the_loss_as_the_gradient_says():
    model = build()
    model.train()
    data = episodes(2, 1)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    loss = model.loss(inputs_of(data), samples_of(data))['loss_dice']
    loss.backward()
    learning = [p for p in model.parameters() if p.grad is not None]
    slope = sum(p.grad.square().sum() for p in learning).sqrt()
    with torch.no_grad():
        for parameter in learning:
            parameter -= 5e-4 / slope * parameter.grad
        lower = model.loss(inputs_of(data), samples_of(data))['loss_dice']
    assert (loss - lower).item() == pytest.approx(5e-4 * slope.item(), rel=0.1)
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed and all(k.startswith(tuple(f'sam2.{name}' for name in TRAINED)) for k in changed)


def test_a_name_that_is_nothing_of_the_model():
    message = r"trainable names 'memory_encoder', and FSSAM has no parameter of that name.*sam2"
    with pytest.raises(ValueError, match=message):
        build(trainable=('sam2.sam_prompt_encoder', 'memory_encoder'))


@pytest.mark.parametrize('wrong', ['sam2.memory_encoder', [1]])
def test_trainable_is_a_list_of_names(wrong):
    with pytest.raises(ValueError, match='model.trainable must be None or a list of names'):
        build(trainable=wrong)


def test_without_names_the_encoders_are_frozen_again():
    model = build(trainable=['sam2.*'])
    model.set_trainable(None)
    assert not any(p.requires_grad for e in model.encoders.values() for p in e.parameters())


def test_patterns_of_names():
    model = build(trainable=['sam2.memory_*', 'sam2.*.iou_token.weight'])
    learns = {name for name, p in model.named_parameters() if p.requires_grad}
    own = ('sam2.memory_encoder.', 'sam2.memory_attention.')
    assert 'sam2.sam_mask_decoder.iou_token.weight' in learns
    assert all(name.startswith(own) or 'iou_token' in name for name in learns)
    assert learns >= {n for n, _ in model.named_parameters() if n.startswith(own)}


def test_bfloat16_training_step_has_finite_gradients():
    model = build()
    model.train()
    data = episodes(1, 2)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = model.loss(inputs_of(data), samples_of(data))['loss_dice']
    loss.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert loss.dtype == torch.float32 and all(torch.isfinite(g).all() for g in grads)
    assert sum(bool(g.any()) for g in grads) > 100
