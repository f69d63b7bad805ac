"""DensityMatcher against loops over patches in numpy, the choice of its width, and GrabCut."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from tiny_models import PRIOR, SIZE, episodes, inputs_of, randomised

from mmfss.encoders.base import Encoder
from mmfss.methods.base import Negatives
from mmfss.methods.density import (
    DOUBT,
    _bounded,
    choose_width,
    log_ratio,
    sampled,
    share_of_patches,
    unit_patches,
)
from mmfss.methods.refine import FEWEST, GrabCut, PhotoEncoder


class Colours(Encoder):
    """Means of 8 x 8 pixels, about grey: what is alike can be seen."""

    arch = 'mean colours'

    def forward(self, images):
        return (F.avg_pool2d(images - 127.5, 8),)


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(0)


def build(encoder=PRIOR, **changes):
    torch.manual_seed(0)
    cfg = dict(type='DensityMatcher', image_size=SIZE, encoder=encoder, **changes)
    model = MODELS.build(cfg)
    return (randomised(model, scale=0.05) if encoder is PRIOR else model).eval()


# ------------------------------------------------------------------------------- in plain loops
def expected(level, supports, masks, width, negatives=()):
    """(h, w) log ratio: of a map (C, h, w), maps and masks of K supports and of negatives."""
    fg, bg = [], []  # (share, vector)
    for features, mask, kind in [
        *((f, m, 'support') for f, m in zip(supports, masks)),
        *((f, m, 'negative') for f, m in negatives),
    ]:
        cell = mask.shape[0] // features.shape[1]
        for y in range(features.shape[1]):
            for x in range(features.shape[2]):
                part = mask[y * cell : (y + 1) * cell, x * cell : (x + 1) * cell]
                share = (part == 1).mean()
                vector = features[:, y, x] / np.linalg.norm(features[:, y, x])
                if kind == 'support':
                    fg.append((share, vector))
                    bg.append((1 - share, vector))
                else:
                    bg.append((share, vector))
    out = np.zeros(level.shape[1:])
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            query = level[:, y, x] / np.linalg.norm(level[:, y, x])
            p, q = (
                sum(share * math.exp(width * (query @ vector)) for share, vector in density)
                / sum(share for share, _ in density)
                for density in (fg, bg)
            )
            out[y, x] = math.log(((1 - DOUBT) * p + DOUBT * q) / ((1 - DOUBT) * q + DOUBT * p))
    return out


@pytest.mark.parametrize('shots', [1, 3])
@pytest.mark.parametrize('negative', [False, True])
@torch.no_grad()
def test_formula(shots, negative):
    model, width = build(encoder=dict(PRIOR, image_size=56), width=7.0), 7.0
    model = randomised(model, scale=0.05)
    model.image_size = 56  # 4 x 4 patches of 14 pixels
    data = inputs_of(episodes(2, shots, size=56))
    maps = {
        name: model.encode_image(data[name].flatten(0, -4))['encoder'][0].double().numpy()
        for name in ('query', 'support')
    }
    masks = data['support_mask']
    supports = maps['support'].reshape(2, shots, *maps['support'].shape[1:])
    given, beside = None, [(), ()]
    if negative:  # each episode's are the supports of the other one, marked in their upper half
        marks = torch.zeros(2, shots, 56, 56, dtype=torch.uint8)
        marks[:, :, :21] = 1
        turned = model.encode_image(data['support'].flip(0).flatten(0, 1))
        given = Negatives(turned, marks)
        beside = [list(zip(supports[1 - b], marks[b].numpy())) for b in range(2)]
    state = model.encode_support(model.encode_image(data['support'].flatten(0, 1)), masks, given)
    found = model.segment(model.encode_image(data['query']), state)
    for b in range(2):
        want = expected(maps['query'][b], supports[b], masks[b].numpy(), width, beside[b])
        got = found.maps['more like object than background'][b, 0].logit()
        np.testing.assert_allclose(got, want, atol=1e-4)
        fine = F.interpolate(
            torch.from_numpy(want)[None, None], size=(56, 56), mode='bilinear', align_corners=False
        )
        np.testing.assert_allclose(found.logits[b], fine[0], atol=1e-4)
        assert want.max() > 0.01 and want.min() < -0.01


@torch.no_grad()
def test_an_empty_mask_is_nowhere_and_a_full_one_everywhere():
    model, data = build(), inputs_of(episodes(1, 1))
    bound = math.log((1 - DOUBT) / DOUBT)
    for fill, want in ((0, -bound), (1, bound)):
        data['support_mask'] = torch.full_like(data['support_mask'], fill)
        logits = model.run(data).logits
        torch.testing.assert_close(logits, torch.full_like(logits, want))


@torch.no_grad()
def test_an_object_smaller_than_a_patch_is_found():
    model, data = build(dict(type=Colours), width=20.0), inputs_of(episodes(1, 1))
    for name in ('query', 'support'):
        data[name] = torch.full_like(data[name], 140.0)
        data[name][..., 16:24, 24:32] = torch.tensor([240.0, 20.0, 20.0]).view(3, 1, 1)
    data['support_mask'] = torch.zeros_like(data['support_mask'])
    data['support_mask'][..., 19:21, 27:29] = 1  # 4 of 64 pixels
    logits = model.run(data).logits[0, 0]
    inside = logits >= 0
    assert inside[20, 28] and inside.sum() < 200 and not inside[40:].any()


# ------------------------------------------------------------------------------- fewer patches
@pytest.mark.parametrize(
    'object_patches, limit, of_object',
    [
        (300, 100, 50),
        (20, 100, 20),
        (980, 100, 80),
        (0, 100, 0),
        (1000, 100, 100),
        (300, 2000, 300),
    ],
)
def test_sampled_patches(object_patches, limit, of_object):
    wanted = torch.arange(1000) < object_patches
    rows, weight = sampled(wanted, limit)
    assert len(rows) == len(weight) == min(limit, 1000) and len(set(rows.tolist())) == len(rows)
    assert int(wanted[rows].sum()) == of_object
    # each stands for as many as were left out around it
    for kind in (True, False):
        total = float(weight[wanted[rows] == kind].sum())
        assert total == pytest.approx(int((wanted == kind).sum()) if total else 0)
        places = rows[wanted[rows] == kind]
        if len(places) > 2:
            assert places.diff().max() - places.diff().min() <= 1


def test_few_patches_stand_for_many():
    generator = torch.Generator().manual_seed(0)
    patches, query = (
        F.normalize(torch.randn(n, 8, generator=generator) + 1, dim=1) for n in (4000, 50)
    )
    patches[:1000, 0] += 0.3
    patches = F.normalize(patches, dim=1)
    inside = (torch.arange(4000) < 1000).float()
    ratios = []
    for limit in (4000, 1000):
        rows, weight = sampled(inside > 0, limit)
        fg, bg = (w / w.sum() for w in (inside[rows] * weight, (1 - inside[rows]) * weight))
        ratios.append(log_ratio(query, patches[rows], fg.log(), bg.log(), 8.0))
    assert (ratios[0] - ratios[1]).abs().max() < 0.4
    assert np.corrcoef(ratios[0], ratios[1])[0, 1] > 0.97


@torch.no_grad()
def test_a_state_has_one_form_for_all_masks_of_a_number_of_shots():
    model = build(max_patches=30)
    forms = set()
    for seed in range(3):
        data = inputs_of(episodes(1, 2, seed=seed))
        if seed == 2:
            data['support_mask'] = torch.zeros_like(data['support_mask'])
        state = model.encode_support(
            model.encode_image(data['support'].flatten(0, 1)), data['support_mask']
        )
        forms.add(tuple(tuple(x.shape) for x in vars(state).values()))
    assert forms == {((1, 30, 16), (1, 30), (1, 30), (1,))}


# ------------------------------------------------------------------------------- width and shots
def clusters(generator, number, spread):
    """Unit vectors (2 number, 16) and whether each is object: 6 clusters on a sphere, which are
    object and background in turn."""
    centres = F.normalize(torch.randn(6, 16, generator=torch.Generator().manual_seed(1)), dim=1)
    which = torch.arange(2 * number) % 6
    noise = torch.randn(2 * number, 16, generator=generator) * spread
    return F.normalize(centres[which] + noise, dim=1), (which % 2).float()


def judged(vectors, inside, group, width):
    """Score of a width in plain loops."""
    total = np.zeros(2)
    for i in range(len(vectors)):
        p = q = p_share = q_share = 0.0
        for j in range(len(vectors)):
            if group[i] != group[j]:
                kernel = math.exp(width * float(vectors[i] @ vectors[j]))
                p, p_share = p + inside[j] * kernel, p_share + inside[j]
                q, q_share = q + (1 - inside[j]) * kernel, q_share + 1 - inside[j]
        p, q = p / p_share, q / q_share
        right = ((1 - DOUBT) * p + DOUBT * q) / (p + q)
        total += inside[i] * math.log(right), (1 - inside[i]) * math.log(1 - right)
    return (total / (inside.sum(), (1 - inside).sum())).sum()


@pytest.mark.parametrize('shots', [1, 3])
def test_width_is_the_best_by_the_loop(shots):
    generator = torch.Generator().manual_seed(shots)
    vectors, inside = clusters(generator, 32 * shots, 0.35)
    patches = vectors.view(shots, 8, 8, 16)
    inside = inside.view(shots, 64)
    place = np.arange(64)
    tile = place // 8 // 2 * 4 + place % 8 // 2
    group = np.repeat(np.arange(shots), 64) if shots > 1 else tile
    widths = (1.0, 4.0, 16.0, 64.0)
    flat = patches.flatten(0, 2).double().numpy(), inside.flatten().double().numpy()
    scores = [judged(*flat, group, width) for width in widths]
    assert choose_width(patches, inside, widths) == widths[int(np.argmax(scores))]
    assert 0 < np.argmax(scores) < 3  # neither the widest nor the narrowest


def test_width_of_a_mask_without_background_is_the_middle():
    vectors = F.normalize(torch.randn(1, 8, 8, 4), dim=-1)
    assert choose_width(vectors, torch.ones(1, 64), (1.0, 2.0, 3.0)) == 2.0


def test_more_shots_gain():
    """Objects of several parts, of which a support shows few."""
    rates = []
    for shots in (1, 5, 20):
        right = []
        for seed in range(12):
            generator = torch.Generator().manual_seed(seed)
            query, truth = clusters(generator, 100, 0.4)
            seen = torch.randint(0, 3, (shots, 2), generator=generator)
            pool, inside = clusters(generator, 3000, 0.4)
            rows = torch.cat(
                [
                    torch.arange(2 * part + kind, 6000, 6)[20 * k : 20 * k + 20]
                    for k, parts in enumerate(seen.tolist())
                    for kind, part in enumerate(parts)
                ]
            )
            fg, bg = (s / s.sum() for s in (inside[rows], 1 - inside[rows]))
            ratio = log_ratio(query, pool[rows], fg.log(), bg.log(), 10.0)
            right.append(float(((ratio >= 0) == (truth == 1)).float().mean()))
        rates.append(np.mean(right))
    assert rates[0] + 0.05 < rates[1] < rates[2] and rates[2] > 0.85, rates


def test_object_of_several_parts_which_a_mean_mixes_up():
    """Parts at +x and -x, background at +y: the mean of the object is near 0."""
    patches = torch.tensor([[1.0, 0.02], [-1.0, 0.02], [0.0, 1.0]])
    fg, bg = torch.tensor([0.5, 0.5, 0.0]).log(), torch.tensor([0.0, 0.0, 1.0]).log()
    query = F.normalize(torch.tensor([[1.0, 0.1], [-1.0, 0.1], [0.1, 1.0]]), dim=1)
    assert (log_ratio(query, F.normalize(patches, dim=1), fg, bg, 10.0) >= 0).tolist() == [
        True,
        True,
        False,
    ]


def test_units_and_shares():
    level = torch.randn(2, 5, 3, 4)
    patches = unit_patches(level)
    want = level[1, :, 2, 3] / level[1, :, 2, 3].norm()
    torch.testing.assert_close(patches[1, 2 * 4 + 3], want)
    mask = torch.zeros(1, 8, 8, dtype=torch.uint8)
    mask[0, :2, :3] = 1
    mask[0, 4:] = 255
    assert share_of_patches(mask, (2, 2)).tolist() == [[6 / 16, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    'changes, words',
    [
        (
            dict(width=0),
            r'model.width must be a number between 0 and 1000 or a list of them, got 0',
        ),
        (dict(width=[]), r'model.width must be .* got \[\]'),
        (dict(max_patches=1), 'model.max_patches must be an integer >= 2, got 1'),
        (
            dict(refine=dict(type='EpisodeDataPreprocessor')),
            "model.refine must be None or .*GrabCut",
        ),
        (dict(refine=dict(type='GrabCut', sure=0)), 'refine.sure must be > 0, got 0'),
        (dict(refine=dict(type='GrabCut', side=8)), 'refine.side must be an integer >= 16, got 8'),
    ],
)
def test_arguments(changes, words):
    with pytest.raises(ValueError, match=words):
        build(**changes)
    with pytest.raises(ValueError, match="needs an encoder, e.g. encoder=dict"):
        build(encoder=None)


# ------------------------------------------------------------------------------- edges
def blob(side=64, centre=(30, 34), radius=14):
    y, x = np.mgrid[:side, :side]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def test_grab_cut_finds_the_edge_of_the_photo():
    truth = blob()
    photo = np.where(truth[..., None], (200, 60, 40), (40, 120, 90)).astype(np.float32)
    photo += np.random.default_rng(0).normal(0, 12, photo.shape)
    photos = torch.from_numpy(photo.clip(0, 255).astype(np.uint8)).permute(2, 0, 1)[None]
    coarse = torch.from_numpy(np.where(blob(), 3.0, -3.0)).float()[None, None]
    coarse = F.interpolate(F.avg_pool2d(coarse, 16), size=(8, 8), mode='bilinear')  # 4 x 4 cells
    refine = GrabCut(side=64, sure=2.5)
    fine = refine(coarse, photos)
    before = F.interpolate(coarse, size=(64, 64), mode='bilinear')[0, 0].numpy() >= 0
    after = fine[0, 0].numpy() >= 0

    def iou(mask):
        return (mask & truth).sum() / (mask | truth).sum()

    assert iou(before) < 0.85 < 0.98 < iou(after)
    assert torch.equal(fine, refine(coarse, photos))  # the same at each call
    both = refine(coarse.expand(2, -1, -1, -1), photos.expand(2, -1, -1, -1))
    assert torch.equal(both, fine.expand(2, -1, -1, -1))
    # logits stay where the cut agrees, and come to +-0.1 where it does not
    resized = F.interpolate(coarse, size=(64, 64), mode='bilinear', align_corners=False)[0, 0]
    moved = fine[0, 0]
    agree = ((resized >= 0) == (moved >= 0)) & (resized.abs() > 0.1)
    assert torch.equal(moved[agree], resized[agree])
    assert set(moved[(resized >= 0) != (moved >= 0)].abs().tolist()) == {0.10000000149011612}


@pytest.mark.parametrize('pixels', [0, FEWEST - 1])
def test_grab_cut_leaves_masks_without_colours_to_learn(pixels):
    logits = torch.full((1, 1, 32, 32), -1.0)
    logits.view(-1)[:pixels] = 1.0
    photos = torch.randint(0, 255, (1, 3, 32, 32), dtype=torch.uint8)
    for sign in (1, -1):
        assert torch.equal(GrabCut(side=32)(sign * logits, photos), sign * logits)


def test_photo_encoder_keeps_means():
    images = torch.rand(2, 3, 64, 64) * 255
    (small,) = PhotoEncoder(16)(images)
    assert small.dtype == torch.uint8
    want = images.reshape(2, 3, 16, 4, 16, 4).mean((3, 5)).round()
    assert torch.equal(small.float(), want)


@torch.no_grad()
@pytest.mark.parametrize('kind', ['DensityMatcher', 'PrototypeMatcher'])
def test_refined_logits_are_those_of_grab_cut(kind):
    torch.manual_seed(0)
    cfg = dict(type=kind, image_size=SIZE, encoder=PRIOR)
    plain = MODELS.build(cfg).eval()
    torch.manual_seed(0)
    refined = MODELS.build({**cfg, 'refine': dict(type='GrabCut', side=SIZE, sure=9.0)}).eval()
    data = inputs_of(episodes(2, 1))
    was, now = plain.run(data), refined.run(data)
    assert not torch.equal(was.logits >= 0, now.logits >= 0)
    for name, values in was.maps.items():
        assert torch.equal(values, now.maps[name])


def test_the_width_is_chosen_in_float32_under_autocast(monkeypatch):
    """Cosines in bfloat16 would be off by as much as neighbouring widths differ."""
    seen = []
    monkeypatch.setattr(
        'mmfss.methods.density._bounded', lambda ratio: (seen.append(ratio), _bounded(ratio))[1]
    )
    patches = F.normalize(torch.randn(2, 4, 4, 8, generator=torch.Generator().manual_seed(0)), -1)
    inside = torch.zeros(2, 16)
    inside[:, :5] = 1
    choose_width(patches, inside, (5.0, 40.0))
    with torch.autocast('cpu', torch.bfloat16):
        choose_width(patches, inside, (5.0, 40.0))
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3])


@pytest.mark.parametrize('kind', ['DensityMatcher', 'PrototypeMatcher'])
def test_an_object_that_vanishes_on_the_grid_is_said_once(kind, monkeypatch):
    said = []
    monkeypatch.setattr('mmfss.methods.base.print_log', lambda text, *_, **__: said.append(text))
    cfg = dict(type=kind, image_size=SIZE, encoder=dict(type=Colours))
    model = MODELS.build(cfg).eval()
    features = model.encode_image(torch.rand(1, 3, SIZE, SIZE) * 255)
    masks = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.uint8)
    masks[..., 8:20, 8:20] = 1
    model.encode_support(features, masks)
    assert not said
    masks.zero_()[..., 11:14, 11:14] = 1
    for _ in range(2):
        state = model.encode_support(features, masks)
    assert len(said) == 1 and '8 x 8 grid' in said[0] and 'crop of the photo' in said[0]
    found = model.segment(features, state).logits
    assert found.isfinite().all() and found[0, 0, 12, 12] >= 0
