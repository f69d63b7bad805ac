"""What a config names must be known once mmfss is imported, by nothing but that, in any order."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import forks
import pytest
import tiny_runs

import mmfss

ROOT = Path(mmfss.__file__).parents[1]
STACK = ('torch', 'numpy', 'mmengine', 'mmcv', 'mmseg', 'sam2', 'cv2')
CHECK = """
from mmengine.runner import CheckpointLoader
from mmseg.registry import DATA_SAMPLERS, DATASETS, HOOKS, LOOPS, METRICS, MODELS
assert LOOPS.get('EpisodeTestLoop') and DATA_SAMPLERS.get('EpisodeSampler')
assert MODELS.get('FSSAM') and DATASETS.get('PreparedDataset') and METRICS.get('FewShotIoUMetric')
assert HOOKS.get('StrictLoadHook') and MODELS.get('ResNetV1c')
assert CheckpointLoader._schemes[''].__module__ == 'mmfss.compat'
assert not any(type(finder).__name__ == '_Watch' for finder in sys.meta_path)
"""


def run(script: str, folder: Path = ROOT) -> str:
    """In a process of its own: what is imported, and in which order, is what is tested."""
    done = subprocess.run(
        [sys.executable, '-c', f'import sys; sys.path.insert(0, {str(ROOT)!r})\n{script}'],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


#: imports what takes long and is not concerned, then runs scripts, each in a fork
_SERVER = """
import importlib, json, os, sys, tempfile, traceback
sys.path.insert(0, sys.argv[1])
for name in ('cv2', 'ftfy', 'hydra.utils', 'iopath.common.file_io', 'matplotlib.pyplot',
             'scipy.optimize', 'torch.distributed.optim', 'transformers', 'yapf'):
    try: importlib.import_module(name)
    except ImportError: pass
assert not {'mmengine', 'mmcv', 'mmseg', 'mmfss', 'sam2'} & set(sys.modules)
for line in sys.stdin:
    with tempfile.TemporaryFile('w+') as said:
        if (child := os.fork()) == 0:
            status = 1
            try:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                exec(json.loads(line), {'__name__': '__main__', 'sys': sys})
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        status = os.waitpid(child, 0)[1]
        said.seek(0)
        print(json.dumps([status, said.read()]), flush=True)
"""


@pytest.fixture(scope='module')
def run_in_fork() -> Iterator[Callable[[str], str]]:
    """As :func:`run`; torch and the like are there already, mmengine, mmseg and mmfss are not."""
    command = [sys.executable, '-c', _SERVER, str(ROOT)]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen(command, cwd=ROOT, **pipes) as server:

        def call(script: str) -> str:
            print(json.dumps(script), file=server.stdin, flush=True)
            status, said = json.loads(server.stdout.readline())
            assert status == 0, said
            return said

        yield call


def test_command_lines_import_nothing_of_the_stack():
    """So that --help and wrong options are quick."""
    loaded = run('import mmfss.commands.command_lines\nprint(*sys.modules)').split()
    assert sorted(set(STACK) & set(loaded)) == []


@pytest.mark.smoke
def test_importing_mmfss_imports_nothing_of_the_stack():
    loaded = run('import mmfss; print(*sys.modules)').split()
    assert sorted(set(STACK) & set(loaded)) == []


@pytest.mark.smoke
def test_all_parts_are_registered_by_importing_mmfss():
    """In a process of its own: other tests import modules that users do not."""
    parts = {
        '.'.join(file.relative_to(ROOT).with_suffix('').parts)
        for file in (ROOT / 'mmfss').rglob('*.py')
        if '.register_module(' in file.read_text(encoding='utf-8')
    }
    assert len(parts) > 10
    script = 'import mmfss\n' + CHECK + 'print(*(m for m in sys.modules if m.startswith("mmfss.")))'
    assert sorted(parts - set(run(script).split())) == []


def test_registries_that_have_been_asked_before_are_asked_again(run_in_fork):
    """``LOOPS`` has looked for its parts; mmcv-lite lets no other registry of mmseg do so yet."""
    run_in_fork(
        'import mmengine.runner\nfrom mmseg.registry import LOOPS\n'
        'assert LOOPS.get("TestLoop") and LOOPS._imported\nimport mmfss\n' + CHECK
    )


def test_every_package_may_be_the_first_that_is_imported(run_in_fork):
    """In forks of a process that has imported mmengine."""
    packages = ('apis', 'datasets.episodes', 'encoders', 'engine', 'evaluation', 'features.cache',
                'labelling.run', 'methods', 'visualization', 'webui.worker', 'commands.train',
                'commands.label')  # fmt: skip
    run_in_fork(
        'import os, traceback, mmengine.runner\n'
        f'for package in {packages}:\n'
        '    if (child := os.fork()) == 0:\n'
        '        status = 1\n'
        '        try:\n'
        '            __import__(f"mmfss.{package}")\n'
        f'            exec({CHECK!r})\n'
        '            status = 0\n'
        '        except BaseException:\n'
        '            traceback.print_exc()\n'
        '        finally:\n'
        '            os._exit(status)\n'
        '    assert os.waitpid(child, 0)[1] == 0, package\n'
    )


def test_packages_are_attributes_and_others_are_not():
    run(
        'import mmfss\nassert mmfss.checkpoints.__name__ == "mmfss.checkpoints"\n'
        'assert "methods" in dir(mmfss)\ntry: mmfss.nothing\nexcept AttributeError as error:\n'
        '    assert str(error) == "module \'mmfss\' has no attribute \'nothing\'"\n'
        'else: raise AssertionError'
    )


def test_a_config_registers_all_by_its_custom_imports(run_in_fork, tmp_path):
    """Only mmengine is imported when the config is read and its model built."""
    config = tiny_runs.write_config(tmp_path / 'registers_all.py', tmp_path)
    run_in_fork(
        'from mmengine.config import Config\nfrom mmengine.registry import MODELS\n'
        'from mmengine.registry import init_default_scope\n'
        f'cfg = Config.fromfile({config!r})\nassert "mmfss" in sys.modules\n'
        'assert "mmseg" not in sys.modules\ninit_default_scope(cfg.default_scope)\n'
        'assert type(MODELS.build(cfg.model)).__module__ == "mmfss.methods.fssam.model"\n' + CHECK
    )


def test_spawned_workers_load_episodes(tmp_path):
    """They unpickle the dataset, the first thing of mmfss that they see."""
    root = tiny_runs.write_shapes(tmp_path / 'shapes')
    config = tiny_runs.write_config(tmp_path / 'spawned.py', root)
    script = tmp_path / 'load.py'
    script.write_text(
        'from mmengine.config import Config\nfrom mmengine.registry import DefaultScope\n'
        'from mmengine.runner import Runner\n'
        'if __name__ == "__main__":\n'
        f'    loader = Config.fromfile({config!r}).test_dataloader\n'
        '    loader.update(num_workers=1, multiprocessing_context="spawn")\n'
        '    with DefaultScope.overwrite_default_scope("mmseg"):\n'
        '        loader = Runner.build_dataloader(loader)\n'
        '        print([batch["data_samples"][0].episode for batch in loader])\n'
    )
    done = forks.python([script], ROOT, {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split('\n')[-2] == '[0, 1, 2, 3, 4]'


def test_a_torchvision_that_fits_no_torch_is_absent_once_mmengine_is_there(tmp_path):
    (tmp_path / 'torchvision').mkdir()
    (tmp_path / 'torchvision/__init__.py').write_text('raise RuntimeError("no operator")')
    run(
        f'sys.path.insert(0, {str(tmp_path)!r})\nimport mmfss\nassert "torch" not in sys.modules\n'
        'import mmengine\ntry: import torchvision\nexcept ModuleNotFoundError: pass\n'
        'else: raise AssertionError\nfrom mmengine.utils.dl_utils import collect_env\n'
        'assert "TorchVision" not in collect_env()\n'
    )
