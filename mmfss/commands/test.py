"""What ``mmfss test`` does: one evaluation, or the table of folds x seeds x shots of a paper."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.registry import LOOPS
from mmengine.runner import Runner
from mmseg.registry import DATASETS

from mmfss import compat
from mmfss.checkpoints.provenance import environment
from mmfss.commands.caching import log_loaders
from mmfss.commands.command_lines import Request, parse
from mmfss.commands.evaluation_plan import Job, Plan, make_plan
from mmfss.commands.evaluation_results import Results
from mmfss.commands.preparation import drop_training, say_left_out
from mmfss.commands.train import Distributed
from mmfss.datasets.folds import FoldSplit, get_benchmark
from mmfss.engine.cost import episode_cost
from mmfss.engine.guards import bare_model, check_absent
from mmfss.engine.logs import ToolRunner
from mmfss.evaluation.metrics import FewShotIoUMetric
from mmfss.evaluation.report import Report, Run
from mmfss.evaluation.report_text import text


def main(argv: Sequence[str] | None = None) -> Report:
    """:func:`evaluate` with a command line, by default the process's."""
    return evaluate(parse(Request, argv))


def test(argv: Sequence[str] | None = None) -> dict[str, float]:
    """:func:`main` for a single run.

    Returns:
        Its metrics; of a table, those of its first run.
    """
    return dict(main(argv).runs[0].metrics)


def evaluate(request: Request, show: Callable[[str], None] = print) -> Report:
    """Test each checkpoint with all folds, seeds and shots that are asked for.

    Everything that can be wrong with config, checkpoints, outputs and images of any fold is found
    before the first episode. After each run, ``out`` is written again, so that an interrupted
    table goes on where it was. The main process prints and writes.

    Args:
        request: What to test.
        show: Gets the table as text.

    Returns:
        The report. Only that of the main process has the counts of the episodes.

    Raises:
        ValueError, FileNotFoundError: wrong arguments, config, data or checkpoint.
        OSError: the result could not be written; it was printed.
    """
    plan = make_plan(request)
    report = Report(_header(request, plan), plan.labels, plan.shots, plan.folds, plan.seeds)
    with Distributed(request.launcher):
        say_left_out(plan.configs.values())
        results = Results(report, plan, request.base)
        with results.alone():
            results.take_over(protocol_of)
            if len(plan.jobs) > 1:  # of a single one, the Runner finds it soon enough
                check_data(job for job in plan.jobs if not results.has(job))
            try:
                for number, (fold, label) in enumerate(_groups(plan)):
                    jobs = [job for job in plan.jobs if (job.fold, job.label) == (fold, label)]
                    todo = [job for job in jobs if not results.has(job)]
                    if todo:
                        _run_jobs(request, plan, results, todo, number)
            except KeyboardInterrupt as stop:
                raise KeyboardInterrupt(_kept(results)) from stop
            if is_main_process():
                show(text(report))
                results.write()
    return report


def _kept(results: Results) -> str:
    """What an evaluation that was stopped leaves."""
    report = results.report
    done = f'{len(report.runs)} of {report.planned} runs'
    if results.base is None:
        return f'{done} were done and are not kept, which --out would do; run the command again'
    return f'{done} are in {results.base}.json; the same command does the others'


def _groups(plan: Plan) -> list[tuple[int, str]]:
    """What takes a model of its own."""
    return [(fold, label) for fold in plan.folds for label in plan.labels]


def _header(request: Request, plan: Plan) -> dict[str, Any]:
    dataset = plan.dataset
    return dict(
        benchmark=dataset['benchmark'],
        role=dataset.get('split', 'novel'),
        folds_in_all=get_benchmark(dataset['benchmark']).num_folds,
        config=request.config,
        method=plan.method,
        cfg_options={key: str(value) for key, value in request.cfg_options.items()},
        autocast=_precision(plan),
        environment=environment(),
    )


def _precision(plan: Plan) -> str:
    """Under which autocast the model is run."""
    loop = next(iter(plan.configs.values())).get('test_cfg') or {}
    return 'bfloat16' if loop.get('bf16') else 'float16' if loop.get('fp16') else 'none'


def protocol_of(job: Job) -> dict[str, Any]:
    """What the dataset of a job says of its episodes, and the rule for classes without any."""
    dataset = DATASETS.build(copy.deepcopy(job.dataloader['dataset']))
    return dict(getattr(dataset, 'protocol', {}), absent_classes=job.absent_classes)


def check_data(jobs: Iterable[Job]) -> None:
    """Build the episodes of each fold and K, with the first seed.

    Raises:
        ValueError, FileNotFoundError: the data are not there, give no K-shot episodes of a fold,
            or no episode of a class that the metric wants.
    """
    checked = set()
    for job in jobs:
        if (job.fold, job.shots) not in checked:
            checked.add((job.fold, job.shots))
            dataset = DATASETS.build(copy.deepcopy(job.dataloader['dataset']))
            check_absent('test', dataset, {'test_evaluator': job.absent_classes})


# --------------------------------------------------------------------------------------- runs
def _run_jobs(
    request: Request, plan: Plan, results: Results, jobs: Sequence[Job], number: int
) -> None:
    """Evaluate the jobs of one fold and checkpoint with one model."""
    cfg = runner_config(request, plan, jobs[0], number)
    runner = ToolRunner.from_cfg(cfg)
    if jobs[0].path is None:
        bare_model(runner).init_weights()
    log_loaders(cfg)
    costs: dict[int, dict[str, float]] = {}  # by K: seeds cost the same
    for place, job in enumerate(jobs):
        if place:
            set_test_loop(runner, cfg, job)
        run = _finished(runner, job, runner.test(), plan)
        if request.cost:
            if job.shots not in costs:
                costs[job.shots] = episode_cost(runner)
            run = replace(run, cost=costs[job.shots])
        results.add(run)
        done, planned = len(results.report.runs), results.report.planned
        print_log(
            f'{job.label}, {job.shots}-shot, fold {job.fold}, seed {job.seed}: mIoU '
            f'{run.metrics["mIoU"]:.2f}; {done} of {planned} runs',
            'current',
        )


def runner_config(request: Request, plan: Plan, job: Job, number: int) -> Config:
    """The config of the Runner of a job; ``number`` tells its log from those of others."""
    cfg = copy.deepcopy(plan.configs[job.fold])
    cfg.load_from, cfg.resume = job.path, False
    cfg.test_dataloader, cfg.test_evaluator = job.dataloader, job.evaluator
    drop_training(cfg, {} if number else request.cfg_options)
    if len(_groups(plan)) > 1:
        # mmengine keeps one log and one visualizer per name and second
        stem = cfg.get('experiment_name') or os.path.splitext(os.path.basename(cfg.filename))[0]
        cfg.experiment_name = f'{stem}_{number}'
    compat.set_cpu_model_wrapper(cfg)
    return cfg


def set_test_loop(runner: Runner, cfg: Config, job: Job) -> None:
    """Give a runner that has tested other episodes to test. Its model and hooks stay, and its
    next ``test()`` runs their checks on the new loop but loads no checkpoint again."""
    kind = dict(type='TestLoop', **{k: v for k, v in (cfg.test_cfg or {}).items() if k != 'type'})
    kind['type'] = (cfg.test_cfg or {}).get('type', 'TestLoop')
    runner._test_loop = LOOPS.build(
        kind,
        default_args=dict(
            runner=runner,
            dataloader=copy.deepcopy(job.dataloader),
            evaluator=copy.deepcopy(job.evaluator),
        ),
    )


def _finished(runner: Runner, job: Job, metrics: dict[str, float], plan: Plan) -> Run:
    loop = runner.test_loop
    dataset = loop.dataloader.dataset
    metric = next(m for m in loop.evaluator.metrics if isinstance(m, FewShotIoUMetric))
    start = f'{metric.prefix}/' if metric.prefix else ''
    own = {key.removeprefix(start): value for key, value in metrics.items()}
    split = dataset.metainfo['split']
    split = split if isinstance(split, FoldSplit) else FoldSplit.from_dict(split)
    names = [split.name(class_id) for class_id in split.ids(dataset.metainfo['role'])]
    absent = tuple(name for name in names if f'IoU/{name}' not in own)
    zero = job.absent_classes == 'zero'
    return Run(
        label=job.label,
        shots=job.shots,
        fold=job.fold,
        seed=job.seed,
        metrics=own,
        left_out=() if zero else absent,
        protocol=dict(getattr(dataset, 'protocol', {}), absent_classes=job.absent_classes),
        checkpoint=plan.checkpoints[job.path],
        settings=job.settings,
        counts=metric.counts,
        counted_zero=absent if zero else (),
        runtimes=dict(bare_model(runner).encoding.runtimes.record),
    )
