"""The command line of ``tools/analysis_tools/benchmark.py``."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from mmengine.logging import MMLogger

import mmfss  # noqa: F401  (registers all parts)
from benchmarks import report
from benchmarks.subject import add_options
from benchmarks.timing import load
from mmfss.checkpoints.provenance import environment
from mmfss.files import check_writable, write_text
from mmfss.words import listed

SUBCOMMANDS = (
    'episode', 'evaluation', 'training', 'fold', 'labelling', 'serving', 'loading', 'start',
    'curves', 'profile', 'runtimes', 'gpu',
)  # fmt: skip
"""Modules of this package with HELP, add_arguments, run and tables."""
NOT_SETTINGS = (
    'json', 'compare', 'data', 'figure', 'subcommand', 'run', 'from_training', 'from_evaluation',
    'limit',
)  # fmt: skip
"""Options that do not decide about what is measured."""


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run a subcommand with these arguments (default: the command line's).

    Returns:
        The record that ``--json`` writes.
    """
    parser = argparse.ArgumentParser(
        description='Measure a method: times by stage, memory, operations; FSSAM also against the '
        'way it is published. Random weights, generated pictures; nothing is fetched.'
    )
    subparsers = parser.add_subparsers(dest='subcommand', required=True)
    for name in SUBCOMMANDS:
        module = import_module(f'benchmarks.{name}')
        sub = subparsers.add_parser(
            name, help=module.HELP, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        module.add_arguments(sub)
        add_options(sub)
    args = parser.parse_args(argv)
    try:
        with quiet():
            return measure(args, list(sys.argv if argv is None else argv))
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))


@contextmanager
def quiet() -> Iterator[None]:
    """Without what mmengine says of models and data: a table is to be read."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def measure(args: argparse.Namespace, command: list[str]) -> dict[str, Any]:
    """Run a subcommand, print its tables, write and compare its record.

    Raises:
        ValueError, FileNotFoundError: Wrong options, or results that are not equal.
        SystemExit: after all of this, where parts of it ``failed`` or were ``left_out``.
    """
    module = import_module(f'benchmarks.{args.subcommand}')
    settings = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in vars(args).items()
        if name not in NOT_SETTINGS
    }
    if args.json is not None:
        check_writable(args.json, '--json')
    earlier = report.read(args.compare, args.subcommand, settings) if args.compare else None
    before = load()
    results = module.run(args)
    content = dict(
        format=report.FORMAT,
        subcommand=args.subcommand,
        settings=settings,
        results=results,
        command=command,
        environment=environment(),
        load=dict(before=before, after=load()),
    )
    try:
        if args.json is not None:
            write_text(args.json, json.dumps(content, indent=1, allow_nan=False) + '\n')
    finally:  # of a long measurement, one of the two is there in any case
        print_record(content, module.tables(results))
    if earlier is not None:
        rows = report.differences(earlier['results'], results)
        print(f'\nAgainst {args.compare}{report.elsewhere(earlier, content)}:\n')
        print(report.table(['figure', 'before', 'now', 'change'], rows))
    lacking = {kind: listed(results[kind]) for kind in ('failed', 'left_out') if results.get(kind)}
    if lacking:
        said = '; '.join(f'{kind.replace("_", " ")}: {parts}' for kind, parts in lacking.items())
        raise SystemExit(f'benchmark.py {args.subcommand}: {said}')
    return content


def print_record(content: dict[str, Any], tables: Sequence[str]) -> None:
    """Tables of a record, and what was measured on what."""
    results, where = content['results'], content['environment']['machine']
    print(f'# {content["subcommand"]}: ' + ' '.join(content['command']))
    print(f'{where["gpu"] or where["cpu"]}, {where["cores"]} cores; load {content["load"]}')
    if 'machine' in results:
        machine = results['machine']
        print(
            f'{machine["device"]}, {machine["threads"]} threads, matrix product in '
            f'{machine["matmul_dtype"]}: {machine["matmul_flops"] / 1e9:.0f} GFLOP/s'
        )
    for text in tables:
        print(f'\n{text}')
    if 'parameters' in results:
        rows = [[name, e['all'], e['trainable']] for name, e in results['parameters'].items()]
        print('\n' + report.table(['part', 'parameters', 'trainable'], rows))
    equal = results.get('equal', {})
    for name, entry in {'': equal}.items() if 'tolerance' in equal else equal.items():
        print(
            f'\nequal{name and ", "}{name}: {entry["episodes"]} episodes, logits differ by at most '
            f'{entry["max_logit_difference"]:.2g} (largest {entry["max_logit"]:.2g}, allowed '
            f'{entry["tolerance"]:g} of it), masks in {entry["different_pixels"]} of '
            f'{entry["pixels"]} pixels, mIoU by {entry["miou_difference"]}'
        )
