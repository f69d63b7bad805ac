"""From the start of ``tools/test.py`` to its first result, with a warm class index and cache."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner

from benchmarks.common import fold_spec, subject_of
from benchmarks.pictures import FoldSpec, pipelines, write_fold
from benchmarks.report import table
from benchmarks.stages import FINGERPRINT, Stages, code_of
from benchmarks.subject import Subject, folder
from benchmarks.timing import clock_of, note
from benchmarks.worker import in_process
from mmfss.checkpoints import provenance
from mmfss.commands import test as testing
from mmfss.datasets import EpisodicDataset
from mmfss.engine import guards
from mmfss.features import fingerprint
from mmfss.files import write_text
from mmfss.methods.fssam.model import FSSAM
from mmfss.safe_load import load_checkpoint

HELP = 'time to the first result of a test, beyond imports and weights'
MODEL, WEIGHTS, IMPORTS = 'building the model', 'reading weights', 'imports'
_EPISODES = 2
_RULES = {
    code_of(FSSAM.__init__): MODEL,
    code_of(load_checkpoint): WEIGHTS,
    code_of(provenance.read_checkpoint): WEIGHTS,
    code_of(Runner.load_checkpoint): WEIGHTS,
    code_of(EpisodicDataset.full_init): 'class index',
    code_of(fingerprint.fingerprint): FINGERPRINT,
    code_of(importlib._bootstrap._find_and_load): IMPORTS,  # type: ignore[attr-defined]
    code_of(FSSAM.test_step): 'first episode',
    code_of(provenance.environment): 'provenance',
    code_of(guards.FoldGuardHook.before_test): 'checks',
}
_CONFIG = """
_base_ = {base!r}
model = {model!r}
test_dataloader = {loader!r}
test_evaluator = dict(type='FewShotIoUMetric', absent_classes='exclude')
test_cfg = dict(type='TestLoop')
default_hooks = dict(fold_guard=dict(allow_unverified=True))
work_dir = {work!r}
"""


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
    with folder(args.data) as root:
        spec = fold_spec(args, args.images, 2)
        config, weights = prepared(Path(root), spec, subject)
        starts = {}
        for name in ('cold', 'warm'):
            note(f'{name} start')
            starts[name] = in_own_process(subject, config, weights)
    return dict(starts=starts)


def in_own_process(subject: Subject, config: Path, weights: Path) -> dict[str, Any]:
    """One start."""
    return in_process('start', threads=subject.threads, config=str(config), weights=str(weights))


def prepared(root: Path, spec: FoldSpec, subject: Subject) -> tuple[Path, Path]:
    """A config with an empty feature cache and without class index, and weights for it."""
    pictures, place = write_fold(root, spec), root / 'start'
    place.mkdir(exist_ok=True)
    query, support = pipelines(subject.side)
    kind = 'PascalVOCFewShot' if spec.kind == 'photos' else 'ShapesDataset'
    data = dict(type=kind, data_root=str(pictures), ann_file='ImageSets/Segmentation/val.txt')
    dataset = dict(
        type='EpisodicDataset', benchmark=spec.benchmark, fold=0, split='novel', shots=1,
        num_episodes=_EPISODES, min_area=spec.min_area, scarce_classes='drop', dataset=data,
        query_pipeline=query, support_pipeline=support, defer_images=True,
        class_index_file=str(place / 'index.json'),
    )  # fmt: skip
    loader = dict(
        batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dataset,
    )  # fmt: skip
    model = subject.model_config()
    model['feature_cache'] = dict(type='FeatureCache', directory=str(place / 'features'))
    base = Path(__file__).resolve().parents[2] / 'configs/_base_/default_runtime.py'
    text = _CONFIG.format(base=str(base), model=model, loader=loader, work=str(place / 'work'))
    write_text(place / 'config.py', text)
    torch.save(dict(state_dict=subject.build().state_dict(), meta={}), place / 'weights.pth')
    return place / 'config.py', place / 'weights.pth'


def measured_start(threads: int, config: str, weights: str) -> dict[str, Any]:
    """Job of a process of its own: ``tools/test.py``, and when its first result was counted."""
    torch.set_num_threads(threads)
    clock = clock_of(torch.device('cpu'))
    first: dict[str, float] = {}

    def leave(name: str) -> None:
        if name == 'metric' and not first:
            first.update(seconds=clock() - start, **stages.spent)

    rules = {**_RULES, code_of(Evaluator.process): 'metric'}
    stages = Stages(rules, clock, leave=leave)
    start = clock()
    with stages:
        testing.main([config, weights])
    seconds = first.pop('seconds')
    beyond = seconds - sum(first.get(name, 0.0) for name in (WEIGHTS, IMPORTS))
    return json.loads(json.dumps(dict(seconds=seconds, stages=first, beyond=beyond)))


def tables(results: dict[str, Any]) -> list[str]:
    """What is printed."""
    names = dict.fromkeys(name for e in results['starts'].values() for name in e['stages'])
    rows = [[name, *(e['stages'].get(name) for e in results['starts'].values())] for name in names]
    rows += [
        [label, *(e[key] for e in results['starts'].values())]
        for label, key in (
            ('to the first result', 'seconds'),
            ('beyond imports and weights', 'beyond'),
        )
    ]
    return [table(['s', *results['starts']], rows)]
