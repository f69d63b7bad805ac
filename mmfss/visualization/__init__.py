"""Pictures of episodes and training curves."""

from mmfss.visualization.episodes import draw_episode, stack_rows
from mmfss.visualization.visualizer import (
    EpisodeVisualizationHook,
    EpisodeVisualizer,
    draw_sample,
)

__all__ = [
    'EpisodeVisualizationHook',
    'EpisodeVisualizer',
    'draw_episode',
    'draw_sample',
    'stack_rows',
]
