"""What ``mmfss export`` does: a method as graphs, with a runner that needs no torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.support_folder import check_support, read_support
from mmfss.commands.command_lines import ExportArguments, parse
from mmfss.commands.ending import refusing
from mmfss.commands.label import reading_of, thresholds_in, thresholds_of
from mmfss.commands.options import check_options
from mmfss.commands.variables import check_values
from mmfss.configs import find_config, find_method, method_names
from mmfss.export.folder import check_free, export
from mmfss.export.formats import check_format
from mmfss.export.graphs import check_static
from mmfss.files import identity_of
from mmfss.methods.base import check_shots

NO_WEIGHTS = 'none'
"""In the place of WEIGHTS: of a method that has none of its own."""


def main(argv: Sequence[str] | None = None) -> None:
    """:func:`run` with a command line, by default the process's."""
    run(parse(ExportArguments, argv))


def run(args: ExportArguments) -> None:
    """Export, and say what was written.

    Raises:
        SystemExit: With status 2 and what is wrong, in a line.
    """
    with refusing():
        print(_exported(args))


def _exported(args: ExportArguments) -> str:
    check_format(args.format)
    check_free(Path(args.out))
    reading = reading_of(args.reading)
    if args.support is not None:
        check_support(args.support, reading)
    path = find_method(args.config) if args.config in method_names() else find_config(args.config)
    check_values(path)
    cfg = Config.fromfile(path)
    check_options(cfg, args.cfg_options, f'mmfss export {args.config}')
    cfg.merge_from_dict(dict(args.cfg_options))
    weights = None if args.weights == NO_WEIGHTS else args.weights
    inferencer = FewShotInferencer(
        cfg, weights, 'cpu', grey_values=args.grey_values(), runtime='torch'
    )
    check_static(inferencer.model)
    about: dict[str, Any] = dict(
        config=path.stem,
        weights=None if inferencer.weights is None else identity_of(inferencer.weights),
    )
    shots = 1 if args.shots is None else args.shots
    if args.support is None:
        check_shots(inferencer.model, shots)
        thresholds = thresholds_of(args.threshold, inferencer.threshold, ('all',))
        inferencer.threshold = thresholds['all']
    else:
        about['self_check'] = _shown(args, inferencer)
    manifest = export(inferencer, Path(args.out), args.format, shots, about)
    size = sum(file['bytes'] for file in manifest['files'].values()) / 2**20
    graphs = ', '.join(manifest['graphs'])
    lines = [f'{args.out}: {manifest["title"]} for {args.format}, {graphs}, {size:.0f} MB']
    if manifest['why_no_support'] and manifest['classes'] is None:
        lines += [
            f'its supports have no static graph: {manifest["why_no_support"]}',
            'to label by command, export it with --support; from Python the runner takes states '
            'that were made elsewhere',
        ]
        return '\n'.join(lines)
    ending = '' if manifest['classes'] else ' --support SUPPORT'
    lines.append(f'python {Path(args.out) / "runner.py"} PHOTOS LABELS{ending}')
    return '\n'.join(lines)


def _shown(args: ExportArguments, inferencer: FewShotInferencer) -> Any:
    """Show the model its supports and take the thresholds that ``mmfss label`` would; the record of
    the self-check, None without one.

    Raises:
        ValueError: a class has another number of supports than --shots, or what
            :func:`read_support` refuses.
    """
    assert args.support is not None
    support, prompted = read_support(
        args.support, inferencer, args.prompt_weights, reading_of(args.reading)
    )
    if prompted:
        print(
            f'note: the masks of {len(prompted)} supports are of prompts; mmfss label draws them',
            file=sys.stderr,
        )
    for name, shots in support.shots.items():
        if args.shots not in (None, len(shots)):
            raise ValueError(
                f'--shots {args.shots}, and class {name} of {args.support} has {len(shots)}: leave '
                '--shots out, or give as many supports'
            )
    usual = thresholds_of((), inferencer.threshold, support.classes)
    thresholds_of(args.threshold, usual, support.classes)  # wrong ones, too
    record = None
    if args.self_check:
        print('checking the supports by themselves (not with --no-self-check)', file=sys.stderr)
        record = json.loads(json.dumps(inferencer.check(support).record()))
        for one in record['classes']:
            print(one['line'], file=sys.stderr)
        usual = {**usual, **thresholds_in(record)}
    inferencer.threshold = thresholds_of(args.threshold, usual, support.classes)
    if not inferencer.has_support:
        inferencer.set_support(support)
    return record
