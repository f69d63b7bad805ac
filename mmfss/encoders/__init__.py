"""Networks that see one image at a time."""

from .backbones import BackboneEncoder
from .base import Encoder
from .dinov2 import DINOv2
from .dinov3 import DINOv3
from .efficientnet_lite import EfficientNetLiteEncoder
from .sam1 import SAM1
from .sam2 import SAM2, SAM2MemoryAttention

__all__ = [
    'SAM1',
    'SAM2',
    'BackboneEncoder',
    'DINOv2',
    'DINOv3',
    'EfficientNetLiteEncoder',
    'Encoder',
    'SAM2MemoryAttention',
]
