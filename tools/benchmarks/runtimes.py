"""torch against OpenVINO: a cold episode, episodes from kept features, a further image to label, a
training step, in turns on one model; of each, in a process of its own, peak memory and seconds to
start."""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import pseudo_collate

from benchmarks.labelling import Labels, support_of
from benchmarks.pictures import FoldSpec, episodes_of, write_fold
from benchmarks.report import SECONDS, mib, spread, table
from benchmarks.running import Episodes
from benchmarks.subject import Subject, at_least, folder, subject_of
from benchmarks.timing import clock_of, held_bytes, interleaved, load, note, peak_bytes
from benchmarks.training import Step, batch_of
from benchmarks.worker import in_process
from mmfss.apis.inferencer import FewShotInferencer
from mmfss.encoders.runtimes import Runtimes, RuntimeSettings
from mmfss.encoders.runtimes.converted import missing
from mmfss.methods.base import FewShotModel

HELP = 'torch against OpenVINO: episodes, labelling, training step, memory'
TORCH = 'torch'
_IMAGES = 12  # to train on, which int8 is fitted to as well
_EPISODES = 20  # from kept features
_HELD = ('built: own', 'built: files', 'at the end: own', 'at the end: files')
_MEMORY = 2**31  # for what all runtimes keep


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    precisions = ('fp32', 'bf16', 'int8')
    parser.add_argument(
        '--precisions', nargs='+', choices=precisions, default=precisions, help="OpenVINO's"
    )
    parser.add_argument('--classes', type=int, nargs='+', default=[1, 5], help='N of labelling')
    parser.add_argument('--no-training', action='store_true', help='no training step')
    parser.add_argument('--no-memory', action='store_true', help='no peaks, which take processes')


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure.

    Returns:
        ``machine``; ``load`` averages before and after; ``seconds`` by work and runtime,
        interleaved; ``ratios`` of medians, torch to the other, by work; ``apart``: the largest
        difference of the logits of an episode to torch's, relative to the largest; ``processes``:
        by runtime ``peak_bytes`` of labelling, ``held`` bytes when the model is built (``built``)
        and at the end (``labelled``), see :func:`benchmarks.timing.held_bytes`, and
        ``start_seconds`` of a first image more than of a second, with converted models on disk.

    Raises:
        ValueError: no OpenVINO; see :class:`mmfss.encoders.runtimes.Runtimes`.
    """
    at_least(args, 1, 'classes')
    subject, before = subject_of(args), load()
    if (fault := missing()) is not None:
        raise ValueError(fault)
    with folder(args.data) as root:
        spec = FoldSpec.asked(args, subject.side, _IMAGES, 4)
        files = sorted(str(f) for f in (write_fold(root, spec) / 'JPEGImages').iterdir())
        photos = tuple(f for f in files if Path(f).name.startswith('train_'))
        settings: dict[str, dict[str, Any]] = {TORCH: dict(type='torch')}
        for name in args.precisions:
            fitted = dict(calibration=photos) if name == 'int8' else {}
            settings[name] = dict(type='openvino', precision=name, **fitted)
        runtimes = {name: Runtimes(RuntimeSettings.of(how)) for name, how in settings.items()}
        model, clock = subject.build(dict(memory_bytes=_MEMORY)), clock_of(subject.target)
        batch = pseudo_collate([episodes_of(root, spec, subject.side, 1, 2)[0]])
        logits: dict[str, torch.Tensor] = {}
        episode = {name: partial(_episode, model, batch, logits, name) for name in runtimes}
        works: dict[str, dict[str, Callable[[], Any]]] = {'1-shot episode, cold': dict(episode)}
        number = 2 if args.quick else _EPISODES
        kept = f'{number} 1-shot episodes from kept features'
        dataset = episodes_of(root, spec, subject.side, 1, number, defer_images=True)
        works[kept] = dict.fromkeys(runtimes, Episodes(model, dataset, subject).run)
        pictures = [Path(f) for f in files if Path(f).name.startswith('val_')]
        for classes in args.classes:
            further = works.setdefault(f'a further image, {classes} classes', {})
            for name, runtime in runtimes.items():
                note(f'supports of {classes} classes: {name}')
                inferencer = FewShotInferencer(model, threshold=0.0, amp=args.amp)
                with model.encoding.run_by(runtime):
                    inferencer.set_support(support_of(classes, 1, spec))
                further[name] = Labels(inferencer, pictures)
        if not args.no_training:  # last: after it only what is frozen is converted
            step = Step(model, batch_of(root, spec, subject, 1), subject)
            works['training step, batch 1'] = {name: step for name in runtimes if name != 'int8'}
        repeats = args.repeats or (1 if args.quick else 5)
        seconds = {}
        for work, jobs in works.items():
            note(work)
            bound = {
                n: partial(_by, model, runtimes[n], job, work == kept) for n, job in jobs.items()
            }
            seconds[work] = interleaved(bound, repeats, clock)
        processes = {}
        for name, how in {} if args.no_memory else settings.items():
            note(f'process: {name}')
            about = dict(subject=asdict(subject), runtime=how, photos=files, spec=asdict(spec))
            processes[name] = in_process('runtimes', **about)
    return dict(
        machine=subject.machine(args.quick),
        load=[before, load()],
        seconds=seconds,
        ratios={
            work: {n: found[TORCH]['median'] / one['median'] for n, one in found.items()}
            for work, found in seconds.items()
        },
        apart={name: _apart(found, logits[TORCH]) for name, found in logits.items()},
        processes=processes,
    )


def _by(model: FewShotModel, runtime: Runtimes, job: Callable[[], Any], cached: bool) -> None:
    cache = nullcontext() if cached else model.encoding.without_cache()
    with model.encoding.run_by(runtime), cache:
        job()


def _episode(
    model: FewShotModel, batch: dict[str, Any], logits: dict[str, torch.Tensor], name: str
) -> None:
    with torch.no_grad():
        (sample,) = model.test_step(copy.deepcopy(batch))
    logits[name] = sample.seg_logits.data


def _apart(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found - truth).abs().max() / truth.abs().max())


def measured_process(
    subject: dict[str, Any], runtime: dict[str, Any], photos: list[str], spec: dict[str, Any]
) -> dict[str, Any]:
    """Job of a process of its own: labels three images."""
    about = Subject(**subject)
    about.prepare()
    model = about.build()
    held = dict(built=held_bytes())
    spent = []
    with model.encoding.run_by(Runtimes(RuntimeSettings.of(runtime))):
        inferencer = FewShotInferencer(model, threshold=0.0, amp=about.amp)
        for _ in range(2):
            start = time.perf_counter()
            inferencer.set_support(support_of(1, 1, FoldSpec(**spec)))
            spent.append(time.perf_counter() - start)
        for photo in photos[:3]:
            inferencer(photo)
        held['labelled'] = held_bytes()
    start = spent[0] - spent[1]
    return dict(peak_bytes=peak_bytes(about.target), held=held, start_seconds=start)


def tables(results: dict[str, Any]) -> list[str]:
    """What is printed."""
    rows = [
        [work, name, *spread(entry, 1000), f'{results["ratios"][work][name]:.2f} x']
        for work, found in results['seconds'].items()
        for name, entry in found.items()
    ]
    apart = [[name, f'{value:.1e}'] for name, value in results['apart'].items()]
    processes = []
    for name, entry in results['processes'].items():
        held = [now.get(of) for now in entry['held'].values() for of in ('own', 'files')]
        sizes = [None if size is None else mib(size) for size in (entry['peak_bytes'], *held)]
        processes.append([name, *sizes, f'{entry["start_seconds"]:.1f}'])
    return [
        table(['work', 'runtime', *SECONDS, 'faster'], rows),
        table(['runtime', 'logits of an episode, of the largest'], apart),
        table(['process that labels', 'peak memory', *_HELD, 's to start'], processes),
        f'load averages before and after: {results["load"]}',
    ]
