"""Several processes and runs in one directory."""

from __future__ import annotations

import shutil

from feature_cases import ENCODER, assert_same, features_of, opened

RACER = '''
import os, random, sys
from feature_cases import *
from mmfss.features import disk

def said(text, logger, level):
    raise AssertionError(text)

directory, count, encoders = sys.argv[1], int(sys.argv[2]), sys.argv[3].split(',')
disk.print_log = said
for rank in range(count):
    if not os.fork():
        break
else:
    codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(count)]
    assert not any(codes), codes
    os._exit(0)
encoder, rng = encoders[rank % len(encoders)], random.Random(rank)
if len(encoders) > 1:
    disk.print_log = lambda *_, **__: None
cache = opened(directory, encoder=encoder, memory_bytes=0, about=dict(what=encoder[:1]))
for _ in range(300):
    image = f'{rng.randrange(20)}'
    found = cache.get(encoder, image)
    if found is not None:
        assert_same(found, features_of(image, encoder))
    if found is None or rng.random() < 0.3:
        cache.put(encoder, image, features_of(image, encoder))
assert cache.stats.damaged == 0 and cache.stats.disk_hits > 200, str(cache.stats)
print(cache.stats, flush=True)
os._exit(0)
'''


def test_four_processes_on_the_same_images(tmp_path, in_a_process):
    assert in_a_process(RACER, tmp_path, 4, ENCODER).count('from disk') == 4
    cache = opened(tmp_path)
    for i in range(20):
        assert_same(cache.get(ENCODER, f'{i}'), features_of(f'{i}'))
    assert not list(tmp_path.rglob('*.part')) and cache.stats.damaged == 0


def test_two_runs_with_encoders_of_their_own(tmp_path, in_a_process):
    keys = ('a' * 64, 'b' * 64)
    assert in_a_process(RACER, tmp_path, 4, ','.join(keys)).count('from disk') == 4
    for key in keys:
        cache = opened(tmp_path, encoder=key)
        for i in range(20):
            assert_same(cache.get(key, f'{i}'), features_of(f'{i}', key))


def test_a_directory_removed_under_a_run(tmp_path, said):
    cache = opened(tmp_path / 'cache', memory_bytes=0)
    cache.put(ENCODER, 'a', features_of('a'))
    shutil.rmtree(tmp_path / 'cache')
    assert cache.get(ENCODER, 'a') is None
    cache.put(ENCODER, 'a', features_of('a'))
    assert_same(cache.get(ENCODER, 'a'), features_of('a'))
    assert said == [] and cache.stats.damaged == 0
