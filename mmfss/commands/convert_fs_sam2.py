"""What ``mmfss convert-fs-sam2`` does: it turns a checkpoint of FS-SAM2's own code into one of
mmfss."""

from __future__ import annotations

from collections.abc import Sequence

from mmseg.registry import MODELS

from mmfss.checkpoints import conversion
from mmfss.checkpoints.peft_names import check_lora, from_peft
from mmfss.checkpoints.record import describe_run
from mmfss.checkpoints.weights import check_state_dict
from mmfss.commands.command_lines import ConvertFSSAM2Arguments, parse
from mmfss.commands.convert_fssam import summary, target_of, write
from mmfss.commands.ending import say
from mmfss.datasets.folds import BENCHMARKS
from mmfss.methods.fs_sam2 import FSSAM2


def convert(args: ConvertFSSAM2Arguments) -> str:
    """Do it; a summary in words.

    Raises:
        ValueError, OSError: something in the arguments, the config or SRC is wrong, or DST cannot
            be written.
    """
    cfg, split, _ = target_of(args, 'tools/model_converters/fs_sam2.py')
    model = conversion.without_weights(lambda: MODELS.build(cfg.model))
    if not isinstance(model, FSSAM2) or not model.lora:
        raise ValueError(
            '--config must be one of FS-SAM2 with LoRA, such as configs/fs_sam2_pascal_1shot.py; '
            f'its model is a {model.title}'
        )
    source = f'checkpoint {args.src}'
    state, other = conversion.as_float32(conversion.read_state(args.src))
    theirs = from_peft(state, source)
    expected = model.sam2.state_dict()
    check_lora(expected, theirs, source)
    check_state_dict(expected, theirs, f'{source} for FSSAM2')
    weights = {f'sam2.{key}': theirs[key] for key in expected}
    # published rule: the best on the very episodes of the test; on FSS-1000 on classes of their own
    role, rule, chosen = 'base', 'novel', split.novel_names
    if split.benchmark not in BENCHMARKS:
        role, rule, chosen = 'base_train', 'held_out', split.names('base_val')
    selection = dict(rule=rule, classes=list(chosen), figures={})
    record = describe_run(split, role, 1, model.arch, set(), selection)
    write(args, record, weights, file=args.src)
    return summary(args, record, len(weights), other)


def main(argv: Sequence[str] | None = None) -> None:
    """:func:`run` with a command line, by default the process's."""
    run(parse(ConvertFSSAM2Arguments, argv))


def run(args: ConvertFSSAM2Arguments) -> None:
    """Convert, and say what was written.

    Raises:
        SystemExit: With what is wrong.
    """
    say(convert, args)
