"""GF-SAM: the model, and its parts."""

from .model import GFSAM

__all__ = ['GFSAM']
