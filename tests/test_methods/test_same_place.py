"""The start of memory attention from random weights."""

import pytest
import torch
from mmseg.registry import MODELS
from tiny_models import config as fssam_config

from mmfss.encoders.sam2.memory_attention import start_at_same_place


def test_a_query_scores_its_own_place_highest_and_far_ones_lower():
    torch.manual_seed(0)
    attention = MODELS.build(fssam_config()).sam2.memory_attention
    start_at_same_place(attention, 2.0)
    for layer in attention.layers:
        cross = layer.cross_attn_image
        side = int(cross.freqs_cis.shape[0] ** 0.5)
        place = torch.arange(side * side)
        q, k = (
            cross.rotate(cross._heads(project(torch.zeros(1, side * side, channels))))
            for project, channels in (
                (cross.q_proj, cross.embedding_dim),
                (cross.k_proj, cross.kv_in_dim),
            )
        )
        scores = (q @ k.transpose(-2, -1))[0, 0]
        # |c|^2 summed over the channels: the largest value that a rotary score can take
        torch.testing.assert_close(scores.diagonal(), torch.full((side**2,), 4.0 * q.shape[-1]))
        off = scores.masked_fill(torch.eye(side**2, dtype=torch.bool), -1e9)
        assert (scores.argmax(-1) == place).all() and (off < scores.diagonal()).all()


def test_init_weights_sets_it_and_nothing_else():
    torch.manual_seed(0)
    config = fssam_config()
    config['sam2'] = dict(config['sam2'], checkpoint=None, same_place=2.0)
    model = MODELS.build(config)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.init_weights()
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    layers = range(len(model.sam2.memory_attention.layers))
    assert changed == {
        f'sam2.memory_attention.layers.{i}.cross_attn_image.{name}_proj.bias'
        for i in layers
        for name in 'qk'
    }


def test_it_is_refused_beside_pretrained_weights():
    config = fssam_config()
    config['sam2'] = dict(config['sam2'], checkpoint='sam2.pt', same_place=2.0)
    with pytest.raises(ValueError, match='same_place is a start for random weights'):
        MODELS.build(config)
