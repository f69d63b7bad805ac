"""Which method suits a person's photos: the self-check of their supports by several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from mmengine.config import Config

from mmfss.apis.check_result import Comparison, SelfCheck
from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.support import SupportSet
from mmfss.checkpoints.official import local_file, official_in
from mmfss.configs import find_method, method_names
from mmfss.datasets.grey_values import GreyValues
from mmfss.methods.base import method_of

BASELINES = 'all_foreground', 'pseudo_mask'
"""Methods to compare others with, not to label with."""


def methods_at_hand() -> tuple[str, ...]:
    """Names of the methods that run on photos as they are: nothing of them is trained, and the
    official weights of their encoders are there."""
    found = []
    for name in method_names():
        cfg = Config.fromfile(find_method(name))
        there = all(local_file(one) for one in official_in(cfg.model))
        if name not in BASELINES and there and not method_of(cfg).needs_checkpoint:
            found.append(name)
    return tuple(found)


def compare(
    read: Callable[[FewShotInferencer], SupportSet],
    names: Iterable[str],
    device: str | torch.device | None = None,
    amp: bool = False,
    begun: Callable[[str], None] | None = None,
    grey_values: GreyValues | None = None,
    runtime: str | Mapping[str, Any] | None = None,
) -> Comparison:
    """Check the same supports by several methods, one model in memory at a time.

    Args:
        read: makes the support set at the size that a model takes photos in, e.g.
            ``lambda inferencer: read_support(folder, inferencer)[0]``.
        names: of methods.
        device, amp: see :class:`FewShotInferencer`.
        begun: told each name before it is tried.
        grey_values, runtime: see :class:`FewShotInferencer`.

    Raises:
        ValueError: no method of that name.
    """
    checks: dict[str, SelfCheck] = {}
    refused: dict[str, str] = {}
    for name in names:
        config = find_method(name)
        if begun is not None:
            begun(name)
        try:
            how = dict(device=device, amp=amp, grey_values=grey_values, runtime=runtime)
            inferencer = FewShotInferencer(config, **how)
            checks[name] = inferencer.check(read(inferencer))
        except (ValueError, OSError, ImportError) as error:
            refused[name] = f'{error}'
    return Comparison(checks, refused)
