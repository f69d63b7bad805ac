"""The parts of FSSAM that a config names: built, and checked against each other."""

from __future__ import annotations

from mmseg.registry import MODELS
from torch import nn

from .prior_encoders import PriorEncoder
from .prompt_generator import PromptGenerator


def build_part(name: str, cfg: dict | None, base: type[nn.Module]):
    """Build a part of the model.

    Args:
        name: of the entry in the config, for messages.
        cfg: None, or a dict whose type is a subclass of ``base``.
        base: the interface.

    Raises:
        ValueError: another type.
    """
    if cfg is None:
        return None
    kind = cfg.get('type')
    cls = MODELS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(cls, type) and issubclass(cls, base)):
        known = {k: v for k, v in MODELS.module_dict.items() if isinstance(v, type)}
        hint = (
            "; put a backbone of mmseg into dict(type='BackbonePriorEncoder', backbone=dict(...))"
        )
        raise ValueError(
            f'model.{name} must be None or a dict whose type is one of '
            f'{sorted(k for k, v in known.items() if issubclass(v, base))} or a registered '
            f'subclass of {base.__name__}, got {kind!r}{hint if base is PriorEncoder else ""}'
        )
    return MODELS.build(cfg)


def check_parts(
    generator: PromptGenerator | None,
    prior_encoder: PriorEncoder | None,
    memory_refinement: nn.Module | None,
    memory_attention: dict | None,
) -> None:
    """Refuse parts that need one which is not there.

    Raises:
        ValueError: a prompt generator without its encoder; refinement or calibration without the
            memory of pseudo masks.
    """
    if generator is not None and generator.needs_prior and prior_encoder is None:
        raise ValueError(
            f'{type(generator).__name__} needs a prior_encoder, and it is None. Set '
            "prior_encoder=dict(type='DINOv2') or dict(type='SAM2PriorEncoder')."
        )
    if generator is not None:
        return
    kind = (memory_attention or {}).get('type')
    idle = {
        'memory_refinement': memory_refinement is not None,
        'memory_attention': kind == 'SupportCalibratedMemoryAttention',
    }
    for name in (name for name, is_set in idle.items() if is_set):
        raise ValueError(
            f'{name} works on the memory of the pseudo masks, and there is none without a '
            f'prompt_generator. Set {name}=None too, or a prompt_generator.'
        )
