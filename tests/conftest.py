"""What every test shares: one thread per process, the package, the reference data."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

# Before torch and numpy are imported: tests are small and the machine is shared.
for _key in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'):
    os.environ.setdefault(_key, '1')

# 'auto', the default, times both runtimes: what runs an encoder would change from run to run.
os.environ.setdefault('MMFSS_RUNTIME', 'torch')

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))
sys.path.append(str(REPO / 'tools'))  # benchmarks; at the end, as tools/test.py is no test

import mmengine.config.config  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

import mmfss  # noqa: E402, F401  (registers all parts)
from mmfss.features.disk import DiskStore  # noqa: E402

torch.set_num_threads(1)

# mmengine lays the config of a run out four times, which is half of the time of a tiny run
mmengine.config.config.FormatCode = lambda text, **_: (text, True)

# A shell starts what it puts in the background (`make test &`, nohup) with ctrl-C ignored, and
# processes hand that on: those that tests interrupt would never stop.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: reference tensors and data that are not part of the repository
SHARED = Path(os.environ.get('MMFSS_SHARED', REPO.parent / 'shared')).resolve()

#: files that take longest, in this order: one that came late would leave the other processes idle
LONGEST = (
    'test_webui/test_browser.py',
    'test_methods/test_contract.py',
    'test_benchmarks/test_commands.py',
    'test_table.py',
    'test_registered.py',
    'test_distributed.py',
    'test_export/test_export.py',
    'test_own_method.py',
    'test_config_points.py',
    'test_runner.py',
    'test_labelling/test_interruption.py',
    'test_tools/test_score_tools.py',
    'test_apis/test_few_shot_segmentor_in_mmseg.py',
    'test_engine/test_resuming.py',
    'test_preparation/test_interruption.py',
    'test_encoders/test_runtime_processes.py',
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """pytest-xdist (``--no-loadscope-reorder``) starts files in the order of the tests."""
    ranks = {str(REPO / 'tests' / name): rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(str(item.path), len(LONGEST)))


@pytest.fixture(scope='session')
def repo_root() -> Path:
    """Top folder of the checkout."""
    return REPO


@pytest.fixture(scope='session')
def shared_dir() -> Path:
    """Folder with the reference data; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f'no reference data at {SHARED}; set MMFSS_SHARED to its folder')
    return SHARED


@pytest.fixture(autouse=True)
def no_features_in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Published configs keep features in ``work_dirs``, which tests leave alone."""
    original = DiskStore.open

    def checked(self: DiskStore, *args: Any) -> None:
        assert REPO not in self.directory.parents, (
            f'a test keeps features in {self.directory}; let it set model.feature_cache'
        )
        original(self, *args)

    monkeypatch.setattr(DiskStore, 'open', checked)


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that configs read is set in the environment."""
    from config_cases import VARIABLES

    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the working directory during the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
