"""Networks that see one image at a time."""

from .backbones import BackbonePriorEncoder, PriorEncoder, SAM2PriorEncoder
from .dinov2 import DINOv2
from .efficientnet_lite import EfficientNetLitePriorEncoder
from .sam2 import SAM2, SAM2MemoryAttention

__all__ = [
    'SAM2',
    'BackbonePriorEncoder',
    'DINOv2',
    'EfficientNetLitePriorEncoder',
    'PriorEncoder',
    'SAM2MemoryAttention',
    'SAM2PriorEncoder',
]
