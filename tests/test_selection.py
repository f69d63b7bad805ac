"""Which checkpoint is chosen: on held-out base classes, and on the novel ones beside."""

from __future__ import annotations

import pytest
from mmengine.runner import CheckpointLoader
from tiny_runs import write_config, write_shapes

from mmfss.commands import test as testing
from mmfss.commands import train as launch
from mmfss.datasets.folds import get_split

HELD_OUT = [
    'train_dataloader.dataset.split=base_train',
    'val_dataloader.dataset.split=base_val',
    'val_dataloader.dataset.sampler=balanced',
]
WATCHED = [
    'val_cfg.type=ValLoopWatchingNovel',
    'default_hooks.checkpoint.save_best=[mIoU,novel/mIoU]',
    'train_cfg.max_epochs=2',
    'param_scheduler.0.end=2',
]
SPLIT = get_split('shapes-5i', 1)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Config, work dir and runner of a training that is validated on both kinds of classes."""
    root = tmp_path_factory.mktemp('selection')
    shapes = write_shapes(root / 'shapes')
    config = write_config(root / 'selection_of_both.py', shapes)
    work_dir = root / 'runs/fold1'
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('FOLD', '1')
        runner = launch.train(
            [config, '--work-dir', str(work_dir), '--cfg-options', *HELD_OUT, *WATCHED]
        )
    return config, work_dir, runner


def meta_of(path):
    return CheckpointLoader.load_checkpoint(str(path), map_location='cpu')['meta']['mmfss']


def test_training_and_validation_see_the_classes_they_should(trained):
    *_, runner = trained
    seen = {runner.train_dataloader.dataset.episode(i).class_id for i in range(200)}
    assert seen <= set(SPLIT.ids('base_train')) and len(seen) > 3
    held_out = {*SPLIT.novel, *SPLIT.validation}
    index = runner.train_dataloader.dataset.index
    used = {runner.train_dataloader.dataset.episode(i).query for i in range(200)}
    assert all(held_out.isdisjoint(index.areas[image]) for image in used)
    validated = runner.val_dataloader.dataset
    assert {validated.episode(i).class_id for i in range(5)} == set(SPLIT.validation)


def test_both_figures_and_both_checkpoints(trained):
    _, work_dir, _ = trained
    chosen, watched = (
        sorted(work_dir.glob(f'best_{key}_epoch_*.pth')) for key in ('mIoU', 'novel_mIoU')
    )
    assert len(chosen) == len(watched) == 1
    for path in (*chosen, *watched):
        meta = meta_of(path)
        assert meta['base_classes'] == list(SPLIT.names('base_train'))
        assert meta['selection']['rule'] == 'held_out'
        assert meta['selection']['classes'] == list(SPLIT.names('base_val'))
        figures = meta['selection']['figures']
        assert set(figures) >= {'mIoU', 'FB-IoU', 'novel/mIoU', 'novel/FB-IoU'}
        assert all(0 <= value <= 100 for value in figures.values())


def test_state_of_the_early_stop_is_that_of_the_best_checkpoint(trained):
    """A run that is resumed from its last checkpoint must not forget a validation."""
    _, work_dir, _ = trained
    (best,) = work_dir.glob('best_mIoU_epoch_*.pth')
    for path in (best, work_dir / 'epoch_2.pth'):
        content = CheckpointLoader.load_checkpoint(str(path), map_location='cpu')
        hub = content['message_hub']['runtime_info']
        epoch = int(hub['best_ckpt_mIoU'].rsplit('_', 1)[1].removesuffix('.pth'))
        assert hub['best_progress'] == [hub['best_score_mIoU'], epoch]


def test_watched_figure_is_that_of_the_test(trained):
    """The checkpoint that was best on the novel classes tests to the figure it was chosen by."""
    config, work_dir, _ = trained
    (path,) = work_dir.glob('best_novel_mIoU_epoch_*.pth')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('FOLD', '1')
        metrics = testing.test([config, str(path), '--work-dir', str(work_dir / 'test')])
    assert metrics['mIoU'] == meta_of(path)['selection']['figures']['novel/mIoU']


def test_a_test_on_trained_classes_is_refused_unless_it_is_asked_for(trained):
    config, work_dir, _ = trained
    (path,) = work_dir.glob('best_mIoU_epoch_*.pth')
    args = [config, str(path), '--work-dir', str(work_dir / 'test'), '--cfg-options']
    args += ['test_dataloader.dataset.split=base']
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('FOLD', '1')
        with pytest.raises(ValueError, match='was trained on shapes-5i fold 1.*include tested'):
            testing.test(args)
        allowed = 'default_hooks.fold_guard.allow_trained=True'
        assert 0 <= testing.test([*args, allowed])['mIoU'] <= 100


def test_held_out_classes_are_refused_where_they_were_trained_on(trained):
    config, work_dir, _ = trained
    args = [config, '--work-dir', str(work_dir / 'other'), '--cfg-options']
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('FOLD', '1')
        with pytest.raises(ValueError, match="'base_val', held-out base classes .* training sees"):
            launch.train([*args, *HELD_OUT[1:]])
        with pytest.raises(ValueError, match="must be 'base' or 'base_train', got 'novel'"):
            launch.train([*args, 'train_dataloader.dataset.split=novel'])
