"""Cost curves: time and peak memory against shots, classes, image side and batch."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.labelling import support_of
from benchmarks.pictures import FoldSpec, episodes_of
from benchmarks.report import mib, spread, table
from benchmarks.running import Episodes
from benchmarks.subject import Subject, at_least, subject_of
from benchmarks.timing import clock_of, note, peak_bytes, summary
from benchmarks.worker import in_process
from mmfss.apis.inferencer import FewShotInferencer
from mmfss.files import atomic, check_writable

HELP = 'time and peak memory against K, N, image side and batch; a figure'
PANELS = {
    'shots': ('shots K', 'time of a cold episode (s)'),
    'classes': ('classes N', 'time of a further image (s)'),
    'sides': ('image side (px)', 'time of a cold 1-shot episode (s)'),
    'batches': ('episodes in a batch', 'time of an episode (s)'),
}
"""Axes of each panel: x, y."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument('--shots', type=int, nargs='+', default=[1, 2, 5, 10])
    parser.add_argument('--classes', type=int, nargs='+', default=[1, 2, 5])
    parser.add_argument('--sides', type=int, nargs='+', help='default: half to twice the own side')
    parser.add_argument('--batches', type=int, nargs='+', default=[1, 2, 4])
    parser.add_argument('--figure', default='curves.png', help='.png, .pdf or .svg (%(default)s)')


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure each point in a process of its own, and draw.

    Returns:
        ``curves``: for each panel a list of points ``x``, ``seconds``, ``peak_bytes``.
    """
    if Path(args.figure).suffix not in ('.png', '.pdf', '.svg'):
        raise ValueError(f'--figure must end in .png, .pdf or .svg, got {args.figure!r}')
    check_writable(args.figure, '--figure')
    at_least(args, 1, *PANELS)
    subject = subject_of(args)
    own = subject.side
    sides = args.sides or sorted({max(64, own * f // 4 // 32 * 32) for f in (2, 3, 4, 6)})
    about = dict(photo_size=list(args.photo_size), repeats=args.repeats or (1 if args.quick else 3))
    curves: dict[str, list[dict[str, Any]]] = {}
    for name, (label, _) in PANELS.items():
        values = sides if name == 'sides' else getattr(args, name)
        for x in values[:2] if args.quick else values:
            note(f'{label}: {x}')
            point = in_process('point', subject=asdict(subject), panel=name, x=x, **about)
            curves.setdefault(name, []).append(dict(x=x, **point))
    draw(curves, args.figure)
    return dict(curves=curves)


def measured_point(
    subject: dict[str, Any], panel: str, x: int, photo_size: list[int], repeats: int
) -> dict[str, Any]:
    """Job of a process of its own: seconds of one x on a panel, and the most memory it held."""
    about = Subject(**subject)
    about = replace(about, image_size=x) if panel == 'sides' else about
    about.prepare()
    shots, batch = (x if panel == name else 1 for name in ('shots', 'batches'))
    model, clock, spent = about.build(), clock_of(about.target), []
    width, height = photo_size
    spec = FoldSpec(max(6, shots + 1), 'photos', width, height, shots + 1, about.seed)
    if panel == 'classes':
        inferencer = FewShotInferencer(model, threshold=0.0, amp=about.amp)
        inferencer.set_support(support_of(x, 1, spec))
        image = support_of(1, 1, replace(spec, seed=about.seed + 1))['class 0'][0][0]
        for _ in range(repeats + 1):
            start = clock()
            inferencer(image)
            spent.append(clock() - start)
    else:
        with tempfile.TemporaryDirectory() as root:
            dataset = episodes_of(root, spec, about.side, shots, batch)
            runner = Episodes(model, dataset, about, batch)
            spent = [runner.run().total / batch for _ in range(repeats + 1)]
    return dict(seconds=summary(spent[1:]), peak_bytes=peak_bytes(about.target))


def draw(curves: dict[str, list[dict[str, Any]]], path: str) -> None:
    """Four panels: time on the left axis from 0 on, peak memory on the right one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.4), dpi=120, layout='constrained')
    FigureCanvasAgg(figure)
    for axes, (name, points) in zip(figure.subplots(2, 2).ravel(), curves.items()):
        xs = [point['x'] for point in points]
        times = [point['seconds']['median'] for point in points]
        memory = [point['peak_bytes'] / 2**30 for point in points]
        (line,) = axes.plot(xs, times, 'o-', color='#0072B2', label='time (left)')
        right = axes.twinx()
        (other,) = right.plot(xs, memory, 's--', color='#D55E00', label='peak memory (right)')
        axes.set(xlabel=PANELS[name][0], ylabel=PANELS[name][1], xticks=xs)
        right.set_ylabel('peak memory (GiB)')
        axes.set_ylim(0, 1.1 * max(times))
        right.set_ylim(0, 1.1 * max(memory))
        axes.grid(alpha=0.25)
        axes.legend(handles=[line, other], loc='lower right', fontsize='small')
    with atomic(path) as part:
        figure.savefig(part, format=Path(path).suffix[1:])


def tables(results: dict[str, Any]) -> list[str]:
    """What is printed."""
    return [
        table(
            [*PANELS[name], 'low', 'high', 'peak'],
            [[p['x'], *spread(p['seconds']), mib(p['peak_bytes'])] for p in points],
        )
        for name, points in results['curves'].items()
    ]
