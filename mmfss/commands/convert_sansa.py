"""What ``mmfss convert-sansa`` does: it turns published SANSA adapters into a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from mmseg.registry import MODELS

from mmfss.checkpoints import adapters, conversion
from mmfss.checkpoints.record import describe_run
from mmfss.checkpoints.trained_only import only_trained
from mmfss.checkpoints.weights import load_state, state_digest
from mmfss.commands.command_lines import ConvertAdaptersArguments, parse
from mmfss.commands.convert_fssam import shots_of, summary, target_of, write
from mmfss.commands.ending import say


def convert(args: ConvertAdaptersArguments) -> str:
    """Do it; a summary in words.

    Raises:
        ValueError, OSError: something in the arguments, the config or SRC is wrong, SAM 2's weights
            are not there, or DST cannot be written.
    """
    cfg, split, configured = target_of(args, 'tools/model_converters/sansa.py')
    shots = shots_of(args, configured)
    if cfg.model.get('type') != 'SANSA':
        raise ValueError(
            f'--config must be one of SANSA, such as configs/sansa_coco_1shot.py; {args.config} '
            f'has a model of type {cfg.model.get("type")!r}'
        )
    theirs, other = conversion.as_float32(adapters.read_published(args.src))
    model = MODELS.build(dict(cfg.model, feature_cache=None))
    if model.sam2.checkpoint is None:
        raise ValueError(
            "model.sam2.checkpoint is None in --config: adapters belong to SAM 2's weights. Set it "
            "to 'official' or a path"
        )
    names = model.trained_names()
    own = {key: value for key, value in model.state_dict().items() if key in names}
    found = adapters.fitted(theirs, own, f'{args.src}')
    model.load_encoders()
    state = {**model.state_dict(), **found}
    load_state(model, state, f'SANSA from {args.src}')
    if not args.whole:
        base = {key: value for key, value in state.items() if key not in names}
        state = only_trained(state, names, state_digest(base))
    chosen = dict(rule='novel', classes=list(split.novel_names), figures={})
    seen = set(split.novel_names) if args.all_classes else set()
    run = describe_run(split, 'base', shots, model.arch, seen, chosen)
    write(args, run, state, file=args.src)
    said = summary(args, run, len(found), other)
    if args.all_classes:
        said += (
            f'\ntrained on the novel classes of {run["benchmark"]} too (--all-classes): any test '
            'on its classes refuses it; label with it'
        )
    return said


def main(argv: Sequence[str] | None = None) -> None:
    """:func:`run` with a command line, by default the process's."""
    run(parse(ConvertAdaptersArguments, argv))


def run(args: ConvertAdaptersArguments) -> None:
    """Convert, and say what was written.

    Raises:
        SystemExit: With what is wrong.
    """
    say(convert, args)
