"""The wheel, installed where nothing of the checkout is: every command and the API work there.

    .venv/bin/python -m pytest -q .ci/test_wheel.py        (make test-wheel)

The wheel is built from the sdist, which is built from the files that git knows. It is installed
into an environment of its own that borrows the packages of the running one, without mmfss; each of
its Python processes ends at once where it opens a file of the checkout.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
CONFIG = 'fss_sam2_shapes_1shot'
GUARD = """
import os, sys
def watch(event, args):
    if event in ('open', 'os.listdir', 'os.scandir') and isinstance(args[0], (str, bytes)):
        path = os.path.abspath(os.fsdecode(args[0]))
        if path.startswith({repo!r}) and not path.startswith({venv!r}):
            os.write(2, f'{{path}} is a file of the checkout\\n'.encode())
            os._exit(97)
sys.addaudithook(watch)
"""


@dataclass(frozen=True)
class Installed:
    """The environment, and a folder to work in."""

    env: Path
    wheel: Path
    folder: Path

    @property
    def package(self) -> Path:
        """The installed package."""
        (found,) = self.env.glob('lib/python*/site-packages/mmfss')
        return found

    def run(self, *argv: str, status: int = 0, **variables: str) -> str:
        """What a program of the environment prints, after a check of its exit status."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith('PYTHON')}
        kept.update(PATH=f'{self.env}/bin:{kept["PATH"]}', OMP_NUM_THREADS='1', **variables)
        done = subprocess.run(
            argv, cwd=self.folder, env=kept, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        assert done.returncode == status, f'{argv} ended with {done.returncode}:\n{done.stdout}'
        return done.stdout

    def python(self, script: str, status: int = 0) -> str:
        """What a script prints."""
        return self.run('python', '-c', script, status=status)


@pytest.fixture(scope='session')
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    root = tmp_path_factory.mktemp('wheel')
    command = ['git', '-C', str(REPO), 'ls-files', '-z', '--cached', '--others']
    listed = subprocess.check_output([*command, '--exclude-standard'], text=True)
    for name in listed.split('\0'):
        if name and (REPO / name).is_file():
            (root / 'source' / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPO / name, root / 'source' / name)
    sdist = f'from setuptools import build_meta; build_meta.build_sdist({str(root)!r})'
    subprocess.run(
        [sys.executable, '-c', sdist], cwd=root / 'source', check=True, stdout=subprocess.DEVNULL
    )
    pip = [sys.executable, '-m', 'pip', '-q', '--disable-pip-version-check']
    build = ['wheel', '--no-deps', '--no-build-isolation', '-w', str(root)]
    subprocess.run([*pip, *build, str(next(root.glob('*.tar.gz')))], check=True, cwd=root)
    (wheel,) = root.glob('*.whl')
    env, folder = root / 'env', root / 'elsewhere'
    folder.mkdir()
    subprocess.run([sys.executable, '-m', 'venv', str(env)], check=True)
    pip[0] = str(env / 'bin/python')
    subprocess.run([*pip, 'install', '--no-deps', '--no-index', str(wheel)], check=True)
    (packages,) = env.glob('lib/python*/site-packages')
    borrowed = sysconfig.get_paths()['purelib']
    (packages / 'borrowed.pth').write_text(f'{borrowed}\n')  # without its own .pth files
    venv = str(Path(sys.prefix).absolute())
    (packages / 'guard.py').write_text(GUARD.format(repo=f'{REPO}/', venv=f'{venv}/'))
    (packages / 'guard.pth').write_text('import guard\n')
    return Installed(env, wheel, folder)


@pytest.fixture(scope='session')
def example(installed: Installed) -> str:
    installed.run('mmfss', 'prepare', 'example', 'data/example', '--images', '4')
    return 'data/example'


@pytest.fixture(scope='session')
def weights(installed: Installed) -> str:
    """Random ones of the config, as a checkpoint."""
    installed.python(
        'import torch, mmfss\nfrom mmengine.config import Config\n'
        'from mmseg.registry import MODELS\n'
        f'torch.manual_seed(0)\nmodel = MODELS.build(Config.fromfile("mmfss::{CONFIG}.py").model)\n'
        'torch.save(dict(state_dict=model.state_dict(), meta={}), "random.pth")\n'
    )
    return 'random.pth'


@pytest.fixture(scope='session')
def labelled(installed: Installed, example: str, weights: str) -> Path:
    paths = [f'{example}/support', f'{example}/images', 'labelled']
    options = ['--config', CONFIG, '--weights', weights, '--threshold', '0', '--device', 'cpu']
    said = installed.run('mmfss', 'label', *paths, *options)
    assert '4 labelled' in said and ', 0 failed' in said
    return installed.folder / 'labelled'


def test_the_wheel_carries_configs_and_tools_and_leaves_torch_alone(installed: Installed):
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = wheel.namelist()
        (metadata,) = [name for name in names if name.endswith('.dist-info/METADATA')]
        required = [
            line for line in wheel.read(metadata).decode().splitlines()
            if line.startswith('Requires-Dist: ')
        ]  # fmt: skip
    mim = {name.removeprefix('mmfss/.mim/') for name in names if name.startswith('mmfss/.mim/')}
    listed = subprocess.check_output(['git', '-C', str(REPO), 'ls-files', 'configs', 'tools'])
    assert mim >= {name for name in listed.decode().split() if (REPO / name).is_file()}
    assert not any(name.endswith('.pyc') or name.startswith('tests/') for name in names)
    assert len(required) > 10
    assert not [line for line in required if line.split()[1].startswith(('torch', 'sam2'))]


def test_the_checkout_is_out_of_sight(installed: Installed):
    said = installed.python('import mmfss; print(mmfss.__file__)')
    assert Path(said.strip()) == installed.package / '__init__.py'
    said = installed.python(f'open({str(REPO / "README.md")!r})', status=97)
    assert said == f'{REPO}/README.md is a file of the checkout\n'


def test_commands_are_there(installed: Installed):
    assert 'mmfss COMMAND --help' in installed.run('mmfss', '--help')
    assert 'SUPPORT IMAGES OUT' in installed.run('mmfss-label', '--help')
    assert 'usage: mmfss' in installed.run('python', '-m', 'mmfss', '--help')
    tool = str(installed.package / '.mim/tools/train.py')
    assert 'CONFIG' in installed.run('python', tool, '--help')
    said = installed.run('mmfss', 'train', 'fss_none', status=1)
    assert f'not found in {installed.folder} or {installed.package}/.mim/configs' in said


def test_configs_are_found_by_name_and_as_base(installed: Installed):
    (installed.folder / 'own.py').write_text(
        "_base_ = 'mmfss::fss_sam2_pascal_1shot.py'\nmodel = dict(memory_refinement=None)\n"
    )
    said = installed.python(
        'import mmfss\nfrom mmengine.config import Config\n'
        'print(Config.fromfile("mmfss::fss_sam2_pascal_1shot.py").filename)\n'
        'cfg = Config.fromfile("own.py")\nprint(cfg.model.type, cfg.model.memory_refinement)\n'
    )
    assert said.splitlines()[-2:] == [
        f'{installed.package}/.mim/configs/fss_sam2_pascal_1shot.py', 'FSSAM None'
    ]  # fmt: skip


def test_a_folder_is_labelled(labelled: Path):
    assert len(list((labelled / 'ann_dir').glob('*.png'))) == 4


def test_photos_are_labelled_without_a_checkpoint(installed: Installed, example: str):
    """By the default, which nothing was fetched for, and by a method that is named."""
    paths = [f'{example}/support', f'{example}/images']
    nothing = dict(MMFSS_WEIGHTS='none', TORCH_HOME='none')
    said = installed.run('mmfss', 'label', *paths, 'by_default', '--device', 'cpu', **nothing)
    assert "note: no method was named, so it is 'density_lite'" in said and '4 labelled' in said
    named = ['--method', 'density-lite', '--device', 'cpu']
    assert '4 labelled' in installed.run('mmfss', 'label', *paths, 'by_name', *named)
    for file in (installed.folder / 'by_default/ann_dir').iterdir():
        assert file.read_bytes() == (installed.folder / 'by_name/ann_dir' / file.name).read_bytes()
    said = installed.run(
        'mmfss', 'label', *paths, 'out', '--method', 'density', status=2, **nothing
    )
    assert 'Run `mmfss weights fetch dinov2_base`' in said


def test_weights_are_listed(installed: Installed):
    said = installed.run('mmfss', 'weights', MMFSS_WEIGHTS='none', TORCH_HOME='none')
    assert 'dinov2_base' in said and 'Looked for in none, then none/hub/checkpoints' in said


def test_the_api_labels_an_image(installed: Installed, labelled: Path, weights: str, example: str):
    said = installed.python(
        'from mmfss.apis import FewShotInferencer\n'
        f'inferencer = FewShotInferencer({CONFIG!r}, {weights!r}, "cpu", threshold=0.0)\n'
        'inferencer.load_support("labelled/support.safetensors")\n'
        f'import pathlib; image = next(pathlib.Path("{example}/images").iterdir())\n'
        'print(len(inferencer.classes), inferencer(image).labels.shape)\n'
    )
    assert said.splitlines()[-1] == '3 (128, 128)'


def test_a_model_is_tested(installed: Installed, weights: str):
    installed.run('mmfss', 'prepare', 'shapes', 'data/shapes5i', '--train', '24', '--val', '40')
    said = installed.run(
        'mmfss', 'test', CONFIG, weights, '--episodes', '5', '--sampler', 'balanced',
        '--out', 'tested', '--cfg-options', 'default_hooks.fold_guard.allow_unverified=True',
        FOLD='0', DATA_ROOT='data/shapes5i',
    )  # fmt: skip
    assert 'mIoU' in said and (installed.folder / 'tested.json').is_file()
