"""The pure functions against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmfss.functional import (
    cosine_map,
    logits_to_mask,
    masked_average,
    minmax,
    resize_mask,
    share_of_grid,
    up,
)
from mmfss.methods.losses import squared_dice_loss


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def bilinear(image: np.ndarray, height: int, width: int, corners: bool) -> np.ndarray:
    """Bilinear resize of (h, w), one pixel at a time."""

    def source(i: int, new: int, old: int) -> float:
        if corners:
            return i * (old - 1) / (new - 1) if new > 1 else 0.0
        return max((i + 0.5) * old / new - 0.5, 0.0)

    h, w = image.shape
    out = np.empty((height, width))
    for i in range(height):
        for j in range(width):
            y, x = source(i, height, h), source(j, width, w)
            y0, x0 = min(int(y), h - 1), min(int(x), w - 1)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            a, b = y - y0, x - x0
            top = (1 - b) * image[y0, x0] + b * image[y0, x1]
            low = (1 - b) * image[y1, x0] + b * image[y1, x1]
            out[i, j] = (1 - a) * top + a * low
    return out


def test_minmax_by_hand():
    x = torch.tensor([[2.0, 4.0], [3.0, 6.0]])
    expected = torch.tensor([[0.0, 0.5], [0.25, 1.0]])
    torch.testing.assert_close(minmax(x), expected, atol=1e-6, rtol=0)
    rows = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    torch.testing.assert_close(minmax(x, dims=(-1,)), rows, atol=1e-6, rtol=0)


def test_minmax_of_each_map_alone_in_the_unit_interval():
    x = rand(2, 3, 5, 7) * torch.tensor([1e-3, 1.0, 1e3]).reshape(1, 3, 1, 1)
    y = minmax(x)
    for b in range(2):
        for k in range(3):
            one = x[b, k].double().numpy()
            want = (one - one.min()) / (one.max() - one.min() + 1e-7)
            np.testing.assert_allclose(y[b, k].numpy(), want, atol=1e-6)
    assert y.min() >= 0 and y.max() <= 1


@pytest.mark.parametrize('value', [0.0, -3.0, 1e8])
def test_minmax_of_a_constant_is_zero(value):
    assert torch.equal(minmax(torch.full((2, 4, 4), value)), torch.zeros(2, 4, 4))


def test_masked_average_is_the_loop():
    features, mask = rand(2, 3, 4, 5), rand(2, 4, 5, seed=1).sigmoid()
    out = masked_average(features, mask)
    assert out.shape == (2, 3)
    for b in range(2):
        for c in range(3):
            total = weight = 0.0
            for i in range(4):
                for j in range(5):
                    total += float(features[b, c, i, j]) * float(mask[b, i, j])
                    weight += float(mask[b, i, j])
            assert float(out[b, c]) == pytest.approx(total / (weight + 0.0005), abs=1e-6)


def test_masked_average_under_nothing_and_under_one_pixel():
    features = rand(1, 3, 4, 4)
    assert torch.equal(masked_average(features, torch.zeros(1, 4, 4)), torch.zeros(1, 3))
    mask = torch.zeros(1, 4, 4)
    mask[0, 2, 1] = 1
    torch.testing.assert_close(masked_average(features, mask), features[:, :, 2, 1] / 1.0005)


def test_cosine_map_is_the_loop():
    features, vector = rand(2, 6, 3, 4), rand(2, 6, seed=1)
    out = cosine_map(features, vector)
    assert out.shape == (2, 3, 4)
    for b in range(2):
        for i in range(3):
            for j in range(4):
                f, v = features[b, :, i, j].tolist(), vector[b].tolist()
                dot = sum(p * q for p, q in zip(f, v))
                lengths = math.sqrt(sum(p * p for p in f)) * math.sqrt(sum(q * q for q in v))
                assert float(out[b, i, j]) == pytest.approx(dot / (lengths + 1e-7), abs=1e-6)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('autocast', [False, True])
def test_half_precision_is_of_the_inputs_alone(dtype, autocast):
    """Sums and lengths are not rounded: 691 pixels would be 692 in bfloat16."""
    features, vector = rand(2, 64, 32, 32).to(dtype), rand(2, 64, seed=1).to(dtype)
    mask = (rand(2, 32, 32, seed=2) > 0.5).to(dtype)
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        found = cosine_map(features, vector), masked_average(features, mask)
    wide = features.double(), vector.double(), mask.double()
    for x, want in zip(found, (cosine_map(*wide[:2]), masked_average(wide[0], wide[2]))):
        assert x.dtype == torch.float32
        torch.testing.assert_close(x.double(), want, rtol=0, atol=1e-6)


def test_cosine_map_with_a_zero_vector_is_zero():
    assert torch.equal(cosine_map(rand(1, 4, 3, 3), torch.zeros(1, 4)), torch.zeros(1, 3, 3))


@pytest.mark.parametrize('size', [(3, 5), (9, 4), (4, 4), (1, 7)])
def test_up_keeps_the_corners(size):
    x = rand(1, 1, 4, 4)
    want = bilinear(x[0, 0].double().numpy(), *size, corners=True)
    np.testing.assert_allclose(up(x, size)[0, 0].numpy(), want, atol=1e-6)


def test_resize_mask_soft_and_nearest():
    mask = (rand(1, 2, 6, 6) > 0).float()
    torch.testing.assert_close(resize_mask(mask, (4, 4)), up(mask, (4, 4)))
    nearest = resize_mask(mask, (4, 4), mode='nearest')
    for i in range(4):
        for j in range(4):
            assert torch.equal(nearest[..., i, j], mask[..., i * 6 // 4, j * 6 // 4])


@pytest.mark.parametrize('size', [(13, 7), (3, 20), (8, 8), (1, 1)])
def test_logits_to_mask_resizes_logits_then_thresholds(size):
    logits = 4 * rand(2, 1, 8, 8)
    out = logits_to_mask(logits, size)
    assert out.shape == (2, 1, *size) and out.dtype == torch.uint8
    for b in range(2):
        resized = bilinear(logits[b, 0].double().numpy(), *size, corners=True)
        clear = np.abs(resized) > 1e-5
        np.testing.assert_array_equal(out[b, 0].numpy()[clear], (resized >= 0)[clear])


def test_a_logit_of_zero_is_foreground():
    assert torch.equal(logits_to_mask(torch.zeros(1, 1, 2, 2), (3, 3)), torch.ones(1, 1, 3, 3))
    assert not logits_to_mask(torch.full((1, 1, 2, 2), -1e-3), (3, 3)).any()


def test_dice_is_the_loop_and_255_is_background():
    logits, target = 2 * rand(2, 3, 4), torch.tensor([0, 1, 255]).repeat(2, 4, 1).transpose(1, 2)
    losses = []
    for b in range(2):
        overlap = total = 0.0
        for i in range(3):
            for j in range(4):
                p = 1 / (1 + math.exp(-float(logits[b, i, j])))
                t = 1.0 if int(target[b, i, j]) == 1 else 0.0
                overlap += p * t
                total += p * p + t * t
        losses.append(1 - 2 * overlap / max(total, 1e-8))
    assert float(squared_dice_loss(logits, target)) == pytest.approx(sum(losses) / 2, abs=1e-6)


def test_dice_limits():
    target = torch.zeros(1, 4, 4, dtype=torch.uint8)
    target[0, :2] = 1
    perfect = 100 * (target.float() * 2 - 1)
    assert float(squared_dice_loss(perfect, target)) == pytest.approx(0, abs=1e-6)
    assert float(squared_dice_loss(-perfect, target)) == pytest.approx(1, abs=1e-6)
    nothing = squared_dice_loss(torch.full((1, 4, 4), -200.0), torch.zeros(1, 4, 4))
    assert float(nothing) == 1.0


def test_dice_gradient_is_the_difference_quotient():
    logits = rand(1, 3, 3).double().requires_grad_()
    target = (rand(1, 3, 3, seed=1) > 0).long()

    def loss(x: torch.Tensor) -> torch.Tensor:
        p, t = x.sigmoid(), (target == 1).double()
        return 1 - 2 * (p * t).sum() / ((p * p).sum() + (t * t).sum())

    squared_dice_loss(logits, target).backward()
    for i in range(3):
        for j in range(3):
            step = torch.zeros_like(logits)
            step[0, i, j] = 1e-6
            slope = ((loss(logits + step) - loss(logits - step)) / 2e-6).detach()
            assert float(logits.grad[0, i, j]) == pytest.approx(slope.item(), abs=1e-6)


def test_dice_differs_from_a_mean_over_the_joined_batch():
    logits = 3 * rand(2, 4, 4)
    target = torch.stack([torch.ones(4, 4), F.pad(torch.ones(1, 1), (0, 3, 0, 3))]).long()
    each = [float(squared_dice_loss(logits[b : b + 1], target[b : b + 1])) for b in range(2)]
    joined = float(squared_dice_loss(logits.flatten()[None, None], target.flatten()[None, None]))
    assert float(squared_dice_loss(logits, target)) == pytest.approx(sum(each) / 2, abs=1e-6)
    assert abs(sum(each) / 2 - joined) > 1e-2


def test_a_mask_that_falls_between_the_positions_counts_by_its_shares():
    mask = torch.zeros(2, 2, 32, 32)
    mask[0, 0, 5:8, 5:7] = 1  # between pixels 0 and 10.3, where a grid of 4 x 4 looks
    mask[0, 1, 8:30, 3:20] = 1
    grid = share_of_grid(mask, (4, 4))
    assert not resize_mask(mask, (4, 4))[0, 0].any()
    expected = torch.zeros(4, 4)
    expected[0, 0] = 6 / 64
    assert torch.equal(grid[0, 0], expected)
    assert torch.equal(grid[0, 1], resize_mask(mask, (4, 4))[0, 1]) and not grid[1].any()
