"""Hooks that stop a run whose data, classes, model, checkpoint and supports do not fit together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from mmseg.registry import HOOKS

from mmfss.apis.segmentor import FewShotSegmentor
from mmfss.checkpoints.record import (
    META_KEY,
    SELECTION_RULES,
    check_checkpoint,
    check_continuation,
    check_loaders,
    describe_run,
    need_dict,
    recorded_meta,
)
from mmfss.checkpoints.trained_only import BASE
from mmfss.checkpoints.weights import check_state_dict
from mmfss.datasets.folds import NOVEL_IMAGES, FoldSplit
from mmfss.methods.base import FewShotModel
from mmfss.words import listed


def built_loops(runner: Runner) -> dict[str, BaseLoop]:
    """Those of the loops 'train', 'val', 'test' that the runner has built; builds none."""
    loops = {name: getattr(runner, f'_{name}_loop') for name in ('train', 'val', 'test')}
    return {name: loop for name, loop in loops.items() if isinstance(loop, BaseLoop)}


def built_datasets(runner: Runner) -> dict[str, Any]:
    """Datasets of the loops that are built, by name; the novel episodes that a validation loop
    watches beside its own are 'watched'."""
    loops = built_loops(runner)
    datasets = {name: loop.dataloader.dataset for name, loop in loops.items()}
    watched = getattr(loops.get('val'), 'watched', None)
    if watched is not None:
        datasets['watched'] = watched.dataloader.dataset
    return datasets


def bare_model(runner: Runner) -> Any:
    """The model without the wrapper of a distributed run."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def source_of(runner: Runner) -> str:
    """What messages call the checkpoint that a runner loads."""
    path = getattr(runner, '_load_from', None)
    return f'checkpoint {path}' if path else 'the checkpoint'


@HOOKS.register_module()
class FoldGuardHook(Hook):
    """Stops a run whose data, model and checkpoint do not belong together.

    - All loaders are of one benchmark and fold, and training uses its base classes.
    - Each checkpoint records in ``meta['mmfss']`` what it was trained on, see
      :mod:`mmfss.checkpoints.record`; classes are inherited from the checkpoint it started from.
    - A checkpoint that is loaded was not trained on classes that the run holds out, and is of the
      same arch; its other parts are those of the model, unless a training starts from it. To
      resume, it is of the same benchmark and fold, trained on the same classes and chosen on the
      same.

    Args:
        allow_unverified: take checkpoints without that record, with a warning.
        allow_trained: let a test be about base classes that the checkpoint was trained on.

    Raises:
        ValueError: from ``before_run`` and ``after_load_checkpoint``, with both sides named.
    """

    priority = 'VERY_HIGH'

    def __init__(self, allow_unverified: bool = False, allow_trained: bool = False) -> None:
        self.allow_unverified, self.allow_trained = allow_unverified, allow_trained
        self._inherited: set[str] = set()
        self._figures: dict[str, float] = {}

    def before_run(self, runner: Runner) -> None:
        """Check the loaders, and that the classes they lack are allowed to be absent."""
        datasets = built_datasets(runner)
        check_loaders({name: _split_and_role(name, data) for name, data in datasets.items()})
        loops = built_loops(runner)
        if 'train' in loops and isinstance(bare_model(runner), FewShotModel):
            print_log(bare_model(runner).what_learns(), 'current')
        if (watched := getattr(loops.get('val'), 'watched', None)) is not None:
            loops = {**loops, 'test': watched}
        for name in ('val', 'test'):
            if name in loops:
                data = loops[name].dataloader.dataset
                check_absent(name, data, _policies(name, loops[name]))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Forget the figures of weights that are about to change."""
        self._figures = {}

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Keep the figures of the weights that may be saved next."""
        of_classes = ('IoU/', 'classes', 'episodes')
        self._figures = {
            key: float(value)
            for key, value in (metrics or {}).items()
            if not any(key.removeprefix('novel/').startswith(part) for part in of_classes)
        }

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Record what is being trained, and how checkpoints are chosen."""
        datasets = built_datasets(runner)
        split, role = _split_and_role('train', datasets['train'])
        selection = None
        if 'val' in datasets:
            _, chosen_on = _split_and_role('val', datasets['val'])
            selection = dict(
                rule=SELECTION_RULES[chosen_on],
                classes=list(split.names(chosen_on)),
                figures=self._figures,
            )
        checkpoint['meta'][META_KEY] = describe_run(
            split,
            role,
            datasets['train'].metainfo['shots'],
            bare_model(runner).arch,
            self._inherited,
            selection,
            _novel_images(datasets['train']),
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check what was loaded before any of it reaches the model."""
        source = source_of(runner)
        meta = recorded_meta(checkpoint, source)
        if meta is None:
            self.unverified(source)
            return
        datasets = built_datasets(runner)
        resume = 'train' in datasets and bool(runner._resume)
        for name, dataset in datasets.items():
            split, role = _split_and_role(name, dataset)
            tested = name == 'test' and not self.allow_trained
            arch = bare_model(runner).arch
            starts = 'train' in datasets and not resume
            check_checkpoint(meta, split, arch, resume, source, role, tested, not starts)
        if resume:
            loaders = {name: _split_and_role(name, data) for name, data in datasets.items()}
            check_continuation(meta, loaders, source, _novel_images(datasets['train']))
        self._inherited = set(meta['trained_classes'])

    def unverified(self, source: str) -> None:
        """Refuse a checkpoint without a record, or warn of it where it is allowed.

        Raises:
            ValueError: it is not allowed.
        """
        text = (
            f"{source} does not say in meta[{META_KEY!r}] which benchmark, fold and classes "
            'it was trained on, so it may have seen the novel classes'
        )
        if not self.allow_unverified:
            raise ValueError(
                f'{text}. Use a checkpoint that tools/train.py saved, or accept it with '
                '--cfg-options default_hooks.fold_guard.allow_unverified=True'
            )
        print_log(text, 'current', 30)


def check_absent(name: str, dataset: Any, policies: Mapping[str, str]) -> None:
    """Refuse at the start what FewShotIoUMetric would refuse after all episodes.

    Args:
        name: of the loader, 'val' or 'test'.
        dataset: its dataset.
        policies: config entry of each metric -> its ``absent_classes``.

    Raises:
        ValueError: no episode is of a class that the mean is to include.
    """
    absent = getattr(dataset, 'absent_classes', ())
    for entry, policy in policies.items():
        if absent and policy == 'error':
            raise ValueError(
                f'the {len(dataset)} {dataset.shots}-shot episodes for {name} have none of '
                f'{", ".join(absent)}, which the mean over the {dataset.role} classes of '
                f'{dataset.split.benchmark} fold {dataset.split.fold} is to include. '
                'Add images, lower min_area, take more episodes or --sampler balanced, count '
                'these classes as 0 as published code does (absent_classes=zero), or leave '
                f'these classes out of the mean with --cfg-options {entry}.absent_classes=exclude'
            )


def _policies(name: str, loop: BaseLoop) -> dict[str, str]:
    """Config entry of each metric of a loop -> what it does with absent classes."""
    metrics = getattr(getattr(loop, 'evaluator', None), 'metrics', [])
    return {
        f'{name}_evaluator' + (f'.{i}' if len(metrics) > 1 else ''): metric.absent_classes
        for i, metric in enumerate(metrics)
        if hasattr(metric, 'absent_classes')
    }


def _split_and_role(name: str, dataset: Any) -> tuple[FoldSplit, str]:
    info = getattr(dataset, 'metainfo', None) or {}
    missing = {'role', 'shots', 'split'} - set(info)
    if missing:
        raise ValueError(
            f'{name}_dataloader.dataset must be an EpisodicDataset, or have its metainfo; '
            f'{type(dataset).__name__} lacks {sorted(missing)}'
        )
    return FoldSplit.from_dict(info['split']), info['role']


def _novel_images(dataset: Any) -> str:
    return dataset.metainfo.get('novel_images', NOVEL_IMAGES[0])


@HOOKS.register_module()
class StrictLoadHook(Hook):
    """Refuses checkpoints that do not fit the model key by key (mmengine loads what fits).

    Since such a checkpoint sets every weight, a run that loads one needs no weights to start
    from: it starts and resumes where the official ones cannot be had. One of trained weights alone
    (see :class:`~mmfss.engine.saving.WholeCheckpointHook`) is completed by them.

    Args:
        new_keys: patterns of names, such as ``'memory_refinement.*'``, of what a checkpoint that a
            training starts from may lack: a part of one's own that starts anew.

    Raises:
        ValueError: a pattern that no name of the model fits; from ``after_load_checkpoint``: keys
            missing, unexpected or of another shape, values that are not finite, or trained weights
            of another base.
        FileNotFoundError: the weights that complete it are not there.
    """

    priority = 'VERY_HIGH'

    def __init__(self, new_keys: Sequence[str] = ()) -> None:
        if isinstance(new_keys, str) or not all(isinstance(one, str) for one in new_keys):
            raise ValueError(
                "new_keys of the strict_load hook must be a list of patterns, such as "
                f"['memory_refinement.*'], got {new_keys!r}"
            )
        self.new_keys = tuple(new_keys)

    def before_run(self, runner: Runner) -> None:
        """Spare the model the weights to start from. The config, which is saved with
        checkpoints, goes on naming them."""
        if getattr(runner, '_load_from', None) is not None:
            bare_model(runner).leave_pretrained()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare before any weight reaches the model."""
        source = source_of(runner)
        state = need_dict(checkpoint, source).get('state_dict', checkpoint)
        state = need_dict(state, f'state_dict of {source}')
        state = {str(k).removeprefix('module.'): v for k, v in state.items()}
        strangers = [k for k, v in state.items() if not isinstance(v, torch.Tensor)]
        if strangers:
            raise ValueError(
                f'{source} holds no state dict: {strangers[:5]} are no tensors. Use one '
                'that tools/train.py saved'
            )
        model = bare_model(runner)
        if BASE in state:
            # of trained weights alone: the others come from the encoders' files
            state = checkpoint['state_dict'] = model.completed(state, source)
        own = model.state_dict()
        if 'train' in built_loops(runner) and not runner._resume:
            new = self._new(own, state, source)
            if new:
                state = checkpoint['state_dict'] = {**state, **new}
        check_state_dict(own, state, f'{source} for {type(model).__name__}')

    def _new(
        self, own: Mapping[str, torch.Tensor], state: Mapping[str, Any], source: str
    ) -> dict[str, torch.Tensor]:
        """What the checkpoint lacks and may lack, as the model has it."""
        idle = [one for one in self.new_keys if not any(fnmatchcase(key, one) for key in own)]
        if idle:
            raise ValueError(
                f'new_keys {listed(idle)} fit no weight of the model; its parts are '
                f'{listed(dict.fromkeys(key.split(".")[0] for key in own))}'
            )
        missing = [key for key in own if key not in state]
        new = {k: own[k] for k in missing if any(fnmatchcase(k, one) for one in self.new_keys)}
        rest = [key for key in missing if key not in new]
        known = {key.split('.')[0] for key in state}
        fresh = dict.fromkeys(key.split('.')[0] for key in rest)
        if rest and not any(part in known for part in fresh):
            raise ValueError(
                f'{source} has no weights of {listed(fresh)} ({listed(rest, 4)}). If that is a '
                'part of your own that starts anew: --cfg-options '
                f'default_hooks.strict_load.new_keys=[{",".join(f"{part}.*" for part in fresh)}]; '
                'else give the checkpoint that belongs to this model'
            )
        if new:
            print_log(f'{len(new)} weights start anew: {listed(new, 4)}', 'current')
        return new


@HOOKS.register_module()
class SupportClassesHook(Hook):
    """Refuses a test on a dataset whose labels mean something else than those of the model, and
    lets the visualizer use the model's colours.

    Raises:
        ValueError: before the first image, with both lists of classes; also for a model that is
            no :class:`~mmfss.apis.FewShotSegmentor`.
    """

    def before_test(self, runner: Runner) -> None:
        """Compare; the weights are loaded by now."""
        self._check(runner, 'test')

    def before_val(self, runner: Runner) -> None:
        """Compare, likewise."""
        self._check(runner, 'val')

    @staticmethod
    def _check(runner: Runner, name: str) -> None:
        model = bare_model(runner)
        model = model.module if isinstance(model, BaseTTAModel) else model
        if not isinstance(model, FewShotSegmentor):
            raise ValueError(
                'SupportClassesHook is for a model of type FewShotSegmentor, got '
                f'{type(model).__name__}; take the hook out of the config'
            )
        meta = model.dataset_meta
        wanted = list(meta['classes'])
        info = getattr(built_datasets(runner)[name], 'metainfo', None) or {}
        got = list(info.get('classes') or ())
        if got != wanted:
            raise ValueError(
                f'the classes of {name}_dataloader.dataset are not those of the support set, and '
                f'the IoU of other classes would be computed: the dataset has {got}, the support '
                f'set, after background, {wanted}. Give the dataset these names in this order '
                f'(metainfo=dict(classes=...), with label maps of the values 0..{len(wanted) - 1} '
                'and 255 for ignored), or a support set of its classes in its order'
            )
        runner.visualizer.dataset_meta = meta
