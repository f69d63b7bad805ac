"""States of any form as one batch; classes and images in batches give what they give alone."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import pytest
import segmentor_cases
import tiny_models
import torch

from mmfss import batching
from mmfss.apis.nway import ClassStates, encode_class, segment_classes
from mmfss.batching import cat, repeat_all, repeat_each, take
from mmfss.encoders.sam2.memory_attention import MemoryFrames


class Named(NamedTuple):
    """A tuple with names."""

    value: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Kept:
    """Any form that a registered attention may keep."""

    levels: list
    pair: tuple
    more: dict
    named: Named
    nothing: None = None


def _kept(*rows: float) -> Kept:
    value = torch.tensor(rows)[:, None]
    return Kept([value, value * 2], (value + 1, None), {'a': value - 1}, Named(value * 3))


def test_forms():
    both = cat([_kept(1), _kept(2, 3)])
    assert both.levels[1].flatten().tolist() == [2, 4, 6]
    assert both.pair[0].flatten().tolist() == [2, 3, 4] and both.pair[1] is None
    assert both.more['a'].flatten().tolist() == [0, 1, 2] and both.nothing is None
    assert type(both.named) is Named and both.named.value.flatten().tolist() == [3, 6, 9]
    part = take(both, slice(1, 3))
    assert part.levels[0].flatten().tolist() == [2, 3]
    assert part.levels[0].data_ptr() == both.levels[0][1:].data_ptr()
    assert repeat_each(part, 2).levels[0].flatten().tolist() == [2, 2, 3, 3]
    assert repeat_all(part, 2).levels[0].flatten().tolist() == [2, 3, 2, 3]


def test_nothing_is_copied_for_one_image():
    one, classes = torch.rand(1, 4, 5), torch.rand(3, 4, 5)
    assert repeat_each(one, 3).data_ptr() == one.data_ptr()
    assert repeat_each(one, 3).shape == (3, 4, 5)
    assert repeat_all(classes, 1).data_ptr() == classes.data_ptr()
    state = _kept(1)
    assert cat([state]) is state


def test_what_cannot_be_batched():
    with pytest.raises(ValueError, match='holds a float; for batches it must be made of tensors'):
        cat([[1.0], [2.0]])
    with pytest.raises(ValueError, match='has NoneType and Tensor in one place'):
        cat([[None], [torch.zeros(1)]])
    with pytest.raises(ValueError, match=r"has the keys \[\['a'\], \['b'\]\] in one place"):
        cat([{'a': torch.zeros(1)}, {'b': torch.zeros(1)}])
    with pytest.raises(ValueError, match=r'has the lengths \[1, 2\] in one place'):
        cat([[torch.zeros(1)], [torch.zeros(1)] * 2])
    with pytest.raises(ValueError, match='there is no class to look for'):
        ClassStates.stack([])


# ------------------------------------------------------------------ classes and images
#: models of every form: as published, without calibration, without refinement, without prompts
MODELS = {
    'full': {},
    'sam2_attention': dict(memory_attention=dict(type='SAM2MemoryAttention')),
    'no_refinement': dict(memory_refinement=None),
    'sam2.1': dict(base='sam2.1_small'),
    'plain': dict(
        prior_encoder=None, prompt_generator=None, memory_refinement=None, memory_attention=None
    ),
}
TOLERANCE = 1e-4  # of logits of up to 20: some float32 steps


def _case(shots=(1, 3, 1, 2, 3), images=3, **changes):
    model = tiny_models.build(**changes)
    with torch.no_grad():
        queries = model.encode_image(tiny_models.episodes(images, seed=9)['query'])
        states = []
        for seed, count in enumerate(shots):
            data = tiny_models.episodes(1, count, seed)
            features = model.encode_image(data['support'][0])
            states.append(encode_class(model, features, data['support_mask'][0]))
    return model, queries, states


@pytest.mark.parametrize('changes', MODELS.values(), ids=MODELS)
def test_batches_of_any_size_equal_one_by_one(changes):
    model, queries, states = _case(**changes)
    alone = torch.stack(
        [
            torch.cat([model.segment(take(queries, slice(i, i + 1)), s.support).logits[0]
                       for s in states])
            for i in range(3)
        ]
    ).detach()  # fmt: skip
    scores = None
    stacked = ClassStates.stack(states)
    assert [group.members for group in stacked.groups] == [(0, 2), (1, 4), (3,)]
    for pairs in (1, 2, 3, 4, 6, 100):
        found = segment_classes(model, queries, stacked, pairs)
        assert found.logits.shape == (3, 5, 64, 64) and found.scores.shape == (3, 5)
        torch.testing.assert_close(found.logits, alone, rtol=0, atol=TOLERANCE)
        scores = found.scores if scores is None else scores
        torch.testing.assert_close(found.scores, scores, rtol=0, atol=1e-5)
    from_list = segment_classes(model, queries, states, 100)
    assert torch.equal(from_list.logits, found.logits)


def test_twenty_shots_and_twenty_classes():
    model, queries, states = _case(shots=(20,) * 2 + (1,) * 20, images=1)
    found = segment_classes(model, queries, states, 16)
    for place in (0, 1, 2, 21):
        one = segment_classes(model, queries, [states[place]])
        torch.testing.assert_close(found.logits[:, place], one.logits[:, 0], rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(found.scores[:, place], one.scores[:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize('pairs', [1, 2, 4, 7, 15])
def test_no_batch_is_larger_than_asked_and_supports_are_stacked_once(monkeypatch, pairs):
    model, queries, states = _case(shots=(2,) * 5)
    sizes, seen = [], set()
    stacked = ClassStates.stack(states)
    segment = model.segment

    def counted(query, support):
        sizes.append(len(query.sam2.top))
        seen.add(support.frames.spatial.untyped_storage().data_ptr())
        return segment(query, support)

    monkeypatch.setattr(model, 'segment', counted)
    monkeypatch.setattr(batching, 'cat', None)  # joining again would fail
    segment_classes(model, queries, stacked, pairs)
    assert sum(sizes) == 15 and max(sizes) <= pairs
    assert len(sizes) == {1: 15, 2: 9, 4: 6, 7: 3, 15: 1}[pairs]
    if pairs < 10:  # one image at a time: views of the stacked states
        kept = stacked.groups[0].support.frames.spatial.untyped_storage().data_ptr()
        assert seen == {kept}


@pytest.mark.parametrize('changes', MODELS.values(), ids=MODELS)
@torch.no_grad()
def test_what_depends_on_no_support_is_made_once_for_all_classes(changes, monkeypatch):
    model, queries, states = _case(shots=(1, 1, 2), images=1, **changes)
    plain = [model.segment(queries, state.support).logits for state in states]
    kept = model.encode_query(queries)
    for state, want in zip(states, plain):
        assert torch.equal(model.segment(kept, state.support).logits, want)
    calls, attention = [], model.sam2.memory_attention
    real = attention.encode_query
    monkeypatch.setattr(attention, 'encode_query', lambda *of: calls.append(1) or real(*of))
    segment_classes(model, queries, states, 1)
    assert calls == [1]


def test_pairs_below_one():
    model, queries, states = _case(shots=(1,))
    with pytest.raises(ValueError, match='pairs must be an integer >= 1, got 0'):
        segment_classes(model, queries, states, 0)


def test_memory_frames_are_kept_by_a_registered_attention():
    model, _, states = _case(**MODELS['sam2_attention'])
    assert isinstance(states[0].support.attention, MemoryFrames)
    group = ClassStates.stack(states).groups[1]
    assert group.support.attention.spatial.shape[:2] == (2, 3)  # classes, shots


@pytest.mark.parametrize('batch_size, pairs', [(2, 8), (3, 2), (8, 1)])
def test_segmentor_takes_images_of_a_batch_together(tmp_path, batch_size, pairs):
    shown = segmentor_cases.support(tmp_path)
    alone = segmentor_cases.build(shown)
    options = dict(batch_size=batch_size, pairs=pairs, encode_batch=batch_size)
    images = [segmentor_cases.scene(i, (48, 80))[0][..., ::-1].copy() for i in range(3)]
    batch = torch.stack([torch.from_numpy(image).permute(2, 0, 1).float() for image in images])
    wanted = alone.encode_decode(batch)
    found = segmentor_cases.build(shown, **options).encode_decode(batch)
    torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE)
    assert torch.equal(found.argmax(1), wanted.argmax(1)) and wanted.argmax(1).any()
    with pytest.raises(ValueError, match='model.batch_size must be an integer >= 1, got 0'):
        segmentor_cases.build(shown, batch_size=0)
