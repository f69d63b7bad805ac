"""What ``mmfss compare`` does: methods side by side, and what paired tests say of them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmfss.commands.command_lines import CompareArguments, parse
from mmfss.commands.ending import refusing
from mmfss.commands.evaluation_results import stored_runs
from mmfss.evaluation.comparison import Compared, Method, Place
from mmfss.evaluation.comparison_text import (
    csv_text,
    difference_table,
    document,
    latex,
    plain_types,
)
from mmfss.evaluation.counts import few_shot_iou, sum_per_class
from mmfss.evaluation.episode_csv import read_episodes
from mmfss.evaluation.report import Run
from mmfss.evaluation.report_text import table_lines, to_json
from mmfss.files import check_writable, write_text
from mmfss.words import listed

_CSV_NAME = re.compile(r'(?:(.+)_)?(\d+)shot_fold(\d+)_seed(\d+)\.csv')


def main(argv: Sequence[str] | None = None) -> Compared:
    """:func:`run` with a command line, by default the process's."""
    return run(parse(CompareArguments, argv))


def run(args: CompareArguments) -> Compared:
    """Compare, print and write.

    Raises:
        SystemExit: With status 2 for results that cannot be compared; what is wrong is said.
    """
    with refusing():
        if args.out is not None:
            check_writable(f'{base_of(args.out)}.json', '--out')
        found = compared(args)
    text = document(found, markdown=False)
    print(text)
    if args.classes:
        print('\n'.join(table_lines(difference_table(found.differences, every=True), False)))
    if args.out is not None:
        base = base_of(args.out)
        write_text(f'{base}.json', to_json(plain_types(found)) + '\n')
        write_text(f'{base}.md', document(found, markdown=True))
        write_text(f'{base}.txt', text)
        write_text(f'{base}.tex', latex(found))
        write_text(f'{base}.csv', csv_text(found))
        print(f'written to {base}.json, .md, .txt, .tex and .csv')
    return found


def base_of(out: str) -> str:
    """``--out`` without suffix."""
    return re.sub(r'\.(json|md|txt|tex|csv)$', '', out)


def compared(args: CompareArguments) -> Compared:
    """Read the results and compare them.

    Raises:
        FileNotFoundError: No such file or folder.
        ValueError: A file is of another form or damaged, the benchmarks differ, or see
            :class:`~mmfss.evaluation.comparison.Compared`.
    """
    methods: dict[str, list[dict[Place, Run]]] = {}
    benchmarks: dict[str, str] = {}
    for given in args.results:
        name, path = _named(given)
        found, benchmark = read_results(path)
        if benchmark:
            benchmarks[path] = benchmark
        stem = name or Path(path).stem
        for label, runs in found.items():
            several = len(found) > 1 and not args.trainings
            kept = {place: run for place, run in runs.items() if _asked(args, place)}
            if not kept:
                raise ValueError(
                    f'{path} has no run of the --shots, --folds and --seeds that are asked for'
                )
            methods.setdefault(f'{stem} {label}' if several else stem, []).append(kept)
    if len({*benchmarks.values()}) > 1:
        said = [f'{path}: {benchmark}' for path, benchmark in benchmarks.items()]
        raise ValueError(f'results of different benchmarks cannot be compared: {listed(said)}')
    return Compared([Method(name, tuple(runs)) for name, runs in methods.items()])


def _named(given: str) -> tuple[str | None, str]:
    """``NAME=PATH`` apart; a path may hold '=' itself."""
    name, sign, path = given.partition('=')
    return (name, path) if sign and name and not os.path.exists(given) else (None, given)


def _asked(args: CompareArguments, place: Place) -> bool:
    return all(
        wanted is None or value in wanted
        for wanted, value in zip((args.shots, args.folds, args.seeds), place)
    )


def read_results(path: str) -> tuple[dict[str, dict[Place, Run]], str]:
    """``{label: {place: run}}`` of a file or folder, and its benchmark, '' where it is not said."""
    if os.path.isdir(path) or path.endswith('.csv'):
        return _read_csv(Path(path)), ''
    data, runs = stored_runs(path)
    found: dict[str, dict[Place, Run]] = {}
    for one in runs:
        found.setdefault(one.label, {})[one.shots, one.fold, one.seed] = one
    if not found:
        raise ValueError(f'{path} has no finished run; test again with the same --out')
    return found, f'{data.get("benchmark")}, {data.get("role", "novel")} classes'


def _read_csv(path: Path) -> dict[str, dict[Place, Run]]:
    """Files of ``--csv``, by their names."""
    if not path.exists():
        raise FileNotFoundError(f'results not found: {path}; tools/test.py --csv DIR writes them')
    found: dict[str, dict[Place, Run]] = {}
    for file in sorted(path.glob('*.csv')) if path.is_dir() else [path]:
        named = _CSV_NAME.fullmatch(file.name)
        if named is None:
            if path.is_dir():
                continue  # of something else
            raise ValueError(
                f'{file} must be named as tools/test.py --csv names it, Kshot_foldF_seedS.csv, '
                'which says what was tested'
            )
        label, place = named[1] or '', tuple(map(int, named.groups()[1:]))
        found.setdefault(label, {})[place] = _csv_run(file, label, *place)  # type: ignore[index]
    if not found:
        raise ValueError(f'{path} has no Kshot_foldF_seedS.csv of tools/test.py --csv')
    return found


def _csv_run(file: Path, label: str, shots: int, fold: int, seed: int) -> Run:
    try:
        counts, names = read_episodes(file.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{file}: {error}; tools/test.py --csv writes one') from error
    ious, miou, fb = few_shot_iou(sum_per_class(counts))
    metrics: Mapping[str, float] = {
        'mIoU': miou,
        'FB-IoU': fb,
        **{f'IoU/{names[class_id]}': value for class_id, value in ious.items()},
    }
    return Run(label, shots, fold, seed, metrics, (), {}, {}, {}, tuple(counts))
