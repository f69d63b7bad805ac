"""SANSA: adapters, the clip of supports and query, prompts, losses, gradients."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from mmseg.registry import MODELS
from tiny_models import METHODS, SIZE, episodes, inputs_of, randomised, samples_of, tiny_arch
from torch import nn
from two_processes import in_two_processes

from mmfss.batching import take
from mmfss.checkpoints.conversion import without_weights
from mmfss.encoders.sam2.adapters import Adapter
from mmfss.encoders.sam2.prompts import BOX_END, BOX_START
from mmfss.methods.losses import FocalDiceLoss
from mmfss.methods.sansa.prompts import (
    KINDS,
    SMALL,
    WIDE,
    box_prompt,
    draw_prompt,
    point_prompt,
    scribble,
)

#: SAM 2 -> channel factor -> bottlenecks of first and other blocks of both stages, trained, total
PUBLISHED = {
    'sam2_large': {
        0.3: ([86, 172, 172, 345], 9_898_385, 234_196_162),
        0.8: ([230, 460, 460, 921], 26_333_537, 250_631_314),
    },
    'sam2_base_plus': {
        0.3: ([67, 134, 134, 268], 3_093_947, 83_795_260),
        0.8: ([179, 358, 358, 716], 8_216_491, 88_917_804),
    },
    'sam2_tiny': {
        0.3: ([57, 115, 115, 230], 1_117_380, 39_931_013),
        0.8: ([153, 307, 307, 614], 2_962_404, 41_776_037),
    },
}


def make(seed: int = 0, base: str = 'sam2_small', **changes):
    """As published, tiny: in the order of a video."""
    cfg = copy.deepcopy({**METHODS['SANSA'], 'shots_in_order': True, **changes})
    cfg['sam2']['arch'] = tiny_arch(base)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return randomised(MODELS.build(cfg), seed).eval()


def trained(model) -> dict[str, torch.Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


# ------------------------------------------------------------------------------------- adapters
@pytest.mark.parametrize('arch', PUBLISHED)
def test_counts_of_the_published_models(arch, monkeypatch):
    for fill in [name for name in vars(nn.init) if name.endswith('_')]:
        if not fill.startswith('_'):  # the values do not matter, and drawing them takes seconds
            monkeypatch.setattr(nn.init, fill, lambda tensor, *args, **kwargs: tensor)
    sam2 = dict(arch=arch, checkpoint=None, adapters=dict(stages=(2, 3), channel_factor=0.3))
    model = without_weights(lambda: MODELS.build(dict(type='SANSA', sam2=sam2)))
    counts = sum(p.numel() for p in trained(model).values()), count(model)
    assert all('.adapter.' in name for name in trained(model))
    blocks = [b for b in model.sam2.image_encoder.trunk.blocks if hasattr(b.mlp, 'adapter')]
    ranks = [block.mlp.adapter.down.out_features for block in blocks]
    for factor, (wanted, learn, total) in PUBLISHED[arch].items():
        if factor == 0.3:
            assert (list(dict.fromkeys(ranks)), *counts) == (distinct(wanted), learn, total)
        # the other widths by the formula: 2 C r + 3 C + r of a block
        sizes = [(block.dim_out, int(factor * block.dim)) for block in blocks]
        assert distinct([r for _, r in sizes]) == distinct(wanted)
        assert sum(2 * c * r + 3 * c + r for c, r in sizes) == learn
        assert counts[1] - counts[0] + learn == total


def count(model) -> int:
    return sum(p.numel() for p in model.parameters())


def distinct(values: list[int]) -> list[int]:
    return list(dict.fromkeys(values))


def test_new_adapters_are_nothing_and_official_names_stay():
    plain = make(sam2=dict(METHODS['SANSA']['sam2'], adapters=dict(stages=[3], channel_factor=0.5)))
    adapter = Adapter(8, 3)
    assert not adapter(torch.randn(2, 5, 8)).any() and adapter.down.weight.any()
    from mmfss.encoders.sam2.model import build_sam2

    official = build_sam2(arch=tiny_arch(), image_size=SIZE, checkpoint=None, object_score=False)
    added = set(plain.sam2.state_dict()) - set(official.state_dict())
    assert set(official.state_dict()) <= set(plain.sam2.state_dict())
    assert {key.split('.mlp.adapter.')[0] for key in added} == {'image_encoder.trunk.blocks.4'}
    official.load_state_dict({k: v for k, v in plain.sam2.state_dict().items() if k not in added})
    for part in plain.modules():
        if isinstance(part, Adapter):
            nn.init.zeros_(part.up.weight), nn.init.zeros_(part.up.bias)
    images = episodes(2)['query']
    with torch.no_grad():
        for one, other in zip(plain.sam2(images), official.eval()(images)):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_the_object_score_of_a_file_is_left_out_and_adapters_are_kept(tmp_path):
    from mmfss.encoders.sam2.model import build_sam2

    torch.manual_seed(3)
    official = randomised(build_sam2(arch=tiny_arch(), image_size=SIZE, checkpoint=None))
    path = str(tmp_path / 'sam2.pt')
    torch.save({'model': official.state_dict()}, path)
    model = make(sam2=dict(METHODS['SANSA']['sam2'], checkpoint=path))
    before = {name: p.clone() for name, p in trained(model).items()}
    model.init_weights()
    state, own = official.state_dict(), model.sam2.state_dict()
    assert len(set(state) - set(own)) == 8
    assert all(torch.equal(own[key], state[key]) for key in own if '.adapter.' not in key)
    assert all(torch.equal(p, before[name]) for name, p in trained(model).items())
    torch.save({'model': {k: v for k, v in state.items() if k != 'no_mem_embed'}}, path)
    with pytest.raises(ValueError, match='1 missing keys: no_mem_embed'):
        model.init_weights()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(adapters=None), 'SANSA learns in adapters of SAM 2, and model.sam2.adapters is None'),
        (
            dict(adapters=dict(stages=(2, 3))),
            r'must be dict\(stages=\(2, 3\), channel_factor=0.3\)',
        ),
        (dict(adapters=dict(stages=(2, 4), channel_factor=0.3)), r'from 0 to 3, .*got .*2, 4'),
        (dict(adapters=dict(stages=[], channel_factor=0.3)), 'must be different stages'),
        (dict(adapters=dict(stages=[2, 2], channel_factor=0.3)), 'must be different stages'),
        (dict(adapters=dict(stages=[3], channel_factor=0)), 'channel_factor must be a number abov'),
        (dict(adapters=dict(stages=[3], channel_factor=0.01)), r'at least one .*\(here of 32\)'),
        (dict(object_score=1), 'object_score must be True or False, got 1'),
    ],
)
def test_adapters_that_make_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build({**METHODS['SANSA'], 'sam2': {**METHODS['SANSA']['sam2'], **changes}})


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(prompt='circle'), "model.prompt must be one of .*'multi'.*got 'circle'"),
        (dict(shots_in_order=1), 'model.shots_in_order must be True or False, got 1'),
        (dict(image_size=0), 'model.image_size must be'),
        (dict(trainable=['sam2.*.lora_*']), r"trainable names 'sam2.\*.lora_\*', and SANSA has no"),
    ],
)
def test_options_that_make_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build({**METHODS['SANSA'], **changes})


# ------------------------------------------------------------------------------------- the clip
@torch.no_grad()
@pytest.mark.parametrize('base', ['sam2_small', 'sam2.1_small'])
def test_which_frames_a_query_reads(base):
    """Plain loops over the rules of the page; 17 supports are more than any memory takes."""
    model = make(base=base)
    sam2 = model.sam2
    for shots in (1, 2, 7, 8, 17):
        data = episodes(1, shots)
        features = model.encode_image(data['support'][0])
        clip = model.encode_support(features, data['support_mask'])
        frames = model._frames(clip)
        spatial = [0] + [j for j in range(1, shots) if j >= shots - 6]
        pointed = [0] + [shots - d for d in range(1, 16) if shots - d >= 1]
        assert frames.spatial.shape[1] == len(spatial) <= 7
        assert frames.pointers.shape[1] == len(pointed) <= 16
        own = sam2.memory_encoder.position_encoding(clip.memory[:, 0])[0].flatten(1).T
        for place, j in enumerate(spatial):
            assert torch.equal(frames.spatial[0, place], clip.memory[0, j].flatten(1).T)
            entry = 6 if j == 0 else shots - j - 1
            torch.testing.assert_close(
                frames.spatial_pos[0, place], own + sam2.maskmem_tpos_enc[entry, 0]
            )
        for place, j in enumerate(pointed):
            assert torch.equal(frames.pointers[0, place].flatten(), clip.pointers[0, j])
        assert frames.pointer_pos.any() == (base == 'sam2.1_small')


@torch.no_grad()
def test_images_of_another_side_than_sam2s():
    """Supports and query of 48 px in a SAM 2 of 64; logits come back at 48."""
    model = make(image_size=48)
    data = episodes(2, 2, size=48)
    found = model.run(inputs_of(data))
    assert found.logits.shape == (2, 1, 48, 48)
    large = F.interpolate(
        model.sam2.normalise(data['query']), (SIZE, SIZE), mode='bilinear', antialias=True
    )
    want = model.sam2._neck(*model.sam2.image_encoder.trunk(large))
    for one, other in zip(model.sam2(data['query']), want):
        torch.testing.assert_close(one, other)
    # a click at the same place is the same prompt
    small, whole = model.prompter(), make().prompter()
    coords, labels = torch.tensor([[[12.0, 24.0]]]), torch.ones(1, 1).int()
    features = small.encode(data['query'][:1])
    torch.testing.assert_close(
        small(features, coords, labels)[0], whole(features, coords * SIZE / 48, labels)[0]
    )


@torch.no_grad()
def test_a_target_becomes_a_memory_for_the_next():
    model = make()
    data = episodes(2, 2)
    features = model.encode_image(data['support'].flatten(0, 1))
    clip = model.encode_support(features, data['support_mask'])
    query = model.encode_image(data['query'])
    first, second = model.track([query, query], clip)
    assert torch.equal(first.logits, model.segment(query, clip).logits)
    assert second.trace.frames.spatial.shape[1] == 3
    assert (second.logits - first.logits).abs().max() > 1e-3


# -------------------------------------------------------------------------------------- prompts
@torch.no_grad()
@pytest.mark.parametrize('prompt', [*KINDS, 'multi'])
def test_every_prompt_gives_a_mask_and_the_same_again(prompt):
    model = make(prompt=prompt)
    data = episodes(2, 3)
    torch.manual_seed(0)
    found = model.run(inputs_of(data)).logits
    torch.manual_seed(1)  # in evaluation a prompt is a function of the mask
    assert torch.equal(model.run(inputs_of(data)).logits, found)
    assert found.isfinite().all()
    if prompt not in ('mask', 'multi'):
        assert not torch.equal(found, make().run(inputs_of(data)).logits)


@torch.no_grad()
def test_given_prompts_in_the_place_of_masks():
    model = make(prompt='box')
    data = episodes(2, 2)
    features = model.encode_image(data['support'].flatten(0, 1))
    boxes = [box_prompt(mask == 1) for mask in data['support_mask'].flatten(0, 1)]
    given = model.encode_prompts(features, data['support_mask'], boxes)
    drawn = model.encode_support(features, data['support_mask'])
    assert torch.equal(given.memory, drawn.memory) and torch.equal(given.pointers, drawn.pointers)
    mixed = model.encode_prompts(features, data['support_mask'], [None, *boxes[1:]])
    assert torch.equal(mixed.pointers[:, 1], drawn.pointers[:, 1])
    one = make().encode_support(take(features, slice(0, 1)), data['support_mask'][:1, :1])
    torch.testing.assert_close(mixed.pointers[:1, :1], one.pointers)


def test_points_and_small_objects():
    mask = torch.zeros(30, 40, dtype=torch.bool)
    empty = point_prompt(mask, 20)
    assert empty.coords.tolist() == [[0, 0]] and empty.labels.tolist() == [1]
    assert box_prompt(mask).coords.flatten().tolist() == [0, 0, 0, 0]
    assert not scribble(mask.numpy(), WIDE, 9, np.random.default_rng(0)).any()
    mask[4, 7:10] = True  # published code crashes below 20 px
    small = point_prompt(mask, 20)
    assert small.coords.tolist() == [[7, 4], [8, 4], [9, 4]]
    box = box_prompt(mask)
    assert box.coords.tolist() == [[7, 4], [10, 5]]
    assert box.labels.tolist() == [BOX_START, BOX_END]
    coords, labels = small.at(80, mask.device)
    torch.testing.assert_close(coords[0, 0], torch.tensor([14.0, 4 * 80 / 30]))
    assert coords.shape == (1, 3, 2) and labels.shape == (1, 3)


@pytest.mark.parametrize('pen', [WIDE, SMALL])
def test_scribbles_stay_on_the_object(pen):
    mask = np.zeros((200, 240), bool)
    mask[40:150, 30:200] = True
    sizes = []
    for seed in range(5):
        one = scribble(mask, pen, 9, np.random.default_rng(seed))
        assert one.dtype == bool and not (one & ~mask).any()
        assert (one == scribble(mask, pen, 9, np.random.default_rng(seed))).all()
        sizes.append(one.sum() / mask.sum())
    assert 0.02 < min(sizes) < max(sizes) < 0.9
    dot = np.zeros((200, 240), bool)
    dot[100, 100] = True
    assert scribble(dot, pen, 9, np.random.default_rng(0)).sum() == 1


def test_in_training_prompts_are_random():
    mask = episodes()['support_mask'][0, 0] == 1
    torch.manual_seed(0)
    counts = {len(draw_prompt(mask, 'point', True).coords) for _ in range(40)}
    assert len(counts) > 8 and min(counts) >= 1 and max(counts) <= 20
    kinds = [draw_prompt(mask, 'multi', True) for _ in range(60)]
    assert 5 < sum(kind is None for kind in kinds) < 30
    torch.manual_seed(0)
    first = draw_prompt(mask, 'scribble', True).coords
    torch.manual_seed(0)
    assert torch.equal(draw_prompt(mask, 'scribble', True).coords, first)


# ------------------------------------------------------------------------------------- training
def test_losses_are_the_page_s():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, 3, 4, 5, generator=generator)
    target = torch.randint(0, 3, (2, 3, 4, 5), generator=generator)
    target[target == 2] = 255
    found = FocalDiceLoss(focal_weight=2.0)(logits, target)
    focal, dice = 0.0, 0.0
    for z, y in zip(logits.double(), target):
        terms, p_sum, y_sum, both = [], 0.0, 0.0, 0.0
        for value, label in zip(z.flatten().tolist(), y.flatten().tolist()):
            p = 1 / (1 + np.exp(-value))
            p_t, a_t = (p, 0.25) if label == 1 else (1 - p, 0.75)
            terms.append(-a_t * (1 - p_t) ** 2 * np.log(p_t))
            p_sum, y_sum, both = p_sum + p, y_sum + (label == 1), both + p * (label == 1)
        focal += np.mean(terms) / 2
        dice += (1 - (2 * both + 1) / (p_sum + y_sum + 1)) / 2
    assert found['loss_focal'].item() == pytest.approx(2 * focal, rel=1e-5)
    assert found['loss_dice'].item() == pytest.approx(dice, rel=1e-5)


@pytest.mark.parametrize(
    ('prompt', 'shots', 'frames'), [('mask', 1, 1), ('mask', 3, 3), ('box', 2, 3)]
)
def test_which_frames_the_loss_counts(prompt, shots, frames, monkeypatch):
    model = make(prompt=prompt).train()
    counted = []
    monkeypatch.setattr(
        type(model.loss_decode), 'forward',
        lambda self, logits, target: counted.append((logits, target)) or {},
    )  # fmt: skip
    data = episodes(2, shots)
    model.loss(inputs_of(data), samples_of(data))
    ((logits, target),) = counted
    assert logits.shape == target.shape == (2, frames, SIZE, SIZE)
    assert torch.equal(target[:, -1], data['truth'])
    kept = data['support_mask'][:, shots + 1 - frames :]
    assert torch.equal(target[:, :-1], kept)
    torch.testing.assert_close(logits[:, -1:], model.run(inputs_of(data)).logits)


def test_gradients_on_adapters_alone_and_a_step_lowers_the_loss():
    model = make().train()
    data = episodes(2, 2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    learn = list(trained(model).values())
    optimizer = torch.optim.AdamW(learn, lr=1e-2, weight_decay=0.0)
    losses = []
    for _ in range(5):
        loss = sum(model.loss(inputs_of(data), samples_of(data)).values())
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
        assert all(p.grad.isfinite().all() for p in learn)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.97 * losses[0]
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == set(trained(model)) and all('.adapter.' in key for key in changed)


class Loss(nn.Module):
    """What a distributed run wraps."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, data):
        return sum(self.model.loss(inputs_of(data), samples_of(data)).values())


def gradients(rows=None) -> dict[str, np.ndarray]:
    """Of three episodes a process, or of all of them."""
    data = episodes(6, 2)
    loss = Loss(make().train())
    if rows is None:
        rows = slice(3 * dist.get_rank(), 3 * dist.get_rank() + 3)
        loss = nn.parallel.DistributedDataParallel(loss)
    loss({key: value[rows] for key, value in data.items()}).backward()
    named = ((n.split('model.')[-1], p) for n, p in loss.named_parameters() if p.requires_grad)
    return {name: p.grad.numpy().copy() for name, p in named}


def test_two_processes_learn_what_one_does():
    whole = gradients(slice(None))
    for each in in_two_processes(gradients):
        assert set(each) == set(whole)
        for name, grad in whole.items():
            np.testing.assert_allclose(each[name], grad, rtol=1e-3, atol=1e-6)


def test_no_graph_before_the_first_adapter():
    """Activations of the frozen stages are not kept for the backward pass."""
    model = make().train()
    kept: list[int] = []

    def pack(tensor):
        kept.append(tensor.untyped_storage().data_ptr())
        return tensor

    outputs = []
    for block in model.sam2.image_encoder.trunk.blocks:
        block.register_forward_hook(lambda m, i, out: outputs.append(out))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.encode_image(episodes()['query'])
    assert [out.requires_grad for out in outputs] == [False, False, True, True, True]
    assert outputs[0].untyped_storage().data_ptr() not in kept


def test_dropout_of_the_frozen_attention_is_on_in_training_as_published():
    arch = tiny_arch()
    arch['memory_attention']['layer']['dropout'] = 0.5
    data = inputs_of(episodes())
    for active in (True, False):
        sam2 = dict(METHODS['SANSA']['sam2'], arch=arch)
        model = MODELS.build({**METHODS['SANSA'], 'sam2': sam2, 'attention_dropout': active})
        model.train()
        with torch.no_grad():
            same = torch.equal(model.run(data).logits, model.run(data).logits)
            assert same != active
            model.eval()
            assert torch.equal(model.run(data).logits, model.run(data).logits)


def test_bfloat16_training_step():
    model = make(prompt='multi').train()
    data = episodes(2, 2)
    torch.manual_seed(0)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model.loss(inputs_of(data), samples_of(data))
    sum(losses.values()).backward()
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert all(p.grad.isfinite().all() for p in trained(model).values())


# ------------------------------------------------------------------------------ reference tensors
@pytest.mark.parametrize(
    'case',
    [
        'b_mask_1shot_b2',
        'c_mask_9shot_b1',
        'b_other_candidate_b2',
        'e_train_mask_2shot_b1',
        'units',
    ],
)
def test_reference_tensors(repo_root, shared_dir, case):
    """The rest of the directory: tools/analysis_tools/check_parity.py."""
    root = shared_dir / 'parity/sansa'
    if not root.is_dir():
        pytest.skip(f'{root} is not there')
    sys.path.insert(0, str(repo_root / 'tools/analysis_tools'))
    try:
        from check_parity import METHODS as COMPARERS
        from check_parity import Reference, check
    finally:
        sys.path.pop(0)
    rows = check(COMPARERS['SANSA'](Reference(root)), [case], debug=True).rows
    assert len(rows) > 30 and [row for row in rows if not row.ok] == []
