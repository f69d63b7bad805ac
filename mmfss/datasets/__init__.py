"""Benchmarks, segmentation datasets, episodes and their transforms."""

from mmfss.datasets.class_index import ClassIndex, build_class_index
from mmfss.datasets.episode_loading import pack_episode
from mmfss.datasets.episodes import EpisodicDataset
from mmfss.datasets.folds import BENCHMARKS, Benchmark, FoldSplit, get_benchmark, get_split
from mmfss.datasets.io import read_image, read_mask
from mmfss.datasets.sampling import Episode, EpisodePool, ImageListSampler, build_pool
from mmfss.datasets.segmentation import (
    CocoFewShot,
    FewShotSegDataset,
    PascalVOCFewShot,
    PreparedDataset,
    ShapesDataset,
)
from mmfss.datasets.transforms import (
    BinarizeLabel,
    LoadImage,
    LoadLabel,
    RandomBlur,
    RandomCropKeepObject,
)

__all__ = [
    'BENCHMARKS',
    'Benchmark',
    'BinarizeLabel',
    'ClassIndex',
    'CocoFewShot',
    'Episode',
    'EpisodePool',
    'EpisodicDataset',
    'FewShotSegDataset',
    'FoldSplit',
    'ImageListSampler',
    'LoadImage',
    'LoadLabel',
    'PascalVOCFewShot',
    'PreparedDataset',
    'RandomBlur',
    'RandomCropKeepObject',
    'ShapesDataset',
    'build_class_index',
    'build_pool',
    'get_benchmark',
    'get_split',
    'pack_episode',
    'read_image',
    'read_mask',
]
