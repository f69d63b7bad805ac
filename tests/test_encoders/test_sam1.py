"""SAM 1: keys of the official checkpoints, an independent forward pass, masks, messages."""

from __future__ import annotations

import re
import sys

import pytest
import torch
import torch.nn.functional as F
from tiny_models import TINY_SAM1, randomised
from torch import Tensor

from mmfss.checkpoints.official import official
from mmfss.checkpoints.weights import load_strict
from mmfss.encoders.sam1 import ARCHS, SAM1

pytest.importorskip('transformers')

#: width, depth, window-free blocks and parameters of the official models
OFFICIAL = {
    'vit_b': (768, 12, 93_735_472),
    'vit_l': (1024, 24, 312_342_832),
    'vit_h': (1280, 32, 641_090_608),
}


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(0)


def tiny(**changes) -> SAM1:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SAM1({**TINY_SAM1, **changes}, checkpoint=None)
    return randomised(model, scale=0.3).eval()


def expected_shapes(dim: int, depth: int, full: tuple[int, ...], heads: int) -> dict:
    """The state dict of a model at 1024 px, written down from the architecture."""
    shapes = {
        'image_encoder.pos_embed': (1, 64, 64, dim),
        'image_encoder.patch_embed.proj.weight': (dim, 3, 16, 16),
        'image_encoder.patch_embed.proj.bias': (dim,),
        'image_encoder.neck.0.weight': (256, dim, 1, 1),
        'image_encoder.neck.2.weight': (256, 256, 3, 3),
        'prompt_encoder.pe_layer.positional_encoding_gaussian_matrix': (2, 128),
        'prompt_encoder.not_a_point_embed.weight': (1, 256),
        'prompt_encoder.no_mask_embed.weight': (1, 256),
        'mask_decoder.iou_token.weight': (1, 256),
        'mask_decoder.mask_tokens.weight': (4, 256),
    }

    def both(name: str, weight: tuple[int, ...], out: int | None = None) -> None:
        shapes[f'{name}.weight'], shapes[f'{name}.bias'] = weight, (out or weight[0],)

    for norm in (1, 3):
        both(f'image_encoder.neck.{norm}', (256,))
    for i in range(depth):
        block = f'image_encoder.blocks.{i}'
        for norm in (1, 2):
            both(f'{block}.norm{norm}', (dim,))
        both(f'{block}.attn.qkv', (3 * dim, dim))
        both(f'{block}.attn.proj', (dim, dim))
        both(f'{block}.mlp.lin1', (4 * dim, dim))
        both(f'{block}.mlp.lin2', (dim, 4 * dim))
        for axis in 'hw':
            length = 2 * (64 if i in full else 14) - 1
            shapes[f'{block}.attn.rel_pos_{axis}'] = (length, dim // heads)
    for i in range(4):
        shapes[f'prompt_encoder.point_embeddings.{i}.weight'] = (1, 256)
        for layer, out in enumerate((256, 256, 32)):
            both(f'mask_decoder.output_hypernetworks_mlps.{i}.layers.{layer}', (out, 256))
    for index, weight in ((0, (4, 1, 2, 2)), (1, (4,)), (3, (16, 4, 2, 2)), (4, (16,))):
        both(f'prompt_encoder.mask_downscaling.{index}', weight)
    both('prompt_encoder.mask_downscaling.6', (256, 16, 1, 1))
    for layer, out in enumerate((256, 256, 4)):
        both(f'mask_decoder.iou_prediction_head.layers.{layer}', (out, 256))
    both('mask_decoder.output_upscaling.0', (256, 64, 2, 2), 64)
    both('mask_decoder.output_upscaling.1', (64,))
    both('mask_decoder.output_upscaling.3', (64, 32, 2, 2), 32)
    places = {f'layers.{i}.self_attn': 256 for i in range(2)}
    for name in ('cross_attn_token_to_image', 'cross_attn_image_to_token'):
        places.update({f'layers.{i}.{name}': 128 for i in range(2)})
    for place, inner in {**places, 'final_attn_token_to_image': 128}.items():
        for kind in 'qkv':
            both(f'mask_decoder.transformer.{place}.{kind}_proj', (inner, 256))
        both(f'mask_decoder.transformer.{place}.out_proj', (256, inner))
    for i in range(2):
        layer = f'mask_decoder.transformer.layers.{i}'
        for norm in range(1, 5):
            both(f'{layer}.norm{norm}', (256,))
        both(f'{layer}.mlp.lin1', (2048, 256))
        both(f'{layer}.mlp.lin2', (256, 2048))
    both('mask_decoder.transformer.norm_final_attn', (256,))
    return shapes


@pytest.mark.parametrize('name', sorted(OFFICIAL))
def test_keys_and_shapes_are_official(name):
    dim, depth, parameters = OFFICIAL[name]
    with torch.device('meta'):
        model = SAM1(name, checkpoint=None)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    full, heads = ARCHS[name]['global_attn_indexes'], ARCHS[name]['num_heads']
    assert shapes == expected_shapes(dim, depth, full, heads)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_official_addresses():
    found = [official('sam1', name).url.rpartition('/')[2] for name in ARCHS]
    assert found == ['sam_vit_b_01ec64.pth', 'sam_vit_l_0b3195.pth', 'sam_vit_h_4b8939.pth']


def test_a_state_dict_goes_round(tmp_path):
    """Alone, inside of a model, and through a file."""
    model, other = tiny(), tiny()
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.ModuleDict(dict(sam=other)).load_state_dict(
        torch.nn.ModuleDict(dict(sam=model)).state_dict()
    )
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    torch.save(ours, tmp_path / 'sam.pth')
    loaded = SAM1(TINY_SAM1, checkpoint=str(tmp_path / 'sam.pth'))
    loaded.init_weights()
    assert all(torch.equal(ours[key], value) for key, value in loaded.state_dict().items())


# ---------------------------------------------------------------- image encoder


def attended(state: dict[str, Tensor], block: str, x: Tensor, heads: int) -> Tensor:
    """Attention with relative positions in a window (side, side, C), position by position."""
    side, _, dim = x.shape
    tokens = x.reshape(-1, dim)
    qkv = tokens @ state[f'{block}.attn.qkv.weight'].T + state[f'{block}.attn.qkv.bias']
    q, k, v = qkv.reshape(-1, 3, heads, dim // heads).unbind(1)
    rows, columns = (state[f'{block}.attn.rel_pos_{axis}'] for axis in 'hw')
    out = torch.empty_like(q)
    for head in range(heads):
        for i in range(len(tokens)):
            weights = []
            for j in range(len(tokens)):
                down, right = i // side - j // side, i % side - j % side
                weight = q[i, head] @ k[j, head] / (dim // heads) ** 0.5
                weight = weight + q[i, head] @ rows[down + side - 1]
                weights.append(weight + q[i, head] @ columns[right + side - 1])
            out[i, head] = torch.stack(weights).softmax(0) @ v[:, head]
    out = out.reshape(-1, dim) @ state[f'{block}.attn.proj.weight'].T
    return (out + state[f'{block}.attn.proj.bias']).reshape(side, side, dim)


def normed(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    mean, var = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    return (x - mean) / (var + 1e-6).sqrt() * state[f'{name}.weight'] + state[f'{name}.bias']


@torch.no_grad()
def test_image_encoder_against_plain_loops():
    """Windows padded with zeros after the norm, whole image in the last block, the neck."""
    model = tiny().double()
    state = {k.removeprefix('image_encoder.'): v for k, v in model.state_dict().items()}
    side, heads, window = 64, TINY_SAM1['num_heads'], TINY_SAM1['window_size']
    image = 255 * torch.rand(1, 3, side, side, dtype=torch.float64)
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    pixels = (image[0].permute(1, 2, 0) - mean) / std
    grid = side // 16
    x = torch.empty(grid, grid, TINY_SAM1['embed_dim'], dtype=torch.float64)
    for r in range(grid):
        for c in range(grid):
            patch = pixels[16 * r : 16 * r + 16, 16 * c : 16 * c + 16].permute(2, 0, 1)
            weight = state['patch_embed.proj.weight'].flatten(1)
            x[r, c] = weight @ patch.flatten() + state['patch_embed.proj.bias']
    x = x + state['pos_embed'][0]
    for i in range(TINY_SAM1['depth']):
        block = f'blocks.{i}'
        y = normed(state, f'{block}.norm1', x)
        if i in TINY_SAM1['global_attn_indexes']:
            y = attended(state, block, y, heads)
        else:
            padded = F.pad(y, (0, 0, 0, -grid % window, 0, -grid % window))
            for r in range(0, grid, window):
                for c in range(0, grid, window):
                    part = padded[r : r + window, c : c + window].clone()
                    padded[r : r + window, c : c + window] = attended(state, block, part, heads)
            y = padded[:grid, :grid]
        x = x + y
        y = normed(state, f'{block}.norm2', x)
        y = y @ state[f'{block}.mlp.lin1.weight'].T + state[f'{block}.mlp.lin1.bias']
        y = 0.5 * y * (1 + torch.erf(y / 2**0.5))
        x = x + y @ state[f'{block}.mlp.lin2.weight'].T + state[f'{block}.mlp.lin2.bias']
    x = normed(state, 'neck.1', x @ state['neck.0.weight'][:, :, 0, 0].T)
    x = F.conv2d(x.permute(2, 0, 1)[None], state['neck.2.weight'], padding=1)
    want = normed(state, 'neck.3', x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    (got,) = model(image)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_images_of_another_side_are_resized():
    model, image = tiny(), 255 * torch.rand(2, 3, 48, 48)
    small = F.interpolate(image, (64, 64), mode='bilinear', align_corners=False)
    assert torch.equal(model(image)[0], model(small)[0])
    assert model(image)[0].shape == (2, TINY_SAM1['out_chans'], 4, 4)


# ---------------------------------------------------------------- prompts and masks

#: names of the heads in transformers' SamModel -> in official checkpoints
HEADS = (
    (r'^shared_image_embedding\.positional_embedding$',
     'prompt_encoder.pe_layer.positional_encoding_gaussian_matrix'),
    (r'^(prompt_encoder)\.shared_embedding\.positional_embedding$',
     r'\1.pe_layer.positional_encoding_gaussian_matrix'),
    (r'\.point_embed\.', '.point_embeddings.'),
    (r'\.mask_embed\.conv1\.', '.mask_downscaling.0.'),
    (r'\.mask_embed\.layer_norm1\.', '.mask_downscaling.1.'),
    (r'\.mask_embed\.conv2\.', '.mask_downscaling.3.'),
    (r'\.mask_embed\.layer_norm2\.', '.mask_downscaling.4.'),
    (r'\.mask_embed\.conv3\.', '.mask_downscaling.6.'),
    (r'\.upscale_conv1\.', '.output_upscaling.0.'),
    (r'\.upscale_layer_norm\.', '.output_upscaling.1.'),
    (r'\.upscale_conv2\.', '.output_upscaling.3.'),
    (r'\.layer_norm(\d)\.', r'.norm\1.'),
    (r'\.layer_norm_final_attn\.', '.norm_final_attn.'),
    (r'(mlps\.\d|iou_prediction_head)\.proj_in\.', r'\1.layers.0.'),
    (r'(mlps\.\d|iou_prediction_head)\.layers\.0\.', r'\1.layers.1.'),
    (r'(mlps\.\d|iou_prediction_head)\.proj_out\.', r'\1.layers.2.'),
)  # fmt: skip


def theirs(model: SAM1):
    """transformers' whole SAM with the weights of ``model``'s heads."""
    from transformers import SamConfig, SamModel

    dim = TINY_SAM1['out_chans']
    head = dict(hidden_size=dim, layer_norm_eps=1e-6)
    config = SamConfig(
        vision_config=model.image_encoder.config.to_dict() | dict(num_pos_feats=dim // 2),
        prompt_encoder_config=dict(
            **head, image_size=64, image_embedding_size=4, mask_input_channels=16, patch_size=16
        ),
        mask_decoder_config=dict(
            **head,
            mlp_dim=TINY_SAM1['transformer_mlp_dim'],
            num_attention_heads=TINY_SAM1['transformer_num_heads'],
            iou_head_hidden_dim=TINY_SAM1['iou_head_hidden_dim'],
        ),
    )
    sam, state = SamModel(config).eval(), model.state_dict()
    filled = {}
    for key, value in sam.state_dict().items():
        if key.startswith('vision_encoder.'):
            filled[key] = value
            continue
        name = key
        # the first layer of a head before the others: 0 -> 1 after proj_in -> 0 would meet again
        rules = [HEADS[-2], HEADS[-3], *HEADS[:-3], HEADS[-1]]
        for here, there in rules:
            name = re.sub(here, there, name)
        filled[key] = state[name]
        assert filled[key].shape == value.shape, (key, name)
    sam.load_state_dict(filled)
    return sam


@torch.no_grad()
@pytest.mark.parametrize('multimask', [False, True])
def test_masks_of_prompts_against_transformers(multimask):
    model = tiny()
    sam = theirs(model)
    features = torch.randn(1, TINY_SAM1['out_chans'], 4, 4)
    coords = torch.tensor([[[3.0, 5.0]], [[40.0, 63.0]], [[0.0, 0.0]]])
    labels = torch.tensor([[1], [0], [1]])
    got, ious = model.decode(features, coords, labels, multimask=multimask)
    want = sam(
        image_embeddings=features,
        input_points=coords[None],
        input_labels=labels[None],
        multimask_output=multimask,
    )
    assert got.shape == (3, 3 if multimask else 1, 16, 16)
    torch.testing.assert_close(got, want.pred_masks[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ious, want.iou_scores[0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_prompts_together_against_transformers():
    """A box, and a point with an earlier mask."""
    model = tiny()
    sam = theirs(model)
    features = torch.randn(1, TINY_SAM1['out_chans'], 4, 4)
    boxes = torch.tensor([[4.0, 6.0, 40.0, 50.0]])
    got, _ = model.decode(features, boxes=boxes)
    want = sam(image_embeddings=features, input_boxes=boxes[None], multimask_output=False)
    torch.testing.assert_close(got, want.pred_masks[0], rtol=1e-4, atol=1e-4)
    coords, labels = torch.tensor([[[30.0, 9.0]]]), torch.tensor([[1]])
    masks = torch.randn(1, 1, 16, 16)
    got, _ = model.decode(features, coords, labels, masks=masks)
    want = sam(
        image_embeddings=features,
        input_points=coords[None],
        input_labels=labels[None],
        input_masks=masks,
        multimask_output=False,
    )
    torch.testing.assert_close(got, want.pred_masks[0], rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- messages


def test_without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(ImportError, match=r'pip install "transformers>=4.56,<6".*mmfss\[sam1\]'):
        SAM1(TINY_SAM1, checkpoint=None)


def test_archs_that_there_are_not():
    with pytest.raises(ValueError, match=r"one of \['vit_b', 'vit_l', 'vit_h'\].*'huge'"):
        SAM1('huge')
    with pytest.raises(ValueError, match=r"must have \['embed_dim', .*got \['depth'\]"):
        SAM1(dict(depth=2), checkpoint=None)
    with pytest.raises(ValueError, match='may have .*transformer_mlp_dim.*width'):
        SAM1(dict(TINY_SAM1, width=3), checkpoint=None)
    with pytest.raises(ValueError, match='multiple of 16, got 70'):
        SAM1(dict(TINY_SAM1, img_size=70), checkpoint=None)
    with pytest.raises(ValueError, match="'official' needs an arch by name"):
        SAM1(TINY_SAM1)


def test_weights_of_another_network_are_refused(tmp_path):
    """The names are those of the file, so that they can be looked up in it."""
    state = tiny().state_dict()
    del state['image_encoder.blocks.0.norm1.weight']
    state['image_encoder.layers.0.layer_norm1.weight'] = torch.ones(8)
    torch.save(state, tmp_path / 'sam.pth')
    with pytest.raises(ValueError) as error:
        load_strict(tiny(), str(tmp_path / 'sam.pth'), 'SAM 1')
    assert '1 missing keys: image_encoder.blocks.0.norm1.weight' in str(error.value)
    assert '1 unexpected keys: image_encoder.layers.0.layer_norm1.weight' in str(error.value)
    torch.save(tiny(embed_dim=32).state_dict(), tmp_path / 'wide.pth')
    with pytest.raises(ValueError, match=r'shapes differ: image_encoder.blocks.0.*instead of'):
        load_strict(tiny(), str(tmp_path / 'wide.pth'), 'SAM 1')
