"""What ``tools/freeze_episodes.py`` does: the test episodes of a config, written to a file."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS

from mmfss.commands.evaluation_plan import Request, read_configs
from mmfss.commands.train import make_parser
from mmfss.commands.variables import options_in_environment
from mmfss.datasets.frozen import freeze, frozen_path
from mmfss.files import check_writable


def main(argv: Sequence[str] | None = None) -> list[str]:
    """Run ``tools/freeze_episodes.py`` with these arguments (default: the command line's).

    Returns:
        Paths of the files that were written.

    Raises:
        ValueError, FileNotFoundError: wrong arguments, config or data.
    """
    parser = make_parser(
        'Write the test episodes of a config to a file, which '
        'test_dataloader.dataset.episodes_file=FILE replays on the same data anywhere.',
        runs=False,
    )
    parser.add_argument('file', help='JSON file; {fold}, {shots} and {seed} in it are filled in')
    parser.add_argument('--folds', nargs='+', type=int, help='instead of FOLD')
    parser.add_argument('--shots', nargs='+', type=int, help="default: the config's")
    parser.add_argument('--seed', type=int, help="default: the config's")
    parser.add_argument('--episodes', type=int, help="number; default: the config's")
    parser.add_argument('--sampler', help='image_list, uniform_class or balanced')
    args = vars(parser.parse_args(argv))
    pattern, seed = args.pop('file'), args.pop('seed')
    args['cfg_options'] = args.pop('cfg_options') or {}
    with options_in_environment(args):
        request = Request(checkpoints=[], seeds=None if seed is None else [seed], **args)
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
        episodes = [data.episode(i) for i in range(len(data))]
        freeze(name, episodes, data.split, data.role, data.protocol, data.index)
        print(f'{len(episodes)} {data.shots}-shot episodes of fold {data.split.fold} in {name}')
    return names
