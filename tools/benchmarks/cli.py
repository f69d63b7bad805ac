"""The command line of ``tools/analysis_tools/benchmark.py``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mmengine.logging import MMLogger

import mmfss  # noqa: F401  (registers all parts)
from benchmarks import (
    curves,
    episode,
    evaluation,
    fold,
    labelling,
    loading,
    profile,
    report,
    start,
    training,
)
from benchmarks.common import add_options, settings_of
from benchmarks.timing import load

SUBCOMMANDS = {
    'episode': episode,
    'evaluation': evaluation,
    'training': training,
    'fold': fold,
    'labelling': labelling,
    'loading': loading,
    'start': start,
    'curves': curves,
    'profile': profile,
}


def make_parser() -> argparse.ArgumentParser:
    """Parser with all subcommands."""
    parser = argparse.ArgumentParser(
        description='Measure FSSAM: times by stage, memory, operations. Random weights, generated '
        'pictures; nothing is fetched.'
    )
    subparsers = parser.add_subparsers(dest='subcommand', required=True)
    for name, module in SUBCOMMANDS.items():
        sub = subparsers.add_parser(
            name, help=module.HELP, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        module.add_arguments(sub)
        add_options(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run a subcommand with these arguments (default: the command line's).

    Returns:
        The record that ``--json`` writes.
    """
    parser = make_parser()
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


def measure(args: argparse.Namespace, command: Sequence[str]) -> dict[str, Any]:
    """Run a subcommand, print its tables, write and compare its record.

    Raises:
        ValueError, FileNotFoundError: Wrong options, or results that are not equal.
    """
    module = SUBCOMMANDS[args.subcommand]
    settings = settings_of(args)
    report.check_output(args.json, '--json')
    earlier = report.read(args.compare, args.subcommand, settings) if args.compare else None
    before = load()
    results = module.run(args)
    content = report.record(args.subcommand, settings, results, command, before, load())
    print_record(content, module.tables(results))
    if args.json:
        report.write(args.json, content)
    if earlier is not None:
        rows = report.differences(earlier['results'], results)
        print(f'\nAgainst {args.compare}{report.elsewhere(earlier, content)}:\n')
        print(report.table(['figure', 'before', 'now', 'change'], rows))
    return content


def print_record(content: dict[str, Any], tables: Sequence[str]) -> None:
    """Tables of a record, and what was measured on what."""
    results, about = content['results'], content['environment']
    machine = results.get('machine')
    print(f'# {content["subcommand"]}: ' + ' '.join(content['command']))
    where = about['machine']
    print(f'{where["gpu"] or where["cpu"]}, {where["cores"]} cores; load {content["load"]}')
    if machine:
        flops = machine['matmul_flops'] / 1e9
        print(
            f'{machine["device"]}, {machine["threads"]} threads, matrix product in '
            f'{machine["matmul_dtype"]}: {flops:.0f} GFLOP/s'
        )
    for text in tables:
        print(f'\n{text}')
    if 'parameters' in results:
        rows = [[name, e['all'], e['trainable']] for name, e in results['parameters'].items()]
        print('\n' + report.table(['part', 'parameters', 'trainable'], rows))
    for name, entry in _equalities(results):
        print(
            f'\nequal{name}: {entry["episodes"]} episodes, logits differ by at most '
            f'{entry["max_logit_difference"]:.2g} (largest {entry["max_logit"]:.2g}, allowed '
            f'{entry["tolerance"]:g} of it), masks in {entry["different_pixels"]} of '
            f'{entry["pixels"]} pixels, mIoU by {entry["miou_difference"]}'
        )


def _equalities(results: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    equal = results.get('equal')
    if equal is None:
        return []
    return [('', equal)] if 'tolerance' in equal else [(f', {k}', v) for k, v in equal.items()]
