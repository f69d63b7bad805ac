"""Whole runs through the tools on a tiny benchmark: train, validate, test, interrupt, resume."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import CheckpointLoader
from mmseg.registry import HOOKS
from tiny_runs import write_config, write_shapes

from mmfss.commands import test as testing
from mmfss.commands import train as launch
from mmfss.datasets.folds import get_split

pytestmark = pytest.mark.smoke


@HOOKS.register_module()
class InterruptHook(Hook):
    """The run dies before training iteration ``at``."""

    def __init__(self, at: int) -> None:
        self.at = at

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.at:
            raise RuntimeError('power cut')


@HOOKS.register_module()
class RecordHook(Hook):
    """Keeps losses, learning rates and episodes of the training iterations, and metrics."""

    runs: list[dict] = []

    def before_train(self, runner):
        RecordHook.runs.append(dict(loss={}, episodes={}, val={}))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        run = RecordHook.runs[-1]
        run['loss'][runner.iter] = outputs['loss'].item()
        run['episodes'][runner.iter] = [s.episode for s in data_batch['data_samples']]

    def after_val_epoch(self, runner, metrics=None):
        RecordHook.runs[-1]['val'][runner.epoch] = dict(metrics)


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp('data') / 'shapes')


@pytest.fixture
def config(tmp_path, shapes, request):
    """A config whose name is the test's, so that runs share no log; not in the work dir, where
    mmengine would overwrite it."""
    name = ''.join(c if c.isalnum() else '_' for c in request.node.name)
    (tmp_path / 'configs').mkdir()
    return write_config(tmp_path / f'configs/{name}.py', shapes)


def run(tool, *args, options=()):
    """Call a tool under FOLD=1; options are added to --cfg-options."""
    argv = [str(arg) for arg in args]
    if options:
        argv += ['--cfg-options', *options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('FOLD', '1')
        return dict(train=launch.train, test=testing.test)[tool](argv)


def load(path):
    return CheckpointLoader.load_checkpoint(str(path), map_location='cpu')


@pytest.fixture(scope='module')
def trained(tmp_path_factory, shapes):
    """Work dir and record of an uninterrupted run of 3 epochs of 2 iterations."""
    folder = tmp_path_factory.mktemp('trained')
    path = write_config(folder / 'uninterrupted.py', shapes)
    run('train', path, '--work-dir', folder, options=['default_hooks.record.type=RecordHook'])
    return folder, RecordHook.runs[-1]


@pytest.fixture
def checkpoint(trained):
    return trained[0] / 'epoch_3.pth'


# ------------------------------------------------------------------------------- good runs
def test_training_and_validation(trained):
    folder, record = trained
    assert record['episodes'] == {i: [2 * i, 2 * i + 1] for i in range(6)}
    assert sorted(record['val']) == [1, 2, 3]
    for metrics in record['val'].values():
        assert 0 < metrics['mIoU'] < 100 and metrics['episodes'] == 5
    best = max(record['val'], key=lambda epoch: record['val'][epoch]['mIoU'])
    assert (folder / f'best_mIoU_epoch_{best}.pth').is_file()
    assert Path((folder / 'last_checkpoint').read_text()).name == 'epoch_3.pth'


def test_checkpoint_says_what_it_was_trained_on(checkpoint):
    meta = load(checkpoint)['meta']['mmfss']
    split = get_split('shapes-5i', 1)
    assert (meta['benchmark'], meta['fold'], meta['shots']) == ('shapes-5i', 1, 1)
    assert meta['base_classes'] == list(split.base_names)
    assert meta['novel_classes'] == list(split.novel_names)
    assert meta['trained_classes'] == sorted(split.base_names)
    assert meta['arch']['sam2']['base'] == 'sam2_small'
    assert meta['arch']['prior_encoder']['type'] == 'DINOv2'


def test_testing_repeats_the_last_validation(trained, checkpoint, config, tmp_path):
    out = tmp_path / 'out/result.json'
    metrics = run('test', config, checkpoint, '--out', out, '--work-dir', tmp_path)
    validated = trained[1]['val'][3]
    assert {key: validated[key] for key in metrics} == metrics
    found = json.loads(out.read_text())
    (run_,), made_with = found['runs'], found['environment']
    assert run_['metrics'] == metrics
    assert (run_['shots'], run_['fold'], run_['seed']) == (1, 1, 0)
    assert run_['checkpoint_file']['path'] == str(checkpoint)
    assert run_['checkpoint_file']['epoch'] == 3
    assert made_with['packages']['torch'] == torch.__version__
    assert made_with['python'].startswith('3.')
    assert made_with['commit'] is None or len(made_with['commit']['sha']) == 40
    assert (found['benchmark'], found['role']) == ('shapes-5i', 'novel')


def test_metric_does_not_depend_on_the_batch_size(trained, checkpoint, config, tmp_path):
    options = ['test_dataloader.batch_size=4', 'test_dataloader.num_workers=1']
    metrics = run('test', config, checkpoint, '--work-dir', tmp_path, options=options)
    for key, value in metrics.items():
        assert trained[1]['val'][3][key] == pytest.approx(value, abs=0.05)


def test_interrupted_and_resumed_run_equals_the_uninterrupted_one(
    trained, checkpoint, config, tmp_path
):
    record = ['default_hooks.record.type=RecordHook']
    cut = ['default_hooks.cut.type=InterruptHook', 'default_hooks.cut.at=3']
    with pytest.raises(RuntimeError, match='power cut'):
        run('train', config, '--work-dir', tmp_path, options=record + cut)
    assert Path((tmp_path / 'last_checkpoint').read_text()).name == 'epoch_1.pth'
    run('train', config, '--resume', '--work-dir', tmp_path, options=record)
    resumed, whole = RecordHook.runs[-1], trained[1]
    assert sorted(resumed['loss']) == [2, 3, 4, 5]  # epoch 2 was begun anew
    for key in ('loss', 'episodes', 'val'):
        assert resumed[key] == {i: whole[key][i] for i in resumed[key]}, key
    one, two = load(checkpoint), load(tmp_path / 'epoch_3.pth')
    assert one['meta']['mmfss'] == two['meta']['mmfss']
    assert one['state_dict'].keys() == two['state_dict'].keys()
    for key, value in one['state_dict'].items():
        assert torch.equal(value, two['state_dict'][key]), key


def test_resume_from_a_given_checkpoint_with_bfloat16(checkpoint, config, tmp_path):
    options = ['train_cfg.max_epochs=4', 'train_cfg.val_interval=10', 'param_scheduler.0.end=4']
    runner = run('train', config, '--resume', checkpoint, '--amp', '--work-dir', tmp_path,
                 options=[*options, 'default_hooks.record.type=RecordHook'])  # fmt: skip
    assert type(runner.optim_wrapper).__name__ == 'BFloat16OptimWrapper'
    assert sorted(RecordHook.runs[-1]['loss']) == [6, 7]
    state = load(tmp_path / 'epoch_4.pth')['state_dict']
    assert {v.dtype for v in state.values() if v.is_floating_point()} == {torch.float32}
    assert all(v.isfinite().all() for v in state.values() if v.is_floating_point())


def test_copied_work_folder_goes_on_with_its_own_files(trained, config, tmp_path):
    """3 epochs finished, resumed up to 4: the learning rates of a run of 4."""
    old, new = trained[0], tmp_path / 'new'
    shutil.copytree(old, new)
    before = {path.name: path.stat().st_mtime_ns for path in old.iterdir()}
    runner = run('train', config, '--resume', '--work-dir', new,
                 options=['train_cfg.max_epochs=4', 'param_scheduler.0.end=4'])  # fmt: skip
    assert (runner.epoch, runner.iter) == (4, 8)
    assert {path.name: path.stat().st_mtime_ns for path in old.iterdir()} == before
    assert Path((new / 'last_checkpoint').read_text()).parent == new
    assert Path(runner.message_hub.get_info('best_ckpt')).parent == new
    assert len(list(new.glob('best_mIoU_epoch_*.pth'))) == 1
    rates = runner.message_hub.get_scalar('train/lr').data[0][-2:]
    assert rates == pytest.approx([1e-3 * (1 / 7) ** 0.9, 0.0], abs=1e-9)


def test_hook_of_an_override(config, tmp_path):
    options = ["custom_hooks=[dict(type='EMAHook')]", 'train_cfg.max_epochs=1', 'val_cfg=None',
               'val_dataloader=None', 'val_evaluator=None']  # fmt: skip
    run('train', config, '--work-dir', tmp_path, options=options)
    content = load(tmp_path / 'epoch_1.pth')
    averaged = {key.removeprefix('module.') for key in content['ema_state_dict']}
    assert set(content['state_dict']) <= averaged


def test_resume_needs_no_official_weights(checkpoint, config, tmp_path):
    missing = ['model.sam2.checkpoint=none.pt', 'model.prior_encoder.checkpoint=none.pth']
    options = ['train_cfg.max_epochs=4', 'train_cfg.val_interval=10', 'param_scheduler.0.end=4']
    runner = run('train', config, '--resume', checkpoint, '--work-dir', tmp_path,
                 options=[*options, *missing])  # fmt: skip
    assert runner.epoch == 4
    assert "checkpoint='none.pt'" in load(tmp_path / 'epoch_4.pth')['meta']['cfg']
    with pytest.raises(FileNotFoundError, match=r'none\.pt'):  # a start of its own does need them
        run('train', config, '--work-dir', tmp_path / 'new', options=missing)


def test_start_that_is_missing_is_refused_before_anything_is_read(config, tmp_path):
    with pytest.raises(FileNotFoundError, match='starts training from load_from=none.pth'):
        run('train', config, '--work-dir', tmp_path / 'new', options=['load_from=none.pth'])
    assert not (tmp_path / 'new').exists()


def test_absent_class_is_refused_at_the_start(checkpoint, config, tmp_path):
    few = 'dataset.min_area=400'  # one image each of two classes
    for tool, name, args in (('test', 'test', [checkpoint]), ('train', 'val', [])):
        with pytest.raises(ValueError, match=f'{name}_evaluator.absent_classes=exclude$') as error:
            options = [f'{name}_dataloader.{few}', f'{name}_evaluator.absent_classes=error']
            run(tool, config, *args, '--work-dir', tmp_path, options=options)
        assert f'1-shot episodes for {name} have none of arrow, triangle, which' in str(error.value)


def test_resume_where_nothing_is_starts_anew(config, tmp_path, capsys):
    options = ['train_cfg.max_epochs=1', 'default_hooks.record.type=RecordHook', 'val_cfg=None',
               'val_dataloader=None', 'val_evaluator=None']  # fmt: skip
    run('train', config, '--resume', '--work-dir', tmp_path / 'new', options=options)
    assert 'no checkpoint in' in capsys.readouterr().out
    assert sorted(RecordHook.runs[-1]['loss']) == [0, 1]


# ------------------------------------------------------------------------- bad checkpoints
def changed(checkpoint, tmp_path, change):
    """A copy of the checkpoint after ``change(content)``."""
    content = load(checkpoint)
    change(content)
    path = tmp_path / 'changed.pth'
    torch.save(content, path)
    return path


def all_in_a_list(content):
    content.update(state_dict=list(content['state_dict'].values()))


def nan_weight(content):
    key = 'sam2.memory_encoder.out_proj.weight'
    content['state_dict'][key] = content['state_dict'][key] * float('nan')


def missing_weight(content):
    del content['state_dict']['sam2.memory_encoder.out_proj.weight']


def added_weight(content):
    content['state_dict']['sam2.second_head.weight'] = torch.zeros(1)


def other_shape(content):
    content['state_dict']['sam2.memory_encoder.out_proj.weight'] = torch.zeros(3, 3)


def no_record(content):
    del content['meta']['mmfss']


@pytest.mark.parametrize(
    'change, message',
    [
        (
            nan_weight,
            'checkpoint .*changed.pth for FSSAM.* 1 tensors hold NaN or infinity: '
            'sam2.memory_encoder.out_proj.weight. Against NaN: use an earlier checkpoint',
        ),
        (all_in_a_list, 'state_dict of checkpoint .*changed.pth must be a dict, got list'),
        (missing_weight, '1 missing keys: sam2.memory_encoder.out_proj.weight'),
        (added_weight, '1 unexpected keys: sam2.second_head.weight'),
        (other_shape, r'1 shapes differ: sam2.memory_encoder.out_proj.weight \(3, 3\) instead'),
        (no_record, 'does not say .* default_hooks.fold_guard.allow_unverified=True'),
    ],
)
def test_unfit_checkpoint_is_refused(change, message, checkpoint, config, tmp_path):
    path = changed(checkpoint, tmp_path, change)
    with pytest.raises(ValueError, match=message):
        run('test', config, path, '--work-dir', tmp_path)


def test_checkpoint_without_record_may_be_allowed(trained, checkpoint, config, tmp_path):
    path = changed(checkpoint, tmp_path, no_record)
    metrics = run('test', config, path, '--work-dir', tmp_path,
                  options=['default_hooks.fold_guard.allow_unverified=True'])  # fmt: skip
    assert metrics['mIoU'] == trained[1]['val'][3]['mIoU']


@pytest.mark.parametrize('content', [[1, 2], torch.zeros(3)])
def test_file_without_a_checkpoint_is_named(content, config, tmp_path):
    torch.save(content, tmp_path / 'odd.pth')
    kind = type(content).__name__
    with pytest.raises(ValueError, match=f'checkpoint .*odd.pth must be a dict, got {kind}'):
        run('test', config, tmp_path / 'odd.pth', '--work-dir', tmp_path)


class Payload:
    def __reduce__(self):
        return Path.touch, (Path('ran_by_checkpoint'),)


def test_checkpoint_that_wants_to_run_code_is_refused(checkpoint, config, in_tmp_path):
    path = changed(checkpoint, in_tmp_path, lambda content: content.update(extra=Payload()))
    with pytest.raises(ValueError, match='was refused: it needs .* loading that could run code'):
        run('test', config, path, '--work-dir', in_tmp_path)
    assert not Path('ran_by_checkpoint').exists()


def test_checkpoint_of_another_fold_is_refused(checkpoint, config, tmp_path, monkeypatch):
    monkeypatch.setenv('FOLD', '2')
    with pytest.raises(ValueError, match='trained on shapes-5i fold 1.* Set FOLD=1'):
        testing.test([config, str(checkpoint), '--work-dir', str(tmp_path)])


def test_training_of_another_fold_is_not_resumed(checkpoint, config, tmp_path, monkeypatch):
    monkeypatch.setenv('FOLD', '2')
    shutil.copy(checkpoint, tmp_path)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / checkpoint.name))
    with pytest.raises(ValueError, match='novel classes of shapes-5i fold 2'):
        launch.train([config, '--resume', '--work-dir', str(tmp_path)])


def test_checkpoint_of_another_arch_is_refused(checkpoint, config, tmp_path):
    with pytest.raises(ValueError, match='of another arch: .* the configured model has'):
        run('test', config, checkpoint, '--work-dir', tmp_path,
            options=['model.sam2.arch.memory_attention.num_layers=2'])  # fmt: skip


def test_missing_checkpoint_is_named(config, tmp_path):
    for tool, args in (('test', ['none.pth']), ('train', ['--resume', 'none.pth'])):
        with pytest.raises(FileNotFoundError, match='checkpoint none.pth does not exist'):
            run(tool, config, *args, '--work-dir', tmp_path)


# ------------------------------------------------------------------------------- bad calls
def test_fold_as_an_option_is_refused(config):
    with pytest.raises(ValueError, match=r'Run: FOLD=2 python tools/train.py .*\.py$'):
        run('train', config, options=['fold=2'])


@pytest.mark.parametrize('fold', ['7', 'x', '', '-1', '1.5'])
def test_fold_out_of_range_is_refused(fold, config, monkeypatch):
    monkeypatch.setenv('FOLD', fold)
    with pytest.raises(ValueError, match=r'0\.\.3' if fold == '7' else 'must be the number of a'):
        launch.train([config])


def test_fold_of_one_loader_alone_is_refused(config):
    with pytest.raises(ValueError, match='train: shapes-5i fold 1.*test: shapes-5i fold 2'):
        run('test', config, 'none.pth', options=['test_dataloader.dataset.fold=2'])


def test_dumped_config_does_not_silently_ignore_fold(trained, monkeypatch):
    monkeypatch.setenv('FOLD', '2')
    dumped = trained[0] / 'uninterrupted.py'
    text = next(trained[0].glob('2*/vis_data/config.py')).read_text()
    assert "fold='1'" in text.replace(' ', '')
    dumped = trained[0] / 'dumped.py'
    dumped.write_text(text)
    with pytest.raises(ValueError, match='FOLD=2 is set, but this config states fold 1'):
        launch.train([str(dumped)])


def test_guards_cannot_be_switched_off(config):
    with pytest.raises(ValueError, match='default_hooks.fold_guard cannot be None'):
        run('train', config, options=['default_hooks.fold_guard=None'])


def test_empty_epoch_is_refused(config, tmp_path):
    with pytest.raises(ValueError, match='no full batch; lower train_dataloader.batch_size'):
        run('train', config, '--work-dir', tmp_path, options=['train_dataloader.batch_size=5'])


def test_training_of_no_epoch_is_refused(config, tmp_path):
    with pytest.raises(ValueError, match='trains for no epoch or iteration; set train_cfg.max'):
        run('train', config, '--work-dir', tmp_path, options=['train_cfg.max_epochs=0'])


def test_unknown_config_is_named():
    with pytest.raises(FileNotFoundError, match='config configs/none.py not found in'):
        run('train', 'configs/none.py')


def test_amp_with_another_wrapper_is_refused(config):
    with pytest.raises(ValueError, match="needs optim_wrapper.type 'OptimWrapper'"):
        run('train', config, '--amp', options=['optim_wrapper.type=AmpOptimWrapper'])


def test_broken_image_ends_training_with_its_path(config, shapes, tmp_path):
    broken = shutil.copytree(shapes, tmp_path / 'broken')
    for path in (broken / 'JPEGImages').glob('train_*'):
        path.write_bytes(path.read_bytes()[:200])
    config = write_config(tmp_path / 'broken_image.py', broken)
    with pytest.raises(ValueError, match=r'broken/JPEGImages/train_\d+\.png'):
        run('train', config, '--work-dir', tmp_path / 'run')
