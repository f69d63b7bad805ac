"""What ``mmfss pictures`` does: figures of picked episodes, methods side by side."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence

from mmseg.registry import DATASETS

from mmfss.checkpoints.patterns import labels
from mmfss.commands.command_lines import PicturesArguments, Request, parse
from mmfss.commands.compare import read_results
from mmfss.commands.evaluation_plan import Plan, make_plan
from mmfss.commands.table import read_entry
from mmfss.commands.test import evaluate, runner_config
from mmfss.engine.guards import bare_model
from mmfss.engine.logs import ToolRunner
from mmfss.evaluation.counts import EpisodeCounts
from mmfss.evaluation.picking import RANKED, check_picks, iou_of, picked, read_pick
from mmfss.files import check_writable
from mmfss.visualization.figures import check_suffix, check_width, figure, write_figure
from mmfss.visualization.visualizer import KeepEpisodesHook, ShownEpisode, map_texts
from mmfss.words import listed, repeated


def main(argv: Sequence[str] | None = None) -> None:
    """:func:`run` with a command line, by default the process's."""
    run(parse(PicturesArguments, argv))


def run(args: PicturesArguments) -> None:
    """Test what has to be tested, pick episodes, run every method on them and draw.

    Raises:
        ValueError, FileNotFoundError: wrong arguments, or see :func:`mmfss.commands.test.evaluate`
            and :func:`mmfss.evaluation.picking.picked`.
    """
    picks = [read_pick(text) for text in args.pick]
    check_width(args.width)
    for out in args.out:
        check_suffix(out)
        check_writable(out, '--out')
    requests = columns(args)
    if args.results and len(args.results) != len(requests):
        raise ValueError(
            f'--results takes a file for each of the {len(requests)} columns, got '
            f'{len(args.results)}; columns are {listed(list(requests))}'
        )
    plans = {name: make_plan(request) for name, request in requests.items()}
    first = next(iter(plans.values())).jobs[0]
    episodes = DATASETS.build(copy.deepcopy(first.dataloader['dataset']))
    classes = [episodes.episode(i).class_id for i in range(len(episodes))]
    check_picks(picks, classes, list(requests), episodes.split.name)
    counts: dict[str, Sequence[EpisodeCounts]] = {}
    if any(pick.kind in RANKED for pick in picks):
        files = dict(zip(plans, args.results))
        for name, one in requests.items():
            if files:
                counts[name] = stored_counts(files[name], plans[name])
            else:
                counts[name] = evaluate(one, show=lambda table: None).runs[0].counts
    numbers = picked(picks, classes, counts, episodes.split.name)
    found = {name: shown(one, numbers, i) for i, (name, one) in enumerate(requests.items())}
    rows = [{name: kept[number] for name, (kept, _) in found.items()} for number in numbers]
    texts = {name: said for name, (_, said) in found.items()}
    drawn = figure(rows, args.width, args.maps, args.errors, texts)
    for out in args.out:
        write_figure(drawn, out)
    ious = {name: {row.episode: iou_of(row) for row in rows} for name, rows in counts.items()}
    for number in numbers:
        said = ', '.join(f'{name} {one[number]:.1f}' for name, one in ious.items())
        print(
            f'episode {number}: {episodes.split.name(classes[number])}' + f', {said}' * bool(said)
        )
    print(f'{len(numbers)} episodes drawn to {", ".join(args.out)}')


def columns(args: PicturesArguments) -> dict[str, Request]:
    """What is tested and drawn, by the name that the figure gives it, in the order given.

    Raises:
        ValueError: one is given twice.
    """
    name = os.path.splitext(os.path.basename(args.config))[0]
    own = [one for one in args.columns if one.endswith('.pth') and '=' not in one]
    titles = {path: said for said, path in _several(name, own)}
    found: list[tuple[str, str, str | None, list[str]]] = []  # name, config, method, checkpoints
    if not args.columns:
        found = [(name, args.config, None, [])]
    for text in args.columns:
        if text in titles:
            found.append((titles[text], args.config, None, [text]))
            continue
        entry = read_entry(text)
        method = entry.name if entry.config is None else None
        config = entry.config or args.config
        if not entry.checkpoints:
            found.append((entry.name, config, method, []))
        for said, path in _several(entry.name, list(entry.checkpoints)):
            found.append((said, config, method, [path]))
    twice = repeated([said for said, *_ in found])
    if twice:
        raise ValueError(f'columns of a figure need different names, got {", ".join(twice)} twice')
    return {
        said: Request(
            config,
            checkpoints,
            method=method,
            benchmark=args.benchmark,
            fold=args.fold,
            shots=None if args.shots is None else [args.shots],
            seeds=None if args.seed is None else [args.seed],
            episodes=args.episodes,
            sampler=args.sampler,
            amp=args.amp,
            feature_cache=args.feature_cache,
            cfg_options=args.cfg_options,
            work_dir=os.path.join(args.work_dir, said.replace(os.sep, '_')),
        )
        for said, config, method, checkpoints in found
    }


def _several(name: str, checkpoints: Sequence[str]) -> list[tuple[str, str]]:
    """Name and path of each checkpoint of a config; one needs no name of its own."""
    if len(checkpoints) < 2:
        return [(name, path) for path in checkpoints]
    return [(f'{name} {label}', path) for path, label in labels(checkpoints).items()]


def stored_counts(path: str, plan: Plan) -> Sequence[EpisodeCounts]:
    """The episodes of a result, of what a plan would test.

    Raises:
        ValueError, FileNotFoundError: it is not there, holds no such run, or is of other weights.
    """
    job = plan.jobs[0]
    runs, _ = read_results(path)
    label = job.label if len(runs) > 1 else next(iter(runs))
    run = runs.get(label, {}).get((job.shots, job.fold, job.seed))
    wanted = f'{job.shots}-shot, fold {job.fold}, seed {job.seed}'
    if run is None:
        raise ValueError(
            f'{path} has no run of {job.label}, {wanted}; test it, or leave --results out'
        )
    before, now = run.checkpoint.get('sha256'), plan.checkpoints[job.path]['sha256']
    if before != now and None not in (before, now):
        raise ValueError(
            f'{path}: {wanted} is of other weights than {job.label}; give the result of these, or '
            'leave --results out'
        )
    return run.counts


def shown(
    request: Request, numbers: Sequence[int], place: int
) -> tuple[Mapping[int | str, ShownEpisode], Mapping[str, str]]:
    """The episodes of these numbers as a method segments them, and what its maps show."""
    plan = make_plan(request)
    job = plan.jobs[0]
    cfg = runner_config(request, plan, job, place)
    cfg.experiment_name = f'pictures_{place}'  # mmengine keeps one log per name and second
    cfg.test_dataloader.sampler = dict(type='PickedEpisodesSampler', numbers=list(numbers))
    cfg.test_evaluator = []  # figures of a choice would mislead
    hooks = cfg.get('custom_hooks') or []
    cfg.custom_hooks = [hook for hook in hooks if hook['type'] != 'EpisodeVisualizationHook']
    runner = ToolRunner.from_cfg(cfg)
    if job.path is None:
        bare_model(runner).init_weights()
    keep = KeepEpisodesHook()
    runner.register_hook(keep)
    runner.test()
    return keep.episodes, map_texts(runner.model)
