"""INSID3: its steps against plain loops, what it does with masks, negatives, weights and SAM 2."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from mmseg.registry import MODELS
from tiny_models import METHODS, SIZE, episodes, inputs_of, randomised, tiny_arch
from torch import Tensor

from mmfss.apis import nway
from mmfss.batching import take
from mmfss.encoders.base import Encoder
from mmfss.methods.base import Negatives
from mmfss.methods.insid3 import INSID3, matching
from mmfss.methods.insid3.matching import (
    average_linkage,
    backward_votes,
    forward_candidates,
    grid_masks,
    grow,
    match_points,
    nearest_similarity,
    without_position,
)


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(0)


def rows(*shape: int, seed: int = 0, shift: float = 0.0) -> Tensor:
    """Unit rows, the more alike the larger ``shift``."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + shift
    return F.normalize(x, dim=-1)


# ---------------------------------------------------------------------------------- clustering


def plain_linkage(x: Tensor, tau: float) -> list[int]:
    """Join the two nearest clusters by their mean distance, until that is 1 - tau."""
    points = x.double()
    distance = 1 - (points @ points.T).clamp(-1, 1)
    clusters = [[i] for i in range(len(x))]
    while len(clusters) > 1:
        best, pair = min(
            (distance[a][:, b].mean().item(), (i, j))
            for i, a in enumerate(clusters)
            for j, b in enumerate(clusters[:i])
        )
        if best >= 1 - tau:
            break
        joined = clusters[pair[0]] + clusters[pair[1]]
        clusters = [c for k, c in enumerate(clusters) if k not in pair] + [joined]
    labels = [0] * len(x)
    for k, cluster in enumerate(clusters):
        for i in cluster:
            labels[i] = k
    return labels


def partition(labels) -> set[frozenset[int]]:
    places: dict[int, set[int]] = {}
    for i, one in enumerate(torch.as_tensor(labels).tolist()):
        places.setdefault(one, set()).add(i)
    return {frozenset(one) for one in places.values()}


@pytest.mark.parametrize('tau', [0.9, 0.6, 0.3, 0.0, -0.2])
@pytest.mark.parametrize('shift', [0.0, 0.6])
def test_average_linkage_is_the_plain_one(tau, shift):
    x = rows(26, 6, seed=3, shift=shift)
    labels = average_linkage(x, tau)
    assert labels.dtype == torch.int64 and labels.min() == 0
    assert sorted(set(labels.tolist())) == list(range(int(labels.max()) + 1))
    assert partition(labels) == partition(plain_linkage(x, tau))


def test_clusters_at_the_bound_stay_apart():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])  # cosines 0 and 1: linkage 1
    assert partition(average_linkage(x, 0.0)) == {frozenset({0}), frozenset({1, 2})}
    assert partition(average_linkage(x, -1e-9)) == {frozenset({0, 1, 2})}
    assert average_linkage(x[:1], 0.6).tolist() == [0]
    assert average_linkage(x[:0], 0.6).tolist() == []


def test_blocks_of_rows_change_nothing():
    """Distances are made 256 rows at a time."""
    x = rows(600, 8, seed=1, shift=0.4)
    distance = (1 - (x @ x.T).clamp(-1, 1)).double().numpy()
    i, j = np.triu_indices(600, 1)
    labels = matching.fcluster(matching.linkage(distance[i, j], 'average'), 0.4 - 1e-12, 'distance')
    assert partition(average_linkage(x, 0.6)) == partition(labels)


# ------------------------------------------------------------------------------------ position


def test_directions_of_a_black_image_are_taken_out():
    black = torch.randn(12, 5, 6, generator=torch.Generator().manual_seed(0)) + 1
    basis = without_position(black, 4)
    assert basis.shape == (12, 8) and basis.dtype == torch.float32
    torch.testing.assert_close(basis.T @ basis, torch.eye(8), atol=1e-6, rtol=0)
    x = F.normalize(black.flatten(1), dim=0)
    u = torch.linalg.svd(x - x.mean(1, keepdim=True), full_matrices=False)[0][:, :4]
    torch.testing.assert_close(basis @ basis.T, torch.eye(12) - u @ u.T, atol=1e-5, rtol=0)
    # fewer patches than directions: as many as there are patches
    assert without_position(black[:, :1, :3], 7).shape == (12, 9)


def test_as_many_directions_as_channels_are_refused_with_the_reason():
    for components in (12, 500):
        message = f'below the 12 channels of the encoder, got {components}: .* nothing but rounding'
        with pytest.raises(ValueError, match=message):
            without_position(torch.randn(12, 5, 6), components)
    model = make(svd_components=16)
    with pytest.raises(ValueError, match='svd_components must be below the 16 channels'):
        model.run(inputs_of(episodes()))


# ------------------------------------------------------------------------------------ supports


def test_a_mask_on_the_grid_is_three_of_the_four_middle_pixels():
    masks = torch.zeros(4, 64, 64, dtype=torch.bool)
    masks[0, :16, :16] = True  # a whole patch
    for y, x in ((7, 7), (7, 8), (8, 7)):  # three pixels alone
        masks[1, y, 16 + x] = True
    masks[2, 7, 7:9] = masks[3, 7, 7:9] = True  # two: vanished
    masks[3, 16, 32] = True  # the upper left pixel of a patch: the second way finds it
    grid, vanished = grid_masks(masks, (4, 4))
    assert vanished.tolist() == [False, False, True, True]
    assert [one.nonzero().tolist() for one in grid] == [[[0, 0]], [[0, 1]], [[0, 0]], [[1, 2]]]


def test_an_object_of_some_pixels_is_at_its_centre():
    masks = torch.zeros(3, 64, 64, dtype=torch.bool)
    masks[0, 20:23, 50:53] = True
    masks[1, [3, 60], [3, 61]] = True  # the patch between the two
    grid, vanished = grid_masks(masks, (4, 4))
    assert vanished.tolist() == [True, True, False]
    # an empty one stays empty
    assert [one.nonzero().tolist() for one in grid] == [[[1, 3]], [[1, 2]], []]


def test_a_vanished_object_is_said_once():
    model, data = make(), episodes(1, 2)
    data['support_mask'] = torch.zeros_like(data['support_mask'])
    data['support_mask'][:, :, 30, 31] = 1
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        for _ in range(2):
            model.run(inputs_of(data))
    finally:
        logger.removeHandler(handler)
    assert len(said) == 1 and 'its mask is empty on the grid of 5 x 5 patches' in said[0]


def test_prototype_is_the_mean_of_means():
    model, data = make(), episodes(2, 3, seed=2)
    features = model.encode_image(data['support'].flatten(0, 1), 'support')
    state = model.encode_support(features, data['support_mask'])
    free = model.unit(features).unflatten(0, (2, 3))
    for b in range(2):
        means = [
            free[b, k][state.objects.grid[b, k]].mean(0)
            for k in range(3)
            if state.objects.grid[b, k].any()
        ]
        want = F.normalize(torch.stack(means).mean(0), dim=0)
        torch.testing.assert_close(state.prototype[b], want)


# ---------------------------------------------------------------------------------- candidates


def test_forward_falls_back_on_the_upper_tenth():
    assert forward_candidates(torch.tensor([-1.0, 0.0, 0.5])).tolist() == [False, False, True]
    below = -torch.arange(1.0, 12.0)  # 0.9 quantile of 11 values: the tenth from below, -2
    assert forward_candidates(below).nonzero().flatten().tolist() == [0]
    assert not forward_candidates(torch.zeros(5)).any()


def test_votes_by_loops(monkeypatch):
    query, supports = rows(30, 5), rows(3, 20, 5, seed=1)
    supports[1, 7] = supports[1, 3]  # equally near: the first counts
    grid = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(2)) > 0.5
    grid[1].view(-1)[3], grid[1].view(-1)[7] = True, False
    want = [
        sum(bool(grid[k].flatten()[int((supports[k] @ one).argmax())]) for k in range(3))
        for one in query
    ]
    assert backward_votes(query, supports, grid).tolist() == want
    for cells in (1, 50, 64):  # however few inner products are held
        monkeypatch.setattr(matching, 'SIMILARITIES', cells)
        assert backward_votes(query, supports, grid).tolist() == want
        near = nearest_similarity(query, supports[0])
        torch.testing.assert_close(near, (query @ supports[0].T).amax(1))


def test_never_all_similarities_at_once(monkeypatch):
    held = []
    original = torch.Tensor.__matmul__

    def counted(one, other):
        out = original(one, other)
        held.append(out.numel())
        return out

    monkeypatch.setattr(torch.Tensor, '__matmul__', counted)
    x = rows(2500, 4)
    backward_votes(x, x.expand(3, -1, -1), torch.ones(3, 50, 50, dtype=torch.bool))
    assert len(held) == 6 and max(held) <= matching.SIMILARITIES < 2500**2


# -------------------------------------------------------------------------------------- growth


def test_growth_by_loops():
    n, threshold = 60, 0.05
    plain, free = rows(n, 7, shift=0.3), rows(n, 5, seed=1, shift=0.3)
    segments = torch.randint(0, 6, (n,), generator=torch.Generator().manual_seed(2))
    prototype = rows(1, 5, seed=3, shift=0.3)[0]
    similarity = free @ prototype
    candidates = (similarity > 0.3) & (segments != 4)
    found = grow(similarity, candidates, segments, plain, free, prototype, threshold)

    def unit(values):
        return values / values.norm()

    best, seed = -9.0, -1
    for k in range(6):
        here = segments == k
        if (candidates & here).any():
            value = float(unit(free[here].mean(0)) @ prototype)
            best, seed = max((best, seed), (value, k))
    assert found.seed == seed
    for k in range(6):
        here = segments == k
        cross = float(similarity[here].mean())
        intra = float(unit(plain[segments == seed].mean(0)) @ unit(plain[here].mean(0)))
        area = 1.0 if k == seed else float(candidates[here].float().mean())
        assert found.cross[k].item() == pytest.approx(cross, abs=1e-6)
        assert found.intra[k].item() == pytest.approx(intra, abs=1e-6)
        assert found.area[k].item() == pytest.approx(area, abs=1e-6)
        assert bool(found.kept[k]) == (cross * intra * area > threshold)
    assert not found.kept[4] and 1 <= int(found.kept.sum()) < 6
    # the seed must pass too
    high = grow(similarity, candidates, segments, plain, free, prototype, 0.99)
    assert high.seed == seed and not high.kept.any()


# --------------------------------------------------------------------------------------- model


def make(**changes) -> INSID3:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS.build(copy.deepcopy({**METHODS['INSID3'], **changes}))
    return randomised(model).eval()


class Given(Encoder):
    """Features that are given as images: each channel is averaged over the patches."""

    arch: dict = dict(given=True)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (F.avg_pool2d(images, 4),)


def stripes(left: list[float], right: list[float]) -> Tensor:
    """An image (1, 3, 32, 32) of two halves; no position in its features."""
    image = torch.empty(1, 3, 32, 32)
    image[..., :16] = torch.tensor(left)[:, None, None]
    image[..., 16:] = torch.tensor(right)[:, None, None]
    return image


@pytest.fixture
def given(monkeypatch):
    monkeypatch.setitem(MODELS.module_dict, 'Given', Given)
    options = dict(encoder=dict(type='Given'), image_size=32, svd_components=0)
    return MODELS.build(dict(type='INSID3', **options)).eval()


def test_the_half_that_matches_is_found(given):
    red, green, blue = [9.0, 1.0, 0.0], [0.0, 9.0, 1.0], [-1.0, 0.0, 9.0]
    masks = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    masks[..., :16] = 1
    state = given.encode_support(given.encode_image(stripes(red, green), 'support'), masks)
    query = given.encode_image(stripes(blue, red))
    found = given.segment(query, state)
    assert given.encode_query(query).segments.unique().tolist() == [0, 1]
    want = torch.zeros(32, 32, dtype=torch.bool)
    want[:, 16:] = True
    # the grid's border lies at 16: bilinear, it is cut there
    assert torch.equal(found.logits[0, 0] >= 0, want)
    trace = found.trace[0]
    assert torch.equal(trace.candidates, want[::4, ::4])
    assert not (given.segment(given.encode_image(stripes(blue, green)), state).logits >= 0).any()


def test_what_is_nearer_to_a_negative_is_no_candidate(given):
    red, rose, green = [9.0, 1.0, 0.0], [9.0, 3.0, 0.0], [0.0, 9.0, 1.0]
    masks = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    masks[..., :16] = 1
    support = given.encode_image(stripes(red, green), 'support')
    negative = given.encode_image(stripes(rose, green), 'support')
    query = given.encode_image(stripes(red, rose))
    plain = given.segment(query, given.encode_support(support, masks))
    assert plain.trace[0].candidates.all()
    state = given.encode_support(support, masks, Negatives(negative, masks))
    candidates = given.segment(query, state).trace[0].candidates
    assert candidates[:, :4].all() and not candidates[:, 4:].any()
    # marks that say nothing change nothing
    silent = given.encode_support(support, masks, Negatives(negative, 0 * masks))
    assert torch.equal(given.segment(query, silent).logits, plain.logits)


def test_logits_are_the_decision_at_the_side_of_the_image():
    model = make(merge_threshold=0.05)
    data = episodes(3, 2, seed=4)
    features = model.encode_image(data['query'])
    state = model.encode_support(
        model.encode_image(data['support'].flatten(0, 1), 'support'), data['support_mask']
    )
    found = model.segment(features, state)
    segments, some = model.encode_query(features).segments, False
    for i, trace in enumerate(found.trace):
        kept = torch.zeros(5, 5)
        if trace.growth is not None:
            kept = trace.growth.kept[segments[i]].float()
        some |= bool(kept.any()) and not kept.all()
        soft = F.interpolate(kept[None, None], (SIZE, SIZE), mode='bilinear', align_corners=False)
        assert torch.equal(found.logits[i] >= 0, soft[0] > 0.5)
        assert torch.equal(found.logits[i].sigmoid() >= 0.5, soft[0] > 0.5)  # as predict decides
    assert some and found.logits.abs().max() <= 1


def test_candidates_of_half_of_the_supports_suffice():
    """1 of 2, 2 of 4; a support without an object has no vote."""
    model, data = make(), episodes(1, 2, seed=1)
    query = model.encode_query(model.encode_image(data['query']))
    features = model.encode_image(data['support'][0], 'support')
    state = model.encode_support(features, data['support_mask'])
    trace = model.segment(query, state).trace[0]
    votes = backward_votes(query.free[0], state.objects.free[0], state.objects.grid[0])
    forward = forward_candidates(query.free[0] @ state.prototype[0])
    assert torch.equal(trace.candidates.flatten(), forward & (votes >= 1))
    alone = model.encode_support(take(features, slice(0, 1)), data['support_mask'][:, :1])
    masks = data['support_mask'].clone()
    masks[:, 1] = 0
    both = model.segment(query, model.encode_support(features, masks))
    torch.testing.assert_close(both.logits, model.segment(query, alone).logits)


def test_the_basis_is_kept_until_weights_change():
    model = make()
    calls = []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    first = model.basis()
    assert model.basis() is first and len(calls) == 1
    assert not any('bas' in key for key in model.state_dict())
    with torch.no_grad():
        model.encoder.vit.norm.weight[:8] *= 3
    assert not torch.equal(model.basis(), first) and len(calls) == 2
    other = copy.deepcopy(model)
    assert torch.equal(other.basis(), model.basis())
    assert make(svd_components=0).basis() is None


def test_clusters_are_made_once_for_all_classes(monkeypatch):
    model, data, made = make(), episodes(2, 2), []
    original = matching.average_linkage
    monkeypatch.setattr(
        'mmfss.methods.insid3.model.average_linkage',
        lambda *args: made.append(1) or original(*args),
    )
    states = []
    for k in range(2):
        features = model.encode_image(data['support'][k], 'support')
        states.append(nway.encode_class(model, features, data['support_mask'][k]))
    found = nway.segment_classes(model, model.encode_image(data['query']), states)
    assert found.logits.shape == (2, 2, SIZE, SIZE) and len(made) == 2  # images, not pairs


def test_boxes_for_sam2():
    sam2 = dict(arch=tiny_arch(), checkpoint=None)
    model = make(sam2=sam2, merge_threshold=0.0)
    assert (model.query_encoders, model.support_encoders) == (('encoder', 'sam2'), ('encoder',))
    data = episodes(2, 1, seed=4)
    supports = model.encode_image(data['support'].flatten(0, 1), 'support')
    state = model.encode_support(supports, data['support_mask'])
    query = model.encode_query(model.encode_image(data['query']))
    found, plain = model.segment(query, state), model.segment(replace(query, sam2=None), state)
    assert any((z >= 0).any() for z in plain.logits)
    assert found.logits.isfinite().all() and found.logits.abs().max() <= 1
    assert not torch.equal(found.logits >= 0, plain.logits >= 0)
    assert plain.parts is None and len(found.parts) == len(found.logits)
    for one, masks in zip(found.logits, found.parts):  # no part, no object
        assert len(masks) or not (one >= 0).any()
    for name, values in plain.maps.items():
        assert torch.equal(values, found.maps[name])
    kept = torch.zeros(5, 5)
    kept[0, 0] = kept[1, 1] = kept[3:, 3:] = 1  # two regions, corners touch
    asked = []
    features = SimpleNamespace()
    heads = 'mmfss.methods.insid3.model.masks_of_prompts'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            heads,
            lambda sam, f, c, lab: (
                asked.append((c, lab))
                or (
                    torch.stack([torch.full((1, 16, 16), -4.0), torch.full((1, 16, 16), 4.0)]),
                    None,
                )
            ),
        )
        soft, parts = model._refined(features, kept)
        assert not model._refined(features, 0 * kept)[0].any() and len(asked) == 1
    coords, labels = asked[0]
    side = SIZE / 5
    want = torch.tensor([[[0, 0], [2, 2]], [[3, 3], [5, 5]]]) * side
    torch.testing.assert_close(coords, want)
    assert labels.tolist() == [[2, 3], [2, 3]]
    torch.testing.assert_close(soft, torch.full((SIZE, SIZE), torch.sigmoid(torch.tensor(4.0))))
    assert parts.amin((1, 2)).tolist() == [-4, 4] and parts.shape == (2, 16, 16)
    assert model.takes_prompts and model.prompter().image_size == SIZE


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(encoder=None), "INSID3 needs an encoder, e.g. encoder=dict\\(type='DINOv3'\\)"),
        (dict(tau=1.0), 'model.tau must be a cosine below 1, got 1.0'),
        (dict(svd_components=-1), 'model.svd_components must be .*got -1'),
        (dict(image_size=0), 'model.image_size must be'),
    ],
)
def test_numbers_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)
    assert MODELS.get('INSID3') is INSID3


def test_published_numbers_are_the_defaults():
    with torch.device('meta'):
        model = MODELS.build(
            dict(type='INSID3', encoder=dict(type='DINOv3', arch='small', checkpoint=None))
        )
    assert (model.image_size, model.resize) == (1024, 'pillow_bilinear')
    assert (model.svd_components, model.tau, model.merge_threshold) == (500, 0.6, 0.2)
    assert model.title == 'INSID3'
    assert make().title == 'INSID3 (on DINOv2: not as published)'
    assert not model.takes_prompts and not model.needs_checkpoint and model.takes_negatives


# ---------------------------------------------------------------------------------- key points


def test_points_by_loops():
    support, query = rows(6, 8, 5, shift=0.5), rows(6, 8, 5, seed=1, shift=0.5)
    points = torch.tensor([[3.0, 4.0], [79.0, 59.0], [20.0, 25.0]])
    found = match_points(points, support, query, (60, 80), (30, 120))
    for (x, y), got in zip(points.tolist(), found.tolist(), strict=True):
        column, row = min(round(x * 8 / 80), 7), min(round(y * 6 / 60), 5)
        cosines = [[float(support[row, column] @ query[r, c]) for c in range(8)] for r in range(6)]
        _, top_r, top_c = max((cosines[r][c], r, c) for r in range(6) for c in range(8))
        total, mean = 0.0, [0.0, 0.0]
        for r in range(6):
            for c in range(8):
                bump = np.exp(-((r - top_r) ** 2 + (c - top_c) ** 2) / (2 * 7.0**2))
                weight = np.exp(cosines[r][c] * bump / 0.04)
                total += weight
                mean = [mean[0] + weight * c, mean[1] + weight * r]
        assert got == pytest.approx([mean[0] / total * 120 / 8, mean[1] / total * 30 / 6], abs=1e-3)


# ------------------------------------------------------------------------------------ reference


def test_reference_tensors(repo_root, shared_dir, capsys, monkeypatch):
    """All cases and units of the authors' implementation."""
    root = shared_dir / 'parity/insid3'
    if not root.is_dir():
        pytest.skip(f'no reference tensors at {root}')
    folder = repo_root / 'tools/analysis_tools'
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location('check_parity_insid3', folder / 'check_parity.py')
    tool = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, tool)
    spec.loader.exec_module(tool)
    assert tool.main([str(root), '--quiet']) == 0
    out = capsys.readouterr().out
    cases = json.loads((root / 'index.json').read_text())['cases']
    for name, case in cases.items():
        number = len(case['stages'])
        assert f'{name:24} {number} of {number} stages within tolerance' in out
    assert 'stages within tolerance' in next(s for s in out.splitlines() if s.startswith('units'))
