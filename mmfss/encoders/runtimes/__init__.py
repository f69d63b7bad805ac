"""What runs the frozen part of an encoder: torch, or OpenVINO on CPUs."""

from .choice import Runtimes, joined
from .settings import RuntimeSettings, asked, merged

__all__ = ['RuntimeSettings', 'Runtimes', 'asked', 'joined', 'merged']
