"""Prompts become masks as SAM 2's own code makes them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny_models
import torch
import torch.nn.functional as F

from mmfss.apis import FewShotInferencer
from mmfss.apis.images import to_model_size
from mmfss.apis.prompts import Prompt, Proposal, Proposer
from mmfss.encoders.sam2.prompts import PromptHeads, prompt_heads

SIZE = tiny_models.SIZE
HEIGHT, WIDTH = 48, 96
IMAGE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
BOX = Prompt(box=(12.0, 6.0, 60.0, 30.0))
POINT = Prompt(points=((30.0, 15.0),), labels=(1,))
MANY = Prompt(box=(12.0, 6.0, 60.0, 30.0), points=((30.0, 15.0), (80.0, 40.0)), labels=(1, 0))


@pytest.fixture(scope='module', params=['sam2_small', 'sam2.1_small'])
def model(request):
    return tiny_models.build(request.param)


def oracle(model, prompt: Prompt) -> tuple[np.ndarray, np.ndarray]:
    """Logits (M, H, W) and predicted IoUs by the steps of SAM2Base for a first frame, which are
    those of SAM2ImagePredictor; the coordinates are scaled by hand."""
    sam2 = model.sam2
    rgb = torch.from_numpy(to_model_size(IMAGE, SIZE)[..., ::-1].copy()).permute(2, 0, 1)[None]
    out = sam2.forward_image(model.sam2.normalise(rgb.float()))
    _, feats, pos, sizes = sam2._prepare_backbone_features(out)
    embedding = sam2._prepare_memory_conditioned_features(
        frame_idx=0,
        is_init_cond_frame=True,
        current_vision_feats=feats[-1:],
        current_vision_pos_embeds=pos[-1:],
        feat_sizes=sizes[-1:],
        output_dict={},
        num_frames=1,
    )
    high = [x.permute(1, 2, 0).view(1, -1, *size) for x, size in zip(feats[:-1], sizes[:-1])]
    corners = [] if prompt.box is None else [prompt.box[:2], prompt.box[2:]]
    points = [(x / WIDTH * SIZE, y / HEIGHT * SIZE) for x, y in (*corners, *prompt.points)]
    labels = [2, 3][: len(corners)] + list(prompt.labels)
    given = dict(point_coords=torch.tensor([points]), point_labels=torch.tensor([labels]).int())
    sam2.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.data.fill_(1e3)  # "it is there"
    with torch.no_grad():
        low, _, ious, *_ = sam2._forward_sam_heads(
            embedding,
            point_inputs=given,
            high_res_features=high,
            multimask_output=sam2._use_multimask(True, given),
        )
    full = F.interpolate(low, (HEIGHT, WIDTH), mode='bilinear', align_corners=False)
    return full[0].numpy(), ious[0].numpy()


@pytest.mark.parametrize('prompt', [BOX, POINT, MANY], ids=['box', 'point', 'box and points'])
def test_as_sam2_does(model, prompt):
    proposer = Proposer(model)
    for part in (proposer._prompter, model.sam2):  # the oracle has no fallback to three candidates
        part.sam_mask_decoder.dynamic_multimask_via_stability = False
    logits, ious = oracle(model, prompt)
    assert len(ious) == (3 if prompt is POINT else 1)
    got = proposer.propose(IMAGE, prompt)
    order = np.argsort(-ious)
    wanted = [(logits[i] > 0, ious[i]) for i in order if (logits[i] > 0).any()]
    assert len(wanted) == 1 + len(got.others)
    for one, (mask, score) in zip((got, *got.others), wanted):
        assert one.mask.dtype == bool and one.mask.shape == (HEIGHT, WIDTH)
        np.testing.assert_array_equal(one.mask, mask)
        assert one.score == pytest.approx(score, abs=1e-6)


def test_an_unstable_single_mask_gives_way_as_in_sam2(model):
    """The setting of sam2.build_sam.build_sam2, on the oracle too."""
    sam2 = model.sam2
    heads = PromptHeads(sam2)
    for name in ('via_stability', 'stability_delta', 'stability_thresh'):
        value = getattr(heads.sam_mask_decoder, f'dynamic_multimask_{name}')
        setattr(sam2.sam_mask_decoder, f'dynamic_multimask_{name}', value)
    assert sam2.sam_mask_decoder.dynamic_multimask_stability_thresh == 0.98
    logits, ious = oracle(model, BOX)
    got = Proposer(model).propose(IMAGE, BOX)
    np.testing.assert_array_equal(got.mask, logits[0] > 0)
    assert got.score == pytest.approx(ious[0], abs=1e-6)


def test_the_model_is_left_as_it_is(model):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    decoder = model.sam2.sam_mask_decoder
    decoder.dynamic_multimask_via_stability = False
    Proposer(model).propose(IMAGE, BOX)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert decoder.dynamic_multimask_via_stability is False


def test_order_of_points_does_not_matter(model):
    """Points are a set for the attention; a stroke of one place is a point."""
    proposer = Proposer(model)
    three = ((30.0, 15.0), (50.0, 20.0), (80.0, 40.0))
    first = proposer.propose(IMAGE, Prompt(points=three, labels=(1, 1, 0)))
    second = proposer.propose(IMAGE, Prompt(points=three[::-1], labels=(0, 1, 1)))
    assert first.score == pytest.approx(second.score, abs=1e-5)
    assert (first.mask != second.mask).mean() < 0.001
    dot = proposer.propose(IMAGE, Prompt(scribbles=(((30.0, 15.0),),)))
    np.testing.assert_array_equal(dot.mask, proposer.propose(IMAGE, POINT).mask)


def test_the_last_image_is_kept(model):
    proposer, calls = Proposer(model), []
    model.sam2.register_forward_pre_hook(lambda module, args: calls.append(1))
    first = proposer.propose(IMAGE, BOX)
    again = proposer.propose(IMAGE.copy(), BOX)
    assert len(calls) == 1
    np.testing.assert_array_equal(first.mask, again.mask)
    proposer.propose(255 - IMAGE, BOX)
    assert len(calls) == 2


def test_an_empty_mask(model):
    proposer = Proposer(model)
    for layer in proposer._prompter.sam_mask_decoder.output_hypernetworks_mlps:
        layer.layers[-1].weight.data.zero_()
        layer.layers[-1].bias.data.zero_()
    with pytest.raises(ValueError, match='the prompt gives an empty mask; draw a box close around'):
        proposer.propose(IMAGE, BOX)


def test_a_proposal_is_a_mask(model):
    """In the place of its mask it gives the same support set."""
    inferencer = FewShotInferencer(model, device='cpu')
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:40, 10:70] = True
    inferencer.set_support({'cat': [(IMAGE, Proposal(mask, 0.5, BOX))]})
    (shot,) = inferencer.support.shots['cat']
    inferencer.set_support({'cat': [(IMAGE, mask)]})
    np.testing.assert_array_equal(shot.mask, inferencer.support.shots['cat'][0].mask)


def test_draw():
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:20, 40:60] = True
    grey = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    prompt = Prompt((2, 2, 90, 45), ((80, 40),), (0,), (((5, 30), (30, 30)),))
    out = Proposal(mask, 0.5, prompt).draw(grey)
    assert out.shape == grey.shape and out.dtype == np.uint8 and (grey == 100).all()
    assert out[15, 50].tolist() == [178, 122, 65]  # half grey, half the mask's colour
    assert out[2, 50].tolist() == [0, 220, 255] and out[44, 89].tolist() == [0, 220, 255]
    assert out[40, 80].tolist() == [40, 40, 230] and out[30, 15].tolist() == [60, 200, 20]
    assert out[35, 50].tolist() == [100] * 3
    with pytest.raises(ValueError, match=r'the mask is \(48, 96\), the image \(10, 10\)'):
        Proposal(mask, 0.5, prompt).draw(grey[:10, :10])


def test_heads_of_a_file(model, tmp_path):
    """A file of heads is loaded strictly and changes the masks; one of SAM 2 as well."""
    heads = PromptHeads(model.sam2)
    own = heads.state_dict()
    key = 'sam_prompt_encoder.point_embeddings.2.weight'
    torch.save({**own, key: own[key] + 1}, tmp_path / 'heads.pth')
    torch.save({'model': model.sam2.state_dict()}, tmp_path / 'sam2.pt')
    got = prompt_heads(model.sam2, str(tmp_path / 'heads.pth')).state_dict()
    assert torch.equal(got.pop(key), own[key] + 1)
    assert all(torch.equal(got[k], own[k]) for k in got)
    whole = prompt_heads(model.sam2, str(tmp_path / 'sam2.pt'))
    assert all(torch.equal(value, own[k]) for k, value in whole.state_dict().items())
    assert not whole.training and not any(p.requires_grad for p in whole.parameters())


def test_heads_that_do_not_fit(model, tmp_path):
    own = PromptHeads(model.sam2).state_dict()
    file = tmp_path / 'heads.pth'
    torch.save({k: v for k, v in own.items() if k != 'no_mem_embed'}, file)
    with pytest.raises(ValueError, match='1 missing keys: no_mem_embed'):
        Proposer(model, file)
    key = 'sam_mask_decoder.conv_s0.bias'
    torch.save({**own, key: own[key] + 1}, file)
    with pytest.raises(ValueError, match=f'belongs to another image encoder: {key} differs'):
        Proposer(model, file)
    with pytest.raises(FileNotFoundError, match='none.pth'):
        Proposer(model, tmp_path / 'none.pth')


def test_heads_beside_the_weights_are_found(model, tmp_path):
    inferencer = FewShotInferencer(model, device='cpu')
    own = PromptHeads(model.sam2).state_dict()
    key = 'sam_prompt_encoder.point_embeddings.2.weight'
    torch.save({**own, key: own[key] + 1}, tmp_path / 'prompts.pth')
    inferencer.weights = str(tmp_path / 'epoch_5.pth')
    found = Proposer(inferencer)._prompter.state_dict()[key]
    assert torch.equal(found, own[key] + 1)
    inferencer.weights = str(tmp_path / 'elsewhere/epoch_5.pth')
    assert torch.equal(Proposer(inferencer)._prompter.state_dict()[key], own[key])


def test_points_and_strokes_may_be_arrays(model):
    points, stroke = np.array([[30.0, 15.0], [80.0, 40.0]]), np.array([[20.0, 10.0], [40.0, 20.0]])
    arrays = Prompt(points=points, labels=np.array([1, 0]), scribbles=stroke[None])
    listed = Prompt(points=points.tolist(), labels=[1, 0], scribbles=[stroke.tolist()])
    proposer = Proposer(model)
    one, other = proposer.propose(IMAGE, arrays), proposer.propose(IMAGE, listed)
    np.testing.assert_array_equal(one.mask, other.mask)
    np.testing.assert_array_equal(one.draw(IMAGE), other.draw(IMAGE))
    Prompt(scribbles=stroke[None]).check(WIDTH, HEIGHT)


def test_bfloat16(model):
    inferencer = FewShotInferencer(model, device='cpu', amp=True)
    got = Proposer(inferencer).propose(IMAGE, BOX)
    assert got.mask.shape == (HEIGHT, WIDTH) and np.isfinite(got.score)
    json.dumps(got.score)
