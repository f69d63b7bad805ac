"""Loaders, checkpoints and archs that do not belong together are refused, by name."""

from __future__ import annotations

import pytest

from mmfss.checkpoints.record import (
    check_checkpoint,
    check_loaders,
    deciding,
    describe_run,
    plain,
)
from mmfss.datasets.classes import canonical
from mmfss.datasets.folds import get_split

ARCH = dict(sam2='sam2_small', prior_encoder=dict(type='DINOv2', arch='base'))


def meta_of(benchmark='pascal-5i', fold=0, arch=ARCH, inherited=(), role='base'):
    return describe_run(get_split(benchmark, fold), role, 1, arch, set(inherited))


def loader(fold, role):
    return get_split('pascal-5i', fold), role


def test_run_description_holds_names_and_plain_values_only():
    meta = meta_of(fold='1', arch=dict(sam2=dict(stages=(1, 2)), prior_encoder=None))
    assert meta['benchmark'] == 'pascal-5i' and meta['fold'] == 1 and meta['shots'] == 1
    assert meta['novel_classes'] == ['bus', 'car', 'cat', 'chair', 'cow']
    assert len(meta['base_classes']) == 15 and 'cat' not in meta['base_classes']
    assert meta['trained_classes'] == sorted(meta['base_classes'])
    assert meta['arch'] == {'sam2': {'stages': [1, 2]}, 'prior_encoder': None}


def test_classes_of_an_earlier_training_are_kept():
    meta = meta_of(fold=0, inherited=['zebra', 'dog'])
    assert meta['trained_classes'] == sorted({*meta['base_classes'], 'zebra'})


@pytest.mark.parametrize('resume', [False, True])
@pytest.mark.parametrize('benchmark', ['pascal-5i', 'coco-20i', 'shapes-5i'])
def test_same_fold_and_arch_pass(benchmark, resume):
    for fold in range(4):
        check_checkpoint(meta_of(benchmark, fold), get_split(benchmark, fold), ARCH, resume)


@pytest.mark.parametrize('resume', [False, True])
def test_other_fold_is_refused_with_both_class_sets_and_the_command(resume):
    with pytest.raises(ValueError) as error:
        check_checkpoint(meta_of(fold=1), get_split('pascal-5i', 2), ARCH, resume)
    text = str(error.value)
    assert 'trained on pascal-5i fold 1' in text and 'novel classes of pascal-5i fold 2' in text
    assert 'aeroplane' in text and 'diningtable, dog, horse, motorbike, person' in text
    assert 'Set FOLD=1, or use a checkpoint of fold 2' in text


def test_other_fold_is_refused_even_where_no_novel_class_was_trained():
    meta = meta_of(fold=1)
    meta['trained_classes'] = ['aeroplane']
    with pytest.raises(ValueError, match='is of pascal-5i fold 1; it cannot be used on'):
        check_checkpoint(meta, get_split('pascal-5i', 2), ARCH, resume=False)


def test_classes_are_compared_across_benchmarks():
    # COCO fold 0 holds out person, airplane, boat, ..., and trains tv, couch, motorcycle
    meta = meta_of('coco-20i', 0)
    with pytest.raises(ValueError) as error:
        check_checkpoint(meta, get_split('pascal-5i', 3), ARCH, resume=False)
    leaked = str(error.value).split('): ')[1].split('.')[0]
    assert 'tvmonitor' in leaked and 'sheep' in leaked


def test_another_benchmark_without_a_common_class_may_be_tested_but_not_resumed():
    meta = meta_of('shapes-5i', 0)
    check_checkpoint(meta, get_split('pascal-5i', 3), ARCH, resume=False)
    with pytest.raises(ValueError, match='its training cannot be resumed on pascal-5i fold 3'):
        check_checkpoint(meta, get_split('pascal-5i', 3), ARCH, resume=True)


@pytest.mark.parametrize(
    'arch',
    [
        dict(ARCH, sam2='sam2.1_small'),
        dict(ARCH, sam2=dict(base='sam2_small')),
        dict(ARCH, prior_encoder=None),
        dict(ARCH, prior_encoder=dict(type='DINOv2', arch='large')),
    ],
)
def test_another_arch_is_refused_with_both_named(arch):
    with pytest.raises(ValueError, match='of another arch') as error:
        check_checkpoint(meta_of(), get_split('pascal-5i', 0), arch, resume=False)
    (key,) = [k for k in {*ARCH, *arch} if ARCH.get(k) != arch.get(k)]
    said = f'it has {key} {ARCH.get(key)}, the configured model has {plain(arch.get(key))}. Test'
    assert said in str(error.value)


def test_other_parts_are_refused_where_results_depend_on_them():
    before, now = (
        dict(ARCH, parts=dict(memory_refinement=dict(type=name), memory_attention=dict(type='C')))
        for name in 'AB'
    )
    meta, split = meta_of(arch=before), get_split('pascal-5i', 0)
    with pytest.raises(ValueError, match=r"has memory_refinement {'type': 'A'}, .* {'type': 'B'}"):
        check_checkpoint(meta, split, now, resume=False)
    with pytest.raises(ValueError, match=r"has memory_refinement {'type': 'A'}, .* model has None"):
        check_checkpoint(meta, split, dict(before, parts={}), resume=True)
    check_checkpoint(meta, split, now, resume=False, parts=False)  # a training starts from it


def test_tuples_of_an_arch_count_as_lists():
    arch = dict(sam2=dict(stages=(1, 2)), prior_encoder=None)
    listed = dict(sam2=dict(stages=[1, 2]), prior_encoder=None)
    check_checkpoint(meta_of(arch=arch), get_split('pascal-5i', 0), listed, resume=True)


def test_speed_settings_are_no_part_of_an_arch():
    def arch(size):
        trunk = dict(_target_='Trunk', cache_bytes=size)
        return dict(sam2=dict(trunk=trunk, blocks=[trunk]), prior_encoder=None)

    check_checkpoint(meta_of(arch=arch(0)), get_split('pascal-5i', 0), arch(9), resume=True)
    assert deciding(arch(0))['sam2'] == {'trunk': {'_target_': 'Trunk'}, 'blocks': [
        {'_target_': 'Trunk'}]}  # fmt: skip


def test_messages_name_the_checkpoint():
    for meta, arch in ((meta_of(fold=1), ARCH), (meta_of(), {}), ({}, ARCH)):
        with pytest.raises(ValueError, match='^checkpoint a.pth'):
            check_checkpoint(meta, get_split('pascal-5i', 0), arch, False, 'checkpoint a.pth')


def test_incomplete_record_is_named():
    meta = meta_of()
    del meta['fold']
    with pytest.raises(ValueError, match=r"lacks \['fold'\]"):
        check_checkpoint(meta, get_split('pascal-5i', 0), ARCH, resume=False)


def test_loaders_of_two_folds_are_refused():
    loaders = dict(train=loader(0, 'base'), test=loader('1', 'novel'))
    with pytest.raises(ValueError, match='train: pascal-5i fold 0, test: pascal-5i fold 1'):
        check_loaders(loaders)


def test_loaders_of_two_benchmarks_are_refused():
    contiguous = get_split('coco-20i-contiguous', 0)
    loaders = dict(train=(get_split('coco-20i', 0), 'base'), val=(contiguous, 'novel'))
    with pytest.raises(ValueError, match='do not agree on benchmark and fold'):
        check_loaders(loaders)


def test_a_test_on_classes_that_were_trained_on_is_refused():
    split, meta = get_split('pascal-5i', 0), meta_of(role='base_train')
    check_checkpoint(meta, split, ARCH, False, role='base')  # validation, of a training
    with pytest.raises(
        ValueError, match='include tested classes of pascal-5i fold 0 .*: bus, car.*allow_tr'
    ):
        check_checkpoint(meta, split, ARCH, False, role='base', tested=True)
    with pytest.raises(
        ValueError, match='include tested classes of coco-to-pascal fold 0 .*: bicycle'
    ):
        other = get_split('coco-to-pascal', 0)
        check_checkpoint(meta_of('coco-20i'), other, ARCH, False, role='base', tested=True)
    check_checkpoint(meta_of('coco-20i'), other, ARCH, False, role='novel', tested=True)


def test_training_on_held_out_classes_is_refused():
    with pytest.raises(ValueError, match="must be 'base' or 'base_train', got 'novel'.*bus, car"):
        check_loaders(dict(train=loader(1, 'novel'), val=loader(1, 'novel')))
    with pytest.raises(
        ValueError, match=r"'base_val', held-out base classes \(bird, horse, sofa\)"
    ):
        check_loaders(dict(train=loader(1, 'base'), val=loader(1, 'base_val')))


def test_validation_may_be_on_base_held_out_or_novel_classes():
    for train, val in (('base', 'base'), ('base', 'novel'), ('base_train', 'base_val')):
        check_loaders(dict(train=loader('3', train), val=loader(3, val)))


def test_classes_held_out_for_validation_were_not_trained_on():
    split = get_split('pascal-5i', 0)
    meta, held_out = meta_of(), meta_of(role='base_train')
    assert set(meta['base_classes']) - set(held_out['base_classes']) == {'cat', 'horse', 'sofa'}
    check_checkpoint(meta, split, ARCH, False, role='novel')
    check_checkpoint(held_out, split, ARCH, False, role='base_val')
    with pytest.raises(ValueError, match=r'include held-out classes .*sofa\): cat, horse, sofa'):
        check_checkpoint(meta, split, ARCH, False, role='base_val')


def test_spellings_of_one_class():
    pairs = [('tvmonitor', 'tv'), ('sofa', 'couch'), ('aeroplane', 'airplane')]
    pairs += [('diningtable', 'dining table'), ('pottedplant', 'potted plant')]
    pairs += [('motorbike', 'motorcycle')]
    for pascal, coco in pairs:
        assert canonical(pascal) == canonical(coco)
    pascal = {canonical(name) for name in get_split('pascal-5i', 0).classes}
    coco = {canonical(name) for name in get_split('coco-20i', 0).classes}
    assert len(pascal) == 20 and len(coco) == 80 and pascal <= coco


def test_remedy_names_a_benchmark_that_can_be_trained_on():
    with pytest.raises(ValueError, match='bicycle, bus, .* trained on coco-20i fold 1$'):
        check_checkpoint(meta_of('coco-20i', 0), get_split('coco-to-pascal', 1), ARCH, resume=False)
