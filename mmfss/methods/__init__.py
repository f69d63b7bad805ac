"""Few-shot segmentation methods: one file, or one folder, each."""

from .base import FewShotModel, Segmentation
from .baselines import AllForeground, PseudoMask
from .data_preprocessor import EpisodeDataPreprocessor
from .density import DensityMatcher
from .fs_sam2 import FSSAM2
from .fssam import FSSAM
from .gf_sam import GFSAM
from .insid3 import INSID3
from .losses import BCEDiceLoss, FocalDiceLoss, SquaredDiceLoss
from .persam import PerSAM, PerSAMF
from .prototype import PrototypeMatcher
from .refine import GrabCut
from .sam2_memory import SAM2Memory
from .sansa import SANSA

__all__ = [
    'FSSAM',
    'FSSAM2',
    'GFSAM',
    'INSID3',
    'SANSA',
    'AllForeground',
    'BCEDiceLoss',
    'DensityMatcher',
    'EpisodeDataPreprocessor',
    'FewShotModel',
    'FocalDiceLoss',
    'GrabCut',
    'PerSAM',
    'PerSAMF',
    'PrototypeMatcher',
    'PseudoMask',
    'SAM2Memory',
    'Segmentation',
    'SquaredDiceLoss',
]
