"""Checks of what a config says of a FewShotSegmentor."""

from __future__ import annotations

from collections.abc import Mapping

from mmengine.config import ConfigDict
from torch import nn

PREPROCESSOR = dict(type='SegDataPreProcessor', bgr_to_rgb=True)


def check_preprocessor(cfg: dict | nn.Module) -> None:
    """Images must reach the model as RGB 0..255; a module that is built is taken as it is.

    Raises:
        ValueError: Another preprocessor, BGR, or one that normalises or pads: padding would count
            as a part of the image, and lower all object scores.
    """
    if not isinstance(cfg, Mapping):
        return
    wrong = [key for key in ('mean', 'std', 'rgb_to_bgr', 'test_cfg') if cfg.get(key)]
    if cfg.get('type') != PREPROCESSOR['type'] or not cfg.get('bgr_to_rgb') or wrong:
        raise ValueError(
            'model.data_preprocessor of FewShotSegmentor must hand on RGB images in 0..255, which '
            f'the encoders normalise themselves: {PREPROCESSOR}, without mean, std and test_cfg '
            '(it pads, and images of any size are taken as they are); got '
            f'{dict(cfg)}. Where it comes from a _base_ config, add _delete_=True'
        )


def checked_test_cfg(test_cfg: dict | None) -> ConfigDict:
    """mmseg's ``test_cfg``; None is the whole image. It would fail in the middle of a test.

    Raises:
        ValueError: Another mode, or windows that leave pixels out.
    """
    cfg = ConfigDict(test_cfg or dict(mode='whole'))
    allowed = "dict(mode='whole') or dict(mode='slide', crop_size=(h, w), stride=(h, w))"
    if cfg.get('mode') not in ('whole', 'slide'):
        raise ValueError(f'model.test_cfg must be {allowed}, got {dict(cfg)}')
    if cfg.mode == 'slide':
        pairs = [cfg.get('crop_size'), cfg.get('stride')]
        fits = all(
            isinstance(pair, (tuple, list))
            and len(pair) == 2
            and all(isinstance(value, int) and value > 0 for value in pair)
            for pair in pairs
        )
        if not fits or any(step > side for side, step in zip(*pairs)):
            raise ValueError(
                f'model.test_cfg must be {allowed} with whole numbers of pixels, and a stride no '
                f'larger than the window; got {dict(cfg)}'
            )
    return cfg
