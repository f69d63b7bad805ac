"""Position tables that are kept and not made anew for each image, without a parameter more.

Put in place through the ``_target_`` entries of sam2's configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.position_encoding import PositionEmbeddingSine
from torch import Tensor


class KeptTables:
    """Tables made of parameters, kept until one of these is changed, replaced or moved.

    A change is seen by autograd's version counter: any in-place operation, an optimizer's step,
    ``load_state_dict`` and ``to`` count; only writing through ``parameter.data`` goes unseen.
    No state in checkpoints; a copy of the module starts without any.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[list[Tensor], list[tuple], Tensor]] = {}

    def __reduce__(self) -> tuple[type[KeptTables], tuple[()]]:
        return KeptTables, ()

    def get(self, size: Hashable, make: Callable[[], Tensor], *parameters: Tensor) -> Tensor:
        """``make()``, or what it gave before for this ``size`` and these ``parameters``.

        Never kept where a gradient may be asked for, or where a compiler traces.
        """
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in parameters)
        if learns or torch.compiler.is_compiling() or any(p.is_inference() for p in parameters):
            return make()
        # address: replaced or moved; version: written to in place
        state = [(p.data_ptr(), p._version, p.dtype, p.device) for p in parameters]
        if size not in self._kept or self._kept[size][1] != state:
            # a table made in inference mode could not be used in training later
            with torch.inference_mode(False), torch.no_grad():
                table = make()
            # the aliases hold the memory: no other parameter can come to lie at its address
            self._kept[size] = ([p.detach() for p in parameters], state, table)
        return self._kept[size][2]


class KeptHiera(Hiera):
    """SAM 2's trunk; its bicubic position table is made once for each size.

    Args:
        *args, **kwargs: of :class:`sam2.modeling.backbones.hieradet.Hiera`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tables = KeptTables()

    def _get_pos_embed(self, hw: tuple[int, int]) -> Tensor:
        # P = bicubic(pos_embed) + tile(pos_embed_window); contiguous, as it is added many times
        def make() -> Tensor:
            return super(KeptHiera, self)._get_pos_embed(hw).contiguous()

        return self._tables.get(tuple(hw), make, self.pos_embed, self.pos_embed_window)


class KeptSine(PositionEmbeddingSine):
    """SAM 2's sine position encoding; images of a batch share one table instead of a copy each.

    The table lies where it was last used, and is never written to.

    Args:
        *args, **kwargs: of :class:`sam2.modeling.position_encoding.PositionEmbeddingSine`.
    """

    def _pe(self, B: int, device: torch.device, *cache_key: int) -> Tensor:
        kept = self.cache.get(cache_key)
        if kept is None:
            with torch.inference_mode(False):
                # the encoding depends on the size alone, not on the image: made for one
                super()._pe(1, device, *cache_key)
        elif kept.device != device:
            self.cache[cache_key] = kept.to(device)
        return self.cache[cache_key].expand(B, -1, -1, -1)


KEPT = {
    f'{cls.__module__}.{cls.__name__}': f'{mine.__module__}.{mine.__name__}'
    for mine in (KeptHiera, KeptSine)
    for cls in mine.__bases__
}
"""Target of sam2's configuration: ours."""


def keep_tables(cfg: Any) -> None:
    """Point the targets anywhere in a sam2 configuration at the classes of this module, in place.

    Targets of other classes, such as another trunk, stay as they are.
    """
    for entry in cfg.values() if isinstance(cfg, dict) else cfg:
        if isinstance(entry, (dict, list)):
            keep_tables(entry)
    if isinstance(cfg, dict) and cfg.get('_target_') in KEPT:
        cfg['_target_'] = KEPT[cfg['_target_']]
