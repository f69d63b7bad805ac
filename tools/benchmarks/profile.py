"""Where the time of a cold episode goes: the heaviest operators of each stage."""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.common import fold_spec, machine_of, subject_of
from benchmarks.pictures import episodes_of, write_fold
from benchmarks.report import table
from benchmarks.running import Episodes
from benchmarks.stages import Stages, rules_of
from benchmarks.subject import Subject, folder
from benchmarks.timing import clock_of

HELP = 'the heaviest operators of each stage of an episode'
_MARK = 'stage: '


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument('--shots', type=int, default=1, help='K (%(default)s)')
    parser.add_argument('--top', type=int, default=5, help='operators of a stage (%(default)s)')
    parser.add_argument('--naive', action='store_true', help='of the baseline instead')


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure.

    Returns:
        ``machine``; ``stages``: for each ``seconds`` and its ``share``, and ``operators`` with
        theirs (of the stage), the heaviest first; ``seconds`` of all.
    """
    if args.shots < 1 or args.top < 1:
        raise ValueError(f'--shots and --top must be >= 1, got {args.shots}, {args.top}')
    subject = subject_of(args)
    with folder(args.data) as root:
        spec = fold_spec(args, max(6, args.shots + 1), args.shots + 1)
        dataset = episodes_of(write_fold(root, spec), spec, subject.side, args.shots, 2)
        model = subject.build_naive() if args.naive else subject.build()
        runner = Episodes(model, dataset, context=subject.context())
        runner.run(1)
        by_stage = profiled(runner, rules_of(model, dataset), subject)
    total = sum(sum(operators.values()) for operators in by_stage.values())
    stages = {
        name: _stage(operators, total, args.top)
        for name, operators in sorted(by_stage.items(), key=lambda item: -sum(item[1].values()))
    }
    return dict(machine=machine_of(subject, args.quick), seconds=total, stages=stages)


def profiled(runner: Episodes, rules: Any, subject: Subject) -> dict[str, dict[str, float]]:
    """Stage -> operator -> seconds of its own, of one episode; on a GPU those of its kernels."""
    marks: list[record_function] = []

    def enter(name: str) -> None:
        marks.append(record_function(_MARK + name))
        marks[-1].__enter__()

    def leave(name: str) -> None:
        marks.pop().__exit__(None, None, None)

    cuda = subject.target.type == 'cuda'
    runner.stages = Stages(rules, clock_of(subject.target), enter, leave)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if cuda else [])
    with profile(activities=activities) as profiler:
        runner.run(1)
    out: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for event in profiler.events():
        spent = event.self_device_time_total if cuda else event.self_cpu_time_total
        name = 'outside torch' if event.name.startswith(_MARK) else event.name
        if spent > 0:
            out[_stage_of(event)][name] += spent / 1e6
    return {stage: dict(operators) for stage, operators in out.items()}


def _stage_of(event: Any) -> str:
    while event is not None:
        if event.name.startswith(_MARK):
            return event.name.removeprefix(_MARK)
        event = event.cpu_parent
    return 'other'


def _stage(operators: dict[str, float], total: float, top: int) -> dict[str, Any]:
    spent = sum(operators.values())
    heaviest = sorted(operators.items(), key=lambda item: -item[1])[:top]
    return dict(
        seconds=spent,
        share=spent / total,
        operators={name: dict(seconds=s, share=s / spent) for name, s in heaviest},
    )


def tables(results: dict[str, Any]) -> list[str]:
    """What is printed."""
    rows = [
        [stage, 1000 * entry['seconds'], f'{100 * entry["share"]:.1f} %', _heaviest(entry)]
        for stage, entry in results['stages'].items()
    ]
    return [table(['stage', 'ms', 'share', 'heaviest operators (share of the stage)'], rows)]


def _heaviest(entry: dict[str, Any]) -> str:
    named = entry['operators'].items()
    return ', '.join(f'{name} {100 * part["share"]:.0f} %' for name, part in named)
