"""INSID3: a segmentation of the query alone, matched with the supports."""

from .model import INSID3

__all__ = ['INSID3']
