"""What ``mmfss freeze-episodes`` does: the test episodes of a config, written to a file."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS

from mmfss.commands.command_lines import FreezeArguments, Request, parse
from mmfss.commands.evaluation_plan import read_configs
from mmfss.datasets.episodes import EpisodicDataset
from mmfss.datasets.frozen import freeze, frozen_path
from mmfss.datasets.published_episodes import read_episodes
from mmfss.datasets.sampling import Episode
from mmfss.files import check_writable, identity_of


def main(argv: Sequence[str] | None = None) -> list[str]:
    """:func:`run` with a command line, by default the process's."""
    return run(parse(FreezeArguments, argv))


def run(args: FreezeArguments) -> list[str]:
    """Write the test episodes of a config to a file for each fold and K.

    Returns:
        Paths of the files that were written.

    Raises:
        ValueError, FileNotFoundError: wrong arguments, config or data.
    """
    pattern, seed = args.file, args.seed
    if args.published is not None and (seed is not None or args.sampler is not None):
        raise ValueError(
            f'--seed and --sampler have no effect on the episodes of {args.published}; leave them '
            'out, or leave out --published'
        )
    request = Request(
        args.config,
        checkpoints=[],
        method=args.method,
        benchmark=args.benchmark,
        fold=args.fold,
        cfg_options=args.cfg_options,
        folds=args.folds,
        shots=args.shots,
        seeds=None if seed is None else [seed],
        episodes=args.episodes,
        sampler=args.sampler,
    )
    configs = [cfg.test_dataloader.dataset for cfg in read_configs(request).values()]
    datasets = []
    for cfg in configs:
        for shots in request.shots or [cfg.shots]:
            entries = dict(cfg, shots=shots, seed=cfg.get('seed', 0) if seed is None else seed)
            with DefaultScope.overwrite_default_scope('mmseg'):
                datasets.append(DATASETS.build(copy.deepcopy(entries)))
    names = [
        frozen_path(pattern, fold=data.split.fold, shots=data.shots, seed=data.seed)
        for data in datasets
    ]
    if len(set(names)) < len(names):
        raise ValueError(
            f'{len(names)} sets of episodes would go to the one file {names[0]}; put {{fold}} and '
            '{shots} into its name'
        )
    for name in names:
        check_writable(name, 'FILE')
    for name, data in zip(names, datasets):
        episodes, protocol = drawn(data) if args.published is None else read(args, data)
        freeze(name, episodes, data.split, data.role, protocol, data.index)
        print(f'{len(episodes)} {data.shots}-shot episodes of fold {data.split.fold} in {name}')
    return names


def drawn(data: EpisodicDataset) -> tuple[list[Episode], dict]:
    """The episodes of a dataset, and how they were drawn."""
    return [data.episode(i) for i in range(len(data))], data.protocol


def read(args: FreezeArguments, data: EpisodicDataset) -> tuple[list[Episode], dict]:
    """The episodes of a published file for a dataset; as many as --episodes says, from the first
    on."""
    assert args.published is not None and data.index is not None
    episodes = read_episodes(args.published, data.split, data.shots, data.index)
    if (args.episodes or 0) > len(episodes):
        raise ValueError(
            f'--episodes is {args.episodes}, and {args.published} has {len(episodes)} of fold '
            f'{data.split.fold}, {data.shots}-shot'
        )
    file = identity_of(args.published)
    protocol = dict(data.protocol, sampler='published', order=None, seed=None, published=file)
    return episodes[: args.episodes], dict(protocol, query_min_area=None)
