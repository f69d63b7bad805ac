"""What a matcher costs beside its encoder, per further image: full size, random weights.

    python tools/analysis_tools/matcher_cost.py --shots 1 20

The supports are encoded once before. Bare encoder and methods take turns on the same image, so that
what else the machine does hits all of them; the figure is the median of the ratios of a round.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from mmengine.config import Config
from mmseg.registry import MODELS

import mmfss.methods  # noqa: F401
from mmfss.batching import take
from mmfss.configs import find_method


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--methods', nargs='+', default=['prototype', 'density'])
    parser.add_argument('--shots', nargs='+', type=int, default=[1, 20])
    parser.add_argument('--rounds', type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(0)
    models = {}
    for method in args.methods:
        cfg = Config.fromfile(find_method(method)).model
        cfg.feature_cache = None
        models[method] = MODELS.build(cfg).eval()  # no init_weights: the weights are random
    first = next(iter(models.values()))  # whose encoder serves all methods: it is one config
    side = first.image_size
    images = torch.rand(max(args.shots), 3, side, side) * 255
    masks = torch.zeros(1, max(args.shots), side, side, dtype=torch.uint8)
    masks[..., side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = 1
    supports = first.encode_image(images, 'support')
    states = {
        (method, shots): model.encode_support(take(supports, slice(shots)), masks[:, :shots])
        for method, model in models.items()
        for shots in args.shots
    }
    query = torch.rand(1, 3, side, side) * 255
    rounds = []
    for _ in range(args.rounds + 1):  # the first warms up
        start = time.perf_counter()
        features = first.encode_image(query)
        seconds = {'encoder': time.perf_counter() - start}
        for key, state in states.items():
            start = time.perf_counter()
            models[key[0]].segment(features, state)
            seconds[key] = time.perf_counter() - start
        rounds.append(seconds)
    encoder = statistics.median(seconds['encoder'] for seconds in rounds[1:])
    print(f'{side} px, torch {torch.__version__}, {torch.get_num_threads()} threads')
    print(f'encoder: {1000 * encoder:.0f} ms')
    for key in states:
        ratio = statistics.median(1 + s[key] / s['encoder'] for s in rounds[1:])
        rest = statistics.median(seconds[key] for seconds in rounds[1:])
        print(
            f'{key[0]}, K = {key[1]}: {1000 * rest:.1f} ms after it, together {ratio:.4f} x '
            'the encoder'
        )


if __name__ == '__main__':
    main()
