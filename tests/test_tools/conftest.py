"""check_parity.py as a module, and a directory of reference tensors for it."""

from __future__ import annotations

import importlib.util
import shutil
import sys

import pytest
from parity_cases import CASES
from synthetic_reference import write


@pytest.fixture(scope='module')
def tool(repo_root):
    folder = repo_root / 'tools/analysis_tools'
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location('check_parity', folder / 'check_parity.py')
    module = sys.modules['check_parity'] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # a log of its own, whose stream outlives the tests: that of an earlier test may be closed
    module.MMLogger.get_instance('check_parity')
    yield module
    del module.MMLogger._instance_dict['check_parity']
    sys.path.remove(str(folder))
    del sys.modules['check_parity']


@pytest.fixture(scope='module')
def synthetic(tool, tmp_path_factory):
    return write(tool, tmp_path_factory.mktemp('parity') / 'other', 'sam2_hiera_b+.yaml', CASES)


@pytest.fixture
def copied(synthetic, tmp_path):
    return shutil.copytree(synthetic, tmp_path / 'copy')
