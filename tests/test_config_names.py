"""Configs of mmfss are found by name, from any folder, by mmfss and by mmengine."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from mmengine.config import Config

from mmfss.apis.loading import read_config
from mmfss.configs import find_config

NAME = 'swap/sam2_prior_pascal_1shot'


@pytest.mark.smoke
def test_names_paths_and_both_endings(in_tmp_path, repo_root):
    file = repo_root / 'configs' / f'{NAME}.py'
    for name in (NAME, f'{NAME}.py', f'configs/{NAME}.py', f'mmfss::{NAME}.py', f'mmfss::{NAME}'):
        assert find_config(name) == file, name
    assert find_config(file) == file
    mine = in_tmp_path / f'{NAME}.py'
    mine.parent.mkdir()
    mine.touch()
    assert find_config(f'{NAME}.py').resolve() == mine  # a file of one's own comes first
    assert find_config(f'mmfss::{NAME}.py') == file


def test_unknown_names_say_where_was_looked_and_what_there_is(in_tmp_path, repo_root):
    places = f'not found in {in_tmp_path} or {repo_root}/configs; .*names: .*fss_sam2_pascal_1shot'
    with pytest.raises(FileNotFoundError, match=f'config fss_none {places}'):
        find_config('fss_none')
    with pytest.raises(FileNotFoundError, match=f'mmfss::fss_none not found in {repo_root}/conf'):
        find_config('mmfss::fss_none')


@pytest.mark.parametrize(
    'name', ['mmfss::../README.md', 'mmfss::/etc/hostname', 'mmfss::a/../fss.py']
)
def test_a_name_of_mmfss_stays_among_its_configs(name):
    with pytest.raises(FileNotFoundError, match='not found in'):
        find_config(name)


@pytest.mark.parametrize('variable', ['METHOD', 'BENCHMARK'])
def test_a_wrong_name_in_the_environment_is_answered_with_the_allowed_ones(monkeypatch, variable):
    monkeypatch.setenv(variable, 'protoype')
    with pytest.raises(ValueError, match=f'{variable} must be one of .*, got .protoype.'):
        read_config('fss')


@pytest.mark.smoke
def test_mmengine_finds_them_by_name_and_as_base(in_tmp_path, repo_root):
    cfg = Config.fromfile('mmfss::fss_sam2_pascal_1shot.py')
    assert cfg.filename == str(repo_root / 'configs/fss_sam2_pascal_1shot.py')
    own = in_tmp_path / 'own.py'
    own.write_text(
        "_base_ = ['mmfss::_base_/default_runtime.py', 'mmfss::_base_/methods/fssam.py']\n"
        'model = dict(prior_encoder=dict(arch="small"))\n'
    )
    found = Config.fromfile(own)
    assert found.default_scope == 'mmseg' and found.model.prior_encoder.arch == 'small'
    assert {**found.model, 'prior_encoder': 0} == {**cfg.model, 'prior_encoder': 0}
    with pytest.raises(FileNotFoundError, match='config mmfss::none.py not found in'):
        Config.fromfile('mmfss::none.py')


def test_mmengine_may_be_imported_before_mmfss(in_tmp_path, repo_root):
    script = (
        f'import sys; sys.path.insert(0, {str(repo_root)!r})\n'
        'from mmengine.config import Config\nimport mmfss\n'
        'assert Config.fromfile("mmfss::fss_sam2_coco_5shot.py").model.type == "FSSAM"\n'
        'mmfss.compat.apply()\nassert not hasattr(Config.fromfile.__wrapped__, "__wrapped__")\n'
    )
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('page', ['README.md', 'docs/methods.md'])
def test_the_tables_of_methods_have_all_of_them(repo_root, page):
    names = {path.stem for path in (repo_root / 'configs/_base_/methods').glob('*.py')}
    rows = [line.split('|')[1] for line in (repo_root / page).read_text().splitlines()
            if line.startswith('|') and line.count('|') > 2]  # fmt: skip
    listed = set(re.findall('`([a-z0-9_]+)`', ' '.join(rows)))
    assert not names - listed
