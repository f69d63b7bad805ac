"""SAM2Memory against sam2's own video predictor, on tiny random weights, 2.0 and 2.1."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from mmcv import imresize
from mmseg.registry import MODELS
from omegaconf import OmegaConf
from PIL import Image
from sam2.modeling.sam2_base import NO_OBJ_SCORE
from sam2.sam2_video_predictor import SAM2VideoPredictor
from tiny_models import DIM, MEM, METHODS, SIZE, build, episodes, inputs_of, randomised, tiny_arch

from mmfss.batching import take
from mmfss.encoders.sam2.archs import arch_config
from mmfss.functional import RESIZES

VERSIONS = ['sam2_small', 'sam2.1_small']
GRID = SIZE // 16
QUERY_SIZE = (50, 77)  # height and width of the photo


def make(base: str, seed: int = 0, score: float | None = 5.0, **changes):
    """The method as it is by default; ``score`` is added to the object score."""
    cfg = dict(type='SAM2Memory', image_size=SIZE, sam2=dict(arch=tiny_arch(base), checkpoint=None))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = randomised(MODELS.build({**cfg, **changes}), seed).eval()
    if score is not None:
        head = model.sam2.sam_mask_decoder.pred_obj_score_head.layers[-1]
        with torch.no_grad():
            head.weight.zero_()
            head.bias.fill_(score)
    return model


def predictor_of(model, base: str, **options) -> SAM2VideoPredictor:
    """sam2's predictor with the weights of a method, as ``build_sam2_video_predictor`` sets it."""
    cfg = arch_config(tiny_arch(base))
    cfg.update(_target_='sam2.sam2_video_predictor.SAM2VideoPredictor', image_size=SIZE, **options)
    for name in ('self_attention', 'cross_attention'):
        cfg['memory_attention']['layer'][name]['feat_sizes'] = [GRID, GRID]
    cfg.setdefault('binarize_mask_from_pts_for_mem_enc', True)
    made = instantiate(OmegaConf.create(cfg), _recursive_=True).eval()
    made.load_state_dict(model.sam2.state_dict())
    return made


def photos(folder: Path, number: int, seed: int = 0) -> list[np.ndarray]:
    """Photos of several sizes (h, w, 3) RGB, the last of ``QUERY_SIZE``, as frames in a folder."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    made = []
    for i in range(number):
        size = QUERY_SIZE if i >= number - 2 else (40 + 9 * (i % 5), 90 - 7 * (i % 5))
        small = rng.integers(0, 255, (6, 8, 3), np.uint8)
        made.append(np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.NEAREST)))
        # the predictor lists names that end in .jpg, Pillow looks at the content
        Image.fromarray(made[-1]).save(folder / f'{i}.jpg', format='PNG')
    return made


def masks_of(number: int, empty: int | None = None) -> torch.Tensor:
    """(K, S, S) bool, irregular, so that S/4 rounds its border; one may be empty."""
    low = torch.rand(number, 1, 9, 9, generator=torch.Generator().manual_seed(3))
    masks = F.interpolate(low, (SIZE, SIZE), mode='bilinear')[:, 0] > 0.55
    if empty is not None:
        masks[empty] = False
    return masks


def track(predictor, folder: Path, masks: torch.Tensor) -> tuple[dict, list[torch.Tensor]]:
    """The predictor's state at the end, and its logits (1, 1, H, W) for each frame."""
    state = predictor.init_state(str(folder))
    for i, mask in enumerate(masks):
        predictor.add_new_mask(state, i, 1, mask)
    return state, [logits for _, _, logits in predictor.propagate_in_video(state)]


def images_of(photos: list[np.ndarray], model) -> torch.Tensor:
    """(N, 3, S, S) RGB 0..255, resized as the method wants it."""
    side = (model.image_size,) * 2
    resized = [imresize(photo, side, **RESIZES[model.resize]) for photo in photos]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float()


@torch.no_grad()
def ours(model, photos: list[np.ndarray], masks: torch.Tensor):
    """State of the first K photos, and the trace of the last one."""
    images = images_of(photos, model)
    state = model.encode_support(model.encode_image(images[:-1]), masks[None].to(torch.uint8))
    return state, model.segment(model.encode_image(images[-1:]), state).trace


def at_photo(low: torch.Tensor) -> torch.Tensor:
    """Logits at the size of the query's photo, from S/4 as the predictor does it."""
    return F.interpolate(low, QUERY_SIZE, mode='bilinear')


# ------------------------------------------------------------------------- the predictor itself
@pytest.mark.parametrize('base', VERSIONS)
@pytest.mark.parametrize(('shots', 'empty'), [(1, None), (3, 1), (1, 0), (17, None)])
def test_it_is_the_video_predictor(base, shots, empty, tmp_path):
    """17 shots are more than the 16 frames that pointers look back on."""
    model = make(base)
    predictor = predictor_of(model, base)
    frames, masks = photos(tmp_path / 'video', shots + 1), masks_of(shots, empty)
    video, logits = track(predictor, tmp_path / 'video', masks)
    state, trace = ours(model, frames, masks)
    kept = [video['output_dict_per_obj'][0]['cond_frame_outputs'][i] for i in range(shots)]
    low = model.mask_logits(masks.float()[:, None])[0]
    for i, frame in enumerate(kept):
        memory = state.spatial[0, i].T.reshape(1, MEM, GRID, GRID)
        assert frame['maskmem_features'].dtype == torch.bfloat16
        # a rounding error before it may fall to the neighbour in bfloat16
        torch.testing.assert_close(memory, frame['maskmem_features'].float(), rtol=1e-2, atol=1e-3)
        torch.testing.assert_close(state.pointers[0, i].reshape(1, DIM), frame['obj_ptr'])
        assert torch.equal(low[i : i + 1], frame['pred_masks'])
        assert frame['object_score_logits'].item() == (-10 if i == empty else 10)
    assert trace.decoded.object_score.item() == 5.0
    torch.testing.assert_close(at_photo(trace.low_res), logits[-1], rtol=1e-3, atol=1e-3)
    assert 0 < (logits[-1] > 0).float().mean() < 1


@pytest.mark.parametrize('base', VERSIONS)
def test_without_post_processing_masks_pass_a_sigmoid(base, tmp_path):
    model = make(base, binary_masks=False)
    plain = predictor_of(model, base, binarize_mask_from_pts_for_mem_enc=False)
    frames, masks = photos(tmp_path / 'video', 3), masks_of(2)
    logits = track(plain, tmp_path / 'video', masks)[1]
    _, trace = ours(model, frames, masks)
    torch.testing.assert_close(at_photo(trace.low_res), logits[-1], rtol=1e-3, atol=1e-3)
    other = ours(make(base), frames, masks)[1].low_res
    assert (other - trace.low_res).abs().max() > 0.01


@pytest.mark.parametrize('score', [-5.0, 0.0])
def test_an_absent_object_leaves_nothing(score, tmp_path):
    model = make('sam2.1_small', score=score)
    predictor = predictor_of(model, 'sam2.1_small')
    frames, masks = photos(tmp_path / 'video', 2), masks_of(1)
    logits = track(predictor, tmp_path / 'video', masks)[1]
    state, trace = ours(model, frames, masks)
    assert trace.low_res.unique().tolist() == [NO_OBJ_SCORE]
    assert torch.equal(at_photo(trace.low_res), logits[-1])
    assert trace.decoded.candidates.min() > NO_OBJ_SCORE / 2
    # pointers are those of no object, whatever their masks
    assert torch.equal(state.pointers.reshape(1, DIM), model.sam2.no_obj_ptr.detach())
    open_gate = make('sam2.1_small', score=score, object_gate=False)
    found = ours(open_gate, frames, masks)[1]
    assert torch.equal(found.low_res, found.decoded.low_res)
    assert torch.equal(found.low_res, trace.decoded.low_res)


def test_a_query_does_not_read_the_one_before_it(tmp_path):
    """In one video the predictor does: the second query sees what it made of the first."""
    model = make('sam2.1_small')
    predictor = predictor_of(model, 'sam2.1_small')
    masks = masks_of(2)
    frames = photos(tmp_path / 'both', 4)
    first, second = frames[2], frames[3]
    supports = frames[:2]
    images = images_of([*supports, first, second], model)
    with torch.no_grad():
        state = model.encode_support(model.encode_image(images[:2]), masks[None].to(torch.uint8))
        kept = copy.deepcopy(state)
        model.segment(model.encode_image(images[2:3]), state)
        after = model.segment(model.encode_image(images[3:]), state).trace
        alone = model.segment(model.encode_image(images[3:]), kept).trace
    assert torch.equal(after.low_res, alone.low_res)
    assert torch.equal(state.spatial, kept.spatial)
    # episodes of one batch neither
    data = episodes(3, 2)
    together = model.run(inputs_of(data)).logits
    last = model.run({key: value[2:] for key, value in inputs_of(data).items()}).logits
    torch.testing.assert_close(together[2:], last, rtol=1e-3, atol=1e-3)
    # the predictor in a video of its own agrees, in that of both it does not
    folder = tmp_path / 'own'
    folder.mkdir()
    for i, photo in enumerate([*supports, second]):
        Image.fromarray(photo).save(folder / f'{i}.jpg', format='PNG')
    own = track(predictor, folder, masks)[1][-1]
    torch.testing.assert_close(at_photo(alone.low_res), own, rtol=1e-3, atol=1e-3)
    joined = track(predictor, tmp_path / 'both', masks)[1][-1]
    assert (joined - own).abs().max() > 0.05


# ------------------------------------------------------------------------------------- switches
@pytest.mark.parametrize('base', VERSIONS)
@pytest.mark.parametrize('in_order', [True, False])
@torch.no_grad()
def test_the_order_of_supports_matters_in_a_video_of_2_1_alone(base, in_order):
    model = make(base, shots_in_order=in_order)
    data = episodes(1, 3)
    features = model.encode_image(data['support'][0])
    query = model.encode_image(data['query'])
    state = model.encode_support(features, data['support_mask'])
    turned = [2, 1, 0]
    other = model.encode_support(take(features, turned), data['support_mask'][:, turned])
    assert torch.equal(other.spatial, state.spatial[:, turned])
    one, two = (model.segment(query, s).logits for s in (state, other))
    error = (one - two).abs().max()
    if in_order and base == 'sam2.1_small':
        assert error > 0.01
        assert not torch.equal(state.pointer_pos[:, 0], state.pointer_pos[:, 2])
        # t = (3, 2, 1) / (min(3 + 1, 16) - 1): the last support is nearest
        times = torch.tensor([3.0, 2.0, 1.0]) / 3
        table = times[:, None] / 10000 ** (2 * (torch.arange(DIM // 2) // 2) / (DIM // 2))
        wanted = model.sam2.obj_ptr_tpos_proj(torch.cat([table.sin(), table.cos()], 1))
        for part in range(DIM // MEM):
            torch.testing.assert_close(state.pointer_pos[0, :, part], wanted)
    else:
        assert error < 1e-3
        assert torch.equal(state.pointer_pos[:, 0], state.pointer_pos[:, 2])


@torch.no_grad()
def test_memories_are_rounded_to_bfloat16_or_not():
    data = episodes(2, 2)
    states = []
    for rounded in (True, False):
        model = make('sam2.1_small', bfloat16_memory=rounded)
        features = model.encode_image(data['support'].flatten(0, 1))
        states.append(model.encode_support(features, data['support_mask']).spatial)
    assert states[0].dtype == states[1].dtype == torch.float32
    assert torch.equal(states[0], states[1].bfloat16().float())
    assert not torch.equal(states[0], states[1])


def filled(logits: np.ndarray, area: int) -> np.ndarray:
    """Flood fill, in a loop: parts of the background of at most ``area`` pixels become 0.1."""
    out, seen = logits.copy(), logits > 0
    height, width = logits.shape
    for start in np.ndindex(height, width):
        if seen[start]:
            continue
        part, todo = [], [start]
        seen[start] = True
        while todo:
            y, x = todo.pop()
            part.append((y, x))
            for v in range(max(0, y - 1), min(height, y + 2)):
                for u in range(max(0, x - 1), min(width, x + 2)):
                    if not seen[v, u]:
                        seen[v, u] = True
                        todo.append((v, u))
        if len(part) <= area:
            for place in part:
                out[place] = 0.1
    return out


@torch.no_grad()
def test_small_holes_are_filled_in_supports_and_result():
    area = 8
    model = make('sam2.1_small', hole_area=area)
    data = episodes(2, 2)
    masks = data['support_mask']
    masks[:] = 1
    masks[:, :, 8:18, 8:18] = 0  # at S/4 a hole of no more than 9
    masks[:, :, 30:60, 30:60] = 0  # of about 49
    masks[:, :, 8:12, 48:52], masks[:, :, 12:16, 52:56] = 0, 0  # two that touch at a corner
    flat = masks.flatten(0, 1).float()[:, None]
    low, high = model.mask_logits(flat)
    plain = make('sam2.1_small').mask_logits(flat)[0]
    for got, before in zip(low, plain):
        want = filled(before[0].numpy(), area)
        np.testing.assert_array_equal(got[0].numpy(), want)
        assert 0 < (want != before[0].numpy()).sum() < 30
    assert torch.equal(high, F.interpolate(low, (SIZE, SIZE), mode='bilinear'))
    trace = model.run(inputs_of(data)).trace
    for got, before in zip(trace.low_res, trace.decoded.low_res):
        np.testing.assert_array_equal(got[0].numpy(), filled(before[0].numpy(), area))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(object_gate='yes'), "model.object_gate must be True or False, got 'yes'"),
        (dict(binary_masks=1), 'model.binary_masks must be True or False, got 1'),
        (dict(hole_area=-1), 'model.hole_area must be .*got -1'),
        (dict(image_size=100), 'image_size must be a multiple of 32 and at least 64'),
        (dict(resize='bicubic'), "model.resize must be one of .*got 'bicubic'"),
        (
            dict(sam2=dict(arch='sam2.1_small', image_size=512)),
            'model.sam2.image_size is not taken by SAM2Memory: set .* in model.image_size, got 512',
        ),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build({**METHODS['SAM2Memory'], **changes})


# -------------------------------------------------------------------------------------- weights
def test_it_takes_the_sam2_of_a_training(tmp_path):
    trained = build('sam2_small', seed=4)
    path = str(tmp_path / 'epoch_1.pth')
    torch.save(dict(state_dict=trained.state_dict(), meta={}), path)
    sam2 = dict(arch=tiny_arch('sam2_small'), checkpoint=path)
    model = make('sam2_small', score=None, sam2=sam2)
    model.init_weights()
    own = model.sam2.state_dict()
    for key, value in trained.sam2.state_dict().items():
        assert torch.equal(own[key], value), key
    other = make('sam2.1_small', sam2=dict(sam2, arch=tiny_arch('sam2.1_small')))
    with pytest.raises(ValueError, match=r'SAM 2 .*do not fit the model. 3 missing keys: no_obj_'):
        other.init_weights()
    torch.save(dict(state_dict={'vit.x': torch.ones(1)}), path)
    with pytest.raises(ValueError, match='missing keys: image_encoder'):
        model.init_weights()
