"""Compare mmfss with reference tensors of published methods, stage by stage.

    python tools/analysis_tools/check_parity.py DIR [DIR ...] [--cases a_1shot_b1 ...] [--quiet]
        [--device cuda]

A DIR holds ``index.json`` (method, architecture, cases, tolerances), weights, inputs and one
``.npz`` per case; or it holds such directories, which are then all compared. ``metric.npz``,
``constants.npz`` and ``units.npz`` (single functions) are cases of their own where they are there.
Prints a row per case and stage (with ``--quiet`` only those that fail) and a summary per case.

Exit status:
0  all cases of all methods that mmfss has were compared, each stage is within its tolerance.
   Directories of other methods are reported as "no such method" and change nothing; with
   ``--device`` so are those of methods that are compared on the CPU alone, by their name.
1  a stage is outside its tolerance or was not compared, or nothing at all was compared.
2  a directory, a file or a case could not be used, or there is no such case. The others are
   compared all the same.

What a method leaves out by name, with the reason, is not asked of it: FSSAM's ``released`` cases,
which record what published code does with several supports. ``--cases`` compares those too.

With ``--device`` the method computes there, in fp32 without TF32, and its stages are compared on
the CPU; the tolerances stay those of the CPU. The metric counts on the CPU in any case.

A method is a subclass of ``parity_reference.Comparer`` in a module of its own and an entry of
``METHODS``.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from mmengine.logging import MMLogger

if importlib.util.find_spec('mmfss') is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from parity_fs_sam2 import FSSAM2
from parity_fssam import FSSAM
from parity_gf_sam import GFSAM
from parity_insid3 import INSID3
from parity_metric import check_metric
from parity_persam import PerSAM
from parity_reference import Comparer, Reference, Row, check_case
from parity_sam2_baseline import SAM2Baseline
from parity_sansa import SANSA

import mmfss  # noqa: F401  (registers the models)

#: a method of mmfss -> what computes its stages
METHODS: dict[str, type[Comparer]] = {
    'FSSAM': FSSAM,
    'FSSAM2': FSSAM2,
    'GF-SAM': GFSAM,
    'INSID3': INSID3,
    'PerSAM': PerSAM,
    'SAM2Memory': SAM2Baseline,
    'SANSA': SANSA,
}


@dataclass
class Findings:
    """What was found in a directory.

    Attributes:
        rows: one per comparison.
        left_out: case -> why it was not compared.
    """

    rows: list[Row] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def directories(paths: list[str]) -> tuple[list[Reference], list[str]]:
    """Directories at or right below paths, each once, and what is wrong with those of no use."""
    found: dict[Path, Reference] = {}
    errors = []
    for path in map(Path, paths):
        inside = [path]
        if path.is_dir() and not (path / 'index.json').is_file():
            folders = sorted(p for p in path.iterdir() if p.is_dir())
            inside = [p for p in folders if (p / 'index.json').is_file()] or [path]
            for folder in folders if inside != [path] else ():
                if folder not in inside:
                    print(f'{folder}: left out, it has no index.json')
        for root in inside:
            try:
                found.setdefault(root.resolve(), Reference(root))
            except (FileNotFoundError, ValueError) as error:
                errors.append(str(error))
    return list(found.values()), errors


def method_of(ref: Reference) -> str | None:
    """Name in :data:`METHODS` of a directory's method; None where it is none of them."""
    return next((name for name, kind in METHODS.items() if kind.recognises(ref.index)), None)


def comparer_of(ref: Reference, device: torch.device | str = 'cpu') -> Comparer | str:
    """What compares a directory on a device; where nothing does, why."""
    name = method_of(ref)
    if name is None:
        return f'no such method: {ref.name}; there is {", ".join(METHODS)}'
    kind = METHODS[name]
    if torch.device(device).type == 'cpu':
        return kind(ref)
    if not kind.any_device:
        able = ', '.join(key for key, other in METHODS.items() if other.any_device)
        return f'{name} is left out: it is compared on the CPU alone; on {device} there is {able}'
    return kind(ref, device)


def parts_of(comparer: Comparer) -> dict[str, Callable[[], list[Row]]]:
    """Files of a directory that are cases of their own."""
    return {'metric': lambda: check_metric(comparer.ref), **comparer.parts()}


def check(comparer: Comparer, cases: list[str] | None = None, debug: bool = False) -> Findings:
    """Compare everything in a directory.

    Args:
        comparer: of its method.
        cases: names to restrict to; by default all that the method does not leave out, and the
            files that are cases of their own.
        debug: raise what goes wrong with a case instead of reporting it.
    """
    ref, parts = comparer.ref, parts_of(comparer)
    left_out = comparer.left_out()
    for name in parts:
        if not ref.has(f'{name}.npz') and name not in ref.index:
            left_out[name] = f'there is no {ref.root / name}.npz'
    found = Findings(left_out=left_out if cases is None else {})
    for name in [*ref.cases, *parts]:
        if name in left_out if cases is None else name not in cases:
            continue
        try:
            rows = parts[name]() if name in parts else check_case(comparer, name)
            found.rows += rows or [Row.failed(name, '-', 'has nothing to compare')]
        except Exception as error:  # whatever it is: the other cases are compared
            if debug:
                raise
            note = ' '.join(str(error).split())
            if not isinstance(error, (OSError, ValueError)) or str(ref.root) not in note:
                kind = type(error).__name__
                note = f'{ref.root}/{name}.npz with index.json cannot be used: {kind}: {note}'
            found.rows.append(Row.failed(name, '-', note, broken=True))
    if not found.rows and cases is None:
        found.rows.append(Row.failed('-', '-', 'the directory has nothing to compare'))
    return found


def report(found: Findings, every: bool) -> None:
    """Print the rows and the summary of a directory."""
    print(f'{"case":24} {"stage":44} {"max error":>10} {"bound":>10} {"rel L2":>10} {"bound":>10}')
    for row in found.rows:
        if every or not row.ok:
            print(
                f'{row.case:24} {row.stage:44} {row.error:10.2e} {row.bound:10.2e} '
                f'{row.rl2:10.2e} {row.rl2_bound:10.2e} {"ok" if row.ok else "FAILED"} {row.note}'
            )
    for case in dict.fromkeys(row.case for row in found.rows):
        mine = [row for row in found.rows if row.case == case]
        bad = sum(not row.ok for row in mine)
        print(f'{case:24} {len(mine) - bad} of {len(mine)} stages within tolerance')
    for case, reason in found.left_out.items():
        print(f'{case:24} left out: {reason}')


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        'roots', metavar='DIR', nargs='+', help='directory with index.json, or one that holds such'
    )
    parser.add_argument('--cases', nargs='+', help='only these cases')
    parser.add_argument('--device', default='cpu', help='where the method runs (%(default)s)')
    parser.add_argument('--quiet', action='store_true', help='print only rows that fail')
    parser.add_argument('--debug', action='store_true', help='stop at the first error of a case')
    args = parser.parse_args(argv)
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        parser.error(f'--device must be cpu, cuda or one like cuda:1 that is here: {error}')
    refs, errors = directories(args.roots)
    found_for = {ref: comparer_of(ref, args.device) for ref in refs}
    comparers = {ref: found for ref, found in found_for.items() if not isinstance(found, str)}
    names = [name for ref in refs for name in ref.cases]
    names += [name for comparer in comparers.values() for name in parts_of(comparer)]
    unknown = sorted(set(args.cases or ()) - set(names))
    if unknown and refs:
        where, known = ', '.join(str(ref.root) for ref in refs), list(dict.fromkeys(names))
        errors.append(f'unknown cases {unknown}; {where} has {known}')
        refs = []
    rows: list[Row] = []
    for ref in refs:
        if ref not in comparers:
            print(f'{ref.root}: {found_for[ref]}')
            continue
        print(f'{ref.root}: {method_of(ref)}')
        found = check(comparers[ref], args.cases, args.debug)
        report(found, not args.quiet)
        rows += found.rows
    skipped = sorted(set(args.cases or ()) - {row.case for row in rows} - set(unknown))
    if skipped and rows:
        print(f'cases {skipped} were not compared: they are of methods that there are not')
    errors += [row.note for row in rows if row.broken]
    for text in dict.fromkeys(errors):
        print(f'check_parity: {text}', file=sys.stderr)
    if not rows and not errors:
        print('check_parity: nothing was compared', file=sys.stderr)
    return 2 if errors else int(not rows or bool(skipped) or any(not row.ok for row in rows))


if __name__ == '__main__':
    MMLogger.get_current_instance().setLevel('ERROR')  # a line for each file that is loaded
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    sys.exit(main())
