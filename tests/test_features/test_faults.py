"""Damaged files, dead writers, disks that are full or may not be written to: nothing that was not
put in is ever served, and the run goes on."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest
from feature_cases import ENCODER, assert_same, features_of, opened

from mmfss.features import FeatureCache, disk, entries


def path_of(directory: Path, image: str = 'abc') -> Path:
    return directory / ENCODER[:16] / image[:2] / f'{image}.safetensors'


def truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


def header_size(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], 'little')


def with_header(content: bytes, change) -> bytes:
    """The file with another, well-formed header."""
    start = header_size(content)
    header = change(json.loads(content[8:start]))
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, 'little') + text + content[start:]


def other_entry(content: bytes, **changes) -> bytes:
    """The file of another encoder, image or format, with right checksums."""

    def change(header):
        meta = header['__metadata__']
        entry = json.dumps(json.loads(meta['entry']) | changes)
        crc = f'{zlib.crc32(entry.encode()):08x}'
        return header | dict(__metadata__=dict(entry=entry, checksum=crc + meta['checksum'][8:]))

    return with_header(content, change)


DAMAGE = {
    'half': (truncate, 'has not the size'),
    'last byte lost': (lambda c: c[:-1], 'has not the size'),
    'a byte more': (lambda c: c + b'\0', 'has not the size'),
    'empty': (lambda c: b'', 'cut off'),
    'within the header': (lambda c: c[:100], 'cut off'),
    'zeros': (lambda c: bytes(len(c)), 'cut off'),
    'text': (lambda c: b'not tensors ' * 99, 'cut off'),
    'garbage header': (lambda c: c[:8] + b'?' * (header_size(c) - 8) + c[header_size(c) :], 'garb'),
    'header [[[': (lambda c: c[:8] + b'[' * (header_size(c) - 8) + c[header_size(c) :], 'garbage'),
    'header is a list': (lambda c: with_header(c, lambda h: [h]), 'garbage'),
    'no metadata': (lambda c: with_header(c, lambda h: {'000': h['000']}), 'garbage'),
    'checksum is null': (
        lambda c: with_header(c, lambda h: h | {'__metadata__': dict(entry='', checksum=None)}),
        'garbage',
    ),
    'pages lost': (lambda c: c[:8192] + bytes(4096) + c[12288:], 'checksum of the features'),
    'pages swapped': (
        lambda c: c[:4096] + c[8192:12288] + c[4096:8192] + c[12288:],
        'checksum of the features',
    ),
    'other encoder': (lambda c: other_entry(c, encoder='f' * 64), 'encoder is fff'),
    'other image': (lambda c: other_entry(c, image='abd'), 'image is abd, not abc'),
    'other format': (lambda c: other_entry(c, format=0), 'format is 0, not 1'),
}


@pytest.mark.parametrize('kind', DAMAGE)
def test_damage_is_found_said_once_and_mended(tmp_path, said, kind):
    damage, reason = DAMAGE[kind]
    truth = features_of('abc')
    opened(tmp_path).put(ENCODER, 'abc', truth)
    path = path_of(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    cache = opened(tmp_path, memory_bytes=0)
    assert cache.get(ENCODER, 'abc') is None and not path.exists()
    assert cache.get(ENCODER, 'abc') is None
    assert (cache.stats.damaged, cache.stats.misses, cache.stats.disk_hits) == (1, 2, 0)
    (text,) = said
    assert f'{path} is damaged (' in text and reason in text
    assert 'Its features are computed again. Further such files' in text
    cache.put(ENCODER, 'abc', truth)
    assert_same(cache.get(ENCODER, 'abc'), truth)


def test_any_byte_flipped(tmp_path):
    """In each field of the header, and all over the features."""
    truth = features_of('abc')
    opened(tmp_path).put(ENCODER, 'abc', truth)
    path = path_of(tmp_path)
    content = path.read_bytes()
    start, rng = header_size(content), random.Random(0)
    served = 0
    for place in (*range(start), *rng.sample(range(start, len(content)), 300), len(content) - 1):
        flipped = content[place] ^ (1 << rng.randrange(8))
        path.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
        try:
            found = entries.read(path, ENCODER, 'abc')
        except entries.DamagedEntry:
            continue
        # nothing that is read lies there: offsets, which our layout implies, and padding
        assert place < start
        assert_same(found, truth)
        served += 1
    assert served < start / 2


def test_many_damaged_files_are_one_message(tmp_path, said):
    for i in range(6):
        opened(tmp_path).put(ENCODER, f'{i}', features_of(i))
        path_of(tmp_path, f'{i}').write_bytes(b'')
    cache = opened(tmp_path)
    assert all(cache.get(ENCODER, f'{i}') is None for i in range(6))
    assert cache.stats.damaged == 6 and len(said) == 1


def test_a_file_that_cannot_be_read(tmp_path, said):
    cache = opened(tmp_path)
    path_of(tmp_path).mkdir(parents=True)
    assert cache.get(ENCODER, 'abc') is None and cache.stats.damaged == 1
    assert 'cannot be read (Is a directory). Its' in said[0]


# --------------------------------------------------------------------------- dead writers
KILLER = '''
import itertools, os, pathlib, random, signal, sys, time
from feature_cases import *
images = [[x.repeat(1, 1, 8, 8) for x in features_of(i)] for i in range(7)]
rng, directory = random.Random(0), pathlib.Path(sys.argv[1])
for kills in range(1000):  # till each image was written and some writers were caught at it
    if kills >= 40 and len([*directory.rglob('*.part')]) > 3:
        if len([*directory.rglob('*.safetensors')]) == 7:
            break
    pid = os.fork()
    if not pid:
        cache = opened(directory, memory_bytes=0)
        for i in itertools.count(kills):
            cache.put(ENCODER, f'{i % 7}', images[i % 7])
    time.sleep(0.01 + 0.03 * rng.random())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
'''


def test_killed_in_the_middle_of_writing_many_times(tmp_path, in_a_process, said):
    in_a_process(KILLER, tmp_path)
    parts = list(tmp_path.rglob('*.part'))
    assert len(parts) > 3
    cache = opened(tmp_path, memory_bytes=0)
    for i in range(7):
        assert_same(cache.get(ENCODER, f'{i}'), [x.repeat(1, 1, 8, 8) for x in features_of(i)])
    assert cache.stats.damaged == 0 and said == [] and all(part.exists() for part in parts)


# ------------------------------------------------------------------ disks that do not take it
FULL = '''
import resource, sys
from feature_cases import *
from mmfss.features import disk
disk.print_log = lambda text, logger, level: print(text, flush=True)
cache = opened(sys.argv[1], memory_bytes=0)
cache.put(ENCODER, 'a', features_of('a'))
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
for image in 'bcd':
    cache.put(ENCODER, image, features_of(image))
    assert cache.get(ENCODER, image) is None
    assert_same(cache.get(ENCODER, 'a'), features_of('a'))
assert cache.stats.written == 1 and cache.stats.damaged == 0
'''


def test_file_size_limit(tmp_path, in_a_process):
    out = in_a_process(FULL, tmp_path)
    assert out.count('\n') == 1
    assert f'cannot write to {tmp_path} (File too large). This run goes on without' in out
    assert not list(tmp_path.rglob('*.part'))


@pytest.mark.skipif(shutil.which('mount') is None, reason='no mount')
@pytest.mark.parametrize(
    'reserve, message',
    [
        (
            -(2**40),
            'cannot write to {} (No space left on device). This run goes on without writing',
        ),
        (30_000, 'are free on the disk of {}, and 29.3 KB are left for other things. No more'),
    ],
)
def test_full_file_system(tmp_path, said, monkeypatch, reserve, message):
    monkeypatch.setattr(disk, '_RESERVE_BYTES', reserve)
    monkeypatch.setattr(disk, '_RESERVE_SHARE', 1.0)
    command = ['mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', str(tmp_path)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip('mounting is not permitted')
    try:
        cache = opened(tmp_path, memory_bytes=0)
        for i in range(6):
            cache.put(ENCODER, f'{i}', features_of(i))
        written = cache.stats.written
        assert 1 <= written <= 3 and len(said) == 1
        assert message.format(tmp_path) in said[0] and 'Make room' in said[0]
        again = opened(tmp_path)
        for i in range(6):
            found = again.get(ENCODER, f'{i}')
            assert found is None if i >= written else assert_same(found, features_of(i)) is None
        assert again.stats.damaged == 0 and not list(tmp_path.rglob('*.part'))
    finally:
        subprocess.run(['umount', str(tmp_path)], check=True)


@pytest.mark.parametrize('place', ['', ENCODER[:16], f'{ENCODER[:16]}/ab'])
def test_a_place_that_cannot_be_written_to_by_anybody(tmp_path, said, place):
    """A file is where a folder should be."""
    cache = FeatureCache(str(tmp_path / 'cache'), memory_bytes=0)
    (tmp_path / 'cache' / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / 'cache' / place).write_text('')
    cache.open(ENCODER, {})
    for _ in range(2):
        assert cache.get(ENCODER, 'abc') is None
        assert_same(cache.put(ENCODER, 'abc', features_of('abc')), features_of('abc'))
    assert len(said) == 1 and 'cannot write to' in said[0] and cache.stats.written == 0


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_read_only_folder(tmp_path, said):
    opened(tmp_path).put(ENCODER, 'abc', features_of('abc'))
    for folder in (path_of(tmp_path).parent, path_of(tmp_path).parent.parent, tmp_path):
        folder.chmod(0o555)
    cache = opened(tmp_path)
    cache.put(ENCODER, 'abd', features_of('abd'))
    assert_same(cache.get(ENCODER, 'abc'), features_of('abc'))
    assert len(said) == 1 and '(Permission denied)' in said[0]


def test_an_entry_that_cannot_be_read_now_is_left_alone(tmp_path, said, monkeypatch):
    """Too many open files, say: no reason to throw away what is good."""
    opened(tmp_path).put(ENCODER, 'abc', features_of('abc'))
    cache = opened(tmp_path, memory_bytes=0)
    with monkeypatch.context() as patch:
        error = OSError(24, 'Too many open files')
        patch.setattr(entries, 'open', lambda *_, **__: (_ for _ in ()).throw(error), raising=False)
        assert cache.get(ENCODER, 'abc') is None
    assert_same(cache.get(ENCODER, 'abc'), features_of('abc'))
    assert cache.stats.damaged == 1 and '(Too many open files)' in said[0]


def test_a_file_that_another_machine_replaces_while_it_is_read(tmp_path, said, monkeypatch):
    opened(tmp_path).put(ENCODER, 'abc', features_of('abc'))
    cache, read, calls = opened(tmp_path), entries.read, []

    def stale_once(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise OSError(errno.ESTALE, 'Stale file handle')
        return read(*arguments)

    monkeypatch.setattr(entries, 'read', stale_once)
    assert_same(cache.get(ENCODER, 'abc'), features_of('abc'))
    assert len(calls) == 2 and said == [] and cache.stats.damaged == 0
