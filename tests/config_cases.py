"""Shipped configs as the tools read them, and with models so small that they are built quickly."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from tiny_models import TINY_SAM1
from tiny_runs import TINY_DINO, TINY_SAM2

from mmfss.commands.command_lines import RunArguments
from mmfss.commands.train import load_config
from mmfss.datasets.folds import Benchmark, contiguous_folds
from mmfss.datasets.prepared import write_description

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
#: what configs read from the environment
VARIABLES = ('METHOD', 'BENCHMARK', 'FOLD', 'SHOTS', 'DATA_ROOT', 'SAM2', 'SELECTION')
VARIABLES += ('NOVEL_IMAGES',)


def load(name: str, **options: Any) -> Config:
    """As tools/train.py reads a config of configs/, with ``--cfg-options``."""
    return load_config(RunArguments(str(CONFIGS / name), cfg_options=options), 'tools/train.py')


def write_prepared(root: Path) -> str:
    """Make a folder that of a prepared dataset of three folds; no images."""
    benchmark = Benchmark('mine', tuple('abcdefghi'), 3, contiguous_folds(9, 3), 1)
    write_description(root, benchmark, 'label_maps', root, dict(train=[], test=[]), {})
    return str(root)


def tiny(model: ConfigDict) -> ConfigDict:
    """The same model with small encoders: names of archs give way to small dicts."""
    model = copy.deepcopy(model)
    sam2 = model.get('sam2')
    if sam2 and isinstance(sam2.arch, str):
        version = sam2.arch.split('_')[0]
        model.sam2 = dict(sam2, arch=dict(TINY_SAM2, base=f'{version}_small'))
        (model.sam2 if 'image_size' in sam2 else model).image_size = 64
    for name in ('prior_encoder', 'encoder'):
        encoder = model.get(name)
        if encoder and encoder.type == 'DINOv2' and isinstance(encoder.arch, str):
            model[name] = dict(encoder, arch=TINY_DINO, image_size=56)
        elif encoder and encoder.type == 'DINOv3':
            model[name] = dict(encoder, arch=TINY_DINO, image_size=64)
    if 'svd_components' in model:
        model.svd_components = 8
    if model.get('sam1'):
        model.sam1 = dict(model.sam1, arch=TINY_SAM1)
    for part in ('sam2', 'sam1', 'prior_encoder', 'encoder'):
        if model.get(part) and model[part].get('checkpoint') == 'official':
            model[part]['checkpoint'] = None
    return model
