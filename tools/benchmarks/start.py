"""From the start of ``tools/test.py`` to its first result, with a warm class index and cache."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from mmengine.evaluator import Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner

from benchmarks.pictures import FoldSpec, episodes_config
from benchmarks.report import table
from benchmarks.stages import FINGERPRINT, Stages, code_of
from benchmarks.subject import Subject, folder, subject_of
from benchmarks.timing import note
from benchmarks.worker import in_process
from mmfss.checkpoints import provenance
from mmfss.commands import test as testing
from mmfss.datasets import EpisodicDataset
from mmfss.engine import guards
from mmfss.features import fingerprint
from mmfss.files import write_text
from mmfss.methods.base import FewShotModel
from mmfss.safe_load import load_checkpoint

HELP = 'time to the first result of a test, beyond imports and weights'
WEIGHTS, IMPORTS, METRIC = 'reading weights', 'imports', 'metric'
_RULES = {
    code_of(type(FewShotModel).__call__): 'building the model',
    code_of(load_checkpoint): WEIGHTS,
    code_of(provenance.read_checkpoint): WEIGHTS,
    code_of(Runner.load_checkpoint): WEIGHTS,
    code_of(EpisodicDataset.full_init): 'class index',
    code_of(fingerprint.fingerprint): FINGERPRINT,
    code_of(importlib._bootstrap._find_and_load): IMPORTS,  # type: ignore[attr-defined]
    code_of(BaseModel.test_step): 'first episode',
    code_of(provenance.environment): 'provenance',
    code_of(guards.FoldGuardHook.before_run): 'checks',
    code_of(Evaluator.process): METRIC,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument('--images', type=int, default=364, help='in the list (%(default)s)')


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure.

    Returns:
        ``starts``: 'cold' (nothing there) and 'warm', each with ``seconds`` from the call of the
        tool to the first result, ``stages`` of it, and ``beyond``: without imports and reading
        weights. Taking stages apart makes Python slower, so that these are upper bounds.
    """
    if args.quick:
        args.images = min(args.images, 12)
    subject = subject_of(args)
    starts = {}
    with folder(args.data) as root:
        spec = FoldSpec.asked(args, subject.side, args.images, 2)
        config, weights = prepared(Path(root), spec, subject)
        for name in ('cold', 'warm'):
            note(f'{name} start')
            starts[name] = in_process(
                'start', threads=subject.threads, config=str(config), weights=str(weights)
            )
    return dict(starts=starts)


def prepared(root: Path, spec: FoldSpec, subject: Subject) -> tuple[Path, Path]:
    """A config with an empty feature cache and without class index, and weights for it."""
    place = root / 'start'
    dataset = episodes_config(root, spec, subject.side, 1, 2)
    dataset.update(defer_images=True, class_index_file=str(place / 'index.json'))
    cache = dict(type='FeatureCache', directory=str(place / 'features'))
    entries = dict(
        _base_=str(Path(__file__).resolve().parents[2] / 'configs/_base_/default_runtime.py'),
        model=dict(subject.model_config(), feature_cache=cache),
        test_dataloader=dict(
            batch_size=1,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dataset,
        ),
        test_evaluator=dict(type='FewShotIoUMetric', absent_classes='exclude'),
        test_cfg=dict(type='TestLoop'),
        default_hooks=dict(fold_guard=dict(allow_unverified=True)),
        work_dir=str(place / 'work'),
    )
    text = ''.join(f'{name} = {value!r}\n' for name, value in entries.items())
    write_text(place / 'config.py', text)
    torch.save(dict(state_dict=subject.build().state_dict(), meta={}), place / 'weights.pth')
    return place / 'config.py', place / 'weights.pth'


def measured_start(threads: int, config: str, weights: str) -> dict[str, Any]:
    """Job of a process of its own: ``tools/test.py``, and when its first result was counted."""
    torch.set_num_threads(threads)
    first: dict[str, float] = {}

    def leave(name: str) -> None:
        if name == METRIC and not first:
            first.update(seconds=perf_counter() - start, **stages.spent)

    stages = Stages(_RULES, perf_counter, leave=leave)
    start = perf_counter()
    with stages:
        testing.main([config, weights])
    seconds = first.pop('seconds')
    beyond = seconds - sum(first.get(name, 0.0) for name in (WEIGHTS, IMPORTS))
    return dict(seconds=seconds, stages=first, beyond=beyond)


def tables(results: dict[str, Any]) -> list[str]:
    """What is printed."""
    starts = results['starts']
    names = dict.fromkeys(name for entry in starts.values() for name in entry['stages'])
    rows = [[name, *(entry['stages'].get(name) for entry in starts.values())] for name in names]
    for label, key in (
        ('to the first result', 'seconds'),
        ('beyond imports and weights', 'beyond'),
    ):
        rows.append([label, *(entry[key] for entry in starts.values())])
    return [table(['s', *starts], rows)]
