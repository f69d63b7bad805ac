"""The cache as a whole: what comes out is what went in; budgets, arguments."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from feature_cases import ENCODER, assert_same, opened
from mmseg.registry import MODELS

from mmfss.features import FeatureCache

DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.bool,
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.complex128,
    torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('memory_bytes', [0, 2**20])
def test_any_dtype_bit_for_bit(tmp_path, dtype, memory_bytes):
    size = torch.empty((), dtype=dtype).element_size()
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(256, (6 * 10 * size,), dtype=torch.uint8, generator=generator)
    noise = noise % 2 if dtype == torch.bool else noise
    x = noise.view(dtype).reshape(6, 10)
    truth = [x, x.t(), x[:, 2:5], x[1:3], x[::2, ::3], x[:0], x[0, 0], x.expand(2, 6, 10)]
    opened(tmp_path, memory_bytes=memory_bytes).put(ENCODER, 'a', truth)
    again = opened(tmp_path, memory_bytes=memory_bytes)
    assert_same(again.get(ENCODER, 'a', 'cpu'), truth)
    assert_same(again.get(ENCODER, 'a', torch.device('cpu')), truth)
    hits = (1, 1) if memory_bytes else (2, 0)
    assert (again.stats.disk_hits, again.stats.memory_hits) == hits


def test_infinities_nan_with_payload_and_minus_zero(tmp_path):
    values = torch.tensor([0x7FC00001, 0x7F800000, -0x80000000, 1], dtype=torch.int64)
    truth = [values.to(torch.int32).view(torch.float32)]
    opened(tmp_path).put(ENCODER, 'a', truth)
    assert_same(opened(tmp_path).get(ENCODER, 'a'), truth)


def test_order_in_memory_is_kept_so_that_the_same_kernels_run_on_it(tmp_path):
    tokens = torch.randn(1, 13, 6)[:, 1:].transpose(1, 2).unflatten(-1, (3, 4))
    last = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    put = opened(tmp_path).put(ENCODER, 'a', [tokens, last])
    found = opened(tmp_path).get(ENCODER, 'a')
    assert [t.stride() for t in found] == [t.stride() for t in put]
    assert [t.stride() for t in found] == [tokens.stride(), last.stride()]
    assert all(t.data_ptr() % 64 == 0 for t in found)


def test_nothing_but_the_features_is_held(tmp_path):
    batch = torch.randn(100, 10, requires_grad=True)
    kept = opened().put(ENCODER, 'a', [batch[3:4], batch[:, 0]])
    assert [t.untyped_storage().nbytes() for t in kept] == [40, 400]
    assert not any(t.requires_grad for t in kept)
    whole = torch.randn(5, 3)
    assert opened().put(ENCODER, 'a', [whole])[0].data_ptr() == whole.data_ptr()


def test_one_tensor_twice_and_an_empty_list(tmp_path):
    x = torch.randn(3)
    cache = opened(tmp_path)
    cache.put(ENCODER, 'a', [x, x])
    cache.put(ENCODER, 'b', [])
    assert_same(opened(tmp_path).get(ENCODER, 'a'), [x, x])
    assert opened(tmp_path).get(ENCODER, 'b') == []


def test_features_of_inference_mode_serve_in_training(tmp_path):
    weight = torch.randn(3, requires_grad=True)
    with torch.inference_mode():
        cache = opened(tmp_path)
        cache.put(ENCODER, 'a', [torch.ones(3)])
        from_disk = opened(tmp_path).get(ENCODER, 'a')
    for found in (cache.get(ENCODER, 'a'), from_disk):
        (found[0] * weight).sum().backward()
        assert_same(found, [torch.ones(3)])


def test_keys_tell_encoders_and_images_apart(tmp_path):
    cache = opened(tmp_path)
    cache.open('f' * 64, {})
    for encoder, image, value in ((ENCODER, 'a', 1), (ENCODER, 'b', 2), ('f' * 64, 'a', 3)):
        cache.put(encoder, image, [torch.tensor(value)])
    for store in (cache, opened(tmp_path)):
        store.open('f' * 64, {})
        assert [int(store.get(*key)[0]) for key in ((ENCODER, 'a'), (ENCODER, 'b'))] == [1, 2]
        assert int(store.get('f' * 64, 'a')[0]) == 3 and store.get('f' * 64, 'b') is None


def test_least_recently_used_goes_first():
    cache = opened(memory_bytes=3 * 400)
    x = torch.randn(100)
    for image in 'abc':
        cache.put(ENCODER, image, [x.clone()])
    assert cache.get(ENCODER, 'a') is not None
    cache.put(ENCODER, 'd', [x.clone()])
    assert [cache.get(ENCODER, image) is not None for image in 'abcd'] == [True, False, True, True]
    assert cache.stats.memory_hits == 4 and cache.stats.misses == 1
    cache.put(ENCODER, 'e', [torch.randn(100), torch.randn(100)])  # leaves room for one
    assert [cache.get(ENCODER, image) is not None for image in 'abcde'] == [False] * 3 + [True] * 2


def test_budget_over_many_puts_and_replacements():
    cache, store = opened(memory_bytes=4000), None
    for i in range(200):
        cache.put(ENCODER, f'{i % 37}', [torch.zeros(1 + i * 7 % 90), torch.zeros(3)])
        store = cache._memory
        held = sum(t.nbytes for entry in store._entries.values() for t in entry)
        assert store.bytes == held <= 4000
    assert len(store) > 5


def test_larger_than_the_budget_is_not_kept_and_displaces_nothing():
    cache = opened(memory_bytes=400)
    cache.put(ENCODER, 'a', [torch.zeros(50)])
    cache.put(ENCODER, 'b', [torch.zeros(101)])
    assert cache.get(ENCODER, 'b') is None and cache.get(ENCODER, 'a') is not None


def test_a_cache_that_keeps_nothing_is_correct():
    cache = opened(memory_bytes=0)
    assert_same(cache.put(ENCODER, 'a', [torch.ones(2)]), [torch.ones(2)])
    assert cache.get(ENCODER, 'a') is None and cache.stats.misses == 1


def test_lists_are_the_callers_own():
    cache = opened()
    cache.put(ENCODER, 'a', [torch.ones(2)]).clear()
    cache.get(ENCODER, 'a').clear()
    assert_same(cache.get(ENCODER, 'a'), [torch.ones(2)])


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_on_the_device_that_is_asked_for(tmp_path):
    truth = [torch.randn(3, 4), torch.randn(5).bfloat16()]
    cache = opened(tmp_path)
    cache.put(ENCODER, 'a', [t.cuda() for t in truth])
    for device in ('cuda', 'cpu', 'cuda:0'):
        for store in (cache, opened(tmp_path)):
            found = store.get(ENCODER, 'a', device)
            assert all(t.device.type == device[:4].rstrip(':') for t in found)
            assert_same([t.cpu() for t in found], truth)


def test_by_config_copied_and_sent_to_another_process(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    cache = MODELS.build(dict(type='FeatureCache', directory='~/kept', disk_bytes=5, training=True))
    assert cache.directory == tmp_path / 'kept' and not cache.directory.exists()
    assert copy.deepcopy(cache) is cache
    other = pickle.loads(pickle.dumps(cache))
    for name in ('directory', 'memory_bytes', 'disk_bytes', 'training'):
        assert getattr(other, name) == getattr(cache, name)


def test_no_warning_from_below(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        opened(tmp_path).put(ENCODER, 'a', [torch.ones(3)])
        opened(tmp_path).get(ENCODER, 'a')


def test_counters_in_a_line(tmp_path):
    opened(tmp_path).put(ENCODER, 'a', [torch.zeros(512)])
    cache = opened(tmp_path)
    for image in 'aab':
        cache.get(ENCODER, image)
    assert str(cache.stats) == (
        '1 from memory, 1 from disk (2.0 KB), 1 computed (0 of them damaged on disk), 0 written '
        '(0 bytes)'
    )


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(memory_bytes=-1), r'memory_bytes must be .* integer >= 0 such as 2\*\*30, got -1'),
        (dict(memory_bytes=1e9), r'memory_bytes must be .*, got 1000000000.0'),
        (dict(memory_bytes=True), r'memory_bytes must be .*, got True'),
        (dict(disk_bytes='1G'), r"disk_bytes must be .* \(or None for no limit\), got '1G'"),
        (dict(training=1), r'training must be True or False, got 1'),
        (dict(directory=''), r"directory must be the path of a folder, or None, got ''"),
        (dict(directory=3), r'directory must be the path of a folder, or None, got 3'),
        (dict(directory=__file__), r'directory must be .* but .*test_cache.py is a file; give'),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=f'feature_cache.{message}'):
        FeatureCache(**arguments)


def test_wrong_keys_and_features(tmp_path):
    cache = opened(tmp_path)
    with pytest.raises(ValueError, match=r"encoder key 'x' is not open; call open\(encoder"):
        cache.get('x', 'a')
    for key in ('../a', 'A', '', 'a' * 201, 'a.b', 3, 'a\n'):
        with pytest.raises(ValueError, match='image key must be 1 to 200 characters out of a-z'):
            cache.get(ENCODER, key)
        with pytest.raises(ValueError, match='encoder key must be 1 to 200 characters out of'):
            cache.open(key, {})
    with pytest.raises(ValueError, match='must be dense tensors, got torch.sparse_coo'):
        cache.put(ENCODER, 'a', [torch.ones(2).to_sparse()])
    with pytest.raises(ValueError, match='must be dense tensors, got list'):
        cache.put(ENCODER, 'a', [[1.0]])
