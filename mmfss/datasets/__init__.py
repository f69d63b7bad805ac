"""Benchmarks, segmentation datasets, episodes and their transforms."""

from importlib import import_module
from typing import Any

_MODULES = {
    'class_index': ('ClassIndex', 'build_class_index'),
    'episode_loading': ('pack_episode',),
    'episodes': ('EpisodicDataset',),
    'folds': ('BENCHMARKS', 'Benchmark', 'FoldSplit', 'get_benchmark', 'get_split'),
    'io': ('read_image', 'read_mask'),
    'sampling': ('Episode', 'EpisodePool', 'ImageListSampler', 'build_pool'),
    'segmentation': (
        'CocoFewShot',
        'FewShotSegDataset',
        'PascalVOCFewShot',
        'PreparedDataset',
        'ShapesDataset',
    ),
    'transforms': (
        'BinarizeLabel',
        'LoadImage',
        'LoadLabel',
        'RandomBlur',
        'RandomCropKeepObject',
        'RandomRotateNearest',
    ),
}
"""Where each name comes from. The modules are imported when one is asked for: what prepares
datasets needs neither torch nor mmseg."""
__all__ = sorted(name for names in _MODULES.values() for name in names)


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f'{__name__}.{module}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
