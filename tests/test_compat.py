"""The mends: each one works where it is needed and steps aside where it is not."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import shutil
import socket
import sys
import types
from pathlib import Path

import pytest
import torch
from mmengine.config import ConfigDict

from mmfss import compat
from mmfss._versions import check_versions, installed_stack, installed_version

OPENMMLAB = {
    'mmengine': '0.10.7',
    'mmcv-lite': '2.1.0',
    'mmsegmentation': '1.2.2',
    'torch': '2.13.0+cpu',
    'sam2': '1.1.0',
}
FORK = {
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmsegmentation': '1.4.2',
    'torch': '2.5.1',
    'sam2': '1.1.0',
}
on_fork = installed_version('onedl-mmengine') is not None
lite = installed_version('mmcv-lite') is not None


# ------------------------------------------------------------------------------- versions
@pytest.mark.smoke
def test_versions_of_this_environment_are_allowed():
    assert check_versions() == ('fork (onedl)' if on_fork else 'OpenMMLab')


@pytest.mark.parametrize('stack, name', [(OPENMMLAB, 'OpenMMLab'), (FORK, 'fork (onedl)')])
def test_both_stacks_pass_the_check(stack, name):
    assert check_versions(stack.get) == name


@pytest.mark.parametrize(
    'change, message',
    [
        ({'mmengine': '0.10.5'}, 'mmengine allowed mmengine>=0.10.7,<1, got 0.10.5'),
        ({'mmengine': '1.0.0'}, 'mmengine allowed .* got 1.0.0'),
        ({'mmengine': None}, 'mmengine allowed mmengine>=0.10.7,<1, got none'),
        ({'mmcv-lite': '2.2.0'}, 'mmcv-lite allowed mmcv-lite>=2.1.0,<2.2, got 2.2.0'),
        ({'mmcv-lite': None}, 'mmcv-lite or mmcv allowed .* got none'),
        ({'mmsegmentation': '0.30.0'}, 'mmsegmentation allowed .* got 0.30.0'),
        ({'torch': '2.5.0'}, 'torch allowed torch>=2.5.1, got 2.5.0'),
        ({'torch': None}, 'torch allowed torch>=2.5.1, got none'),
    ],
)
def test_version_out_of_bounds_says_allowed_got_and_remedy(change, message):
    with pytest.raises(ImportError, match=f'{message}.*Remedy: pip install'):
        check_versions({**OPENMMLAB, **change}.get)


@pytest.mark.parametrize('version', ['1.2.0', None])
def test_sam2_is_to_be_installed_without_what_it_asks_for(version):
    message = (
        f'sam2 allowed sam2>=1.1,<1.2, got {version or "none"}. Remedy: SAM2_BUILD_CUDA=0 pip '
        'install --no-deps --no-build-isolation "sam2>=1.1,<1.2"'
    )
    with pytest.raises(ImportError, match=message):
        check_versions({**OPENMMLAB, 'sam2': version}.get)
    with pytest.raises(ImportError, match='pip install "torch>=2.5.1" .*, then SAM2_BUILD_CUDA=0'):
        check_versions({**OPENMMLAB, 'sam2': version, 'torch': None}.get)


def test_several_faults_are_told_at_once():
    with pytest.raises(ImportError, match='got 0.9.*got 2.4.0.*pip install "mmengine.*" "torch'):
        check_versions({**OPENMMLAB, 'mmengine': '0.9', 'torch': '2.4.0'}.get)


def test_both_stacks_at_once_and_neither_are_refused():
    with pytest.raises(ImportError, match='never on both.*mmengine.*onedl-mmcv.*Remedy: make a fr'):
        installed_stack({**OPENMMLAB, **FORK}.get)
    with pytest.raises(ImportError, match='none of them is installed. Remedy'):
        installed_stack({}.get)


@pytest.mark.parametrize('version', ['2.13.0+cu130', '2.6.0.dev20250101', '2.5.1.post3'])
def test_torch_builds_with_suffixes_are_allowed(version):
    check_versions({**OPENMMLAB, 'torch': version}.get)


# ----------------------------------------------------------------------- mmcv's operators
@pytest.mark.smoke
def test_mmseg_models_import_and_register():
    import mmseg.models  # noqa: F401
    from mmseg.registry import MODELS

    assert MODELS.get('mmseg.ResNet') is not None
    assert MODELS.get('mmseg.Mask2FormerHead') is not None or not lite


@pytest.mark.skipif(not lite, reason='full mmcv or the fork is installed')
def test_operator_of_the_stand_in_says_what_it_needs():
    from mmcv.ops import nms

    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    with pytest.raises(ImportError, match='mmcv.ops: nms needs full mmcv.*Remedy'):
        nms(boxes, torch.tensor([0.5]), 0.5)


@pytest.mark.smoke
def test_environment_reports_work():
    from mmcv.utils.env import collect_env

    report = collect_env()
    assert report['PyTorch'] == torch.__version__
    assert report['MMCV Compiler'] == 'n/a' or not lite


def test_full_mmcv_and_the_fork_are_left_alone(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, 'mmcv._ext', raising=False)
    monkeypatch.setattr(compat, 'installed_version', lambda name: None)  # the fork
    compat.stand_in_for_mmcv_ops()
    assert 'mmcv._ext' not in sys.modules
    monkeypatch.setattr(compat, 'installed_version', lambda name: '1.2.2')
    (tmp_path / '_ext.so').touch()
    found = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: found)
    compat.stand_in_for_mmcv_ops()  # full mmcv
    assert 'mmcv._ext' not in sys.modules


def test_apply_again_changes_nothing():
    from mmengine.runner import CheckpointLoader

    before = dict(CheckpointLoader._schemes)
    stand_in = sys.modules.get('mmcv._ext')
    compat.apply()
    after = dict(CheckpointLoader._schemes)
    assert list(after) == list(before)
    assert all(after[key] is before[key] for key in before if key)
    assert sys.modules.get('mmcv._ext') is stand_in


# ---------------------------------------------------------------------------- torchvision
def _fake_torchvision(folder: Path, library: bytes | Path | None) -> None:
    package = folder / 'torchvision'
    package.mkdir()
    (package / '__init__.py').write_text('raise RuntimeError("torchvision::nms does not exist")')
    if isinstance(library, bytes):
        (package / '_C.so').write_bytes(library)
    elif library is not None:
        shutil.copy(library, package / '_C.so')


@pytest.fixture
def no_torchvision(monkeypatch, tmp_path):
    """Torchvision is unknown until the test puts one into the folder given."""
    monkeypatch.setitem(sys.modules, 'torchvision', None)  # restored afterwards
    del sys.modules['torchvision']
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize('library', [b'no shared library', None])
def test_broken_torchvision_looks_absent(no_torchvision, library):
    _fake_torchvision(no_torchvision, library)
    with pytest.warns(UserWarning, match='torchvision .* does not work with torch .* absent'):
        compat.hide_broken_torchvision()
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module('torchvision')


def test_torchvision_whose_library_loads_is_left_alone(no_torchvision, recwarn):
    library = Path(torch.__file__).parent / 'lib' / 'libtorch_global_deps.so'
    if not library.is_file():
        pytest.skip(f'{library} is not part of this torch')
    _fake_torchvision(no_torchvision, library)
    compat.hide_broken_torchvision()
    assert 'torchvision' not in sys.modules and not recwarn.list


def test_imported_torchvision_is_left_alone(monkeypatch, recwarn):
    module = types.ModuleType('torchvision')
    monkeypatch.setitem(sys.modules, 'torchvision', module)
    compat.hide_broken_torchvision()
    assert sys.modules['torchvision'] is module and not recwarn.list


# ------------------------------------------------------------------------------ distributed
RANK_KEYS = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')


def _free_port() -> str:
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return str(sock.getsockname()[1])


@pytest.fixture
def no_group(monkeypatch):
    """No distributed environment, the CPU only; what a test sets up is taken down."""
    for key in list(os.environ):
        if key in RANK_KEYS or key.startswith(('SLURM_', 'OMPI_')):
            monkeypatch.delenv(key)
    for key in RANK_KEYS:  # set and deleted, so that what init_dist sets is undone
        monkeypatch.setenv(key, 'x')
        monkeypatch.delenv(key)
    monkeypatch.setattr(compat, '_cpu_only', lambda: True)
    yield monkeypatch
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def test_launcher_none_and_a_machine_with_accelerator_are_left_alone(no_group):
    compat.init_dist('none')
    assert not torch.distributed.is_initialized()
    no_group.setattr(compat, '_cpu_only', lambda: False)
    compat.init_dist('pytorch')
    assert not torch.distributed.is_initialized()


def test_unknown_launcher_and_missing_environment(no_group):
    with pytest.raises(ValueError, match="allowed none, pytorch, slurm, mpi; got 'torchrun'"):
        compat.init_dist('torchrun')
    with pytest.raises(ValueError, match='RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR not set.*'):
        compat.init_dist('pytorch')
    with pytest.raises(ValueError, match='SLURM_PROCID, SLURM_NTASKS not set'):
        compat.init_dist('slurm')
    with pytest.raises(ValueError, match='OMPI_COMM_WORLD_RANK.*not set'):
        compat.init_dist('mpi')


@pytest.mark.parametrize(
    'launcher, env',
    [
        (
            'pytorch',
            {'RANK': '0', 'WORLD_SIZE': '1', 'LOCAL_RANK': '0', 'MASTER_ADDR': '127.0.0.1'},
        ),
        ('slurm', {'SLURM_PROCID': '0', 'SLURM_NTASKS': '1', 'SLURM_NODELIST': 'n[1-2]'}),
        (
            'mpi',
            {
                'OMPI_COMM_WORLD_RANK': '0',
                'OMPI_COMM_WORLD_SIZE': '1',
                'OMPI_COMM_WORLD_LOCAL_RANK': '0',
                'MASTER_ADDR': '127.0.0.1',
            },
        ),
    ],
)
def test_launchers_initialise_gloo(no_group, tmp_path, launcher, env):
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text('#!/bin/sh\n[ "$3" = "n[1-2]" ] && echo 127.0.0.1 && echo n2\n')
    scontrol.chmod(0o755)
    no_group.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    no_group.setenv('MASTER_PORT', _free_port())
    for key, value in env.items():
        no_group.setenv(key, value)
    compat.init_dist(launcher)
    assert torch.distributed.get_backend() == 'gloo'
    assert torch.distributed.get_world_size() == 1
    assert os.environ['LOCAL_RANK'] == '0' and os.environ['MASTER_ADDR'] == '127.0.0.1'
    compat.init_dist(launcher)  # again: nothing to do
    cfg = ConfigDict(find_unused_parameters=True)
    compat.set_cpu_model_wrapper(cfg)
    assert cfg.model_wrapper_cfg.type == 'MMDistributedDataParallel'
    assert cfg.model_wrapper_cfg.device_ids is None
    assert cfg.model_wrapper_cfg.find_unused_parameters is True
    given = ConfigDict(model_wrapper_cfg=dict(type='Mine'))
    compat.set_cpu_model_wrapper(given)
    assert given.model_wrapper_cfg == dict(type='Mine')


def test_slurm_without_scontrol_says_what_to_set(no_group, tmp_path):
    for key, value in {'PROCID': '0', 'NTASKS': '1', 'NODELIST': 'n1'}.items():
        no_group.setenv(f'SLURM_{key}', value)
    no_group.setenv('PATH', str(tmp_path))
    with pytest.raises(ValueError, match='SLURM_NODELIST=n1 .*Remedy: set MASTER_ADDR'):
        compat.init_dist('slurm')


def test_wrapper_is_not_set_without_a_group(no_group):
    cfg = ConfigDict()
    compat.set_cpu_model_wrapper(cfg)
    assert 'model_wrapper_cfg' not in cfg


def _run_rank(rank: int, world_size: int, port: str, out: Path, args: tuple) -> None:
    """In a forked process, which has everything imported."""
    import toy_run

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    (out / f'{rank}.json').write_text(json.dumps(toy_run.run(*args)))


def _toy_run(tmp_path: Path, launcher: str, max_iters: int, world_size: int) -> list[dict]:
    """Run tests/toy_run.py in as many processes; returns what each of them tells."""
    out = tmp_path / f'{launcher}_{max_iters}'
    out.mkdir()
    args = (world_size, _free_port(), out, (str(tmp_path / 'work_dir'), launcher, max_iters))
    context = multiprocessing.get_context('fork')
    processes = [
        context.Process(target=_run_rank, args=(rank, *args)) for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
        if process.is_alive():
            process.kill()
    assert [process.exitcode for process in processes] == [0] * world_size
    return [json.loads((out / f'{rank}.json').read_text()) for rank in range(world_size)]


@pytest.mark.smoke
@pytest.mark.skipif(not compat._cpu_only(), reason='an accelerator is there: not a CPU run')
@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_two_processes_train_on_the_cpu_and_the_run_is_resumed(tmp_path, no_group):
    """The real Runner: DDP with gloo, a checkpoint, safe loading of it, two more iterations."""
    first, other = _toy_run(tmp_path, 'pytorch', 2, world_size=2)
    assert first == other  # the same weights after each rank saw other data
    assert (first['start'], first['end'], first['world_size']) == (0, 2, 2)
    (second,) = _toy_run(tmp_path, 'none', 4, world_size=1)
    assert (second['start'], second['end'], second['world_size']) == (2, 4, 1)
