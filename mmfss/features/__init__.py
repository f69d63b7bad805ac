"""Features of frozen encoders, kept: what is stored where, under which key, for which images."""

from .cache import FeatureCache

__all__ = ['FeatureCache']
