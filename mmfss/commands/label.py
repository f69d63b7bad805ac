"""What ``mmfss label``, ``mmfss-label`` and ``tools/label.py`` do.

Exit status: 0 all images are labelled, 1 some failed, 2 wrong arguments or input, or nothing can be
written, 3 supports have masks from prompts that are to be looked at first, 130 after ctrl-C, 143
after SIGTERM.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from mmengine.config import Config
from mmengine.dist import init_dist

from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.loading import choose_config
from mmfss.apis.prediction import check_threshold
from mmfss.apis.support import SupportSet
from mmfss.apis.support_folder import Reading, check_support, read_support
from mmfss.apis.windows import Tiles
from mmfss.commands.command_lines import LabelArguments, SupportOptions, parse
from mmfss.commands.ending import show_traceback
from mmfss.commands.train import Distributed
from mmfss.commands.variables import check_values
from mmfss.configs import DEMO_CONFIG
from mmfss.files import explained
from mmfss.labelling.folder import (
    COCO,
    FAILED,
    FORMAT_FOLDERS,
    GEOTIFF,
    SCORES,
    known_check,
)
from mmfss.labelling.formats import check_formats
from mmfss.labelling.georeference import WRITTEN
from mmfss.labelling.plan import PromptsNotAccepted, find_images, support_digest
from mmfss.labelling.processes import Processes
from mmfss.labelling.rescore import rescore_folder, thresholds_of_run
from mmfss.labelling.run import Summary, label_folder
from mmfss.labelling.tables import NEAR, Found

_DEMO_NOTE = (
    'note: this is the small model of `make demo`, which knows generated shapes and not photos; '
    'without --config a method is taken that does'
)


def label(argv: Sequence[str] | None = None) -> int:
    """:func:`run` with a command line, by default the process's; a wrong one raises
    SystemExit(2)."""
    return run(parse(LabelArguments, argv))


def run(args: LabelArguments) -> int:
    """Label and return the exit status."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    try:
        with Distributed(args.launcher):
            if args.launcher != 'none' and not dist.is_initialized():
                init_dist(args.launcher)  # on an accelerator: sets the device of the process
            processes = Processes()
            try:
                return _label(args, processes)
            except PromptsNotAccepted as error:
                return _told(processes, f'{error}', 3)
            except OSError as error:
                return _told(processes, f'error: {explained(error)}', 2)
            except (ValueError, ImportError) as error:  # of a network that is not installed, too
                return _told(processes, f'error: {error}', 2)
    except KeyboardInterrupt:
        print(
            'interrupted: labels written so far are whole and kept; run the same command again '
            'and it goes on',
            file=sys.stderr,
        )
        return 130


def _told(processes: Processes, text: str, status: int) -> int:
    """Errors reach all processes; one says them."""
    show_traceback()
    if processes.rank == 0:
        print(text, file=sys.stderr)
    return status


def _label(args: LabelArguments, processes: Processes) -> int:
    if args.rescore:
        return _rescore(args, processes)
    if args.config == DEMO_CONFIG and args.weights is None and processes.rank == 0:
        print(_DEMO_NOTE, file=sys.stderr)
    if args.tiles is None and args.overlap is not None:
        raise ValueError(f'--overlap {args.overlap} is of tiles, and there are none; give --tiles')
    tiles = None if args.tiles is None else Tiles(args.tiles, args.overlap)
    _check_out(args.support, args.out)
    formats = tuple(args.format or ())
    check_formats(formats, args.tolerance)
    if args.tolerance and not formats:
        raise ValueError(f'--tolerance {args.tolerance:g} is of outlines; give a --format')
    processes.first(lambda: find_images(args.images, args.out))  # before minutes of self-check
    processes.first(lambda: check_support(args.support, reading_of(args.reading)))
    inferencer, made_with, info = processes.each(lambda: _build(args, processes))
    support, prompted = processes.first(
        lambda: read_support(
            args.support, inferencer, args.prompt_weights, reading_of(args.reading)
        )
    )
    if args.prompt_weights and not prompted and processes.rank == 0:
        print('note: no support has a prompt, so --prompt-weights is not used', file=sys.stderr)
    usual = thresholds_of((), inferencer.threshold, support.classes)
    thresholds_of(args.threshold, usual, support.classes)  # wrong ones, too
    check = processes.first(lambda: _self_check(args, inferencer, support))
    found = {} if check is None else thresholds_in(check)
    inferencer.threshold = thresholds_of(args.threshold, {**usual, **found}, support.classes)
    if not inferencer.has_support:  # the process that checked them has encoded them
        inferencer.set_support(support)
    if check is not None:
        info['self_check'] = check
    title = inferencer.model.title
    if title != type(inferencer.model).__name__ and processes.rank == 0:
        print(f'method: {title}', file=sys.stderr)
    if support.negatives and processes.rank == 0:
        counts = (f'{name} {len(some)}' for name, some in support.negatives.items())
        print(f'images of what a class is not: {", ".join(counts)}')
    summary = label_folder(
        inferencer,
        args.images,
        args.out,
        made_with=made_with,
        info=info,
        overlays=args.overlays,
        overwrite=args.overwrite,
        unconfirmed=[] if args.accept_prompts else prompted,
        tiles=tiles,
        instances=args.instances,
        formats=formats,
        tolerance=args.tolerance,
        keep_scores=args.keep_scores,
    )
    if processes.rank == 0:
        print(report(summary, args.out, args.instances))
    return 1 if summary.failed else 0


def _rescore(args: LabelArguments, processes: Processes) -> int:
    if args.overwrite or args.tiles is not None or processes.world > 1:
        raise ValueError('--rescore is of labels that are there, in one process: leave '
                         '--overwrite, --tiles and --launcher out')  # fmt: skip
    usual = thresholds_of_run(args.out)
    summary = rescore_folder(
        args.images,
        args.out,
        thresholds_of(args.threshold, usual, tuple(usual)),
        instances=args.instances,
        formats=tuple(args.format or ()),
        tolerance=args.tolerance,
    )
    print(report(summary, args.out, args.instances))
    return 1 if summary.failed else 0


def reading_of(options: SupportOptions) -> Reading:
    """How a folder of supports is read, as the command line says."""
    given = {key: value for key, value in vars(options).items() if value is not None}
    images = given.pop('support_images', None)
    return Reading(images=images, **given)


def _self_check(
    args: LabelArguments, inferencer: FewShotInferencer, support: SupportSet
) -> dict[str, Any] | None:
    """The record of the self-check, its lines being said: of a run that is gone on with, which has
    the thresholds of its start, else a new one. None where it is not wanted."""
    if not args.self_check:
        return None
    record = None if args.overwrite else known_check(Path(args.out), support_digest(support))
    if record is None:
        print('checking the supports by themselves (not with --no-self-check)', file=sys.stderr)
        record = inferencer.check(support).record()
    for one in record['classes']:
        print(one['line'], file=sys.stderr)
    return record


def thresholds_in(record: Mapping[str, Any]) -> dict[str, float]:
    """Of the classes of a self-check that have one."""
    return {
        one['name']: one['threshold'] for one in record['classes'] if one['threshold'] is not None
    }


def _check_out(support: str, out: str) -> None:
    folder, inner = os.path.realpath(support), os.path.realpath(out)
    if os.path.isdir(folder) and os.path.commonpath([folder, inner]) == folder:
        raise ValueError(
            f'the output {out} lies in the folder of supports {support}, where a further run would '
            'take it for supports; give an output folder beside it'
        )


def _build(
    args: LabelArguments, processes: Processes
) -> tuple[FewShotInferencer, dict[str, Any], dict[str, Any]]:
    """The inferencer, what determines its results beside weights and supports, and what else is to
    be known of it."""
    if processes.world > 1 and ':' in (args.device or ''):
        raise ValueError(
            f'--device {args.device} would be shared by {processes.world} processes; give a kind '
            "of device, e.g. 'cuda', and each takes its own"
        )
    path = choose_config(args.config, args.method, args.weights)
    check_values(path)
    cfg = Config.fromfile(path)
    inferencer = FewShotInferencer(
        cfg,
        args.weights,
        args.device,
        amp=args.amp,
        batch_size=args.batch_size,
        pairs=args.pairs,
        feature_cache=args.feature_cache,
        grey_values=args.grey_values(),
        runtime=args.encoder_runtime(),
    )
    made_with = dict(model=json.loads(json.dumps(cfg.model.to_dict(), default=str)))
    # the options above take their place
    for name in ('feature_cache', 'encode_batch', 'encoder_runtime'):
        made_with['model'].pop(name, None)
    made_with.update(inferencer.model.encoding.runtimes.arithmetic)
    return inferencer, made_with, dict(config=str(path))


def thresholds_of(
    given: Sequence[str], default: float | Mapping[str, float], classes: tuple[str, ...]
) -> dict[str, float]:
    """Thresholds of all classes from the command line.

    Args:
        given: a number for all classes, and CLASS=NUMBER for some; the later counts.
        default: of the config, for classes that are not given one.
        classes: names of the classes.

    Raises:
        ValueError: No number in [0, 1], or no such class.
    """
    values = {name: default[name] if isinstance(default, Mapping) else default for name in classes}
    for text in sorted(given, key=lambda text: '=' in text):
        name, _, number = text.rpartition('=')
        if '=' in text and name not in classes:
            raise ValueError(
                f'--threshold {text}: there is no class {name!r}, the supports are of '
                f'{", ".join(classes)}'
            )
        try:
            value = float(number)
        except ValueError as error:
            raise ValueError(
                f'--threshold must be a number in 0..1 or CLASS=NUMBER, got {text!r}'
            ) from error
        values.update(dict.fromkeys(classes if '=' not in text else (name,), value))
    check_threshold(values, classes)
    return values


def class_line(name: str, found: Found) -> str:
    """What was found of a class, and what to try where that is nothing."""
    line = (
        f'{name}: in {found.present} of {found.of} images, best score {found.best:.2f}, median '
        f'{found.median:.2f}, threshold {found.threshold:.2f}'
    )
    if found.near:
        line += f', {found.near} less than {NEAR} below it'
    if found.present or not found.of:
        return line
    if found.best >= found.threshold:
        return f'{line}: nothing was marked: its masks are empty, or of other classes'
    lower = math.floor(found.best * 20) / 20  # the next twentieth
    option = shlex.quote(f'{name}={lower:g}')
    return f'{line}: nothing was marked; try --threshold {option}, or more supports'


def report(summary: Summary, out: str, instances: bool) -> str:
    """What is said at the end, in some lines."""
    new = summary.labelled + summary.failed
    rate = f' ({new / summary.seconds:.2f} images/s)' if new and summary.seconds > 0 else ''
    lines = [
        f'{summary.labelled} labelled{rate}, {summary.done} done before, {summary.failed} failed'
    ]
    if summary.edited:
        lines.append(f'{summary.edited} labels changed since are kept; the tables follow them')
    lines += [class_line(name, found) for name, found in summary.classes.items()]
    if instances:
        counts = ', '.join(f'{name} {count}' for name, count in summary.annotations.items())
        lines.append(f'objects in {os.path.join(out, COCO)}: {counts}')
    for name, kept in summary.formats.items():
        lines.append(f'{name}: {os.path.join(out, name)}')
        if kept:
            lines.append(f'{kept} files there were changed since and are kept as they are')
    old = [n for n in FORMAT_FOLDERS if n not in summary.formats and os.path.isdir(f'{out}/{n}')]
    if old:
        again = f'--format {" ".join(old)} writes {"it" if len(old) == 1 else "them"} anew'
        lines.append(f'{", ".join(old)}: of an earlier run and left as it was; {again}')
    for what, count in summary.georeferences.items():
        images = 'image is' if count == 1 else 'images are'
        if what == WRITTEN:
            where = os.path.join(out, GEOTIFF)
            lines.append(f'{count} {images} georeferenced, their labels too: {where}')
        else:
            lines.append(f'{count} {images} georeferenced, their labels are not: {what}')
    lines.append(f'least certain first: {os.path.join(out, SCORES)}')
    if summary.failed:
        lines.append(f'what failed, and why: {os.path.join(out, FAILED)}')
    return '\n'.join(lines)
