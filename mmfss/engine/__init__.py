"""Parts that mmengine's Runner takes from mmfss: hooks, sampler, mixed precision."""

from mmfss.engine.guards import FoldGuardHook, StrictLoadHook, SupportClassesHook
from mmfss.engine.hooks import RepeatableNoiseHook, StopWithoutProgressHook, WarmUpHook
from mmfss.engine.loops import (
    BFloat16OptimWrapper,
    EpisodeTestLoop,
    EpisodeValLoop,
    ValLoopWatchingNovel,
)
from mmfss.engine.prefill import PrefillFeaturesHook
from mmfss.engine.resuming import ResumeHook
from mmfss.engine.samplers import EpisodeSampler, PickedEpisodesSampler
from mmfss.engine.saving import WholeCheckpointHook

__all__ = [
    'BFloat16OptimWrapper',
    'EpisodeSampler',
    'EpisodeTestLoop',
    'EpisodeValLoop',
    'FoldGuardHook',
    'PickedEpisodesSampler',
    'PrefillFeaturesHook',
    'RepeatableNoiseHook',
    'ResumeHook',
    'StopWithoutProgressHook',
    'StrictLoadHook',
    'SupportClassesHook',
    'ValLoopWatchingNovel',
    'WarmUpHook',
    'WholeCheckpointHook',
]
