"""PerSAM and PerSAM-F against plain code, section by section and as a whole; what is said."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from tiny_models import METHODS, SIZE, episodes, inputs_of, randomised

from mmfss.methods.persam import model as module
from mmfss.methods.persam.guided import guided_attention, guided_decode
from mmfss.methods.persam.model import Frame, box_of, tune

pytest.importorskip('transformers')
GRID = SIZE // 16


def build(kind: str = 'PerSAM', seed: int = 0, **changes):
    config = copy.deepcopy({**METHODS[kind], **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MODELS.build(config)
    return randomised(model, seed).eval()


@pytest.fixture
def said(monkeypatch):
    """What is said."""
    texts: list[str] = []
    monkeypatch.setattr(module, 'print_log', lambda text, *_, **__: texts.append(text))
    return texts


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_close(one, other, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------------------------------- decoder
@torch.no_grad()
def test_guided_attention_in_plain_loops():
    attention = build().sam1.mask_decoder.transformer.layers[0].cross_attn_token_to_image
    tokens, image, guide = noise(1, 3, 32), noise(1, 6, 32, seed=1), noise(6, seed=2).sigmoid()
    found = guided_attention(attention, tokens, image, image + 1, guide)[0].double().numpy()

    def projected(part: str, x: torch.Tensor) -> np.ndarray:
        layer = getattr(attention, f'{part}_proj')
        weight, bias = (p.double().numpy() for p in (layer.weight, layer.bias))
        return x[0].double().numpy() @ weight.T + bias

    def softmax(x: np.ndarray) -> np.ndarray:
        return np.exp(x) / np.exp(x).sum()

    q, k, v = projected('q', tokens), projected('k', image), projected('v', image + 1)
    heads = attention.num_heads
    width, plus = q.shape[1] // heads, guide.double().numpy()
    out = np.zeros_like(q)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for token in range(3):
            row = np.array([q[token, part] @ k[j, part] / math.sqrt(width) for j in range(6)])
            row = softmax(softmax(row) + plus)
            assert row.max() / row.min() <= math.e**2
            out[token, part] = row @ v[:, part]
    last = attention.out_proj
    expected = out @ last.weight.double().numpy().T + last.bias.double().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


@torch.no_grad()
def test_guided_decoding_is_sams_decoder_with_what_the_paper_adds():
    """sam2's own forward pass; what is added comes in through hooks."""
    sam = build().sam1
    features, target = noise(1, 32, GRID, GRID), noise(32, seed=1)
    guide = noise(GRID, GRID, seed=2).sigmoid()
    coords, labels = torch.tensor([[[9.0, 30.0], [50.0, 7.0]]]), torch.tensor([[1, 0]])
    found = guided_decode(sam, features, coords, labels, target, guide)
    plain = sam.decode(features, coords, labels)
    transformer = sam.mask_decoder.transformer
    first, second = transformer.layers

    def named(*names: str):
        def add(module, args, kwargs):
            return args, {**kwargs, **{name: kwargs[name] + target for name in names}}

        return add

    def guided(module, args, kwargs, output):
        return guided_attention(module, kwargs['q'], kwargs['k'], kwargs['v'], guide.flatten())

    def all_tokens(module, args):
        image, places, tokens = args
        return image, places, tokens + target

    transformer.register_forward_pre_hook(all_tokens)
    second.register_forward_pre_hook(named('queries'), with_kwargs=True)
    transformer.final_attn_token_to_image.register_forward_pre_hook(named('q'), with_kwargs=True)
    for layer in (first, second):
        layer.cross_attn_token_to_image.register_forward_hook(guided, with_kwargs=True)
    expected = sam.decode(features, coords, labels)
    for one, other, stock in zip(found, expected, plain, strict=True):
        assert one.shape == other.shape == stock.shape
        assert_close(one, other)
        assert not torch.allclose(one, stock, atol=1e-2)


# ------------------------------------------------------------------------------------ small parts
def test_a_photo_in_sams_image():
    """60 x 30 pixels fill 64 x 32 of 64 x 64; a ramp over these stays one."""
    frame = Frame((30, 60), (32, 64), 64)
    pixels = torch.tensor([[60, 30], [15, 0]])
    assert torch.equal(frame.prompt(pixels), torch.tensor([[64.0, 32.0], [16.0, 0.0]]))
    ramp = (torch.arange(16) + 0.5).expand(16, 16) * 4  # its value is x + 1/2 at 64 px
    up = frame.up(ramp[None, None])
    assert up.shape == (1, 1, 30, 60)
    expected = (torch.arange(60) + 0.5) * 64 / 60
    inner = slice(3, 57)  # beyond the outer pixels' middle there is nothing to interpolate
    assert_close(up[0, 0, :, inner], expected[inner].expand(30, -1), 1e-4)
    below = torch.zeros(1, 1, 16, 16)
    below[..., 10:, :] = 5  # padding
    assert not frame.up(below).any()


def test_boxes_are_of_first_and_last_pixels():
    mask = torch.zeros(9, 12, dtype=torch.bool)
    assert box_of(mask) is None
    mask[2, 5] = mask[7, 3] = True
    assert box_of(mask).tolist() == [3, 2, 5, 7]
    mask[8, 11] = mask[0, 0] = True
    assert box_of(mask).tolist() == [0, 0, 11, 8]


@pytest.mark.parametrize('value, needed', [(128, 4), (255, 2), (160, 4), (240, 3)])
def test_a_cell_counts_by_the_brightness_of_the_object(value, needed):
    """Of the four pixels in the middle of a cell so many must be on the object: v n / 4 > 123.7."""
    model = build(mask_value=value)
    for count in range(5):
        mask = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.uint8)
        for place in range(count):
            mask[0, 0, 23 + place // 2, 39 + place % 2] = 1  # of cell (1, 2)
        values = model.mask_values((mask * float(value) - 123.675) / 58.395)[0, 0]
        expected = torch.zeros(GRID, GRID, dtype=torch.bool)
        expected[1, 2] = count >= needed
        assert torch.equal(values > 0, expected), count


# ----------------------------------------------------------------------------------------- tuning
def blended(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of three masks, and a truth that is like the second."""
    masks = noise(3, 8, 9, seed=seed)
    return masks, (masks[1] + 0.2 * noise(8, 9, seed=seed + 1) > 0).to(torch.uint8)


def losses(free: np.ndarray, masks: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    z = np.tensordot([1 - free.sum(), *free], masks, 1)
    p = 1 / (1 + np.exp(-z))
    dice = 1 - (2 * p[truth == 1].sum() + 1) / (p.sum() + truth.sum() + 1)
    total = 0.0
    for probability, inside in zip(p.flat, truth.flat):
        right = probability if inside else 1 - probability
        total -= (0.25 if inside else 0.75) * (1 - right) ** 2 * math.log(right)
    return dice, total / p.size


def test_tuning_is_adamw_on_dice_and_focal_loss():
    """Step by step in float64, with gradients by differences."""
    masks, truth = blended()
    found = tune(masks, truth, 7)
    free, first, second = np.full(2, 1 / 3), np.zeros(2), np.zeros(2)
    for step in range(7):
        dice, focal = losses(free, masks.double().numpy(), truth.numpy())
        gradient = np.zeros(2)
        for i, way in enumerate(np.eye(2) * 1e-5):
            up, down = (
                sum(losses(free + side * way, masks.double().numpy(), truth.numpy()))
                for side in (1, -1)
            )
            gradient[i] = (up - down) / 2e-5
        rate = 1e-3 * (1 + math.cos(math.pi * step / 7)) / 2
        free = free * (1 - rate * 0.01)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        mean, spread = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
        free = free - rate * mean / (np.sqrt(spread) + 1e-4)
    np.testing.assert_allclose(found.weights, [1 - free.sum(), *free], atol=2e-6)
    np.testing.assert_allclose([found.dice, found.focal], [dice, focal], atol=2e-6)


def test_tuning_finds_the_mask_that_is_the_truth():
    masks, truth = blended()
    weights = tune(masks, truth, 1000).weights
    assert weights.argmax() == 1 and weights[1] > 0.6
    assert weights.sum() == pytest.approx(1)


def test_tuning_where_no_gradients_are_made():
    model, data = build('PerSAMF'), episodes(2)
    states = []
    for context in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with context():
            features = model.encode_image(data['support'][:, 0], 'support')
            states.append(model.encode_support(features, data['support_mask']))
    for state in states[1:]:
        assert torch.equal(state.weights, states[0].weights)
    assert not states[0].weights.requires_grad
    assert (states[0].weights - 1 / 3).abs().max() > 1e-3
    assert not any(p.grad is not None for p in model.parameters())


# -------------------------------------------------------------------------------------- the whole
def plain(model, query, support, mask) -> torch.Tensor:
    """(S, S) bool: the method for one episode, written down once more."""
    sam, side = model.sam1, model.image_size
    tuned = type(model).__name__ == 'PerSAMF'

    def up(low):
        full = F.interpolate(low[None, None], (SIZE, SIZE), mode='bilinear')
        return F.interpolate(full, (side, side), mode='bilinear')[0, 0]

    def similar(level, target):
        near = torch.zeros(GRID, GRID)
        for y in range(GRID):
            for x in range(GRID):
                near[y, x] = F.cosine_similarity(level[0, :, y, x], target, dim=0)
        return up(F.interpolate(near[None, None], (4 * GRID, 4 * GRID), mode='bilinear')[0, 0])

    def place(flat):
        return [int(flat) % side, int(flat) // side]

    def ask(level, points, mask=None, box=None):
        coords = torch.tensor([points]).float() * SIZE / side
        labels = torch.tensor([[1, 0][: len(points)]])
        mask = None if mask is None else mask[None, None]
        box = None if box is None else torch.tensor([box]).float() * SIZE / side
        low, ious = sam.decode(level, coords, labels, box, mask, multimask=True)
        return low[0], ious[0].tolist()

    def box(low):
        rows, columns = np.nonzero((up(low) > 0).numpy())
        return [columns.min(), rows.min(), columns.max(), rows.max()]

    level, known = sam(query)[0], sam(support)[0]
    cells = []
    for y in range(GRID):
        for x in range(GRID):
            middle = mask[16 * y + 7 : 16 * y + 9, 16 * x + 7 : 16 * x + 9]
            if (middle == 1).all():  # at 128
                cells.append(known[0, :, y, x])
    target = sum(cells) / len(cells)
    if tuned:
        target = (target + torch.stack(cells).max(0).values) / 2
        point = [place(similar(known, target).argmax())]
        low, _ = ask(known, point)
        weights = tune(torch.stack([up(one) for one in low]), mask == 1, model.steps).weights
    near = similar(level, target)
    points = [place(near.argmax())] if tuned else [place(near.argmax()), place(near.argmin())]
    if tuned:
        low, _ = ask(level, points)
        best = sum(w * one for w, one in zip(weights, low))
    else:
        z = (near - near.mean()) / near.std()
        guide = F.interpolate(z[None, None], (GRID, GRID), mode='bilinear')[0, 0].sigmoid()
        coords = torch.tensor([points]).float() * SIZE / side
        best = guided_decode(sam, level, coords, torch.tensor([[1, 0]]), target, guide)[0][0, 0]
    low, ious = ask(level, points, best, box(best) if tuned else None)
    best = low[ious.index(max(ious))]
    low, ious = ask(level, points, best, box(best))
    return up(low[ious.index(max(ious))]) > 0


@pytest.mark.parametrize('kind', ['PerSAM', 'PerSAMF'])
@torch.no_grad()
def test_the_whole_method(kind):
    sizes = set()
    for seed in range(4):
        model, data = build(kind, seed), episodes(1, seed=seed)
        found = model.run(inputs_of(data)).logits[0, 0] >= 0
        support, mask = data['support'][0], data['support_mask'][0, 0]
        expected = plain(model, data['query'], support, mask)
        assert (found != expected).sum() <= 2, seed  # rounding
        sizes.add(int(found.sum()))
    assert len(sizes) > 2


@torch.no_grad()
def test_images_of_another_size_than_sams():
    model = build(image_size=96)
    data = episodes(1, size=96)
    (found,) = model.run(inputs_of(data)).trace
    assert found.similarity.shape == (96, 96) and found.points.shape == (2, 2)
    x, y = found.points[0].tolist()
    assert found.similarity[y, x] == found.similarity.max()
    x0, y0, x1, y1 = found.calls[2].box.tolist()
    assert 0 <= x0 <= x1 < 96 and 0 <= y0 <= y1 < 96
    coords = found.points[None] * (SIZE / 96)
    box = found.calls[2].box[None] * (SIZE / 96)
    features = model.encode_image(data['query'])['sam1'][0]
    labels = torch.tensor([[1, 0]])
    logits, ious = model.sam1.decode(
        features, coords, labels, box, found.calls[1].best, multimask=True
    )
    assert_close(found.calls[2].low_res, logits)
    assert_close(found.calls[2].ious, ious)


# ------------------------------------------------------------------------------- what can go wrong
@pytest.mark.parametrize('kind', ['PerSAM', 'PerSAMF'])
@torch.no_grad()
def test_an_object_between_the_cells(kind, said):
    """NaN in the published program. Said once, and the cells that it touches are taken."""
    model, data = build(kind), episodes(2)
    masks = torch.zeros_like(data['support_mask'])
    masks[:, :, 12:20, 2:5] = 1  # cells (0, 0) and (1, 0), the middle of neither
    features = model.encode_image(data['support'][:, 0], 'support')
    for _ in range(2):
        state = model.encode_support(features, masks)
    level = features['sam1'][0]
    cells = torch.stack([level[:, :, 0, 0], level[:, :, 1, 0]])
    expected = cells.mean(0) if kind == 'PerSAM' else (cells.mean(0) + cells.amax(0)) / 2
    assert_close(state.feature, expected)
    assert state.marked.all()
    assert said == [
        f"{kind}: no cell of the 4 x 4 grid of features lies on the support's object: those that "
        'it touches are taken. Crop the photo around it. (Said once.)'
    ]


@pytest.mark.parametrize('kind', ['PerSAM', 'PerSAMF'])
def test_a_support_with_nothing_marked_finds_nothing(kind, said):
    model, data = build(kind), episodes(2)
    data['support_mask'][1] = 255
    for _ in range(2):
        found = model.run(inputs_of(data)).logits
    assert (found[0] >= 0).any() and (found[1] == -10).all()
    assert said == [
        f'{kind}: a support has nothing marked, so nothing is found by it. (Said once.)'
    ]


@pytest.mark.parametrize('kind, calls', [('PerSAM', 2), ('PerSAMF', 1)])
def test_an_empty_mask_before_the_last_step(kind, calls, said):
    """The published program stops with an error."""
    model, data = build(kind), episodes(2)
    for head in model.sam1.mask_decoder.output_hypernetworks_mlps:
        for parameter in head.layers[-1].parameters():
            torch.nn.init.zeros_(parameter)  # logits of 0: no pixel is above
    found = model.run(inputs_of(data))
    assert (found.logits < 0).all() and [len(one.calls) for one in found.trace] == [calls] * 2
    assert said == [
        f'{kind}: the mask before the last step is empty, and so is the result. (Said once.)'
    ]


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"PerSAM needs a SAM 1, e.g. sam1=dict\(type='SAM1'\)"):
        build(sam1=None)
    with pytest.raises(ValueError, match=r"model.sam1 must be None or a dict whose type .*'SAM1'"):
        build(sam1=dict(type='DINOv2'))
    with pytest.raises(ValueError, match=r'model.mask_value must be in 124..255, got 256'):
        build(mask_value=256)
    with pytest.raises(ValueError, match='model.mask_value must be .*124.*, got 100'):
        build(mask_value=100)
    with pytest.raises(ValueError, match='model.steps must be .*1.*, got 0'):
        build('PerSAMF', steps=0)
    with pytest.raises(ValueError, match='with its own heads, not with those of a.pth; leave it'):
        build().prompter('a.pth')
    data = episodes(1, 2)
    with pytest.raises(ValueError, match='PerSAMF takes one support of a class, got 2: it has no'):
        build('PerSAMF').run(inputs_of(data))
