"""X-AnyLabeling itself, from PyPI, on a folder that the service serves; not in CI, as it is large::

    python3 -m venv anylabeling && anylabeling/bin/pip install "x-anylabeling-cvhub[cpu]"
    MMFSS_XANYLABELING=anylabeling/bin/python MMFSS_SCREENSHOTS=shots \
        pytest tests/test_serve/test_xanylabeling_program.py
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from serve_cases import png
from webui_steps import box_mask, pixels

pytest.importorskip('starlette')
pytest.importorskip('httpx')

from mmfss.regions import joined, outlines_of
from mmfss.serve.xanylabeling import shapes_of

PROGRAM = os.environ.get('MMFSS_XANYLABELING', '')
SHOTS = os.environ.get('MMFSS_SCREENSHOTS')
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not Path(PROGRAM).is_file(), reason='MMFSS_XANYLABELING is no program'),
]


def test_run_on_all_images(new_service, worker, tmp_path, repo_root):
    """Photo 0 has a cup that a person drew: it stays, and the others get theirs."""
    uvicorn = pytest.importorskip('uvicorn')
    folder, home = tmp_path / 'kitchen', tmp_path / 'home'
    folder.mkdir()
    home.mkdir()
    for seed in range(4):
        (folder / f'photo{seed}.png').write_bytes(png(seed))
    drawn = dict(label='cup', points=joined(outlines_of(box_mask())[0]).tolist())
    drawn.update(shape_type='polygon', score=None, flags={}, group_id=None)
    content = dict(version='4.2.1', flags={}, shapes=[drawn], imagePath='photo0.png')
    content.update(imageData=None, imageHeight=80, imageWidth=96)
    (folder / 'photo0.json').write_text(json.dumps(content))
    app = new_service(token='a-secret', folders=dict(kitchen=folder)).app
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level='error', lifespan='off'))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    script = repo_root / 'tests' / 'xanylabeling_run.py'
    command = [PROGRAM, str(script), f'http://127.0.0.1:{port}', str(folder), str(home)]
    command += [str(Path(SHOTS) / 'xanylabeling.png')] if SHOTS else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    server.should_exit = True
    thread.join()
    assert done.returncode == 0, done.stderr
    assert "models ['mmfss prototype: kitchen']" in done.stdout
    wanted = worker.new_inferencer()
    wanted.set_support(dict(cup=[(pixels(0)[..., ::-1], box_mask())]))
    for seed in range(4):
        shapes = json.loads((folder / f'photo{seed}.json').read_text())['shapes']
        if seed == 0:
            assert [one['score'] for one in shapes] == [None]
            continue
        expected = shapes_of(wanted(pixels(seed)[..., ::-1]))
        assert [one['score'] for one in shapes] == [one['score'] for one in expected]
        for found, one in zip(shapes, expected):
            # the program drops the corner that closes a polygon
            np.testing.assert_allclose(found['points'], one['points'][: len(found['points'])])
