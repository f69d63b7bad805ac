"""Parts that mmengine's Runner takes from mmfss: hooks, sampler, mixed precision."""

from mmfss.engine.guards import FoldGuardHook, StrictLoadHook
from mmfss.engine.hooks import RepeatableNoiseHook, StopWithoutProgressHook, WarmUpHook
from mmfss.engine.loops import EpisodeTestLoop, EpisodeValLoop, ValLoopWatchingNovel
from mmfss.engine.optim import BFloat16OptimWrapper
from mmfss.engine.prefill import PrefillFeaturesHook
from mmfss.engine.samplers import EpisodeSampler
from mmfss.engine.support_classes import SupportClassesHook

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
