"""DINOv3: keys of the official checkpoints, copies under other names, a plain forward pass."""

from __future__ import annotations

import math
import re

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import randomised

from mmfss.encoders.dinov2 import DINOv2
from mmfss.encoders.dinov3 import DINOv3, DINOv3ViT, official_names, rotate

#: channels, blocks and tensors of the official checkpoints, and millions of parameters
OFFICIAL = {
    'small': (384, 12, 188, 21.6),
    'base': (768, 12, 188, 85.7),
    'large': (1024, 24, 368, 303.2),
}
TINY = dict(embed_dim=24, depth=2, num_heads=3)


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(0)


def expected_shapes(dim: int, depth: int, heads: int) -> dict:
    """The state dict of a ViT/16 with four storage tokens, written down from the architecture."""
    shapes = {
        'cls_token': (1, 1, dim),
        'storage_tokens': (1, 4, dim),
        'mask_token': (1, dim),
        'patch_embed.proj.weight': (dim, 3, 16, 16),
        'patch_embed.proj.bias': (dim,),
        'rope_embed.periods': (dim // heads // 4,),
        'norm.weight': (dim,),
        'norm.bias': (dim,),
    }
    for i in range(depth):
        block = {f'{n}.{kind}': (dim,) for n in ('norm1', 'norm2') for kind in ('weight', 'bias')}
        block.update({'ls1.gamma': (dim,), 'ls2.gamma': (dim,), 'attn.qkv.bias_mask': (3 * dim,)})
        linear = {'attn.qkv': (3 * dim, dim), 'attn.proj': (dim, dim)}
        linear.update({'mlp.fc1': (4 * dim, dim), 'mlp.fc2': (dim, 4 * dim)})
        for name, (out, into) in linear.items():
            block.update({f'{name}.weight': (out, into), f'{name}.bias': (out,)})
        shapes.update({f'blocks.{i}.{key}': shape for key, shape in block.items()})
    return shapes


@pytest.mark.parametrize('name', sorted(OFFICIAL))
def test_keys_and_shapes_are_official(name):
    dim, depth, tensors, parameters = OFFICIAL[name]
    with torch.device('meta'):
        encoder = DINOv3(name, checkpoint=None)
    shapes = {key: tuple(value.shape) for key, value in encoder.vit.state_dict().items()}
    assert shapes == expected_shapes(dim, depth, dim // 64)
    assert len(shapes) == tensors
    assert round(sum(p.numel() for p in encoder.vit.parameters()) / 1e6, 1) == parameters
    assert {k.removeprefix('vit.') for k in encoder.state_dict()} == set(shapes)


def tiny(**options) -> DINOv3ViT:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DINOv3ViT(**{**TINY, **options})
    return randomised(model, scale=0.3).eval()


# ---------------------------------------------------------------- forward pass


def test_a_rotation_by_hand():
    """d = 4: one period, y turns the first and third number, x the second and fourth."""
    x = torch.tensor([[9.0, 9.0, 9.0, 9.0], [1.0, 0.0, 0.0, 2.0]])
    y_angle, x_angle = 0.3, 1.1
    angles = torch.tensor([[y_angle, x_angle, y_angle, x_angle]])
    turned = rotate(x, angles.cos(), angles.sin())
    want = [math.cos(y_angle), -2 * math.sin(x_angle), math.sin(y_angle), 2 * math.cos(x_angle)]
    torch.testing.assert_close(turned[1], torch.tensor(want))
    assert torch.equal(turned[0], x[0])  # a token without a place


def plain_forward(model: DINOv3ViT, images: torch.Tensor) -> torch.Tensor:
    """Written out: one image, head, token and pair of numbers at a time for the rotation."""
    p, weights, heads = model.patch_size, model.state_dict(), TINY['num_heads']
    height, width = images.shape[-2] // p, images.shape[-1] // p
    d = TINY['embed_dim'] // heads

    def linear(x, name, keep=1.0):
        return x @ weights[f'{name}.weight'].T + keep * weights[f'{name}.bias']

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * weights[f'{name}.weight'] + weights[f'{name}.bias']

    def turned(tokens):  # (T, d) of one head
        out = tokens.clone()
        for r in range(height):
            for c in range(width):
                t = 5 + r * width + c
                for axis, place in enumerate(
                    (2 * (r + 0.5) / height - 1, 2 * (c + 0.5) / width - 1)
                ):
                    for i in range(d // 4):
                        angle = 2 * math.pi * place / 100 ** (2 * i / (d / 2))
                        a, b = axis * d // 4 + i, axis * d // 4 + i + d // 2
                        u, v = tokens[t, a], tokens[t, b]
                        out[t, a] = u * math.cos(angle) - v * math.sin(angle)
                        out[t, b] = v * math.cos(angle) + u * math.sin(angle)
        return out

    out = []
    for image in images:
        kernel = weights['patch_embed.proj.weight'].flatten(1)
        tokens = [weights['cls_token'][0, 0], *weights['storage_tokens'][0]]
        for i in range(height):
            for j in range(width):
                patch = image[:, i * p : i * p + p, j * p : j * p + p].flatten()
                tokens.append(kernel @ patch + weights['patch_embed.proj.bias'])
        x = torch.stack(tokens)
        keep = torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(TINY['embed_dim'])
        for b in range(TINY['depth']):
            at = f'blocks.{b}'
            q, k, v = linear(norm(x, f'{at}.norm1'), f'{at}.attn.qkv', keep).chunk(3, -1)
            parts = []
            for q_, k_, v_ in zip(*(t.chunk(heads, -1) for t in (q, k, v))):
                scores = turned(q_) @ turned(k_).T / math.sqrt(d)
                exp = (scores - scores.amax(-1, keepdim=True)).exp()
                parts.append(exp / exp.sum(-1, keepdim=True) @ v_)
            x = x + weights[f'{at}.ls1.gamma'] * linear(torch.cat(parts, -1), f'{at}.attn.proj')
            y = linear(norm(x, f'{at}.norm2'), f'{at}.mlp.fc1')
            y = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
            x = x + weights[f'{at}.ls2.gamma'] * linear(y, f'{at}.mlp.fc2')
        out.append(norm(x, 'norm')[5:].T.reshape(-1, height, width))
    return torch.stack(out)


@torch.no_grad()
def test_forward_is_the_plain_transformer():
    model = tiny()
    with torch.no_grad():  # a bias of keys is there, and counts for nothing
        model.blocks[0].attn.qkv.bias[24:48] += 5
    images = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    out = model(images)
    assert out.shape == (2, 24, 3, 4)
    torch.testing.assert_close(out, plain_forward(model, images), atol=1e-4, rtol=1e-4)
    before = model(images, final_norm=False)
    torch.testing.assert_close(model.norm(before.movedim(1, -1)).movedim(-1, 1), out)


@torch.no_grad()
def test_encoder_takes_any_multiple_of_16_and_its_own_size_as_it_is():
    for side in (32, 48, 112):
        encoder = randomised(DINOv3(TINY, side, checkpoint=None)).eval()
        images = torch.rand(1, 3, side, side) * 255
        (out,) = encoder(images)
        assert out.shape == (1, 24, side // 16, side // 16)
        assert torch.equal(out, encoder.vit(encoder.normalise(images)))
    assert encoder(torch.rand(1, 3, 64, 64))[0].shape == (1, 24, 7, 7)


def test_the_table_of_angles_follows_its_periods():
    encoder = DINOv3ViT(**TINY).eval()
    cos, sin = encoder.rope_embed(2, 3)
    assert cos.shape == sin.shape == (6, 8)
    assert encoder.rope_embed(2, 3)[0].data_ptr() == cos.data_ptr()  # kept
    with torch.no_grad():
        encoder.rope_embed.periods *= 2
    assert not torch.equal(encoder.rope_embed(2, 3)[0], cos)
    assert 'rope_embed.periods' in encoder.state_dict()


# ---------------------------------------------------------------- checkpoints


def of_timm(state: dict, biases: bool) -> dict:
    """As timm's Eva names them; without biases of q and v its models have none at all."""
    named = {}
    for key, value in state.items():
        if key.endswith(('bias_mask', 'periods', 'mask_token')):
            continue
        if key.endswith('qkv.bias'):
            q, _, v = value.chunk(3)
            if biases:
                named.update({key.replace('qkv.bias', 'q_bias'): q})
                named.update({key.replace('qkv.bias', 'v_bias'): v})
            continue
        key = key.replace('storage_tokens', 'reg_token')
        named[re.sub(r'\.ls([12])\.gamma', r'.gamma_\1', key)] = value
    return named


@torch.no_grad()
@pytest.mark.parametrize('biases', [True, False])
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_copy_of_timm(tmp_path, biases, suffix):
    model, images = tiny(), torch.randn(1, 3, 32, 32)
    if not biases:
        for block in model.blocks:
            block.attn.qkv.bias.zero_()
    copy = {key: value.contiguous() for key, value in of_timm(model.state_dict(), biases).items()}
    path = str(tmp_path / f'copy{suffix}')
    save_file(copy, path) if suffix == '.safetensors' else torch.save(copy, path)
    encoder = DINOv3(TINY, 32, path).eval()
    encoder.load_pretrained()
    torch.testing.assert_close(encoder.vit(images), model(images))


@torch.no_grad()
def test_an_official_file_is_loaded_as_it_is(tmp_path):
    model, images = tiny(), torch.randn(1, 3, 32, 32)
    half = {k: v if 'periods' in k else v.half() for k, v in model.state_dict().items()}
    torch.save(half, tmp_path / 'official.pth')
    encoder = DINOv3(TINY, 32, str(tmp_path / 'official.pth')).eval()
    encoder.load_pretrained()
    assert {v.dtype for v in encoder.state_dict().values()} == {torch.float32}
    for key, value in half.items():
        assert torch.equal(encoder.vit.state_dict()[key], value.float()), key
    assert encoder.vit(images).isfinite().all()


def test_names_that_lack_or_clash(tmp_path):
    model = tiny()
    expected = model.state_dict()
    state = of_timm(expected, biases=True)
    lacking = {k: v for k, v in state.items() if k != 'blocks.1.attn.q_bias'}
    assert 'blocks.1.attn.qkv.bias' not in official_names(lacking, expected)
    torch.save(lacking, tmp_path / 'lacking.pth')
    with pytest.raises(ValueError, match=r'1 missing keys: blocks.1.attn.qkv.bias; 1 unexpected'):
        DINOv3(TINY, 32, str(tmp_path / 'lacking.pth')).load_pretrained()
    state['blocks.0.ls1.gamma'] = state['blocks.0.gamma_1']
    with pytest.raises(ValueError, match='two entries of the checkpoint are blocks.0.ls1.gamma'):
        official_names(state, expected)


def test_files_of_dinov2_and_dinov3_are_told_apart(tmp_path):
    paths = dict(DINOv2=tmp_path / 'two.pth', DINOv3=tmp_path / 'three.pth')
    torch.save(DINOv2(TINY, 28, checkpoint=None).vit.state_dict(), paths['DINOv2'])
    torch.save(tiny().state_dict(), paths['DINOv3'])
    with pytest.raises(ValueError, match=r'these weights are of DINOv2, .*, not of DINOv3'):
        DINOv3(TINY, 32, str(paths['DINOv2'])).load_pretrained()
    with pytest.raises(ValueError, match=r'these weights are of DINOv3, .*, not of DINOv2'):
        DINOv2(TINY, 28, str(paths['DINOv3'])).load_pretrained()
    with pytest.raises(ValueError, match=r'2 blocks of 24 channels.*|shapes differ'):
        DINOv3(dict(TINY, embed_dim=48), 32, str(paths['DINOv3'])).load_pretrained()


def test_without_the_gated_file_the_error_says_where_to_ask(tmp_path, monkeypatch):
    monkeypatch.setenv('MMFSS_WEIGHTS', str(tmp_path))
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with torch.device('meta'):
        encoder = DINOv3('large')
    message = (
        'dinov3_large is gated: ask for it at https://ai.meta.com/.*names of timm or transformers'
    )
    with pytest.raises(FileNotFoundError, match=message):
        encoder.load_pretrained()
    with pytest.raises(FileNotFoundError, match='nowhere'):
        DINOv3(TINY, 32, str(tmp_path / 'nowhere.safetensors')).load_pretrained()
    (tmp_path / 'half.safetensors').write_bytes(b'\x10\0\0\0')
    with pytest.raises(ValueError, match=r'half.safetensors holds no weights of DINOv3.*, or not '):
        DINOv3(TINY, 32, str(tmp_path / 'half.safetensors')).load_pretrained()


@pytest.mark.parametrize('name', ['huge', 'vitl16'])
def test_unknown_arch_prints_the_allowed_ones(name):
    with pytest.raises(ValueError, match=rf"\['small', 'base', 'large'\], .* got '{name}'"):
        DINOv3(name)


@pytest.mark.parametrize('size', [0, 8, 100])
def test_side_must_be_a_multiple_of_the_patch(size):
    with pytest.raises(ValueError, match=f'multiple of the patch size 16, got {size}'):
        DINOv3(TINY, size, checkpoint=None)


def test_channels_must_divide_into_heads_and_axes():
    with pytest.raises(ValueError, match='multiple of 4 num_heads .* got 20 and 3 heads'):
        DINOv3ViT(embed_dim=20, depth=1, num_heads=3)
