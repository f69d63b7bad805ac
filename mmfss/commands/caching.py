"""One switch: where a model has a feature cache, its loaders leave images unread."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmseg.registry import DATASETS

from mmfss.commands.options import arguments_of
from mmfss.commands.preparation import episodic
from mmfss.datasets.deferred import image_steps
from mmfss.datasets.episode_loading import compose
from mmfss.datasets.episodes import EpisodicDataset
from mmfss.methods.base import method_of

_PREFILL = dict(type='PrefillFeaturesHook')
_LOADERS = ('train', 'val', 'test')


def set_feature_cache(
    cfg: Config, directory: str | None, options: Mapping[str, Any] | None = None
) -> None:
    """Turn ``--feature-cache DIR`` into ``model.feature_cache``; 'none' removes the cache.

    Args:
        cfg: changed in place.
        directory: None without the option.
        options: overrides of ``--cfg-options``, which ``cfg`` has already.

    Raises:
        ValueError: the model takes no feature cache, or ``options`` say something else.
    """
    if directory is None:
        return
    for key, value in (options or {}).items():
        whole = key in ('model.feature_cache', 'model.feature_cache.directory')
        inside = key.startswith('model.feature_cache.') and directory.lower() == 'none'
        if whole or inside:
            raise ValueError(
                f'--feature-cache {directory} and --cfg-options {key}={value} both say where '
                'features are kept; give one of them'
            )
    kind = cfg.model.get('type')
    if 'feature_cache' not in (arguments_of(kind) or {'feature_cache'}):
        raise ValueError(
            f'--feature-cache {directory}: {kind} has no feature_cache; leave the option out, or '
            'use a config whose model is a few-shot method'
        )
    if directory.lower() == 'none':
        cfg.model.feature_cache = None
        for _, episodes in _datasets(cfg):
            episodes.pop('defer_images', None)
        return
    cache = cfg.model.get('feature_cache') or dict(type='FeatureCache')
    cfg.model.feature_cache = dict(cache, directory=directory)


def set_loaders(cfg: Config) -> None:
    """Let loaders leave images unread where the model has a feature cache and their transforms
    allow it, and pin memory where there is a GPU; what the config says itself stays."""
    for name in _LOADERS:
        loader = cfg.get(f'{name}_dataloader')
        if isinstance(loader, dict):
            loader.setdefault('pin_memory', torch.cuda.is_available())
            if not loader.get('num_workers'):
                loader.pop('persistent_workers', None)  # torch refuses it without workers
    if not cfg.get('model', {}).get('feature_cache'):
        return
    for name, episodes in _datasets(cfg):
        if 'defer_images' not in episodes and reason_to_read(cfg, name, episodes) is None:
            episodes['defer_images'] = True
        if episodes.get('defer_images'):
            # of several processes each encodes its share before an evaluation
            cfg.setdefault('default_hooks', {}).setdefault('prefill', dict(_PREFILL))


def reason_to_read(cfg: Config, loader: str, episodes: Mapping[str, Any]) -> str | None:
    """Why a dataset must read its images; None where it can leave them unread.

    Args:
        cfg: its model is looked at.
        loader: 'train', 'val' or 'test'.
        episodes: config of the dataset.
    """
    if loader == 'train' and method_of(cfg).trains_from_pixels(cfg.model.get('trainable')):
        return 'the model trains its image encoder, which needs all pixels'
    kind = episodes.get('type')
    cls = DATASETS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(cls, type) and issubclass(cls, EpisodicDataset)):
        return f'{kind} is no EpisodicDataset'
    try:
        for name in ('query_pipeline', 'support_pipeline'):
            image_steps(compose(episodes.get(name) or ()), name)
    except ValueError as error:
        return str(error)
    return None


def log_loaders(cfg: Config) -> None:
    """Say of each loader of a model with a feature cache whether it leaves images unread, and why
    not. To be called when the Runner, with its log, is there."""
    kept = bool(cfg.get('model', {}).get('feature_cache'))
    for name, episodes in _datasets(cfg):
        if not kept and episodes.get('defer_images'):
            text = (
                'defer_images=True without a model.feature_cache: one process reads all images, '
                'anew in each episode; set defer_images=False'
            )
            print_log(f'{name}_dataloader: {text}', 'current', logging.WARNING)
        elif kept:
            print_log(f'{name}_dataloader: {_what_is_read(cfg, name, episodes)}', 'current')


def _what_is_read(cfg: Config, loader: str, episodes: Mapping[str, Any]) -> str:
    if episodes.get('defer_images'):
        return 'images are read only where the cache has no features of them'
    if 'defer_images' in episodes:
        return 'all images are read: the config sets defer_images=False'
    return f'all images are read: {reason_to_read(cfg, loader, episodes)}'


def _datasets(cfg: Config) -> Iterator[tuple[str, Any]]:
    for name in _LOADERS:
        for episodes in episodic(cfg.get(f'{name}_dataloader')):
            yield name, episodes
