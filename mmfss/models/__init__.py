"""Models of mmfss; importing this package registers them in mmseg's MODELS."""

from .data_preprocessor import EpisodeDataPreprocessor
from .dinov2 import DINOv2
from .efficientnet_lite import EfficientNetLitePriorEncoder
from .few_shot_segmentor import FewShotSegmentor
from .fssam import FSSAM
from .losses import SquaredDiceLoss
from .memory_attention import SAM2MemoryAttention, SupportCalibratedMemoryAttention
from .memory_refinement import IterativeMemoryRefinement
from .prior_encoders import BackbonePriorEncoder, PriorEncoder, SAM2PriorEncoder
from .prompt_generator import OraclePromptGenerator, PseudoPromptGenerator
from .sam2 import SAM2

__all__ = [
    'FSSAM',
    'SAM2',
    'BackbonePriorEncoder',
    'DINOv2',
    'EfficientNetLitePriorEncoder',
    'EpisodeDataPreprocessor',
    'FewShotSegmentor',
    'IterativeMemoryRefinement',
    'OraclePromptGenerator',
    'PriorEncoder',
    'PseudoPromptGenerator',
    'SAM2MemoryAttention',
    'SAM2PriorEncoder',
    'SquaredDiceLoss',
    'SupportCalibratedMemoryAttention',
]
