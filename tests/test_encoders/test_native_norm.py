"""Layer norm over channels by torch's kernel: the numbers and gradients of sam2's own."""

from __future__ import annotations

import pytest
import torch
from sam2.modeling.sam2_utils import LayerNorm2d
from torch import nn

from mmfss.encoders.sam2.native_norm import NativeLayerNorm2d, use_native_norms


@pytest.mark.parametrize('layout', [torch.channels_last, torch.contiguous_format])
def test_numbers_and_gradients_are_those_of_sam2(layout):
    torch.manual_seed(0)
    theirs = LayerNorm2d(5, eps=1e-3)
    nn.init.normal_(theirs.weight)
    nn.init.normal_(theirs.bias)
    net = nn.Sequential(theirs)
    use_native_norms(net)
    x = (3 * torch.randn(2, 5, 4, 6) + 2).to(memory_format=layout).requires_grad_()
    ours, weights = net(x), torch.randn(2, 5, 4, 6)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    parameters = x, theirs.weight, theirs.bias
    found = torch.autograd.grad((ours * weights).sum(), parameters)
    right = theirs(x)
    torch.testing.assert_close(ours, right, rtol=1e-5, atol=1e-5)
    wanted = torch.autograd.grad((right * weights).sum(), parameters)
    for one, other in zip(found, wanted):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_parameters_mode_and_derived_classes_stay():
    class Own(LayerNorm2d):
        pass

    net = nn.Sequential(nn.Sequential(LayerNorm2d(3, eps=0.5)), Own(3)).eval()
    before = dict(net.named_parameters())
    use_native_norms(net)
    assert type(net[0][0]) is NativeLayerNorm2d and type(net[1]) is Own
    assert net[0][0].eps == 0.5 and not net[0][0].training
    after = dict(net.named_parameters())
    assert list(after) == list(before) and all(after[name] is before[name] for name in before)
