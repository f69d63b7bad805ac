"""What is recorded of a training, what differs, and what is refused."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config

from mmfss.checkpoints.settings import (
    Difference,
    check_settings,
    describe_settings,
    differences,
)

CFG = dict(
    model=dict(type=torch.nn.Linear, sam2=dict(arch='small', checkpoint='official'),
               feature_cache=dict(type='FeatureCache')),
    train_dataloader=dict(batch_size=4, num_workers=2, dataset=dict(shots=1, sizes=(1, 2))),
    param_scheduler=[dict(type='PolyLR', end=6)],
    default_hooks=dict(logger=dict(interval=2)),
)  # fmt: skip


def test_record_holds_what_a_checkpoint_may_hold(tmp_path):
    record = describe_settings(Config(CFG), dict(processes=2))
    assert record['model'] == dict(type='Linear', sam2=dict(arch='small'))
    assert record['train_dataloader'] == dict(batch_size=4, dataset=dict(shots=1, sizes=[1, 2]))
    assert record['param_scheduler'] == [dict(type='PolyLR', end=6)]
    assert record['processes'] == 2 and record['val_dataloader'] is None
    assert 'default_hooks' not in record
    torch.save(record, tmp_path / 'a.pth')
    assert torch.load(tmp_path / 'a.pth', weights_only=True) == record


def test_differences_name_each_entry():
    before = dict(a=dict(b=1, c=[1, 2], d=3), e=[dict(f=1)], g=[1], h=1)
    now = dict(a=dict(b=2, c=[1, 2], x=4), e=[dict(f=2)], g=[1, 2], h=1)
    assert [str(found) for found in differences(before, now)] == [
        'a.b: 1 -> 2', 'a.d: 3 -> unset', 'a.x: unset -> 4', 'e.0.f: 1 -> 2', 'g: [1] -> [1, 2]',
    ]  # fmt: skip
    assert list(differences(before, before)) == []


@pytest.mark.parametrize(
    'key, refused, of_schedule',
    [
        ('model.strength', True, False),
        ('train_dataloader.dataset.shots', True, False),
        ('train_dataloader.dataset.dataset.shots', True, False),
        ('val_dataloader.dataset.shots', False, False),
        ('optim_wrapper.optimizer.type', True, True),
        ('optim_wrapper.optimizer.lr', False, True),
        ('optim_wrapper.clip_grad.max_norm', False, True),
        ('param_scheduler.0.end', False, True),
        ('train_cfg.max_epochs', False, True),
        ('train_cfg.val_interval', False, False),
        ('train_dataloader.batch_size', False, True),
        ('iterations of an epoch', False, True),
        ('processes', False, True),
        ('loop', True, False),
        ('seed', True, False),
    ],
)
def test_what_is_refused_and_what_the_learning_rate_depends_on(key, refused, of_schedule):
    found = Difference(key, 1, 2)
    assert (found.refused, found.of_schedule) == (refused, of_schedule)
    if refused:
        with pytest.raises(ValueError, match=f'X cannot be resumed .*{key}: 1 -> 2 .*load_from=x'):
            check_settings([found, Difference('processes', 1, 2)], 'X', 'x.pth')
    else:
        check_settings([found], 'X', 'x.pth')
