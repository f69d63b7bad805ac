"""Do loaders, model and checkpoint speak of the same benchmark, fold and arch? Pure functions.

A checkpoint of mmfss says in ``meta['mmfss']`` what it was trained on::

    dict(benchmark='pascal-5i', fold=2, shots=1,        # fold='all': no class was held out
         base_classes=[...], novel_classes=[...],   # names, of this run
         trained_classes=[...],                     # names, of this run and of what it loaded
         novel_images='left_out',                   # or 'kept': training images with a novel class
         arch=dict(type='FSSAM', sam2=..., prior_encoder=..., parts=dict(prompt_generator=...)),
         selection=dict(rule='held_out', classes=[...], figures={'mIoU': ...}))
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mmfss.datasets.classes import canonical
from mmfss.datasets.folds import ALL_CLASSES, NOVEL_IMAGES, FoldSplit, split_title

META_KEY = 'mmfss'
#: how checkpoints are chosen, by the classes of validation
SELECTION_RULES = {'base_val': 'held_out', 'base': 'base', 'novel': 'novel'}
META_ENTRIES = ('benchmark', 'fold', 'trained_classes', 'arch')

#: benchmark that is only tested on -> that of its checkpoints
_TRAINED_ON = {'coco-to-pascal': 'coco-20i'}
#: entries of configs that only cost or save time, memory or disk
_WITHOUT_EFFECT = (
    'cache_bytes', 'feature_cache', 'defer_images', 'num_workers', 'persistent_workers',
    'pin_memory', 'prefetch_factor',
)  # fmt: skip


def plain(value: Any) -> Any:
    """Config values as dicts, lists and scalars, which a checkpoint may hold; tuples as lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return value


def need_dict(value: Any, what: str) -> dict:
    """``value`` as it is; ValueError where it is no dict."""
    if not isinstance(value, dict):
        raise ValueError(
            f'{what} must be a dict, got {type(value).__name__}; use a checkpoint that '
            'tools/train.py saved'
        )
    return value


def recorded_meta(checkpoint: Any, source: str) -> dict | None:
    """What a checkpoint says in ``meta['mmfss']``; None where it says nothing.

    Raises:
        ValueError: one of the parts that should be dicts is not.
    """
    meta = need_dict(checkpoint, source).get('meta') or {}
    meta = need_dict(meta, f'meta of {source}').get(META_KEY)
    return None if meta is None else need_dict(meta, f'meta[{META_KEY!r}] of {source}')


def check_loaders(loaders: Mapping[str, tuple[FoldSplit, str]]) -> None:
    """Check that all loaders are of one benchmark and fold, and that training sees base classes
    and none that validation is to hold out.

    Args:
        loaders: name of the loader ('train', 'val', 'test', ...) -> its fold, and the role of its
            classes (see :meth:`FoldSplit.ids`).

    Raises:
        ValueError: loaders that differ, or training on classes that are held out.
    """
    if len({(split.benchmark, split.fold) for split, _ in loaders.values()}) > 1:
        said = ', '.join(f'{n}: {s.title}' for n, (s, _) in loaders.items())
        raise ValueError(
            f'the loaders do not agree on benchmark and fold ({said}); the novel classes of one '
            'would be trained on in the other. Set the fold for all of them with FOLD=0 in the '
            'environment, not in one loader'
        )
    if 'train' not in loaders:
        return
    split, role = loaders['train']
    if role not in ('base', 'base_train'):
        raise ValueError(
            f"train_dataloader.dataset.split must be 'base' or 'base_train', got {role!r}: "
            f'training would see classes that {split.benchmark} fold {split.fold} holds out '
            f'({", ".join(split.names(role))})'
        )
    held_out = [name for name, (_, other) in loaders.items() if other == 'base_val']
    if held_out and role == 'base':
        raise ValueError(
            f"{held_out[0]}_dataloader.dataset.split is 'base_val', held-out base classes "
            f'({", ".join(split.names("base_val"))}), but training sees them: set '
            "train_dataloader.dataset.split='base_train' too"
        )


def describe_run(
    split: FoldSplit,
    role: str,
    shots: int,
    arch: dict,
    inherited: set[str],
    selection: dict | None = None,
    novel_images: str = NOVEL_IMAGES[0],
) -> dict:
    """The entry ``meta['mmfss']`` of a checkpoint that is being trained on ``split``.

    Args:
        split: Fold of the training data.
        role: Which of its classes are trained on.
        shots: K of training.
        arch: That of the model.
        inherited: Names of the classes that its starting point had been trained on.
        selection: How checkpoints of the run are chosen, and the figure of this one:
            ``dict(rule=..., classes=..., figures=...)``; None without validation.
        novel_images: One of :data:`mmfss.datasets.folds.NOVEL_IMAGES`.
    """
    trained = split.names(role)
    return dict(
        benchmark=split.benchmark,
        fold=split.fold,
        shots=int(shots),
        base_classes=list(trained),
        novel_classes=list(split.novel_names),
        trained_classes=sorted(inherited | set(trained)),
        novel_images=novel_images,
        arch=plain(arch),
        selection=plain(selection),
    )


def deciding(arch: Any) -> Any:
    """An arch or another part of a config as :func:`plain` values, without entries that no weight
    and no result depends on."""
    if isinstance(arch, Mapping):
        return {
            str(key): deciding(entry) for key, entry in arch.items() if key not in _WITHOUT_EFFECT
        }
    if isinstance(arch, (list, tuple)):
        return [deciding(entry) for entry in arch]
    return arch


def check_arch(meta: Mapping, arch: dict, source: str, parts: bool = True) -> None:
    """Check that a checkpoint is of the configured arch: weights of some archs fit each other in
    shape.

    Args:
        meta: its ``meta['mmfss']``.
        arch: that of the configured model.
        source: what messages call it, e.g. 'checkpoint epoch_3.pth'.
        parts: its other parts must be those of the model, too; not where a training starts from it.

    Raises:
        ValueError: entries are missing, or it has another arch.
    """
    missing = [key for key in META_ENTRIES if key not in meta]
    if missing:
        raise ValueError(
            f"{source}: meta[{META_KEY!r}] lacks {missing}; it is damaged or of another "
            'version of mmfss. Use a checkpoint as tools/train.py saved it'
        )
    before, now = (
        {
            **{k: v for k, v in one.items() if k != 'parts'},
            **(one.get('parts') or {} if parts else {}),
        }
        for one in (need_dict(meta['arch'], f'arch of {source}'), arch)
    )
    differ = [key for key in dict.fromkeys([*before, *now])
              if _text(before.get(key)) != _text(now.get(key))]  # fmt: skip
    if differ:
        said = '; '.join(
            f'{key} {plain(before.get(key))}, the configured model has {plain(now.get(key))}'
            for key in differ
        )
        raise ValueError(
            f'{source} is of another arch: it has {said}. Test with the config that it was trained '
            'with, or set the parts of the model to its'
        )


def check_checkpoint(
    meta: Mapping,
    split: FoldSplit,
    arch: dict,
    resume: bool,
    source: str = 'the checkpoint',
    role: str = 'novel',
    tested: bool = False,
    parts: bool = True,
) -> None:
    """Check that a checkpoint may be used on a fold.

    Args:
        meta: its ``meta['mmfss']``.
        split: fold of the data that it is to be used on.
        arch: that of the configured model.
        resume: whether its training is to be continued; then benchmark and fold must be the same.
        source: what messages call it, e.g. 'checkpoint epoch_3.pth'.
        role: which classes of ``split`` the data are of; those of 'base_val' are held out too.
        tested: the figures are the result, so that it must not have been trained on any of the
            classes of ``role``.
        parts: of :func:`check_arch`.

    Raises:
        ValueError: it was trained on classes that ``split`` holds out, belongs to another fold,
            or has another arch.
    """
    check_arch(meta, arch, source, parts)
    trained = split_title(meta['benchmark'], meta['fold'])
    here = split.title
    seen = {canonical(name): name for name in meta['trained_classes']}
    kind, held_out = 'novel', split.novel_names
    if role == 'base_val':
        kind, held_out = 'held-out', (*held_out, *split.names(role))
    elif tested and role != 'novel':
        kind, held_out = 'tested', (*held_out, *split.names(role))
    leaked = [name for name in held_out if canonical(name) in seen]
    remedy = _remedy(meta, split)
    if kind == 'tested':
        remedy = (
            "Set test_dataloader.dataset.split='novel', or ask for figures of trained classes with "
            '--cfg-options default_hooks.fold_guard.allow_trained=True'
        )
    if leaked:
        raise ValueError(
            f'{source} was trained on {trained}, and its classes '
            f"({', '.join(meta['trained_classes'])}) include {kind} classes of {here} "
            f"({', '.join(held_out)}): {', '.join(leaked)}. The figures would say nothing of new "
            f'classes. {remedy}'
        )
    same = (meta['benchmark'], str(meta['fold'])) == (split.benchmark, str(split.fold))
    of_this = meta['benchmark'] == split.benchmark and split.fold != ALL_CLASSES
    if not same and (resume or of_this):
        verb = 'its training cannot be resumed on' if resume else 'it cannot be used on'
        raise ValueError(f'{source} is of {trained}; {verb} {here}. {_remedy(meta, split)}')


def check_continuation(
    meta: Mapping,
    loaders: Mapping[str, tuple[FoldSplit, str]],
    source: str = 'the checkpoint',
    novel_images: str = NOVEL_IMAGES[0],
) -> None:
    """Check that a training that is resumed has the classes that it began with: its best figure so
    far, and the count of its early stop, are of those.

    Args:
        meta: ``meta['mmfss']`` of the checkpoint.
        loaders: as for :func:`check_loaders`, with 'train'.
        source: what messages call the checkpoint.
        novel_images: of the training data, one of :data:`mmfss.datasets.folds.NOVEL_IMAGES`.

    Raises:
        ValueError: it was trained, or validated, on other classes, or on other images of them.
    """
    before = meta.get('novel_images', NOVEL_IMAGES[0])
    if 'train' in loaders and before != novel_images:
        raise ValueError(
            f'{source} cannot be resumed: its training images with a novel class were {before}, '
            f'and in this config they are {novel_images}. Set NOVEL_IMAGES={before}'
        )
    selection = meta.get('selection') or {}
    for name, what, classes in (
        ('train', 'trained', meta.get('base_classes')),
        ('val', 'chosen', selection.get('classes')),
    ):
        if classes is None or name not in loaders:
            continue
        split, role = loaders[name]
        now = list(split.names(role))
        if list(classes) != now:
            raise ValueError(
                f'{source} cannot be resumed: it was {what} on {", ".join(classes)}, and this '
                f'config has {", ".join(now)}. Its best figure so far would be compared with that '
                'of other classes. Resume with the SELECTION it was trained with, or start from '
                'it with --cfg-options load_from=PATH'
            )


def _text(arch: Any) -> str:
    return json.dumps(deciding(arch), sort_keys=True)


def _remedy(meta: Mapping, split: FoldSplit) -> str:
    if meta['fold'] == ALL_CLASSES:
        return (
            'It is for labelling: mmfss label --config CONFIG --weights FILE. For figures use a '
            f'checkpoint that was trained on fold {split.fold}'
        )
    if meta['benchmark'] == split.benchmark:
        return f"Set FOLD={meta['fold']}, or use a checkpoint of fold {split.fold}"
    trained_on = _TRAINED_ON.get(split.benchmark, split.benchmark)
    return f'Use a checkpoint that was trained on {trained_on} fold {split.fold}'
