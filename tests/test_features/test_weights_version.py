"""The cheap sign that weights changed."""

from __future__ import annotations

import copy
import pickle
import time
import weakref

import pytest
import torch
from torch import nn

from mmfss.features.fingerprint import WeightsVersion


class Net(nn.Module):
    """Parameters, a buffer, one that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.scalar = nn.Parameter(torch.tensor(2.0))
        self.register_buffer('table', torch.ones(3), persistent=False)

    def forward(self, x):
        return self.norm(self.conv(x))


def replace_parameter(net):
    net.conv.weight = nn.Parameter(net.conv.weight.detach().clone())


def replace_module(net):
    del net.conv  # its memory is free for the next one
    net.conv = nn.Conv2d(3, 4, 3)


@pytest.mark.parametrize(
    'change',
    [
        lambda net: net.scalar.add_(1),
        lambda net: net.table.zero_(),
        lambda net: net.load_state_dict(net.state_dict()),
        lambda net: net.half() if net.scalar.dtype == torch.float32 else net.float(),
        lambda net: setattr(net, 'table', net.table.clone()),
        lambda net: net.norm.train(not net.norm.training),
        replace_parameter,
        replace_module,
    ],
    ids=['in place', 'buffer', 'load', 'to', 'buffer replaced', 'mode', 'replaced', 'module'],
)
def test_version_changes_with_the_weights(change):
    net = Net()
    for _ in range(3):
        before = WeightsVersion([net])
        assert before.holds() and WeightsVersion([net]).holds()
        with torch.no_grad():
            change(net)
        assert not before.holds()


def test_version_does_not_change_by_use():
    net = Net().eval()
    before = WeightsVersion([net])
    net(torch.ones(1, 3, 5, 5)).sum().backward()
    net.requires_grad_(False)
    assert before.holds()


def test_version_of_a_copy_holds_for_nothing():
    before = WeightsVersion([Net()])
    assert not copy.deepcopy(before).holds() and not pickle.loads(pickle.dumps(before)).holds()
    assert not WeightsVersion([]).holds()


def test_a_weight_that_is_gone_is_not_kept():
    net = Net()
    version, old = WeightsVersion([net]), weakref.ref(net.conv.weight)
    replace_parameter(net)
    assert old() is None and not version.holds()


def test_version_with_tensors_of_inference_mode():
    with torch.inference_mode():
        net = nn.Linear(2, 2)
    assert WeightsVersion([net]).holds()


def test_version_is_cheap():
    net = nn.Sequential(*[nn.Sequential(nn.Linear(2, 2)) for _ in range(300)])  # 600 tensors
    times, version = [], WeightsVersion([net])
    for _ in range(30):
        start = time.perf_counter()
        assert version.holds()
        times.append(time.perf_counter() - start)
    assert min(times) < 2e-3  # 0.3 ms on a quiet machine
