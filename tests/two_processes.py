"""A function run in two processes of one gloo group, for tests."""

from __future__ import annotations

import multiprocessing
import socket
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed as dist

TIMEOUT = 120  # seconds


def _work(rank: int, port: int, queue: Any, function: Callable, args: tuple) -> None:
    try:
        dist.init_process_group(
            'gloo',
            f'tcp://127.0.0.1:{port}',
            rank=rank,
            world_size=2,
            timeout=timedelta(seconds=TIMEOUT),
        )
        result = function(*args)
        dist.destroy_process_group()
    except BaseException:
        result = traceback.format_exc()
    queue.put((rank, result))


def in_two_processes(function: Callable, *args: Any) -> list:
    """What ``function(*args)`` gives in rank 0 and 1; the traceback as text where it fails.

    Forked, so that the function and its arguments need not be importable.
    """
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    processes = [
        context.Process(target=_work, args=(rank, port, queue, function, args)) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    results = dict(queue.get(timeout=TIMEOUT) for _ in processes)
    for process in processes:
        process.join(timeout=TIMEOUT)
    return [results[0], results[1]]
