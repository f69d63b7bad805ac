"""Prompts drawn from masks, their loss, and a training of heads on them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tiny_models
import torch

from mmfss.apis.prompts import Prompt, Proposer
from mmfss.commands.prompt_training import (
    KINDS,
    draw_prompt,
    encode_objects,
    largest_object,
    prompt_batch,
    prompt_loss,
    train_prompts,
)
from mmfss.encoders.sam2.prompts import draw_prompts

SIZE = tiny_models.SIZE


def disc(height: int = 40, width: int = 60) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (y - 18) ** 2 + (x - 30) ** 2 <= 100


def test_largest_object():
    mask = np.zeros((6, 8), bool)
    mask[0, 0], mask[2:5, 3:6] = True, True
    mask[1, 2] = True  # touches the large one by a corner
    wanted = mask.copy()
    wanted[0, 0] = False
    np.testing.assert_array_equal(largest_object(mask), wanted)


@pytest.mark.parametrize('kind', KINDS)
def test_drawn_prompts_fit(kind):
    """Labels say what is true, everything lies within the image, the same chance draws the same."""
    mask = disc()
    for seed in range(20):
        prompt = draw_prompt(mask, kind, np.random.default_rng(seed), shake=0.1)
        prompt.check(60, 40)
        for (x, y), label in zip(prompt.points, prompt.labels):
            assert mask[int(y), int(x)] == label
        for x, y in (point for stroke in prompt.scribbles for point in stroke):
            assert mask[round(y), round(x)]
        assert prompt == draw_prompt(mask, kind, np.random.default_rng(seed), shake=0.1)
    exact = draw_prompt(mask, 'box', np.random.default_rng(0))
    assert exact == Prompt(box=(20.0, 8.0, 41.0, 29.0))


def test_a_batch_is_padded():
    coords, labels = prompt_batch([disc(), disc()], 'points', np.random.default_rng(1), SIZE)
    rows = [labels[b][labels[b] >= 0] for b in range(2)]
    assert coords.shape == (2, max(map(len, rows)), 2) and labels.dtype == torch.int32
    assert (coords[labels == -1] == 0).all() and (coords <= SIZE).all()


def test_loss_of_plain_loops():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, generator=generator)
    ious = torch.rand(2, 3, generator=generator)
    target = (torch.rand(2, 4, 4, generator=generator) > 0.5).float()
    total, off = 0.0, 0.0
    for b in range(2):
        losses = []
        for m in range(3):
            focal = inter = inside = truth = both = either = 0.0
            for value, t in zip(logits[b, m].flatten().tolist(), target[b].flatten().tolist()):
                p = 1 / (1 + math.exp(-value))
                right = p if t else 1 - p
                focal -= (0.25 if t else 0.75) * (1 - right) ** 2 * math.log(right) / 16
                inter, inside, truth = inter + p * t, inside + p, truth + t
                both += value > 0 and t == 1
                either += value > 0 or t == 1
            losses.append(20 * focal + 1 - (2 * inter + 1) / (inside + truth + 1))
            off += abs(float(ious[b, m]) - both / either) / 6
        total += min(losses) / 2
    assert float(prompt_loss(logits, ious, target)) == pytest.approx(total + off, rel=1e-5)


def test_prompts_drawn_as_masks():
    """A box is + 2 inside and - 2 outside, pixel by pixel of the grid of stride 4; points add
    bumps; a pad draws nothing."""
    coords = torch.tensor([[[8.0, 16.0], [40.0, 48.0]], [[30.0, 10.0], [0.0, 0.0]]])
    labels = torch.tensor([[2, 3], [1, -1]])
    box, point = draw_prompts(coords, labels, SIZE)[:, 0]
    for row in range(16):
        for column in range(16):
            inside = 16 <= 4 * row + 2 < 48 and 8 <= 4 * column + 2 < 40
            assert box[row, column] == (2 if inside else -2)
            squared = (4 * row + 2 - 10) ** 2 + (4 * column + 2 - 30) ** 2
            wanted = 2 * math.exp(-squared / (2 * (SIZE / 24) ** 2))
            assert float(point[row, column]) == pytest.approx(wanted, abs=1e-6)
    off = draw_prompts(coords[1:], torch.tensor([[0, -1]]), SIZE)[0, 0]
    torch.testing.assert_close(off, -point)


class Episodes:
    """Twelve episodes of tests, one shot."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict:
        data = tiny_models.episodes(seed=index)
        inputs = {key: value[0] for key, value in tiny_models.inputs_of(data).items()}
        return dict(inputs=inputs, data_samples=tiny_models.samples_of(data)[0])


def test_objects_are_encoded_as_the_model_sees_them():
    """Datasets give BGR, the encoder takes RGB: as Proposer encodes the same image."""
    model = tiny_models.build()
    image = Episodes()[0]['inputs']['query'].permute(1, 2, 0).byte().numpy()
    objects = encode_objects(model.sam2, [_whole_pixels(Episodes()[0])], 1, 1)
    wanted = Proposer(model)._encode(image)
    torch.testing.assert_close(objects.features.top, wanted.top)
    swapped = Proposer(model)._encode(np.ascontiguousarray(image[..., ::-1]))
    assert not torch.allclose(objects.features.top, swapped.top)


def _whole_pixels(item: dict) -> dict:
    images = {key: item['inputs'][key].byte() for key in ('query', 'support')}
    return dict(item, inputs=dict(item['inputs'], **images))


def test_training(tmp_path):
    """The loss falls, the model stays as it is, and the file is taken by a Proposer."""
    model = tiny_models.build()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    objects = encode_objects(model.sam2, Episodes(), 20, 8)
    assert len(objects.masks) == 20 and objects.features.top.shape[0] == 20
    torch.manual_seed(0)
    losses = []
    for trained, loss in train_prompts(model.sam2, objects, 60, 4, 2e-3, 0):
        heads = trained
        losses.append(loss)
    assert np.mean(losses[-12:]) < 0.8 * np.mean(losses[:12])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    torch.save(heads.state_dict(), tmp_path / 'prompts.pth')
    item = Episodes()[0]
    image = np.ascontiguousarray(item['inputs']['query'].permute(1, 2, 0).byte().numpy())
    prompt = Prompt(box=(10.0, 10.0, 50.0, 50.0))
    proposal = Proposer(model, tmp_path / 'prompts.pth').propose(image, prompt)
    assert proposal.score != Proposer(model).propose(image, prompt).score
    with pytest.raises(ValueError, match='the data have 24 objects, fewer than the 25 asked for'):
        encode_objects(model.sam2, Episodes(), 25, 8)
