"""The method on a GPU: the same figures as on the CPU, training under bfloat16."""

from __future__ import annotations

import pytest
import torch
from tiny_models import build, episodes, inputs_of, samples_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
ATTENTION = [None, dict(type='SupportCalibratedMemoryAttention')]


def to_gpu(inputs: dict) -> dict:
    return {key: value.cuda() for key, value in inputs.items()}


@pytest.mark.parametrize('attention', ATTENTION)
@pytest.mark.parametrize('shots', [1, 5])
@pytest.mark.parametrize('base', ['sam2_small', 'sam2.1_small'])
def test_logits_are_those_of_the_cpu(base, shots, attention):
    model, inputs = build(base, memory_attention=attention), inputs_of(episodes(2, shots))
    with torch.no_grad():
        expected = model.run(inputs).logits
        ours = model.cuda().run(to_gpu(inputs)).logits
    assert ours.device.type == 'cuda'
    torch.testing.assert_close(ours.cpu(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('attention', ATTENTION)
@pytest.mark.parametrize('shots', [1, 5])
def test_a_training_step_under_bfloat16_gives_finite_gradients(shots, attention):
    model = build(memory_attention=attention).cuda().train()
    data = episodes(2, shots)
    with torch.autocast('cuda', torch.bfloat16):
        losses = model.loss(to_gpu(inputs_of(data)), [s.cuda() for s in samples_of(data)])
    losses['loss_dice'].backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads and all(grad.isfinite().all() for grad in grads)
