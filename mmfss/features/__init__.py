"""Features of frozen encoders, kept: what is stored where, under which key, for which images."""

from mmfss.features.cache import FeatureCache

__all__ = ['FeatureCache']
