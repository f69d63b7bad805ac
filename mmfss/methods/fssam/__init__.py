"""FSSAM and its parts."""

from .attention import SupportCalibratedMemoryAttention
from .model import FSSAM, SAM2PriorEncoder
from .prompts import OraclePromptGenerator, PseudoPromptGenerator
from .refinement import IterativeMemoryRefinement

__all__ = [
    'FSSAM',
    'IterativeMemoryRefinement',
    'OraclePromptGenerator',
    'PseudoPromptGenerator',
    'SAM2PriorEncoder',
    'SupportCalibratedMemoryAttention',
]
