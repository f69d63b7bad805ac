from __future__ import annotations

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmfss.methods.data_preprocessor import EpisodeDataPreprocessor


def episode(name='q0', shots=2, size=8):
    g = torch.Generator().manual_seed(shots * size)
    mask = torch.randint(0, 2, (shots, size, size), generator=g, dtype=torch.uint8)
    mask[:, 0, :2] = torch.tensor([1, 255], dtype=torch.uint8)
    sample = SegDataSample(
        metainfo=dict(
            img_path=f'{name}.jpg', support_paths=[f'{name}_s{k}.jpg' for k in range(shots)]
        )
    )
    sample.gt_sem_seg = PixelData(data=mask[:1])
    images = torch.randint(0, 256, (shots + 1, 3, size, size), generator=g, dtype=torch.uint8)
    return dict(
        inputs=dict(query=images[0], support=images[1:], support_mask=mask), data_samples=sample
    )


def batch(number=2, **options):
    return pseudo_collate([episode(f'q{i}', **options) for i in range(number)])


def test_stacks_and_turns_bgr_into_rgb():
    data = batch()
    out = MODELS.build(dict(type='EpisodeDataPreprocessor'))(data)
    inputs = out['inputs']
    assert {k: (tuple(v.shape), v.dtype) for k, v in inputs.items()} == dict(
        query=((2, 3, 8, 8), torch.float32),
        support=((2, 2, 3, 8, 8), torch.float32),
        support_mask=((2, 2, 8, 8), torch.uint8),
    )
    for b in range(2):
        for c in range(3):
            assert torch.equal(inputs['query'][b, c], data['inputs']['query'][b][2 - c].float())
            assert torch.equal(
                inputs['support'][b, 1, c], data['inputs']['support'][b][1, 2 - c].float()
            )
        assert torch.equal(inputs['support_mask'][b], data['inputs']['support_mask'][b])
    assert [s.img_path for s in out['data_samples']] == ['q0.jpg', 'q1.jpg']
    assert out['data_samples'][0].gt_sem_seg.data.dtype == torch.uint8


def test_lists_and_tensors_are_the_same():
    listed, preprocess = batch(), EpisodeDataPreprocessor()
    stacked = dict(inputs={k: torch.stack(v) for k, v in listed['inputs'].items()})
    a, b = preprocess(listed)['inputs'], preprocess(stacked, training=True)
    assert b['data_samples'] is None
    assert all(torch.equal(a[k], b['inputs'][k]) for k in a)


def test_without_channel_flip():
    data = batch()
    out = EpisodeDataPreprocessor(bgr_to_rgb=False)(data)
    assert torch.equal(out['inputs']['query'], torch.stack(data['inputs']['query']).float())


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_moves_to_the_device():
    out = EpisodeDataPreprocessor().to('cuda')(batch())
    assert {v.device.type for v in out['inputs'].values()} == {'cuda'}


def expect(data, message, **options):
    with pytest.raises(ValueError, match=message):
        EpisodeDataPreprocessor(**options)(data)


@pytest.mark.parametrize('value', [2, 7, 254])
def test_mask_values(value):
    data = batch()
    data['inputs']['support_mask'][1][0, 4, 4] = value
    expect(
        data,
        rf'support mask 0 of the query q1\.jpg \(support q1_s0\.jpg\) may hold 0, 1 and '
        rf'255, got \[0, 1, {value}, 255\]',
    )


@pytest.mark.parametrize('fill', [0, 255])
def test_mask_without_foreground(fill):
    data = batch()
    data['inputs']['support_mask'][0][1] = fill
    expect(data, r'support mask 1 of the query q0\.jpg \(support q0_s1\.jpg\) has no foreground')


@pytest.mark.parametrize('key', ['query', 'support', 'support_mask'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.int64, torch.bool])
def test_dtype(key, dtype):
    data = batch()
    data['inputs'][key][1] = data['inputs'][key][1].to(dtype)
    expect(data, rf'{key} of the query q1\.jpg must be a torch\.uint8 tensor, got {dtype}')


def test_not_a_tensor():
    data = batch()
    data['inputs']['query'][0] = data['inputs']['query'][0].numpy()
    expect(data, r'q0\.jpg must be a torch\.uint8 tensor, got ndarray')


def test_mask_of_another_size():
    data = batch()
    data['inputs']['support_mask'][1] = data['inputs']['support_mask'][1][:, :6, :6]
    expect(data, r"q1\.jpg must share one S and one K >= 1, got .*\(2, 6, 6\)")


def test_fewer_masks_than_supports():
    data = batch()
    data['inputs']['support_mask'][1] = data['inputs']['support_mask'][1][:1]
    expect(data, r'q1\.jpg must share one S and one K')


def test_episodes_of_different_sizes_or_shots():
    for other in (episode('big', size=16), episode('five', shots=5)):
        expect(
            pseudo_collate([episode('q0'), other]),
            r'must have one \(K, 3, S, S\), got \(2, 3, 8, 8\) for the query q0\.jpg and .* for '
            rf"{other['data_samples'].img_path}",
        )


def test_not_square_or_not_the_required_size():
    data = batch()
    data['inputs'] = {k: [t[..., :6] for t in v] for k, v in data['inputs'].items()}
    expect(data, r'q0\.jpg must be square, got 8 x 6; use Resize')
    expect(batch(), r'q0\.jpg must be 16 x 16, got 8 x 8', image_size=16)


def test_shape_and_channels():
    data = batch()
    data['inputs']['query'][0] = data['inputs']['query'][0][:1]
    expect(data, r'query of the query q0\.jpg must be \(3, S, S\), got \(1, 8, 8\)')
    data = batch()
    data['inputs']['support'][0] = data['inputs']['support'][0][0]
    expect(data, r'support of the query q0\.jpg must be \(K, 3, S, S\), got \(3, 8, 8\)')


def test_keys_and_lengths():
    expect(dict(inputs=torch.zeros(1)), 'inputs must be a dict of .* got Tensor')
    data = batch()
    del data['inputs']['support']
    expect(data, r"got \['query', 'support_mask'\]")
    data = batch()
    data['data_samples'].pop()
    expect(data, "as many queries as supports.*'data_samples': 1")
