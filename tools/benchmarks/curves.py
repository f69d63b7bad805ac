"""Cost curves: time and peak memory against shots, classes, image side and batch."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import subject_of
from benchmarks.labelling import support_of
from benchmarks.pictures import FoldSpec, episodes_of, write_fold
from benchmarks.report import mib, table
from benchmarks.running import Episodes
from benchmarks.subject import Subject
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
    subject = subject_of(args)
    values = points_of(args, subject)
    small = [x for name, xs in values.items() for x in xs if x < 1]
    if small:
        raise ValueError(f'--shots, --classes, --sides and --batches must be >= 1, got {small}')
    curves: dict[str, list[dict[str, Any]]] = {}
    for name, xs in values.items():
        for x in xs:
            note(f'{PANELS[name][0]}: {x}')
            point = in_process(
                'point',
                subject=subject.to_dict(),
                panel=name,
                x=x,
                photo_size=list(args.photo_size),
                repeats=args.repeats or (1 if args.quick else 3),
                seed=args.seed,
            )
            curves.setdefault(name, []).append(dict(x=x, **point))
    draw(curves, args.figure)
    return dict(curves=curves)


def points_of(args: argparse.Namespace, subject: Subject) -> dict[str, list[int]]:
    """Values of each axis."""
    own = subject.side
    sides = args.sides or sorted({max(64, own * f // 4 // 32 * 32) for f in (2, 3, 4, 6)})
    values = dict(shots=args.shots, classes=args.classes, sides=sides, batches=args.batches)
    if args.quick:
        values = {name: xs[:2] for name, xs in values.items()}
    return values


def measured_point(
    subject: dict[str, Any], panel: str, x: int, photo_size: list[int], repeats: int, seed: int
) -> dict[str, Any]:
    """Job of a process of its own: seconds of one x on a panel, and the most memory it held."""
    changes = dict(image_size=x) if panel == 'sides' else {}
    about = Subject(**{**subject, **changes})
    about.prepare()
    if panel == 'classes':
        seconds = _labelling(about, x, photo_size, repeats, seed)
    else:
        shots, batch = (x, 1) if panel == 'shots' else (1, x if panel == 'batches' else 1)
        seconds = _episodes(about, shots, batch, photo_size, repeats, seed)
    return dict(seconds=summary(seconds), peak_bytes=peak_bytes(about.target))


def _episodes(
    subject: Subject, shots: int, batch: int, photo_size: list[int], repeats: int, seed: int
) -> list[float]:
    """Seconds of an episode; of the first turn nothing counts."""
    with tempfile.TemporaryDirectory() as root:
        images = max(6, shots + 1)
        width, height = photo_size
        spec = FoldSpec(images, 'photos', width, height, shots + 1, seed)
        dataset = episodes_of(write_fold(root, spec), spec, subject.side, shots, batch)
        runner = Episodes(subject.build(), dataset, batch, subject.context())
        return [runner.run().total / batch for _ in range(repeats + 1)][1:]


def _labelling(
    subject: Subject, classes: int, photo_size: list[int], repeats: int, seed: int
) -> list[float]:
    """Seconds of a further image with 1-shot classes; of the first nothing counts."""
    about = argparse.Namespace(photo_size=photo_size, seed=seed)
    inferencer = FewShotInferencer(subject.build(), threshold=0.0, amp=subject.amp)
    inferencer.set_support(support_of(classes, 1, about))
    image = support_of(1, 1, argparse.Namespace(photo_size=photo_size, seed=seed + 1))
    clock, spent = clock_of(subject.target), []
    for _ in range(repeats + 1):
        start = clock()
        inferencer(image['class 0'][0][0])
        spent.append(clock() - start)
    return spent[1:]


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
    texts = []
    for name, points in results['curves'].items():
        rows = [
            [p['x'], *(p['seconds'][k] for k in ('median', 'low', 'high')), mib(p['peak_bytes'])]
            for p in points
        ]
        texts.append(table([PANELS[name][0], PANELS[name][1], 'low', 'high', 'peak'], rows))
    return texts
