"""What an episode costs: parameters, operations, time, memory."""

from __future__ import annotations

import resource
import sys
import time

import torch
from mmengine.runner import Runner
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from mmfss.engine.guards import bare_model
from mmfss.engine.loops import autocast_of

REPEATS = 3


def episode_cost(runner: Runner) -> dict[str, float]:
    """Of the first test episode, everything encoded: K supports and the query, nothing kept.

    Args:
        runner: After its ``test()``; nothing of it is changed.

    Returns:
        ``parameters`` and ``trained`` (of these with a gradient), numbers; ``gflop``, 10^9
        operations as torch counts them (a product and a sum are two; matrix products, convolutions
        and attention); ``ms``, median of three; ``memory``, bytes: on CUDA the most that torch held
        in these, elsewhere the most that the process has had so far.
    """
    model = bare_model(runner)
    loader = runner.test_loop.dataloader
    one = DataLoader(loader.dataset, batch_size=1, collate_fn=loader.collate_fn)
    episode = next(iter(one))
    cuda = next((p.device.type == 'cuda' for p in model.parameters()), False)
    with model.encoding.without_cache(), torch.no_grad(), autocast_of(runner.test_loop):
        # those of another runtime are not counted
        with model.encoding.in_torch(), FlopCounterMode(display=False) as counter:
            model.test_step(episode)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            model.test_step(episode)
            if cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    held *= 1 if sys.platform == 'darwin' else 1024
    parameters = list(model.parameters())
    return dict(
        parameters=sum(p.numel() for p in parameters),
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        gflop=counter.get_total_flops() / 1e9,
        ms=1000 * sorted(seconds)[REPEATS // 2],
        memory=torch.cuda.max_memory_allocated() if cuda else held,
    )
