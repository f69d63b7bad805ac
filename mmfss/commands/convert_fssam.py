"""What ``mmfss convert-fssam`` does: it turns a published FSSAM checkpoint into one of mmfss."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from os.path import samefile
from pathlib import Path

from mmengine.config import Config
from mmseg.registry import MODELS
from torch import Tensor, nn

import mmfss
from mmfss.checkpoints import conversion
from mmfss.checkpoints.official import OFFICIAL, official
from mmfss.checkpoints.record import META_KEY, describe_run
from mmfss.commands.command_lines import (
    ConvertAdaptersArguments,
    ConvertArguments,
    ConvertFSSAM2Arguments,
    RunArguments,
    parse,
)
from mmfss.commands.ending import say
from mmfss.commands.train import load_config
from mmfss.datasets.folds import FoldSplit, get_split
from mmfss.files import identity_of

Conversion = ConvertArguments | ConvertAdaptersArguments | ConvertFSSAM2Arguments
"""Arguments of a command that turns a published file into a checkpoint of mmfss."""


def training_data(cfg: Config) -> dict:
    """The episodes that a config trains on.

    Raises:
        ValueError: it trains on none.
    """
    data = cfg.get('train_dataloader') or {}
    while data and 'benchmark' not in data:
        data = data.get('dataset') or {}
    if not data:
        raise ValueError(
            '--config must be one for training, whose train_dataloader has an EpisodicDataset of '
            'the benchmark that the checkpoint was trained on, such as '
            'configs/fss_sam2_pascal_1shot.py'
        )
    return data


def build_model(cfg: Config) -> nn.Module:
    """The configured model without weights.

    Raises:
        ValueError: its prior encoder is not that of the published checkpoints.
    """
    kind = (cfg.model.get('prior_encoder') or {}).get('type')
    if kind != 'DINOv2':
        raise ValueError(
            "published checkpoints are of models with prior_encoder=dict(type='DINOv2', ...), and "
            f'the model of --config has {kind!r}; use a config such as '
            'configs/fss_sam2_pascal_1shot.py'
        )
    return conversion.without_weights(lambda: MODELS.build(cfg.model))


def read_weights(args: ConvertArguments, model: nn.Module) -> tuple[dict, dict[str, int]]:
    """Weights of SRC under our names, and how many were of which type other than float32."""
    source = f'checkpoint {args.src}'
    state = conversion.read_state(args.src)
    if args.prior_encoder is not None:
        state = conversion.add_prior_encoder(state, args.prior_encoder, source)
        source += f' with {args.prior_encoder}'
    state, other = conversion.as_float32(state)
    encoder = model.prior_encoder
    where = official('dinov2', encoder.arch).url if encoder.checkpoint == OFFICIAL else ''
    return conversion.convert_state(state, model.state_dict(), source, where), other


def target_of(args: Conversion, tool: str) -> tuple[Config, FoldSplit, int]:
    """Config and fold of what is converted, and the config's K.

    Raises:
        ValueError, OSError: something in the arguments or the config is wrong.
    """
    conversion.check_free(args.dst, args.overwrite)
    if Path(args.dst).exists() and Path(args.src).exists() and samefile(args.src, args.dst):
        raise ValueError(f'SRC and DST are the same file, {args.src}; give another DST')
    os.environ['FOLD'] = str(args.fold)
    cfg = load_config(RunArguments(args.config, cfg_options=args.cfg_options), tool)
    data = training_data(cfg)
    return cfg, get_split(data['benchmark'], data['fold']), data.get('shots', 1)


def shots_of(args: ConvertArguments | ConvertAdaptersArguments, configured: int) -> int:
    """K of the training of what is converted: as said, or the config's.

    Raises:
        ValueError: it is below 1.
    """
    shots = configured if args.shots is None else args.shots
    if shots < 1:
        raise ValueError(f'--shots must be at least 1, got {shots}')
    return shots


def write(args: Conversion, run: dict, state: dict[str, Tensor], **files: str | None) -> None:
    """Write DST.

    Args:
        args: Of the command.
        run: What its weights were trained on, see :func:`~mmfss.checkpoints.record.describe_run`.
        state: Its state dict.
        files: Which files it comes from.
    """
    origin = {key: identity_of(path) for key, path in files.items() if path is not None}
    meta = {META_KEY: run, 'converted_from': origin, 'mmfss_version': mmfss.__version__}
    conversion.save_whole(dict(meta=meta, state_dict=state), args.dst, args.overwrite)


def convert(args: ConvertArguments) -> str:
    """Do it; a summary in words.

    Raises:
        ValueError, OSError: something in the arguments, the config or SRC is wrong, or DST cannot
            be written.
    """
    cfg, split, configured = target_of(args, 'tools/model_converters/fssam.py')
    shots = shots_of(args, configured)
    model = build_model(cfg)
    weights, other = read_weights(args, model)
    # published rule: trained on all base classes, and the best on the novel ones was kept
    chosen = dict(rule='novel', classes=list(split.novel_names), figures={})
    run = describe_run(split, 'base', shots, model.arch, set(), chosen)
    write(args, run, weights, file=args.src, prior_encoder=args.prior_encoder)
    return summary(args, run, len(weights), other)


def summary(args: Conversion, run: dict, number: int, other: dict[str, int]) -> str:
    """What was written, and how to test it."""
    stored = ', '.join(f'{count} of {kind}' for kind, count in other.items())
    command = [args.config, args.dst]
    if args.cfg_options:
        command += ['--cfg-options', *(f'{k}={v}' for k, v in args.cfg_options.items())]
    return '\n'.join(
        [
            f'{args.dst}: {number} tensors of {args.src}'
            + (f', stored as float32: {stored}' if stored else ''),
            f'trained on the {len(run["base_classes"])} base classes of {run["benchmark"]} fold '
            f'{run["fold"]}, {run["shots"]}-shot, and chosen on its '
            + ('novel' if run['selection']['rule'] == 'novel' else 'validation')
            + f' classes: {", ".join(run["selection"]["classes"])}',
            f'test it: FOLD={run["fold"]} python tools/test.py {shlex.join(command)}',
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """:func:`run` with a command line, by default the process's."""
    run(parse(ConvertArguments, argv))


def run(args: ConvertArguments) -> None:
    """Convert, and say what was written.

    Raises:
        SystemExit: With what is wrong.
    """
    say(convert, args)
