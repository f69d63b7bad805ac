"""Pictures of episodes."""

from mmfss.visualization.episodes import draw_episode, stack_rows
from mmfss.visualization.hook import EpisodeVisualizationHook

__all__ = ['EpisodeVisualizationHook', 'draw_episode', 'stack_rows']
