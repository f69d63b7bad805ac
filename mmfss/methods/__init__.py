"""Few-shot segmentation methods: one file, or one folder, each."""

from .base import FewShotModel, Segmentation
from .baselines import AllForeground, PseudoMask
from .data_preprocessor import EpisodeDataPreprocessor
from .fssam import FSSAM
from .gf_sam import GFSAM
from .losses import SquaredDiceLoss
from .prototype import PrototypeMatcher

__all__ = [
    'FSSAM',
    'GFSAM',
    'AllForeground',
    'EpisodeDataPreprocessor',
    'FewShotModel',
    'PrototypeMatcher',
    'PseudoMask',
    'Segmentation',
    'SquaredDiceLoss',
]
