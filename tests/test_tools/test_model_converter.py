"""tools/model_converters/fssam.py: from a published checkpoint to one that tools/test.py takes."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys

import forks
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from mmseg.registry import MODELS
from tiny_models import randomised
from tiny_runs import write_config, write_shapes

from mmfss.checkpoints.record import check_checkpoint
from mmfss.commands import convert_fssam
from mmfss.commands import test as testing
from mmfss.datasets.folds import get_split

CONFIG = '''
_base_ = '{repo}/configs/fss_sam2_pascal_1shot.py'
model = dict(
    sam2=dict(arch=dict(_delete_=True, **{arch}), image_size=512, checkpoint=None),
    prior_encoder=dict(_delete_=True, **{prior}))
'''


def module_of(folder, name: str):
    spec = importlib.util.spec_from_file_location(name, folder / f'{name}.py')
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def tool():
    return convert_fssam


@pytest.fixture(autouse=True)
def fold_of_the_environment(monkeypatch):
    """The tool sets FOLD for its own process."""
    monkeypatch.setenv('FOLD', '0')


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp('data') / 'shapes')


@pytest.fixture
def config(tmp_path, shapes, request):
    name = ''.join(c if c.isalnum() else '_' for c in request.node.name)
    (tmp_path / 'configs').mkdir()
    return write_config(tmp_path / f'configs/{name}.py', shapes)


@pytest.fixture
def model(config):
    """The configured model with random weights."""
    torch.manual_seed(0)
    return randomised(MODELS.build(Config.fromfile(config).model), scale=0.02)


@pytest.fixture
def src(tmp_path, model):
    """A published checkpoint of it, as a distributed run saves it."""
    parts = {'sam2': model.sam2, 'dino': model.prior_encoder.vit}
    named = {f'module.{n}.{k}': v for n, m in parts.items() for k, v in m.state_dict().items()}
    torch.save({'epoch': 7, 'state_dict': named}, tmp_path / 'best.pth')
    return tmp_path / 'best.pth'


def load(path) -> dict:
    return CheckpointLoader.load_checkpoint(str(path), map_location='cpu')


def convert(tool, *args) -> None:
    tool.main([str(arg) for arg in args])


def refused(tool, capsys, *args) -> str:
    """The message with which the tool ends."""
    with pytest.raises(SystemExit) as error:
        convert(tool, *args)
    said = capsys.readouterr().err  # of the command line; other messages are the exit's value
    assert said or str(error.value).startswith('error: ')
    return f'{error.value} {said}'


def run_test(fold: int, *args) -> dict[str, float]:
    os.environ['FOLD'] = str(fold)  # set back by the fixture
    return testing.test([str(arg) for arg in args])


# ------------------------------------------------------------------------------------ a clone
def test_what_is_written(tool, config, model, src, tmp_path, capsys):
    dst = tmp_path / 'new/folder/fssam.pth'
    convert(tool, src, dst, '--config', config, '--fold', 2)
    checkpoint = load(dst)
    assert sorted(checkpoint) == ['meta', 'state_dict']
    assert list(checkpoint['state_dict']) == list(model.state_dict())
    for key, value in model.state_dict().items():
        assert torch.equal(checkpoint['state_dict'][key], value), key
    run, split = checkpoint['meta']['mmfss'], get_split('shapes-5i', 2)
    assert (run['benchmark'], run['fold'], run['shots']) == ('shapes-5i', 2, 1)
    assert run['trained_classes'] == sorted(split.base_names)
    assert run['novel_classes'] == list(split.novel_names)
    chosen = dict(rule='novel', classes=list(split.novel_names), figures={})
    assert run['selection'] == chosen
    digest = hashlib.sha256(src.read_bytes()).hexdigest()
    assert checkpoint['meta']['converted_from'] == dict(file=dict(name='best.pth', sha256=digest))
    out = capsys.readouterr().out
    assert f'{len(model.state_dict())} tensors of {src}\n' in out
    assert f'test it: FOLD=2 python tools/test.py {config} {dst}' in out
    assert all(name in out for name in split.novel_names)


def test_the_result_is_tested_on_its_fold_and_on_no_other(tool, config, model, src, tmp_path):
    ours, dst, out = tmp_path / 'ours.pth', tmp_path / 'fssam.pth', ('--work-dir', tmp_path / 'w')
    convert(tool, src, dst, '--config', config, '--fold', 1)
    metrics = run_test(1, config, dst, *out)
    torch.save(dict(load(dst), state_dict=model.state_dict()), ours)
    assert metrics == run_test(1, config, ours, *out)
    assert metrics['episodes'] == 5 and 0 < metrics['FB-IoU'] < 100
    split = get_split('shapes-5i', 0)
    with pytest.raises(ValueError, match='was trained on shapes-5i fold 1') as error:
        run_test(0, config, dst, *out)
    trained = get_split('shapes-5i', 1).base_names
    assert all(name in str(error.value) for name in (*trained, *split.novel_names))


def test_shots_options_and_half_precision(tool, config, model, src, tmp_path, capsys):
    content = torch.load(src)['state_dict']
    torch.save({k: v.bfloat16() for k, v in content.items()}, src)
    args = ('--config', config, '--fold', 0, '--shots', 5)
    options = ('--cfg-options', 'model.sam2.image_size=128')
    convert(tool, src, tmp_path / 'a.pth', *args, *options)
    checkpoint = load(tmp_path / 'a.pth')
    assert checkpoint['meta']['mmfss']['shots'] == 5
    assert {v.dtype for v in checkpoint['state_dict'].values()} == {torch.float32}
    key = 'sam2.no_mem_embed'
    assert torch.equal(checkpoint['state_dict'][key], model.state_dict()[key].bfloat16().float())
    out = capsys.readouterr().out
    assert f'stored as float32: {len(content)} of bfloat16' in out and '5-shot' in out
    assert f'{tmp_path}/a.pth --cfg-options model.sam2.image_size=128' in out


def test_a_prior_encoder_of_its_own_file(tool, config, model, src, tmp_path, capsys):
    content = torch.load(src)['state_dict']
    torch.save({k: v for k, v in content.items() if '.dino.' not in k}, src)
    args = (src, tmp_path / 'a.pth', '--config', config, '--fold', 0)
    assert 'has no dino.* keys' in refused(tool, capsys, *args)
    official = tmp_path / 'dinov2.pth'
    torch.save(model.prior_encoder.vit.state_dict(), official)
    convert(tool, *args, '--prior-encoder', official)
    checkpoint = load(tmp_path / 'a.pth')
    for key, value in model.state_dict().items():
        assert torch.equal(checkpoint['state_dict'][key], value), key
    digest = hashlib.sha256(official.read_bytes()).hexdigest()
    known = dict(name='dinov2.pth', sha256=digest)
    assert checkpoint['meta']['converted_from']['prior_encoder'] == known


def test_nothing_is_overwritten_unasked(tool, config, src, tmp_path, capsys):
    dst = tmp_path / 'fssam.pth'
    dst.write_text('mine')
    args = (src, dst, '--config', config, '--fold', 0)
    assert 'fssam.pth exists; give another path, or --overwrite' in refused(tool, capsys, *args)
    before = src.read_bytes()
    same = (src, src, '--config', config, '--fold', 0, '--overwrite')
    assert 'SRC and DST are the same file' in refused(tool, capsys, *same)
    assert dst.read_text() == 'mine' and src.read_bytes() == before
    convert(tool, *args, '--overwrite')
    assert load(dst)['meta']['mmfss']['fold'] == 0


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (('--fold', 4), "fold of 'shapes-5i' must be an integer in 0..3, got '4'"),
        (('--fold', -1), "FOLD must be the number of a fold, 0 or more, or all, got '-1'"),
        (('--fold', 'x'), "--fold: invalid literal for int() with base 10: 'x'"),
        ((), '--fold INT'),
        (('--fold', 0, '--shots', 0), '--shots must be at least 1, got 0'),
        (('--fold', 0, '--prior-encoder', 'no.pth'), 'has dino.* keys'),
        (
            (
                '--fold',
                0,
                '--cfg-options',
                'model.prior_encoder.type=SAM2PriorEncoder',
                'model.prior_encoder._delete_=True',
            ),
            "dict(type='DINOv2', ...), and the model of --config has 'SAM2PriorEncoder'",
        ),
        (
            ('--fold', 0, '--cfg-options', 'model.sam2.arch.memory_attention.num_layers=2'),
            'missing keys: sam2.memory_attention.layers.1.',
        ),
    ],
)
def test_what_is_refused(tool, config, src, tmp_path, capsys, args, message):
    args = (src, tmp_path / 'a.pth', '--config', config, *args)
    assert message in refused(tool, capsys, *args)
    assert not (tmp_path / 'a.pth').exists()


def test_a_config_that_trains_nothing(tool, config, src, tmp_path, capsys):
    with open(config, 'a') as file:
        file.write('train_dataloader = None\ntrain_cfg = None\n')
    args = (src, tmp_path / 'a.pth', '--config', config, '--fold', 0)
    assert '--config must be one for training' in refused(tool, capsys, *args)


def test_bad_files(tool, config, src, tmp_path, capsys):
    args = (src, tmp_path / 'a.pth', '--config', config, '--fold', 0)
    src.write_bytes(src.read_bytes()[:-1000])
    assert 'cannot be read' in refused(tool, capsys, *args)
    torch.save({'state_dict': {}, 'hook': print}, src)
    assert 'best.pth was refused: it needs' in refused(tool, capsys, *args)
    src.unlink()
    assert 'best.pth does not exist' in refused(tool, capsys, *args)
    args = (src, tmp_path / 'a.pth', '--config', tmp_path / 'no.py', '--fold', 0)
    assert 'no.py not found in' in refused(tool, capsys, *args)


def test_from_the_command_line(repo_root, config, src, tmp_path):
    script = repo_root / 'tools/model_converters/fssam.py'
    args = [src, tmp_path / 'a.pth', '--config', config, '--fold', '3']
    run = forks.python([script, *args], tmp_path, os.environ)
    assert run.returncode == 0, run.stderr
    assert 'shapes-5i fold 3, 1-shot' in run.stdout


# ------------------------------------------------------------------------------ reference weights
@pytest.fixture(scope='module')
def parity(repo_root):
    folder = repo_root / 'tools/analysis_tools'
    sys.path.insert(0, str(folder))
    yield module_of(folder, 'check_parity')
    sys.path.remove(str(folder))
    del sys.modules['check_parity']


@pytest.mark.parametrize('module', ['', 'module.'])
@pytest.mark.parametrize('key', [None, 'model'])
def test_reference_weights(tool, parity, repo_root, shared_dir, tmp_path, capsys, module, key):
    comparer = parity.FSSAM(parity.Reference(shared_dir / 'parity/golden'))
    files = dict(sam2=load(comparer.weights('sam2'))['model'], dino=load(comparer.weights('dino')))
    content = {f'{module}{n}.{k}': v for n, part in files.items() for k, v in part.items()}
    torch.save(content if key is None else {key: content}, tmp_path / 'best.pth')
    config = tmp_path / 'small.py'
    parts = dict(arch=comparer.sam2_arch(), prior=comparer.prior_encoder())
    config.write_text(CONFIG.format(repo=repo_root.as_posix(), **parts))
    convert(tool, tmp_path / 'best.pth', tmp_path / 'a.pth', '--config', config, '--fold', 2)
    assert f'stored as float32: {len(files["sam2"])} of float16' in capsys.readouterr().out

    checkpoint = load(tmp_path / 'a.pth')
    ours = checkpoint['state_dict']
    assert len(ours) == len(content)
    for name, place in (('sam2', 'sam2'), ('dino', 'prior_encoder.vit')):
        for k, value in files[name].items():
            assert torch.equal(ours[f'{place}.{k}'], value.float()), k

    model = comparer.build(comparer.ref.case('a_1shot_b1'), load=False)
    model.load_state_dict(ours)
    comparer.build = lambda case: model
    rows = parity.check_case(comparer, 'a_1shot_b1')
    assert {'output', 'dec.final.ious', 'attn.output'} <= {row.stage for row in rows}
    assert [row for row in rows if not row.ok] == []

    run = checkpoint['meta']['mmfss']
    check_checkpoint(run, get_split('pascal-5i', 2), run['arch'], resume=False)
    for fold in (0, 1, 3):
        split = get_split('pascal-5i', fold)
        with pytest.raises(ValueError, match='trained on pascal-5i fold 2') as error:
            check_checkpoint(run, split, run['arch'], resume=False)
        seen = get_split('pascal-5i', 2).base_names
        assert all(name in str(error.value) for name in (*seen, *split.novel_names))
