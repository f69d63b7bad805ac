"""Checkpoints load without running code: what is admitted, what is refused, and the words."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import CheckpointLoader

from mmfss.safe_load import load_checkpoint

URL = 'https://example.invalid/weights.pth'


class Touch:
    """Pickles as a call that creates a file."""

    def __init__(self, target: Path, how: str = 'os.system') -> None:
        self.target, self.how = str(target), how

    def __reduce__(self):
        if self.how == 'os.system':
            return os.system, (f'touch {self.target}',)
        if self.how == 'eval':
            return eval, (f'open({self.target!r}, "w").close()',)
        return open, (self.target, 'w')


class GetAttr:
    """Pickles as getattr(owner, name)."""

    def __init__(self, owner: object, name: str) -> None:
        self.owner, self.name = owner, name

    def __reduce__(self):
        return getattr, (self.owner, self.name)


def save(obj: object, path: Path, form: str = 'zip') -> Path:
    if form.startswith('pickle'):
        path.write_bytes(pickle.dumps(obj, protocol=int(form[-1])))
    else:
        torch.save(obj, path, _use_new_zipfile_serialization=form == 'zip')
    return path


def load(path: object) -> object:
    """As the Runner loads."""
    return CheckpointLoader.load_checkpoint(str(path), map_location='cpu')


FORMS = ['zip', 'legacy', 'pickle2', 'pickle4']


@pytest.mark.smoke
@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('how', ['os.system', 'eval', 'open'])
def test_code_in_a_checkpoint_is_refused_and_never_run(tmp_path, form, how):
    target = tmp_path / 'ran'
    path = save(
        {'state_dict': {'w': torch.ones(2)}, 'x': Touch(target, how)}, tmp_path / 'x.pth', form
    )
    with pytest.raises(ValueError, match='x.pth') as caught:
        load(path)
    assert not target.exists()
    assert 'Remedy' in str(caught.value)
    if form in ('zip', 'legacy'):
        needs = f'{os.system.__module__}.system' if how == 'os.system' else how
        assert re.search(rf'was refused: it needs [\w.]*{needs}, ', str(caught.value))
        # the file is what it claims to be: an unsafe load does create the target
        torch.load(path, weights_only=False)
        assert target.exists()


@pytest.mark.smoke
@pytest.mark.parametrize('unsafe', [None, 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'])
@pytest.mark.parametrize('scheme', ['local', URL])
def test_code_is_refused_by_every_scheme_and_whatever_the_environment_says(
    tmp_path, monkeypatch, scheme, unsafe
):
    cache = tmp_path / 'hub' / 'checkpoints'
    cache.mkdir(parents=True)
    path = save(Touch(tmp_path / 'ran'), cache / 'weights.pth')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    if unsafe:
        monkeypatch.setenv(unsafe, '1')
    before = dict(os.environ)
    with pytest.raises(ValueError, match='was refused: it needs .*system.*Remedy'):
        load(path if scheme == 'local' else scheme)
    assert not (tmp_path / 'ran').exists()
    assert dict(os.environ) == before


def test_url_in_the_cache_loads_and_an_unreachable_one_says_so(tmp_path, monkeypatch):
    cache = tmp_path / 'hub' / 'checkpoints'
    cache.mkdir(parents=True)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    save({'w': torch.arange(3), 'b': buffer}, cache / 'weights.pth')
    loaded = load(URL)
    assert loaded['w'].tolist() == [0, 1, 2] and loaded['b'].mean() == 1.5
    with pytest.raises(FileNotFoundError, match=r'other\.pth cannot be fetched.*local path'):
        load(URL.replace('weights', 'other'))


def test_all_registered_schemes_are_made_safe():
    for prefix, loader in CheckpointLoader._schemes.items():
        module = loader.__code__.co_filename
        assert 'mmfss' in module, f'{prefix!r} is loaded by {module}'


@pytest.mark.smoke
def test_message_hub_of_a_run_loads_with_its_numbers(tmp_path):
    hub = MessageHub.get_instance('test_safe_load')
    for value in (0.5, 0.25, 0.75):
        hub.update_scalar('train/loss', value)
    hub.update_info('iter', 3)
    hub.update_info('best', np.float64(81.25))
    path = save({'message_hub': hub.state_dict(), 'meta': {'iter': 3}}, tmp_path / 'iter_3.pth')
    loaded = load(path)['message_hub']
    assert loaded['log_scalars']['train/loss'].mean() == 0.5
    assert loaded['log_scalars']['train/loss'].data[0].tolist() == [0.5, 0.25, 0.75]
    assert loaded['runtime_info'] == {'iter': 3, 'best': 81.25}


@pytest.mark.parametrize(
    'dtype', ['?', 'i1', 'u1', 'i2', 'u2', 'i4', 'u4', 'i8', 'u8', 'f2', 'f4', 'f8']
)
def test_numpy_numbers_load_with_value_and_dtype(tmp_path, dtype):
    array = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    given = {
        'scalar': array[1, 2],
        'array': array,
        'columns': np.asfortranarray(array),
        'dtype': array.dtype,
    }
    loaded = load(save(given, tmp_path / 'x.pth'))
    assert loaded['scalar'] == given['scalar'] and loaded['scalar'].dtype == array.dtype
    assert loaded['dtype'] == array.dtype
    for key in ('array', 'columns'):
        assert loaded[key].dtype == array.dtype
        np.testing.assert_array_equal(loaded[key], array)


@pytest.mark.parametrize('core', ['numpy.core', 'numpy._core'])
def test_files_written_with_numpy_1_and_2_load(tmp_path, core):
    old = (tmp_path / 'old.pth', tmp_path / 'new.pth')
    save({'a': np.arange(4.0), 's': np.float32(0.5)}, old[0])
    with zipfile.ZipFile(old[0]) as source, zipfile.ZipFile(old[1], 'w') as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith('data.pkl'):
                plain = data.replace(b'numpy._core.', b'numpy.core.')
                assert plain.count(b'numpy.core.') == 2
                data = plain.replace(b'numpy.core', core.encode())
            target.writestr(name, data)
    loaded = load(old[1])
    assert loaded['a'].tolist() == [0, 1, 2, 3] and loaded['s'] == 0.5


@pytest.mark.parametrize(
    'given, named',
    [
        (GetAttr(HistoryBuffer, '__init__'), 'builtins.getattr'),
        (GetAttr(HistoryBuffer, 'register_statistics'), 'builtins.getattr'),
        (GetAttr(HistoryBuffer([1], [1]), 'min'), 'builtins.getattr'),
        (np.array([{}], dtype=object), r'numpy.*dtype.*'),
        (Path('x'), r'pathlib\.\w+'),
    ],
    ids=['dunder', 'register', 'instance', 'object array', 'class'],
)
def test_what_is_admitted_serves_nothing_else(tmp_path, given, named):
    path = save({'x': given}, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=f'refused: it needs {named}, '):
        load(path)


def test_object_scalar_is_refused(tmp_path):
    from numpy import __version__ as version

    core = 'numpy.core' if version.startswith('1.') else 'numpy._core'
    scalar = __import__(f'{core}.multiarray', fromlist=['scalar']).scalar

    class ObjectType:
        def __reduce__(self):
            return np.dtype, ('O',)

    class Scalar:
        def __reduce__(self):
            return scalar, (ObjectType(), b'12345678')

    with pytest.raises(ValueError, match='refused: it needs numpy.object_, '):
        load(save(Scalar(), tmp_path / 'x.pth'))


@pytest.mark.parametrize('form', ['zip', 'legacy'])
@pytest.mark.parametrize('part', [0.02, 0.5, 0.98])
def test_truncated_file_is_named_with_its_size(tmp_path, form, part):
    whole = save({'w': torch.arange(4096.0)}, tmp_path / 'whole.pth', form).read_bytes()
    path = tmp_path / 'cut.pth'
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(
        ValueError, match=rf'cut.pth, {path.stat().st_size} bytes cannot be read.*truncated'
    ):
        load(path)


@pytest.mark.parametrize(
    'content', [b'', b'hello, world', b'\x89PNG\r\n\x1a\n' + b'0' * 64, b'<!DOCTYPE html><html>']
)
def test_file_that_is_no_checkpoint(tmp_path, content):
    path = tmp_path / 'page.pth'
    path.write_bytes(content)
    with pytest.raises(ValueError, match='page.pth.*cannot be read.*Remedy'):
        load(path)


def test_torchscript_archive_says_what_it_is(tmp_path):
    path = tmp_path / 'script.pth'
    with zipfile.ZipFile(path, 'w') as archive:
        for name in ('data.pkl', 'constants.pkl', 'code/x.py', 'version'):
            archive.writestr(f'script/{name}', '6' if name == 'version' else b'\x80\x02N.')
    with pytest.raises(ValueError, match='script.pth.*TorchScript'):
        load(path)


def test_missing_file_and_directory(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r'nothing\.pth does not exist; allowed.*Remedy'):
        load(tmp_path / 'nothing.pth')
    with pytest.raises(FileNotFoundError, match='is a directory; allowed.*Remedy'):
        load(tmp_path)
    monkeypatch.setenv('HOME', str(tmp_path))
    save({'w': torch.ones(1)}, tmp_path / 'home.pth')
    assert load_checkpoint('~/home.pth')['w'].item() == 1


@pytest.mark.parametrize('error', [torch.OutOfMemoryError, MemoryError])
def test_lack_of_memory_is_not_called_a_damaged_file(tmp_path, monkeypatch, error):
    path = save({'w': torch.ones(1)}, tmp_path / 'x.pth')

    def full(*args, **kwargs):
        raise error('CUDA out of memory. Tried to allocate 2.00 GiB')

    monkeypatch.setattr(torch, 'load', full)
    for read in (load, load_checkpoint):
        with pytest.raises(error, match='^CUDA out of memory. Tried to allocate 2.00 GiB$'):
            read(path)


def test_loading_leaves_torch_as_it_was(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    torch.serialization.add_safe_globals([np.dtype])
    try:
        load(save({'a': np.arange(2)}, tmp_path / 'x.pth'))
        assert set(torch.serialization.get_safe_globals()) == before | {np.dtype}
        stream = io.BytesIO()
        torch.save({'b': HistoryBuffer([1.0], [1])}, stream)
        stream.seek(0)
        with pytest.raises(pickle.UnpicklingError):
            torch.load(stream, weights_only=True)
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(list(before))


def test_a_flipped_bit_is_found_wherever_it_is(tmp_path):
    rng = np.random.default_rng(0)
    content = dict(
        state_dict={f'layer{i}.weight': torch.randn(64, 33) for i in range(4)}, meta=dict(epoch=3)
    )
    path = tmp_path / 'whole.pth'
    torch.save(content, path)
    whole, refused = path.read_bytes(), 0
    flipped = tmp_path / 'flipped.pth'
    for place in rng.integers(0, len(whole), 150):
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        flipped.write_bytes(data)
        try:
            found = load_checkpoint(flipped)
        except ValueError as error:
            refused += 1
            assert str(flipped) in str(error)
            continue
        # outside of what it holds: gaps that align tensors, dates, names of the archive
        assert found['meta'] == content['meta']
        for name, value in content['state_dict'].items():
            assert torch.equal(found['state_dict'][name], value)
    assert refused > 120


def test_a_checksum_that_does_not_fit_says_so(tmp_path):
    weight = torch.full((100,), 1.5)
    path = tmp_path / 'a.pth'
    torch.save({'state_dict': {'w': weight}}, path)
    data = path.read_bytes()
    at = data.index(weight.numpy().tobytes())
    path.write_bytes(data[:at] + b'\1' + data[at + 1 :])
    with pytest.raises(ValueError, match=r'a\.pth.*data/0 in it does not fit its checksum'):
        load_checkpoint(path)


@pytest.mark.parametrize('form', ['zip', 'legacy'])
def test_a_namespace_of_options_is_names_and_values_where_asked_for(tmp_path, form):
    inner = argparse.Namespace(seed=0, stages=[2, 3])
    content = dict(w=torch.ones(2), args=argparse.Namespace(lr=1e-4, inner=inner))
    path = save(content, tmp_path / 'a.pth', form)
    with pytest.raises(ValueError, match=r'was refused: it needs argparse.Namespace'):
        load_checkpoint(path)
    found = load_checkpoint(path, namespaces=True)
    assert found['args'].inner == inner and found['args'].lr == 1e-4
    target = tmp_path / 'made'
    save(dict(args=argparse.Namespace(x=Touch(target))), path, form)
    with pytest.raises(ValueError, match='was refused: it needs'):
        load_checkpoint(path, namespaces=True)
    assert not target.exists()
    with pytest.raises(ValueError, match='argparse.Namespace'):  # it is not left open
        load_checkpoint(save(content, path, form))
