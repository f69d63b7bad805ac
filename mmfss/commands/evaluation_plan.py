"""What a call of ``tools/test.py`` is to evaluate, checked before anything is computed."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmseg.registry import METRICS, MODELS

from mmfss.checkpoints.patterns import labels, resolve
from mmfss.checkpoints.provenance import read_checkpoint
from mmfss.checkpoints.record import deciding
from mmfss.checkpoints.weights import weights_digest
from mmfss.commands.command_lines import Request, RunArguments
from mmfss.commands.evaluation_checks import (
    ENTRIES,
    check_arguments,
    check_frozen,
    check_guard,
    check_outputs,
)
from mmfss.commands.preparation import episodic, set_evaluation_amp
from mmfss.commands.train import check_folds, load_config
from mmfss.commands.variables import options_in_environment
from mmfss.evaluation.metrics import FewShotIoUMetric
from mmfss.features.modules import code_behind
from mmfss.methods.base import NOTHING_TRAINED, check_shots, method_of


@dataclass(frozen=True)
class Job:
    """One evaluation to be made.

    Args:
        label: Short name of the checkpoint pattern.
        shots, fold, seed: What to test.
        path: The checkpoint; None where nothing is trained.
        dataloader, evaluator: Their configs.
        settings: ``config``, digests of the configs of model, data, metric and loop, without what
            only costs time, and ``code``, those of the files that the config imports and what they
            import from beside them.
        csv_file: Where its episodes go, or None.
    """

    label: str
    shots: int
    fold: int
    seed: int
    path: str | None
    dataloader: dict
    evaluator: dict | list
    settings: Mapping[str, Mapping[str, str]]
    csv_file: str | None

    @property
    def key(self) -> tuple[str, int, int, int]:
        """As that of the run it becomes."""
        return self.label, self.shots, self.fold, self.seed

    @property
    def absent_classes(self) -> str:
        """What its metric does with classes of the fold that no episode is of."""
        return metric_entry(self.evaluator).get('absent_classes', 'error')


@dataclass(frozen=True)
class Plan:
    """All evaluations of a request.

    Args:
        configs: Of each fold.
        labels: Short name -> pattern of the checkpoints.
        shots, seeds: What is tested in every fold.
        checkpoints: What results say of each file, by path; under None of a model that is not
            trained.
        method: What results call it, see :attr:`mmfss.methods.base.FewShotModel.title`.
        jobs: All evaluations, in the order of the table.
        cost: Whether what an episode costs is measured.
    """

    configs: Mapping[int, Config]
    labels: Mapping[str, str]
    shots: Sequence[int]
    seeds: Sequence[int]
    checkpoints: Mapping[str | None, Mapping[str, Any]]
    method: str
    jobs: Sequence[Job]
    cost: bool = False

    @property
    def folds(self) -> list[int]:
        """Numbers of the folds, in the order of the columns."""
        return list(self.configs)

    @property
    def dataset(self) -> Mapping[str, Any]:
        """Config of the episodes."""
        return next(episodic(self.jobs[0].dataloader))


def make_plan(request: Request) -> Plan:
    """Read config and checkpoints of all folds and check that they go together.

    Raises:
        ValueError: options out of range or contradicting each other, a pattern that matches
            several files, a checkpoint that a fold must not be tested with, an output that
            cannot be written.
        FileNotFoundError: config or checkpoint missing.
    """
    check_arguments(request)
    configs = read_configs(request)
    method = method_of(next(iter(configs.values()))).__name__
    infos: dict[str | None, Mapping[str, Any]] = {}
    files: dict[tuple[str, int], str | None] = {}
    if request.checkpoints:
        names = labels(request.checkpoints)
        files.update(resolve(request.checkpoints, list(configs)))
        for (_, fold), path in files.items():
            infos[path], content = read_checkpoint(str(path))
            check_guard(configs[fold], content, str(path))
    else:
        names = {NOTHING_TRAINED: NOTHING_TRAINED}
        files.update({(NOTHING_TRAINED, fold): None for fold in configs})
        infos[None], method = untrained(next(iter(configs.values())))
    dataset = next(episodic(next(iter(configs.values())).test_dataloader))
    shots = request.shots or [int(dataset['shots'])]
    seeds = request.seeds or [int(dataset.get('seed', 0))]
    jobs = [
        _job(request, configs[fold], names[pattern], k, fold, seed, files[pattern, fold])
        for k in shots
        for pattern in names
        for fold in configs
        for seed in seeds
    ]
    check_outputs(request, jobs)
    patterns = {name: pattern for pattern, name in names.items()}
    return Plan(configs, patterns, shots, seeds, infos, method, jobs, request.cost)


def untrained(cfg: Config) -> tuple[dict[str, Any], str]:
    """What results say in the place of a checkpoint where a method runs on its encoders' own
    weights; ``sha256`` is the digest of these. And what they call the method.

    Raises:
        ValueError: the method has weights that only a training gives.
    """
    method = method_of(cfg)
    if method.needs_checkpoint:
        raise ValueError(
            f'give at least one checkpoint: {method.__name__} has weights that only a training '
            'gives (tools/train.py). Without one are tested methods that have nothing to train, '
            'such as PrototypeMatcher'
        )
    model = MODELS.build(copy.deepcopy(dict(cfg.model, feature_cache=None)))
    model.init_weights()
    nothing = dict.fromkeys(('path', 'epoch', 'iter', 'trained_on'))
    selection = dict(rule=NOTHING_TRAINED, classes=[], figures={})
    return dict(nothing, sha256=weights_digest(model), selection=selection), model.title


# --------------------------------------------------------------------------------- arguments
def read_configs(request: Request) -> dict[int, Config]:
    """The config of each fold, in the order asked for, with the options in it.

    Raises:
        ValueError: the config does not fit the fold, or has no episodes or metric to test with;
            ``fold`` and ``folds`` are both given; more supports than the method takes.
        FileNotFoundError: no such config.
    """
    if request.fold is not None and request.folds is not None:
        raise ValueError(f'--fold {request.fold} and --folds are both given; give one of them')
    configs = {}
    for asked in request.folds or [None]:
        work_dir = request.work_dir
        if work_dir is not None and len(request.folds or ()) > 1:
            work_dir = os.path.join(work_dir, f'fold{asked}')
        args = RunArguments(
            request.config,
            method=request.method,
            benchmark=request.benchmark,
            fold=request.fold if asked is None else str(asked),
            cfg_options=dict(request.cfg_options),
            work_dir=work_dir,
            feature_cache=request.feature_cache,
            runtime=request.runtime,
            precision=request.precision,
            calibration=request.calibration,
            launcher=request.launcher,
            local_rank=request.local_rank,
        )
        with options_in_environment(args):
            cfg = load_config(args, 'tools/test.py')
            fold = check_folds(cfg)
        if not isinstance(fold, int):
            raise ValueError(
                f'FOLD={fold} holds no class out to test on: a model of all classes is for '
                'labelling (mmfss label --config CONFIG --weights FILE). Figures are those of a '
                'training on a fold: --fold 0, with its checkpoint'
            )
        configs[fold] = cfg
        if request.amp:
            set_evaluation_amp(cfg, 'test')
        episodes = list(episodic(cfg.get('test_dataloader')))
        if len(episodes) != 1:
            raise ValueError(
                f'{request.config}: test_dataloader must have one EpisodicDataset, got '
                f'{len(episodes)}; see configs/_base_/datasets'
            )
        metric_entry(cfg.get('test_evaluator'))
        check_frozen(request, episodes[0])
        for shots in request.shots or [int(episodes[0]['shots'])]:
            check_shots(method_of(cfg), shots)
        for name in ('episodes', 'sampler'):
            if getattr(request, name) is not None:
                episodes[0][ENTRIES[name]] = getattr(request, name)
    return configs


def metric_entry(evaluator: Any) -> dict:
    """The config of the one FewShotIoUMetric."""
    entries = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
    found = []
    for entry in entries:
        kind = (entry or {}).get('type')
        cls = METRICS.get(kind) if isinstance(kind, str) else kind
        if isinstance(cls, type) and issubclass(cls, FewShotIoUMetric):
            found.append(entry)
    if len(found) != 1:
        raise ValueError(
            'test_evaluator must have one FewShotIoUMetric, whose figures are reported, got '
            f'{len(found)}; set test_evaluator=dict(type=\'FewShotIoUMetric\')'
        )
    return found[0]


def _job(
    request: Request, cfg: Config, label: str, shots: int, fold: int, seed: int, path: str | None
) -> Job:
    dataloader, evaluator = copy.deepcopy(cfg.test_dataloader), copy.deepcopy(cfg.test_evaluator)
    next(episodic(dataloader)).update(shots=shots, seed=seed)
    metric = metric_entry(evaluator)
    csv_file = metric.pop('csv_file', None)
    parts = dict(
        model=cfg.model, test_dataloader=dataloader, test_evaluator=evaluator,
        test_cfg=cfg.get('test_cfg'),
    )  # fmt: skip
    imports = (cfg.get('custom_imports') or {}).get('imports') or ()
    own = code_behind([imports] if isinstance(imports, str) else imports)
    settings = dict(
        config={name: _digest(part) for name, part in parts.items()}, code=dict(sorted(own.items()))
    )
    if request.csv is not None:
        start = f'{re.sub("[^A-Za-z0-9.-]+", "_", label)}_' if len(request.checkpoints) > 1 else ''
        name = f'{start}{shots}shot_fold{fold}_seed{seed}.csv'
        csv_file = os.path.join(request.csv, name)
    if csv_file is not None:
        metric['csv_file'] = csv_file
    return Job(label, shots, fold, seed, path, dataloader, evaluator, settings, csv_file)


def _digest(part: Any) -> str:
    """Of a part of a config, without what only costs time."""
    text = json.dumps(deciding(part), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
