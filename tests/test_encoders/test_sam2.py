"""Our SAM 2 against the sam2 package on tiny random weights, 2.0 and 2.1."""

from __future__ import annotations

from pathlib import Path

import pytest
import sam2
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sam2.modeling.sam2_base import NO_OBJ_SCORE, SAM2Base
from tiny_models import DIM, MEM, SIZE, encoded, randomised, tiny_arch

from mmfss.encoders.sam2.archs import ARCHS
from mmfss.encoders.sam2.model import build_sam2

VERSIONS = ['sam2_small', 'sam2.1_small']
GRID = SIZE // 16


def upstream(base: str) -> SAM2Base:
    """The sam2 package's own build of the tiny architecture."""
    path = Path(sam2.__file__).parent / ARCHS[base]
    overrides = {k: v for k, v in tiny_arch(base).items() if k != 'base'}
    rope = dict(feat_sizes=[GRID, GRID])
    layer = dict(layer=dict(self_attention=rope, cross_attention=rope))
    cfg = OmegaConf.merge(OmegaConf.load(path).model, overrides)
    cfg = OmegaConf.merge(cfg, dict(image_size=SIZE, memory_attention=layer))
    return instantiate(cfg, _recursive_=True)


@pytest.fixture(scope='module', params=VERSIONS)
def pair(request):
    """(ours, upstream) with the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = randomised(upstream(request.param)).eval().to(memory_format=torch.channels_last)
        ours = build_sam2(tiny_arch(request.param), SIZE).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def images(number: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(number, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def soft_masks(kind: str, number: int = 2) -> torch.Tensor:
    """(number, 1, S, S) in [0, 1]; ``mixed``: the last one is empty."""
    g = torch.Generator().manual_seed(1)
    low = torch.rand(number, 1, 5, 5, generator=g)
    masks = F.interpolate(low, (SIZE, SIZE), mode='bilinear', align_corners=True)
    masks = {'binary': (masks > 0.5).float(), 'empty': masks * 0}.get(kind, masks)
    if kind == 'mixed':
        masks[-1] = 0
    return masks


def prepared(model: SAM2Base, x: torch.Tensor):
    """Upstream's flattened features, positions and their sizes."""
    return model._prepare_backbone_features(model.forward_image(x))[1:]


def track(model: SAM2Base, x: torch.Tensor, masks: torch.Tensor) -> dict:
    """Upstream's output for a conditioning frame with a mask prompt."""
    features, pos, sizes = prepared(model, x)
    return model.track_step(
        frame_idx=0,
        is_init_cond_frame=True,
        current_vision_feats=features,
        current_vision_pos_embeds=pos,
        feat_sizes=sizes,
        point_inputs=None,
        mask_inputs=masks,
        output_dict=dict(cond_frame_outputs={}, non_cond_frame_outputs={}),
        num_frames=100,
    )


@torch.no_grad()
def test_image_features(pair):
    ours, theirs = pair
    features = encoded(ours, images())
    flat, pos, sizes = prepared(theirs, images())
    levels = (*features.high_res, features.top)
    assert [tuple(x.shape) for x in levels] == [
        (2, DIM // 8, SIZE // 4, SIZE // 4),
        (2, DIM // 4, SIZE // 8, SIZE // 8),
        (2, DIM, GRID, GRID),
    ]
    for level, want, size in zip(levels, flat, sizes):
        assert level.shape[-2:] == torch.Size(size)
        assert torch.equal(level.flatten(2).permute(2, 0, 1), want)
    assert torch.equal(features.top_pos.flatten(2).permute(2, 0, 1), pos[-1])


@pytest.mark.parametrize('kind', ['binary', 'soft', 'empty', 'mixed'])
@torch.no_grad()
def test_memory_and_pointer_are_those_of_track_step(pair, kind):
    ours, theirs = pair
    masks = soft_masks(kind)
    features = encoded(ours, images())
    memory, pos = ours.encode_memory(features, masks)
    pointer = ours.encode_pointer(features, masks)
    want = track(theirs, images(), masks)
    assert memory.shape == (2, MEM, GRID, GRID) and pointer.shape == (2, DIM)
    torch.testing.assert_close(memory, want['maskmem_features'])
    temporal = theirs.maskmem_tpos_enc[theirs.num_maskmem - 1].reshape(1, MEM, 1, 1)
    torch.testing.assert_close(pos, want['maskmem_pos_enc'][-1] + temporal)
    torch.testing.assert_close(pointer, want['obj_ptr'])
    if kind == 'empty':
        torch.testing.assert_close(pointer, theirs.no_obj_ptr.expand(2, -1))


@torch.no_grad()
def test_empty_mask_adds_the_no_object_embedding_in_2_1(pair):
    ours, _ = pair
    features, masks = encoded(ours, images()), soft_masks('mixed')
    memory, _ = ours.encode_memory(features, masks)
    if ours.no_obj_embed_spatial is None:
        assert 'no_obj_embed_spatial' not in ours.state_dict()
        return
    embedding = ours.no_obj_embed_spatial.clone()
    ours.no_obj_embed_spatial.zero_()
    added = memory - ours.encode_memory(features, masks)[0]
    ours.no_obj_embed_spatial.copy_(embedding)
    want = embedding[0][:, None, None].expand(MEM, GRID, GRID)
    torch.testing.assert_close(added[1], want, atol=1e-4, rtol=0)
    assert not added[0].any() and want.abs().max() > 0.1


def attended(ours, x: torch.Tensor) -> torch.Tensor:
    """Our attended feature of image 1 of ``x`` given image 0 as the one support."""
    features = encoded(ours, x[:1])
    memory, pos = ours.encode_memory(features, soft_masks('binary', 1))
    pointer = ours.encode_pointer(features, soft_masks('binary', 1))
    frames = ours.memory_frames(memory, pos, pointer, 1)
    state = ours.memory_attention.encode_support(frames, None)
    query = encoded(ours, x[1:])
    flat, flat_pos = (t.flatten(2).transpose(1, 2) for t in (query.top, query.top_pos))
    out = ours.memory_attention(flat, flat_pos, None, state)
    return out.transpose(1, 2).unflatten(-1, (GRID, GRID))


def conditioned(theirs, num_frames: int, x: torch.Tensor, frame_idx: int = 1) -> torch.Tensor:
    """Upstream's, for frame ``frame_idx`` of a video whose frame 0 is the conditioning frame."""
    features, pos, sizes = prepared(theirs, x[1:])
    return theirs._prepare_memory_conditioned_features(
        frame_idx=frame_idx,
        is_init_cond_frame=False,
        current_vision_feats=features[-1:],
        current_vision_pos_embeds=pos[-1:],
        feat_sizes=sizes[-1:],
        output_dict=dict(
            cond_frame_outputs={0: track(theirs, x[:1], soft_masks('binary', 1))},
            non_cond_frame_outputs={},
        ),
        num_frames=num_frames,
    )


@torch.no_grad()
def test_attended_feature_is_that_of_a_video_one_step_on(pair):
    ours, theirs = pair
    x = images(2, seed=3)
    out = attended(ours, x)
    near = dict(rtol=1e-4, atol=1e-4)  # further than the tests above, and norms round otherwise
    torch.testing.assert_close(out, conditioned(theirs, 100, x), **near)
    torch.testing.assert_close(out, conditioned(theirs, 16, x), **near)
    moved = (out - conditioned(theirs, 100, x, frame_idx=9)).abs().max()
    short = (out - conditioned(theirs, 3, x)).abs().max()
    if theirs.add_tpos_enc_to_obj_ptrs:  # 2.1 knows how far away a pointer is
        assert moved > 1e-3 and short > 1e-3
    else:
        assert moved < 1e-4 and short < 1e-4


@torch.no_grad()
def test_pointer_positions(pair):
    ours, _ = pair
    g = torch.Generator().manual_seed(0)
    memory, pos = torch.rand(2, 6, MEM, GRID, GRID, generator=g)
    pointers = torch.rand(6, DIM, generator=g)
    frames = ours.memory_frames(memory, pos, pointers, 3)
    assert frames.pointers.shape == frames.pointer_pos.shape == (2, 3, DIM // MEM, MEM)
    assert torch.equal(frames.pointers[1, 2].flatten(), pointers[5])
    assert torch.equal(frames.spatial[1, 2], memory[5].flatten(1).T)
    assert torch.equal(frames.spatial_pos[0, 1], pos[1].flatten(1).T)
    if ours.add_tpos_enc_to_obj_ptrs:
        assert frames.pointer_pos.abs().min() > 0
        assert torch.equal(frames.pointer_pos, frames.pointer_pos[:1, :1, :1].expand(2, 3, 4, MEM))
    else:
        assert not frames.pointer_pos.any()


# ---------------------------------------------------------------- decoding


def stub_ious(monkeypatch, model, ious: torch.Tensor) -> None:
    """Let the mask decoder predict these IoUs."""
    original = model.sam_mask_decoder.forward

    def forward(**inputs):
        masks, _, tokens, score = original(**inputs)
        return masks, ious, tokens, score

    monkeypatch.setattr(model.sam_mask_decoder, 'forward', forward)


@pytest.mark.parametrize('best', [(0, 1), (1, 2), (2, 0)])
@torch.no_grad()
def test_the_candidate_with_the_best_predicted_iou_is_taken(pair, monkeypatch, best):
    ours, _ = pair
    features = encoded(ours, images())
    ious = torch.full((2, 3), 0.3)
    ious[0, best[0]], ious[1, best[1]] = 0.9, 0.4
    stub_ious(monkeypatch, ours, ious)
    out = ours.decode(features.top, features.high_res)
    assert out.best.tolist() == list(best)
    for i, chosen in enumerate(best):
        assert torch.equal(out.low_res[i, 0], out.candidates[i, chosen])
        others = [c for c in range(3) if c != chosen]
        assert all((out.low_res[i, 0] - out.candidates[i, c]).abs().max() > 1e-3 for c in others)
    resized = F.interpolate(out.low_res, (SIZE, SIZE), mode='bilinear', align_corners=False)
    assert torch.equal(out.logits, resized) and out.logits.shape == (2, 1, SIZE, SIZE)


@torch.no_grad()
def test_decode_is_upstreams_heads_with_the_object_present(pair, monkeypatch):
    ours, theirs = pair
    features = encoded(ours, images())
    out = ours.decode(features.top, features.high_res)
    set_object_score(monkeypatch, theirs, 50.0)
    low, high, ious, low_best, high_best, _, _ = theirs._forward_sam_heads(
        features.top, high_res_features=list(features.high_res), multimask_output=True
    )
    torch.testing.assert_close(out.candidates, low)
    torch.testing.assert_close(out.ious, ious)
    torch.testing.assert_close(out.low_res, low_best)
    torch.testing.assert_close(out.logits, high_best)


def set_object_score(monkeypatch, model, value: float) -> None:
    head = model.sam_mask_decoder.pred_obj_score_head
    monkeypatch.setattr(head, 'forward', lambda x: torch.full((len(x), 1), value))


@torch.no_grad()
def test_the_object_score_does_not_gate_masks(pair, monkeypatch):
    ours, _ = pair
    features = encoded(ours, images())
    decoded = []
    for value in (50.0, -50.0):
        set_object_score(monkeypatch, ours, value)
        decoded.append(ours.decode(features.top, features.high_res))
        assert decoded[-1].object_score.unique().tolist() == [value]
    assert torch.equal(decoded[0].logits, decoded[1].logits)
    assert decoded[1].logits.min() > NO_OBJ_SCORE / 2
    gated = ours._forward_sam_heads(features.top, high_res_features=list(features.high_res))
    assert torch.equal(gated[0].unique(), torch.tensor([NO_OBJ_SCORE]))  # as upstream does


@torch.no_grad()
def test_the_object_score_gates_pointers(pair, monkeypatch):
    ours, _ = pair
    features = encoded(ours, images())
    set_object_score(monkeypatch, ours, -50.0)
    pointer = ours.encode_pointer(features, soft_masks('binary'))
    torch.testing.assert_close(pointer, ours.no_obj_ptr.expand(2, -1))


@torch.no_grad()
def test_theempty_prompt_is_two_tokens_and_not_the_same_as_none(pair, monkeypatch):
    ours, _ = pair
    features = encoded(ours, images())
    points = torch.zeros(2, 1, 2), -torch.ones(2, 1, dtype=torch.int32)
    wanted = ours.sam_prompt_encoder(points=points, boxes=None, masks=None)
    kept = ours.empty_prompt(2)
    assert kept[0].shape == (2, 2, DIM)
    position = ours.sam_prompt_encoder.get_dense_pe().expand(2, -1, -1, -1)
    assert all(
        torch.equal(one, other) for one, other in zip(kept, (*wanted, position), strict=True)
    )
    tracked = ours.decode(features.top, features.high_res)

    def nothing(count):
        return torch.empty(count, 0, DIM), *kept[1:]

    monkeypatch.setattr(ours, 'empty_prompt', nothing)
    assert (ours.decode(features.top, features.high_res).logits - tracked.logits).abs().max() > 1e-3
