"""Where the time of a cold episode goes: the heaviest operators of each stage."""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.pictures import FoldSpec, episodes_of
from benchmarks.report import table
from benchmarks.running import Episodes
from benchmarks.stages import MARK, OTHER, Stages, marks, rules_of
from benchmarks.subject import at_least, folder, subject_of

HELP = 'the heaviest operators of each stage of an episode'


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
    at_least(args, 1, 'shots', 'top')
    subject = subject_of(args)
    with folder(args.data) as root:
        spec = FoldSpec.asked(args, subject.side, max(6, args.shots + 1), args.shots + 1)
        dataset = episodes_of(root, spec, subject.side, args.shots, 2)
        model = subject.build_naive() if args.naive else subject.build()
        runner = Episodes(model, dataset, subject)
        runner.run(1)
        by_stage = profiled(runner)
    total = sum(sum(operators.values()) for operators in by_stage.values())
    stages = {}
    for name, operators in sorted(by_stage.items(), key=lambda item: -sum(item[1].values())):
        spent = sum(operators.values())
        heaviest = sorted(operators.items(), key=lambda item: -item[1])[: args.top]
        stages[name] = dict(
            seconds=spent,
            share=spent / total,
            operators={name: dict(seconds=s, share=s / spent) for name, s in heaviest},
        )
    return dict(machine=subject.machine(args.quick), seconds=total, stages=stages)


def profiled(runner: Episodes) -> dict[str, dict[str, float]]:
    """Stage -> operator -> seconds of its own, of one episode; on a GPU those of its kernels."""
    rules = rules_of(runner.model, runner.dataset)
    runner.stages = Stages(rules, runner.clock, *marks())
    cuda = runner.subject.target.type == 'cuda'
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if cuda else [])
    with profile(activities=activities) as profiler:
        runner.run(1)
    out: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for event in profiler.events():
        spent = event.self_device_time_total if cuda else event.self_cpu_time_total
        name = 'outside torch' if event.name.startswith(MARK) else event.name
        stage = event
        while stage is not None and not stage.name.startswith(MARK):
            stage = stage.cpu_parent
        if spent > 0:
            out[OTHER if stage is None else stage.name.removeprefix(MARK)][name] += spent / 1e6
    return out


def tables(results: dict[str, Any]) -> list[str]:
    """What is printed."""
    rows = []
    for stage, entry in results['stages'].items():
        heaviest = [f'{k} {100 * part["share"]:.0f} %' for k, part in entry['operators'].items()]
        rows.append([
            stage, 1000 * entry['seconds'], f'{100 * entry["share"]:.1f} %', ', '.join(heaviest)
        ])  # fmt: skip
    return [table(['stage', 'ms', 'share', 'heaviest operators (share of the stage)'], rows)]
