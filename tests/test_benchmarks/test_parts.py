"""Accounts of stages, summaries, tables, comparisons: numbers by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from benchmarks import report
from benchmarks.evaluation import extrapolated, per_episode
from benchmarks.fold import episode_seconds, of_fold
from benchmarks.memory import held_by_stage
from benchmarks.running import Outcome, compare
from benchmarks.stages import Stages, code_of, flop_counter
from benchmarks.subject import Subject, checked_device
from benchmarks.timing import interleaved, matmul_peak, parameters, summary

MIB = 2**20


class Work:
    """Functions that take units of a clock that they turn themselves."""

    now = 0

    def spend(self, units):
        self.now += units

    def inner(self):
        self.spend(3)

    @torch.no_grad()
    def outer(self):
        self.spend(2)
        self.inner()
        self.spend(5)

    def fails(self):
        self.spend(7)
        raise KeyError('x')


def rules():
    nested = {'outer': 'inner of outer', '': 'inner'}
    return {
        code_of(Work.inner): nested,
        code_of(Work.outer): 'outer',
        code_of(Work.fails): 'fails',
    }


def test_each_stage_is_charged_for_itself_alone():
    work = Work()
    with Stages(rules(), lambda: work.now) as stages:
        work.spend(1)
        work.outer()
        work.inner()
        with pytest.raises(KeyError):
            work.fails()
        work.spend(4)
    assert stages.spent == {'other': 5, 'outer': 7, 'inner of outer': 3, 'inner': 3, 'fails': 7}
    assert sum(stages.spent.values()) == work.now == 25


def test_stages_are_told_where_they_begin_and_end():
    work, seen = Work(), []
    stages = Stages(
        rules(), lambda: work.now, lambda n: seen.append(f'+{n}'), lambda n: seen.append(f'-{n}')
    )
    with stages:
        work.outer()
    assert seen == ['+outer', '+inner of outer', '-inner of outer', '-outer']


class Hoard:
    """Functions that hold tensors and arrays for a while."""

    def inner(self):
        return torch.zeros(2 * MIB, dtype=torch.uint8)[0].item()

    def outer(self):
        kept = torch.zeros(5 * MIB, dtype=torch.uint8)
        torch.ones(MIB, dtype=torch.uint8)
        self.inner()
        np.zeros(3 * MIB, np.uint8)
        return kept[0].item()

    def after(self):
        return torch.zeros(MIB, dtype=torch.uint8), np.zeros(MIB, np.uint8)


def test_what_stages_hold_at_most():
    hoard = Hoard()
    names = {code_of(getattr(Hoard, name)): name for name in ('inner', 'outer', 'after')}

    def run(stages):
        with stages:
            hoard.outer()
            hoard.after()

    held = held_by_stage(names, run)
    tensors = {name: entry['tensors'] / MIB for name, entry in held.items()}
    arrays = {name: entry['arrays'] / MIB for name, entry in held.items()}
    assert tensors == pytest.approx(dict(inner=7, outer=6, after=1), abs=0.1)
    assert arrays == pytest.approx(dict(inner=0, outer=3, after=1), abs=0.3)


def test_operations_of_attention_are_counted_on_the_cpu():
    x = torch.zeros(1, 2, 5, 4)
    with flop_counter() as counter:
        torch.nn.functional.scaled_dot_product_attention(x, x, x)
        torch.mm(torch.zeros(3, 4), torch.zeros(4, 6))
    assert counter.get_total_flops() == 2 * (2 * 5 * 5 * 4) * 2 + 2 * 3 * 4 * 6


def test_jobs_take_turns_and_the_first_does_not_count():
    ticks, order = iter(range(100)), []
    jobs = {name: lambda name=name: order.append(name) for name in 'ab'}
    found = interleaved(jobs, 3, lambda: next(ticks))
    assert order == list('abababab')
    assert found == {name: dict(median=1, low=1, high=1, values=[1, 1, 1]) for name in 'ab'}
    assert summary([3, 1, 2, 10])['median'] == 2.5
    with pytest.raises(ValueError, match='repeats must be >= 1'):
        summary([])


def test_parameters_and_peak():
    layer = torch.nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    assert parameters([('layer', layer)]) == dict(layer=dict(all=8, trainable=6))
    assert matmul_peak(torch.device('cpu'), torch.float32, 32) > 0


def test_extrapolation():
    """33 episodes of 12 images: cold takes 2 s more for each of the 12."""
    seconds = {'naive': 6.0, 'warm cache': 0.5, 'cold cache': 0.5 + 12 * 2 / 33}
    found = extrapolated(seconds, {'warm cache': 1.0}, 33, 12, (364, 1000))
    assert found == pytest.approx({'naive': 6000, 'warm cache': 501, 'cold cache': 500 + 728})
    runs = [Outcome(seconds=[4.0, 3.0], counts=(0, 1)), Outcome(seconds=[3.0, 3.0], counts=(0, 1))]
    assert per_episode(runs, 1.0) == 2.5


def test_whole_training():
    def step(kind, batch, seconds):
        return dict(kind=kind, batch=batch, seconds=dict(median=seconds))

    ways = dict(a=step('ours', 1, 8.0), b=step('ours', 2, 15.0), c=step('naive', 1, 9.0))
    assert episode_seconds(ways, 'ours') == (15 + 6 * 7) / 8
    assert episode_seconds(ways, 'naive') == 9.0
    hours = of_fold(7.0, (3600.0, 1800.0), 2)
    assert hours == pytest.approx(
        dict(
            training=2 * 526 * 8 * 7 / 3600,
            validation=1 + 3 * 0.5,
            all=2 * 526 * 8 * 7 / 3600 + 2.5,
        )
    )


def outcome(logit=1.0, flipped=0):
    mask = np.zeros(4000, np.uint8)
    mask[:flipped] = 1
    return Outcome(
        logits=[torch.tensor([[[logit, -4.0]]])],
        masks=[np.packbits(mask)],
        figures={'mIoU': 50.0},
        counts=(0,),
    )


def test_results_that_differ_are_refused():
    same = compare(outcome(1.003), outcome())
    assert (
        same['max_logit_difference'] == pytest.approx(0.003, rel=1e-4) and same['max_logit'] == 4.0
    )
    assert same['miou_difference'] == 0.0 and same['pixels'] == 4000
    with pytest.raises(ValueError, match='not equal: logits differ by 0.005 .*0.001 of the'):
        compare(outcome(1.005), outcome())
    with pytest.raises(ValueError, match='masks in 5 of 4000 pixels'):
        compare(outcome(flipped=5), outcome())
    with pytest.raises(ValueError, match='not equal'):
        compare(outcome(1.0001), outcome(), tolerance=0.0)
    with pytest.raises(ValueError, match='not equal'):
        compare(outcome(float('nan')), outcome())


def test_table_and_numbers():
    assert report.table(['a', 'b'], [['x', 12345.6], ['yy', None]]).splitlines() == [
        '| a  | b     |',
        '|---|---|',
        '| x  | 12346 |',
        '| yy | -     |',
    ]
    shown = [report.number(x) for x in (0.0, 1.2345, 0.0123, 123.45, 2e-7)]
    assert shown == ['0', '1.23', '0.012', '123.5', '2e-07']


def test_differences_in_percent():
    before = dict(a=dict(median=2.0, values=[2.0, 9.0]), b=dict(c=4, gone=1, name='x'), z=0)
    now = dict(a=dict(median=3.0, values=[3.0]), b=dict(c=4, new=1), z=1)
    assert report.differences(before, now) == [
        ['a', 2.0, 3.0, '+50.0 %'],
        ['b.c', 4.0, 4.0, '0 %'],
        ['b.gone', 1.0, None, 'only before'],
        ['z', 0.0, 1.0, 'from 0'],
        ['b.new', None, 1.0, 'only now'],
    ]


def test_records_of_other_settings_are_refused(tmp_path):
    path = tmp_path / 'a.json'
    with pytest.raises(FileNotFoundError, match='a.json not found; give a file that --json'):
        report.read(path, 'episode', {})
    path.write_text('[]')
    with pytest.raises(ValueError, match='a.json is no record of a benchmark of format 1'):
        report.read(path, 'episode', {})
    path.write_text(
        json.dumps(dict(format=1, subcommand='episode', settings=dict(shots=1, x=2), results={}))
    )
    assert report.read(path, 'episode', dict(x=2, shots=1))['results'] == {}
    with pytest.raises(ValueError, match="is of the subcommand 'episode', this run is of 'start'"):
        report.read(path, 'start', {})
    with pytest.raises(
        ValueError, match='other settings .shots: 1 there, 5 here; x: 2 there, None'
    ):
        report.read(path, 'episode', dict(shots=5))


def test_records_of_another_machine_are_told():
    def content(cores):
        return dict(environment=dict(machine=dict(cpu='x', cores=cores)))

    assert report.elsewhere(content(2), content(2)) == ''
    assert "another machine ({'cpu': 'x', 'cores': 8})" in report.elsewhere(content(8), content(2))
    assert 'another machine (None)' in report.elsewhere({}, content(2))


def test_subjects_that_cannot_be_built():
    with pytest.raises(ValueError, match="--device must be auto, cpu or cuda, .*got 'gpu'"):
        checked_device('gpu')
    with pytest.raises(ValueError, match="model of type 'EncoderDecoder'|type 'FewShotSegmentor'"):
        Subject('configs/few_shot_segmentor.py').model_config()
    with pytest.raises(ValueError, match='--threads must be >= 1, got 0'):
        Subject(threads=0).prepare()
    assert Subject(image_size=256).model_config()['prior_encoder']['image_size'] == 280
