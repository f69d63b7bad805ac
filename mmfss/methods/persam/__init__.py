"""PerSAM and PerSAM-F: SAM 1 finds one marked object in other photos."""

from .model import PerSAM, PerSAMF

__all__ = ['PerSAM', 'PerSAMF']
