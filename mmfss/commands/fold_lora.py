"""What ``mmfss fold-lora`` does: it adds LoRA to the weights that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from mmfss.apis.loading import load_model
from mmfss.checkpoints import conversion
from mmfss.checkpoints.record import META_KEY, plain
from mmfss.commands.command_lines import FoldArguments, RunArguments, parse
from mmfss.commands.ending import say
from mmfss.commands.train import load_config
from mmfss.encoders.lora import fold_lora
from mmfss.files import identity_of
from mmfss.safe_load import load_checkpoint


def fold(args: FoldArguments) -> str:
    """Do it; a summary in words.

    Raises:
        ValueError, OSError: something in the arguments, the config or the checkpoint is wrong, or
            DST cannot be written.
    """
    conversion.check_free(args.dst, args.overwrite)
    options = RunArguments(args.config, fold=args.fold, cfg_options=args.cfg_options)
    cfg = load_config(options, 'mmfss fold-lora')
    model = load_model(cfg, args.src, 'cpu')
    layers = [name for encoder in model.encoders.values() for name in fold_lora(encoder)]
    if not layers:
        raise ValueError(
            f'{args.config} has a {type(model).__name__} without LoRA: there is nothing to fold'
        )
    meta = dict(load_checkpoint(args.src, map_location='cpu').get('meta') or {})
    if META_KEY in meta:
        meta[META_KEY] = dict(meta[META_KEY], arch=plain(dict(model.arch, lora={})))
    meta = {k: v for k, v in meta.items() if k in (META_KEY, 'epoch', 'iter', 'mmfss_version')}
    content = dict(
        meta=dict(meta, lora_folded_from=identity_of(args.src)), state_dict=model.state_dict()
    )
    conversion.save_whole(content, args.dst, args.overwrite)
    return (
        f'{args.dst}: LoRA of {len(layers)} layers is in their weights. Its config is that of its '
        'training with --cfg-options model.lora=None'
    )


def main(argv: Sequence[str] | None = None) -> None:
    """:func:`run` with a command line, by default the process's."""
    run(parse(FoldArguments, argv))


def run(args: FoldArguments) -> None:
    """Fold, and say what was written.

    Raises:
        SystemExit: With what is wrong.
    """
    say(fold, args)
