"""Few-shot segmentation methods."""

from .data_preprocessor import EpisodeDataPreprocessor
from .fssam import FSSAM
from .losses import SquaredDiceLoss

__all__ = ['FSSAM', 'EpisodeDataPreprocessor', 'SquaredDiceLoss']
