"""DINOv2: keys of the official checkpoints, position table, and an independent forward pass."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from tiny_models import randomised

from mmfss.encoders.dinov2 import ARCHS, DINOv2, DINOv2ViT

#: tensors, parameters and width of the feed-forward layer of the official checkpoints
OFFICIAL = {
    'small': (384, 12, 175, 22_056_576),
    'base': (768, 12, 175, 86_580_480),
    'large': (1024, 24, 343, 304_368_640),
    'giant': (1536, 40, 567, 1_136_480_768),
}


def expected_shapes(dim: int, depth: int, swiglu: bool, patch: int = 14, grid: int = 37) -> dict:
    """The state dict of a ViT/14 at 518 pixels, written down from the architecture."""
    shapes = {
        'cls_token': (1, 1, dim),
        'pos_embed': (1, 1 + grid * grid, dim),
        'mask_token': (1, dim),
        'patch_embed.proj.weight': (dim, 3, patch, patch),
        'patch_embed.proj.bias': (dim,),
        'norm.weight': (dim,),
        'norm.bias': (dim,),
    }
    for i in range(depth):
        block = {
            f'{norm}.{kind}': (dim,) for norm in ('norm1', 'norm2') for kind in ('weight', 'bias')
        }
        block.update({'ls1.gamma': (dim,), 'ls2.gamma': (dim,)})
        linear = {'attn.qkv': (3 * dim, dim), 'attn.proj': (dim, dim)}
        if swiglu:
            hidden = -(-(4 * dim * 2 // 3) // 8) * 8
            linear.update({'mlp.w12': (2 * hidden, dim), 'mlp.w3': (dim, hidden)})
        else:
            linear.update({'mlp.fc1': (4 * dim, dim), 'mlp.fc2': (dim, 4 * dim)})
        for name, (out, into) in linear.items():
            block.update({f'{name}.weight': (out, into), f'{name}.bias': (out,)})
        shapes.update({f'blocks.{i}.{key}': shape for key, shape in block.items()})
    return shapes


@pytest.mark.parametrize('name', sorted(OFFICIAL))
def test_keys_and_shapes_are_official(name):
    dim, depth, tensors, parameters = OFFICIAL[name]
    with torch.device('meta'):
        encoder = DINOv2(name, checkpoint=None)
    shapes = {key: tuple(value.shape) for key, value in encoder.vit.state_dict().items()}
    assert shapes == expected_shapes(dim, depth, swiglu=name == 'giant')
    assert len(shapes) == tensors
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == parameters
    # the transformer is all that a checkpoint holds
    assert {k.removeprefix('vit.') for k in encoder.state_dict()} == set(shapes)


def test_official_weights_are_those_of_the_arch_and_asked_for_when_loaded(monkeypatch):
    monkeypatch.setattr('mmfss.checkpoints.official.official_file', lambda *of: '/'.join(of))
    asked = []
    monkeypatch.setattr(
        'mmfss.encoders.dinov2.read_state', lambda path, what: asked.append(path) or {}
    )
    monkeypatch.setattr('mmfss.encoders.dinov2.load_state', lambda model, state, what: None)
    for name in OFFICIAL:
        with torch.device('meta'):
            DINOv2(name).load_pretrained()
    assert asked == [f'dinov2/{name}' for name in OFFICIAL] and list(OFFICIAL) == list(ARCHS)
    assert ARCHS['giant']['ffn_layer'] == 'swiglu'


# ---------------------------------------------------------------- position table


def tiny(**options) -> DINOv2ViT:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DINOv2ViT(embed_dim=12, depth=2, num_heads=3, **options)
    return randomised(model, scale=0.3).eval()


def test_position_table_at_its_own_size_is_untouched():
    model = tiny(img_size=70)
    assert model.resized_pos_embed(5, 5) is model.pos_embed


def cubic(x: float) -> float:
    """Keys' kernel with a = -0.75, as torch's bicubic."""
    a, x = -0.75, abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def resized_row(row: list[float], new: int, scale: float) -> list[float]:
    """Bicubic resize of one row, borders repeated; ``scale`` is that of the coordinates."""
    out = []
    for i in range(new):
        x = (i + 0.5) / scale - 0.5
        left = math.floor(x)
        taps = range(left - 1, left + 3)
        out.append(sum(cubic(x - t) * row[min(max(t, 0), len(row) - 1)] for t in taps))
    return out


@pytest.mark.parametrize('offset', [0.1, 0.0])
@torch.no_grad()
def test_position_table_is_resized_by_scale_factor_with_offset(offset):
    model = tiny(img_size=70, interpolate_offset=offset)
    table = model.resized_pos_embed(8, 8)
    assert table.shape == (1, 65, 12)
    assert torch.equal(table[:, :1], model.pos_embed[:, :1])
    grid = model.pos_embed[0, 1:].reshape(5, 5, 12).double()
    scale = (8 + offset) / 5
    for channel in (0, 7):
        rows = [resized_row(row.tolist(), 8, scale) for row in grid[:, :, channel]]
        columns = [resized_row([row[j] for row in rows], 8, scale) for j in range(8)]
        want = torch.tensor(columns).T
        got = table[0, 1:, channel].reshape(8, 8)
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


@torch.no_grad()
def test_scale_factor_and_size_give_other_numbers():
    """40 x 40 out of 37 x 37, the paper's case."""
    by_scale = tiny().resized_pos_embed(40, 40)
    by_size = tiny(interpolate_offset=0.0).resized_pos_embed(40, 40)
    assert by_scale.shape == by_size.shape == (1, 1601, 12)
    assert (by_scale - by_size).abs().max() > 1e-2


# ---------------------------------------------------------------- forward pass


def plain_forward(model: DINOv2ViT, images: torch.Tensor) -> torch.Tensor:
    """A vision transformer written out, one image, head and query at a time."""
    p, weights = model.patch_size, model.state_dict()
    height, width = images.shape[-2] // p, images.shape[-1] // p

    def linear(x, name):
        return x @ weights[f'{name}.weight'].T + weights[f'{name}.bias']

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * weights[f'{name}.weight'] + weights[f'{name}.bias']

    out = []
    for image in images:
        kernel = weights['patch_embed.proj.weight'].flatten(1)
        tokens = [weights['cls_token'][0, 0]]
        for i in range(height):
            for j in range(width):
                patch = image[:, i * p : i * p + p, j * p : j * p + p].flatten()
                tokens.append(kernel @ patch + weights['patch_embed.proj.bias'])
        x = torch.stack(tokens) + model.resized_pos_embed(height, width)[0]
        if model.num_register_tokens:
            x = torch.cat([x[:1], weights['register_tokens'][0], x[1:]])
        for b in range(len(model.blocks)):
            at = f'blocks.{b}'
            q, k, v = linear(norm(x, f'{at}.norm1'), f'{at}.attn.qkv').chunk(3, -1)
            heads = []
            for q_, k_, v_ in zip(*(t.chunk(3, -1) for t in (q, k, v))):
                scores = q_ @ k_.T / math.sqrt(q_.shape[-1])
                exp = (scores - scores.amax(-1, keepdim=True)).exp()
                heads.append(exp / exp.sum(-1, keepdim=True) @ v_)
            x = x + weights[f'{at}.ls1.gamma'] * linear(torch.cat(heads, -1), f'{at}.attn.proj')
            y = norm(x, f'{at}.norm2')
            if f'{at}.mlp.w12.weight' in weights:
                gate, value = linear(y, f'{at}.mlp.w12').chunk(2, -1)
                y = linear(gate * gate.sigmoid() * value, f'{at}.mlp.w3')
            else:
                y = linear(y, f'{at}.mlp.fc1')
                y = linear(y * 0.5 * (1 + torch.erf(y / math.sqrt(2))), f'{at}.mlp.fc2')
            x = x + weights[f'{at}.ls2.gamma'] * y
        patches = norm(x, 'norm')[1 + model.num_register_tokens :]
        out.append(patches.T.reshape(-1, height, width))
    return torch.stack(out)


@pytest.mark.parametrize('ffn_layer', ['mlp', 'swiglu'])
@pytest.mark.parametrize('registers', [0, 4])
@torch.no_grad()
def test_forward_is_the_plain_transformer(ffn_layer, registers):
    model = tiny(img_size=42, ffn_layer=ffn_layer, num_register_tokens=registers)
    assert ('register_tokens' in model.state_dict()) == bool(registers)
    images = torch.randn(2, 3, 56, 70, generator=torch.Generator().manual_seed(0))
    out = model(images)
    assert out.shape == (2, 12, 4, 5)
    torch.testing.assert_close(out, plain_forward(model, images), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_encoder_resizes_then_normalises():
    arch = dict(embed_dim=12, depth=1, num_heads=3, img_size=70)
    encoder = randomised(DINOv2(arch, image_size=56, checkpoint=None)).eval()
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    small = F.interpolate(images, (56, 56), mode='bilinear', align_corners=True)
    mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    normal = torch.stack([(small[:, c] / 255 - mean[c]) / std[c] for c in range(3)], 1)
    (out,) = encoder(images)
    assert out.shape == (1, 12, 4, 4)
    torch.testing.assert_close(out, encoder.vit(normal))


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize('name', ['huge', 'dinov2_b'])
def test_unknown_arch_prints_the_allowed_ones(name):
    with pytest.raises(
        ValueError, match=rf"\['small', 'base', 'large', 'giant'\], .* got '{name}'"
    ):
        DINOv2(name)


def test_official_weights_need_a_name():
    with pytest.raises(ValueError, match="'official' needs an arch by name"):
        DINOv2(dict(embed_dim=12, depth=1, num_heads=3))


@pytest.mark.parametrize('size', [0, 7, 100])
def test_side_must_be_a_multiple_of_the_patch(size):
    arch = dict(embed_dim=12, depth=1, num_heads=3)
    with pytest.raises(ValueError, match=f'multiple of the patch size 14, got {size}'):
        DINOv2(arch, image_size=size, checkpoint=None)


def test_widths_and_layers_that_do_not_exist():
    with pytest.raises(ValueError, match='embed_dim 10 is not divisible by num_heads 3'):
        DINOv2ViT(embed_dim=10, depth=1, num_heads=3)
    with pytest.raises(
        ValueError, match=r"ffn_layer must be one of \['mlp', 'swiglu'\], got 'moe'"
    ):
        DINOv2ViT(embed_dim=12, depth=1, num_heads=3, ffn_layer='moe')
