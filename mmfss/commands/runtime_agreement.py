"""What ``mmfss runtimes`` does: two runtimes on the same images, of a folder or a benchmark."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from mmseg.registry import DATASETS, METRICS
from torch import Tensor

from mmfss.apis.images import as_bgr, files_below, to_model_size
from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.loading import load_model
from mmfss.apis.nway import as_input
from mmfss.apis.support_folder import check_support, read_support
from mmfss.checkpoints.provenance import read_checkpoint
from mmfss.commands.command_lines import RunArguments, RuntimesArguments, parse
from mmfss.commands.ending import refusing
from mmfss.commands.evaluation_checks import check_guard
from mmfss.commands.evaluation_plan import metric_entry
from mmfss.commands.preparation import episodic
from mmfss.commands.train import load_config
from mmfss.commands.variables import options_in_environment
from mmfss.datasets.folds import FoldSplit
from mmfss.encoders.runtimes import Runtimes, RuntimeSettings
from mmfss.evaluation.agreement import Agreement
from mmfss.evaluation.comparison import Compared, Method
from mmfss.evaluation.report import Run
from mmfss.evaluation.report_text import to_json
from mmfss.files import check_writable, write_text
from mmfss.methods.base import FewShotModel

_CACHE = dict(memory_bytes=2**30)  # features are looked at after the masks, and not computed again


def main(argv: Sequence[str] | None = None) -> int:
    """:func:`run` with a command line, by default the process's."""
    return run(parse(RuntimesArguments, argv))


def run(args: RuntimesArguments) -> int:
    """Compare, print and write; 1 where the masks agree less than is asked for.

    Raises:
        SystemExit: with status 2 and what is wrong, in a line: options that contradict each other;
            no photos or supports; see :class:`mmfss.encoders.runtimes.Runtimes`.
    """
    with refusing():
        return _compared(args)


def _compared(args: RuntimesArguments) -> int:
    if math.isnan(args.least):
        raise ValueError(f'--least must be a number, got {args.least}')
    if (args.support is None) != (args.images is None):
        raise ValueError('give SUPPORT and IMAGES, or none of them to compare on a benchmark')
    unread = [n for n in ('benchmark', 'fold', 'episodes') if getattr(args, n) is not None]
    if args.images is not None and unread:
        raise ValueError(f'--{unread[0]} is of a benchmark; leave it out, or SUPPORT and IMAGES')
    if args.out is not None:
        check_writable(args.out, '--out')
    found, more = _on_episodes(args) if args.images is None else _on_photos(args)
    said = dict(found.record(), **more.pop('record', {}))
    print('\n'.join([found.text(), *more.pop('lines', ())]))
    if args.out is not None:
        write_text(args.out, to_json(said) + '\n')
        print(f'written to {args.out}')
    if said['iou']['mean'] < args.least:
        print(f'the mean IoU is below {args.least}')
        return 1
    return 0


def _pair(settings: Mapping[str, Any] | None) -> tuple[tuple[str, str], tuple[Runtimes, Runtimes]]:
    """torch in fp32 and the one that is asked for, by default OpenVINO in fp32, with names."""
    other = RuntimeSettings.of(settings or 'openvino')
    if not other.named:
        raise ValueError(
            f'--runtime {other.type} would be compared with torch; give --runtime openvino, and '
            '--precision for its arithmetic'
        )
    both = Runtimes(RuntimeSettings('torch')), Runtimes(replace(other, type='openvino'))
    return ('torch fp32', f'openvino {other.precision}'), both


def _features(model: FewShotModel, images: Tensor) -> dict[str, tuple[Tensor, ...]]:
    return model.encoding(model.query_encoders, images)


# ------------------------------------------------------------------------------ a folder of photos
def _on_photos(args: RuntimesArguments) -> tuple[Agreement, dict[str, Any]]:
    check_support(args.support)
    files = files_below(args.images)
    if not files:
        raise ValueError(f'{args.images} holds no photo')
    names, runtimes = _pair(args.encoder_runtime())
    how: dict[str, Any] = dict(method=args.method, grey_values=args.grey_values())
    first = FewShotInferencer(
        args.config, args.weights, 'cpu', runtime='torch', feature_cache=_CACHE, **how
    )
    model = first.model
    support = read_support(args.support, first)[0]
    both = [
        FewShotInferencer(model, threshold=first.threshold, grey_values=args.grey_values())
        for _ in names
    ]
    for inferencer, runtime in zip(both, runtimes):
        with model.encoding.run_by(runtime):
            inferencer.set_support(support)  # and converts
    found = Agreement(names)
    for file in files:
        photo = as_bgr(file, grey_values=first.grey_values)
        small = as_input(to_model_size(photo, first.image_size, first.resize), model.device)
        labels, features, seconds = [], [], []
        for inferencer, runtime in zip(both, runtimes):
            with model.encoding.run_by(runtime), torch.no_grad():
                start = time.perf_counter()
                labels.append(inferencer.predict([photo], [str(file)])[0].labels)
                seconds.append(time.perf_counter() - start)
                features.append(_features(model, small))
        found.add(str(file), labels, features, seconds)
    return found, {}


# ------------------------------------------------------------------------------ a benchmark
def _on_episodes(args: RuntimesArguments) -> tuple[Agreement, dict[str, Any]]:
    if args.config is None:
        raise ValueError('give --config CONFIG of a benchmark, or SUPPORT and IMAGES')
    given = RunArguments(
        args.config, method=args.method, benchmark=args.benchmark, fold=args.fold,
        runtime=args.runtime or 'openvino', precision=args.precision,
        calibration=args.calibration, feature_cache='none', work_dir='.',
    )  # fmt: skip
    with options_in_environment(given):
        cfg = load_config(given, 'mmfss runtimes')
    names, runtimes = _pair(cfg.model.pop('encoder_runtime'))
    if args.weights is not None:
        check_guard(cfg, read_checkpoint(args.weights)[1], args.weights)
    model = load_model(cfg, args.weights, 'cpu', _CACHE, encoder_runtime='torch')
    episodes = copy.deepcopy(dict(next(episodic(cfg.test_dataloader))))
    if args.episodes is not None:
        episodes['num_episodes'] = args.episodes
    dataset = DATASETS.build(dict(episodes, defer_images=False))
    metrics = [METRICS.build(copy.deepcopy(metric_entry(cfg.test_evaluator))) for _ in names]
    found = Agreement(names)
    for number, batch in enumerate(_warm(dataset, model, runtimes)):
        masks, features, seconds = [], [], []
        query = model.data_preprocessor(copy.deepcopy(batch))['inputs']['query']
        for metric, runtime in zip(metrics, runtimes):
            with model.encoding.run_by(runtime), torch.no_grad():
                start = time.perf_counter()
                (sample,) = model.test_step(copy.deepcopy(batch))
                seconds.append(time.perf_counter() - start)
                features.append(_features(model, query))
            metric.process(None, [sample.to_dict()])
            masks.append(sample.pred_sem_seg.data[0].numpy())
        found.add(f'episode {number}', masks, features, seconds)
    return found, _figures(names, metrics, dataset)


def _warm(
    dataset: Any, model: FewShotModel, runtimes: Sequence[Runtimes]
) -> Iterator[dict[str, Any]]:
    """The episodes as batches of one, after the first has been run: that converts."""
    for number in range(len(dataset)):
        batch = pseudo_collate([dataset[number]])
        if number == 0:
            for runtime in runtimes:
                with model.encoding.run_by(runtime), model.encoding.without_cache():
                    model.test_step(copy.deepcopy(batch))
        yield batch


def _figures(names: Sequence[str], metrics: Sequence[Any], dataset: Any) -> dict[str, Any]:
    """mIoU of both and their difference with its paired interval."""
    split = dataset.metainfo['split']
    split = split if isinstance(split, FoldSplit) else FoldSplit.from_dict(split)
    place = dataset.shots, split.fold, dataset.seed
    methods = []
    for name, metric in zip(names, metrics):
        metric.dataset_meta = dataset.metainfo
        figures = metric.evaluate(len(dataset))
        start = f'{metric.prefix}/' if metric.prefix else ''
        own = {key.removeprefix(start): value for key, value in figures.items()}
        protocol = dict(dataset.protocol, absent_classes=metric.absent_classes)
        made = Run(name, *place, own, (), protocol, {}, {}, metric.counts)
        methods.append(Method(name, ({place: made},)))
    one, other = reversed(methods)
    (mean,) = (d for d in Compared([one, other]).differences if d.scope == 'mean')
    miou = {m.name: m.trainings[0][place].metrics['mIoU'] for m in methods}
    low, high = mean.interval.low, mean.interval.high
    said = dict(mIoU=miou, difference=dict(value=mean.value, interval=[low, high], p=mean.p))
    line = (
        f'mIoU: {miou[names[0]]:.2f} by {names[0]}, {miou[names[1]]:.2f} by {names[1]}; difference '
        f'{mean.value:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}'
    )
    return dict(record=said, lines=[line])
