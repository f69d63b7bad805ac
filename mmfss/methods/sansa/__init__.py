"""SANSA and its prompts."""

from .model import SANSA

__all__ = ['SANSA']
