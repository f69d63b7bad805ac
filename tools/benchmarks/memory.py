"""What an episode holds at most in each of its stages."""

from __future__ import annotations

import json
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.stages import MARK, OTHER, Rule, Stages, marks

_CPU = 0  # "Device Type" of the profiler's trace


def held_by_stage(
    rules: Mapping[CodeType, Rule], run: Callable[[Stages], Any], cuda: bool = False
) -> dict[str, dict[str, int]]:
    """Count what a run allocates.

    Args:
        rules: of :func:`benchmarks.stages.rules_of`.
        run: once, within the stages that it is given.
        cuda: of tensors count those on the GPU, else those on the CPU.

    Returns:
        Stage -> ``tensors`` and ``arrays`` (NumPy and Python), in bytes: the most that was held
        at a time while the stage ran, what was there before not counted, such as weights. What
        libraries allocate by themselves (OpenCV, scratch of oneDNN) is in none of them.
    """
    arrays: dict[str, int] = {}
    stack = [OTHER]
    mark, unmark = marks()

    def take() -> None:
        arrays[stack[-1]] = max(arrays.get(stack[-1], 0), tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()

    def enter(name: str) -> None:
        take()
        stack.append(name)
        mark(name)

    def leave(name: str) -> None:
        unmark(name)
        take()
        stack.pop()

    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if cuda else [])
    with profile(activities=activities, profile_memory=True) as profiler:
        tracemalloc.start()
        try:
            run(Stages(rules, time.perf_counter, enter, leave))
            take()
        finally:
            tracemalloc.stop()
    with tempfile.TemporaryDirectory(prefix='mmfss-benchmark-') as folder:
        trace = Path(folder) / 'trace.json'
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())['traceEvents']
    tensors = _peaks(events, cuda)
    return {
        stage: dict(tensors=tensors.get(stage, 0), arrays=arrays.get(stage, 0))
        for stage in sorted({*tensors, *arrays} - {OTHER})
    }


def _peaks(events: list[dict], cuda: bool) -> dict[str, int]:
    """Highest sum of the allocations of a trace so far, within each stage."""
    steps: list[tuple[float, int, str, int]] = []  # time, order at one time, stage, bytes
    for event in events:
        name = event.get('name', '')
        if name == '[memory]' and (event['args']['Device Type'] != _CPU) == cuda:
            steps.append((event['ts'], 1, '', event['args']['Bytes']))
        elif name.startswith(MARK) and event.get('cat') == 'user_annotation':
            stage = name.removeprefix(MARK)
            steps.append((event['ts'], 0, stage, 1))
            steps.append((event['ts'] + event['dur'], 2, stage, -1))
    held, stack, peaks = 0, [OTHER], {}
    for _, order, stage, change in sorted(steps, key=lambda step: step[:2]):
        if order == 1:
            held += change
        elif order == 0:
            stack.append(stage)
        else:
            stack.pop()
        peaks[stack[-1]] = max(peaks.get(stack[-1], 0), held)
    return peaks
