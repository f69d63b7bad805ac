"""Parts that mmengine's Runner takes from mmfss: hooks, sampler, mixed precision."""

from .guards import FoldGuardHook, StrictLoadHook
from .hooks import RepeatableNoiseHook, StopWithoutProgressHook, WarmUpHook
from .loops import EpisodeTestLoop, EpisodeValLoop, ValLoopWatchingNovel
from .optim import BFloat16OptimWrapper
from .prefill import PrefillFeaturesHook
from .samplers import EpisodeSampler
from .support_classes import SupportClassesHook

__all__ = [
    'BFloat16OptimWrapper',
    'EpisodeSampler',
    'EpisodeTestLoop',
    'EpisodeValLoop',
    'FoldGuardHook',
    'PrefillFeaturesHook',
    'RepeatableNoiseHook',
    'StopWithoutProgressHook',
    'StrictLoadHook',
    'SupportClassesHook',
    'ValLoopWatchingNovel',
    'WarmUpHook',
]
