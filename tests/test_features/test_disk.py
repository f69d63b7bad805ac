"""The directory: what lies where, other encoders, the budget, what dead writers left."""

from __future__ import annotations

import json
import os
import shlex
import time

import pytest
import torch
from feature_cases import ENCODER, assert_same, features_of, opened
from safetensors import safe_open

from mmfss.features import disk, folders

ABOUT = dict(what=['sam2'], torch='2.13.0', weights='a' * 64, settings=dict(autocast=None, chunk=1))
SIZE = 4 * (4 * 32 * 32 + 8 * 8 * 8 + 2 * 16 * 4)


def files(directory) -> list[str]:
    paths = (p for p in directory.rglob('*') if p.is_file())
    return sorted(str(p.relative_to(directory)) for p in paths)


def test_layout(tmp_path):
    cache = opened(tmp_path / 'new/folder', about=ABOUT)
    cache.put(ENCODER, 'abc', features_of('abc'))
    folder = tmp_path / 'new/folder' / ('e' * 16)
    assert files(folder) == ['ab/abc.safetensors', 'about.json']
    told = json.loads((folder / 'about.json').read_text())
    assert told == dict(format=1, encoder=ENCODER, about=ABOUT)
    with safe_open(folder / 'ab/abc.safetensors', 'pt') as file:
        entry = json.loads(file.metadata()['entry'])
        flat = file.get_tensor('001')
    assert (entry['format'], entry['encoder'], entry['image']) == (1, ENCODER, 'abc')
    assert entry['tensors'][1] == ['float32', [1, 8, 8, 8], [512, 64, 8, 1]]
    assert torch.equal(flat.view(torch.float32).view(1, 8, 8, 8), features_of('abc')[1])


def test_a_second_run_reads_all_of_it(tmp_path, said):
    first = opened(tmp_path)
    for i in range(5):
        assert first.get(ENCODER, f'{i}') is None
        first.put(ENCODER, f'{i}', features_of(i))
    second = opened(tmp_path, memory_bytes=0)
    for i in range(5):
        assert_same(second.get(ENCODER, f'{i}'), features_of(i))
    assert (first.stats.misses, first.stats.written, second.stats.disk_hits) == (5, 5, 5)
    assert second.stats.bytes_read == 5 * SIZE < first.stats.bytes_written < 5 * SIZE + 5 * 1000
    assert said == []


def test_what_no_longer_fits_in_memory_comes_from_disk(tmp_path):
    cache = opened(tmp_path, memory_bytes=2 * SIZE)
    for i in range(4):
        cache.put(ENCODER, f'{i}', features_of(i))
    for i in (3, 2, 1, 0):
        assert_same(cache.get(ENCODER, f'{i}'), features_of(i))
    assert (cache.stats.memory_hits, cache.stats.disk_hits, cache.stats.misses) == (2, 2, 0)


# ------------------------------------------------------------------------- other encoders
def test_other_encoders_and_versions_are_named_once_with_their_difference(tmp_path, said):
    changes = {
        'a': dict(weights='b' * 64),
        'b': dict(torch='2.12.1', settings=dict(autocast='bfloat16', chunk=1)),
        'c': dict(what=['prior']),
    }
    for key, change in changes.items():
        other = opened(tmp_path, encoder=key * 64, about=ABOUT | change)
        other.put(key * 64, 'x', features_of('x'))
    older = json.loads((tmp_path / ('c' * 16) / 'about.json').read_text()) | dict(format=0)
    (tmp_path / ('c' * 16) / 'about.json').write_text(json.dumps(older))
    (tmp_path / 'd').mkdir()
    (tmp_path / 'd/about.json').write_text('{"encoder": ')
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'photos/x.part').write_text('mine')
    said.clear()

    cache = opened(tmp_path, about=ABOUT)
    assert cache.get(ENCODER, 'x') is None
    cache.open(ENCODER, ABOUT)
    cache.open('f' * 64, ABOUT)
    (text,) = said
    assert f'{tmp_path} also holds features of 4 other encoder(s) or version(s), 57.1 KB' in text
    lines = [line.strip() for line in text.splitlines()[1:]]
    assert lines[0].startswith('a' * 16 + ': 1 images, 19.') and lines[0].endswith('other weights')
    assert lines[1].endswith('settings.autocast bfloat16, here None, torch 2.12.1, here 2.13.0')
    assert lines[2].endswith('format 0, here 1')
    assert lines[3] == 'd: 0 images, 0 bytes; its about.json cannot be read'
    command = lines[4].partition('Where no other run needs them: ')[2]
    paths = [str(tmp_path / name) for name in ('a' * 16, 'b' * 16, 'c' * 16, 'd')]
    assert shlex.split(command) == ['rm', '-r', *paths]
    assert (tmp_path / 'photos/x.part').read_text() == 'mine'


def test_encoders_of_the_same_run_are_not_others(tmp_path, said):
    first = opened(tmp_path, about=ABOUT)
    first.open('f' * 64, ABOUT)
    first.open('a' * 64, ABOUT)
    assert said == []


def test_many_other_folders_fit_in_a_message(tmp_path, said):
    for i in range(20):
        folders.write_about(tmp_path / f'{i:016d}', f'{i:064d}', ABOUT)
    opened(tmp_path, about=ABOUT | {f'{name}': 1 for name in 'abcdefg'})
    assert len(said) == 1 and said[0].count('\n') == 7 and '  and 15 more\n' in said[0]
    assert 'a None, here 1, b None, here 1, c None, here 1, d None, here 1, 3 more' in said[0]


# --------------------------------------------------------------------------------- budget
def test_nothing_is_written_beyond_the_budget(tmp_path, said):
    cache = opened(tmp_path, disk_bytes=3 * SIZE + 3000, memory_bytes=0)
    for i in range(6):
        cache.put(ENCODER, f'{i}', features_of(i))
    assert cache.stats.written == 3 and len(said) == 1
    assert f'{tmp_path} holds 57.1 KB' in said[0] and '(disk_bytes) is 58.4 KB. No more' in said[0]
    assert 'Raise disk_bytes, or remove folders of encoders that are not used' in said[0]
    for i in range(3):
        assert_same(cache.get(ENCODER, f'{i}'), features_of(i))
    assert cache.get(ENCODER, '3') is None and len(said) == 1


def test_what_earlier_runs_and_other_encoders_left_counts(tmp_path):
    opened(tmp_path, encoder='a' * 64).put('a' * 64, 'x', features_of('x'))
    opened(tmp_path).put(ENCODER, 'x', features_of('x'))
    cache = opened(tmp_path, disk_bytes=3 * SIZE + 3000)
    cache.put(ENCODER, 'y', features_of('y'))
    cache.put(ENCODER, 'z', features_of('z'))
    assert cache.stats.written == 1


def test_another_process_filling_or_clearing_the_directory_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, '_RESCAN_SECONDS', 0.0)
    cache = opened(tmp_path, disk_bytes=2 * SIZE + 2000)
    other = opened(tmp_path)
    other.put(ENCODER, 'a', features_of('a'))
    other.put(ENCODER, 'b', features_of('b'))
    cache._disk._scan_seconds = 0.0
    cache.put(ENCODER, 'c', features_of('c'))
    assert cache.stats.written == 0
    (tmp_path / ('e' * 16) / 'a/a.safetensors').unlink()
    cache._disk._scan_seconds = 0.0
    cache.put(ENCODER, 'c', features_of('c'))
    assert cache.stats.written == 1


def test_the_directory_is_not_scanned_at_each_write(tmp_path, monkeypatch):
    calls = []
    scan = folders.scan
    monkeypatch.setattr(folders, 'scan', lambda path: calls.append(path) or scan(path))
    cache = opened(tmp_path, disk_bytes=2**20)
    for i in range(20):
        cache.put(ENCODER, f'{i}', features_of(i))
    assert calls == [tmp_path]


def test_of_many_processes_one_looks_at_what_is_there(tmp_path, monkeypatch, said):
    opened(tmp_path, encoder='a' * 64).put('a' * 64, 'x', features_of('x'))
    calls, scan = [], folders.scan
    monkeypatch.setattr(folders, 'scan', lambda path: calls.append(path) or scan(path))
    monkeypatch.setattr(disk, 'is_main_process', lambda: False)
    opened(tmp_path).put(ENCODER, 'x', features_of('x'))
    assert calls == [] == said
    cache = opened(tmp_path, disk_bytes=2 * SIZE + 2000)
    cache.put(ENCODER, 'y', features_of('y'))
    assert calls == [tmp_path] and cache.stats.written == 0


def test_it_is_known_whether_others_will_find_what_is_put_in(tmp_path):
    assert not opened().shares
    cache = opened(tmp_path, disk_bytes=SIZE + 1000)
    for image, shares in (('a', True), ('b', False)):
        assert cache.shares
        cache.put(ENCODER, image, features_of(image))
        assert cache.shares is shares
    (tmp_path / 'file').write_text('')
    cache = opened(tmp_path / 'new')
    cache._disk.directory = tmp_path / 'file'
    cache.put(ENCODER, 'a', features_of('a'))
    assert not cache.shares


def test_no_room_at_all(tmp_path, said):
    cache = opened(tmp_path, disk_bytes=0)
    cache.put(ENCODER, 'a', features_of('a'))
    assert cache.stats.written == 0 and len(said) == 1
    assert_same(cache.get(ENCODER, 'a'), features_of('a'))


# ------------------------------------------------------------------------------ left over
@pytest.mark.parametrize('hours, stays', [(0, True), (23, True), (25, False)])
def test_part_files_of_dead_writers_go_and_those_of_live_ones_stay(tmp_path, hours, stays):
    opened(tmp_path).put(ENCODER, 'abc', features_of('abc'))
    part = tmp_path / ('e' * 16) / 'ab/.abc.safetensors.x1.part'
    part.write_bytes(b'half')
    then = time.time() - hours * 3600
    os.utime(part, (then, then))
    cache = opened(tmp_path)
    assert part.exists() is stays
    assert_same(cache.get(ENCODER, 'abc'), features_of('abc'))


def test_sizes_in_words():
    sizes = (0, 1023, 1536, 5 * 2**20, 3.25 * 2**30, 2**40, 2**50)
    words = ['0 bytes', '1023 bytes', '1.5 KB', '5.0 MB', '3.2 GB', '1.0 TB', '1024.0 TB']
    assert [folders.in_words(size) for size in sizes] == words
