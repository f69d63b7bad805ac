"""Encoders by OpenVINO in processes of their own: one converts for all, none calls home."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmfss.encoders.runtimes import converted

TESTS = Path(__file__).resolve().parents[1]
needs = pytest.mark.skipif(
    converted.missing() is not None, reason=f'no OpenVINO: {converted.missing()}'
)
#: in two processes at once fp32, then int8; without pytest, in which NNCF never reports
PROGRAM = """
import copy, json, multiprocessing, sys
import torch, mmfss
from mmseg.registry import MODELS
from tiny_models import PRIOR, episodes
from mmfss.encoders.encoding import Encoding
from mmfss.encoders.runtimes import converted

calls, convert = [], converted.converted
converted.converted = lambda *args: calls.append(1) or convert(*args)

def run(_):
    sums = []
    for runtime in ('openvino', dict(precision='int8', calibration=sys.argv[1])):
        torch.manual_seed(0)
        encoder = MODELS.build(copy.deepcopy(PRIOR)).requires_grad_(False).eval()
        one = Encoding({'dino': encoder}, runtime=runtime)
        sums.append(float(one(['dino'], episodes(1)['query'])['dino'][0].double().sum()))
    return dict(calls=len(calls), sums=sums)

torch.set_num_threads(1)
with multiprocessing.get_context('fork').Pool(2) as pool:
    print(json.dumps(pool.map(run, range(2), chunksize=1)))
"""


@needs
def test_one_converts_for_all_and_none_reports_its_use(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / 'photos').mkdir()
    for i in range(2):
        photo = rng.integers(0, 255, (60, 60, 3), np.uint8)
        Image.fromarray(photo).save(tmp_path / f'photos/{i}.png')
    home = tmp_path / 'home'
    home.mkdir()
    inside = ('CI', 'TF_BUILD', 'JENKINS_URL', 'MMFSS_RUNTIME')
    outside = {k: v for k, v in os.environ.items() if k not in inside}
    with socket.create_server(('127.0.0.1', 0)) as network:
        proxy = f'http://127.0.0.1:{network.getsockname()[1]}'
        env = dict(
            outside, HOME=str(home), XDG_CACHE_HOME=str(tmp_path / 'cache'), http_proxy=proxy,
            https_proxy=proxy, PYTHONPATH=os.pathsep.join([str(TESTS.parent), str(TESTS)]),
        )  # fmt: skip
        argv = [sys.executable, '-c', PROGRAM, str(tmp_path / 'photos')]
        done = subprocess.run(argv, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        network.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody came
            network.accept()
    assert found[0]['sums'] == found[1]['sums'] and found[0]['sums'][0] != found[0]['sums'][1]
    assert sum(one['calls'] for one in found) == 2
    assert not (home / 'intel').exists()  # where what is reported is counted
