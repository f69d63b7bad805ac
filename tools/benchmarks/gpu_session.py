"""What the sections of ``benchmark.py gpu`` share: variants, models, timing, what went wrong."""

from __future__ import annotations

import argparse
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch

from benchmarks.pictures import FoldSpec
from benchmarks.running import Outcome, difference, fault_of
from benchmarks.subject import Subject
from benchmarks.timing import clock_of, interleaved, note, summary
from mmfss.methods.base import FewShotModel

FP32, BF16, FIRST, COMPILED = 'fp32', 'bf16', 'bf16, channels first', 'bf16, compiled'
Result = TypeVar('Result')
Job = Callable[[], Any]
Rows = dict[str, dict[str, dict[str, Any]]]
"""What was timed: work -> variant -> figures."""


def variants_of(subject: Subject) -> dict[str, Subject]:
    """What is compared; only SAM 2 has a memory layout of its own."""
    if not subject.model_config().get('sam2'):
        half = replace(subject, amp=True)
        return {FP32: subject, BF16: half, COMPILED: replace(half, compile=True)}
    last = replace(subject, channels_last=True)
    half = replace(last, amp=True)
    return {
        FP32: last,
        BF16: half,
        FIRST: replace(half, channels_last=False),
        COMPILED: replace(half, compile=True),
    }


class Session:
    """What the sections share: pictures, a model of each variant, and what became of each part.

    Args:
        args: of the subcommand.
        subject: what the options name.
        root: folder of the pictures.
        tf32: the switches as they were found.

    Attributes:
        now: the variants that are measured at the moment: all but the compiled one, then that one.
        outcomes: variant -> of the same episode.
        failed: part -> what was raised, or which results are not equal.
        left_out: part -> why it was not begun.
    """

    def __init__(
        self, args: argparse.Namespace, subject: Subject, root: str, tf32: Mapping[str, bool]
    ) -> None:
        self.args, self.root, self.tf32 = args, root, dict(tf32)
        self.variants = variants_of(subject)
        self.subject = self.variants[FP32]
        self.target, self.side = subject.target, subject.side
        self.cuda = self.target.type == 'cuda'
        self.clock = clock_of(self.target)
        images = 6 if args.quick else 48
        self.spec = FoldSpec.asked(args, self.side, images, 2)
        self.repeats = args.repeats or (1 if args.quick else 7 if self.cuda else 3)
        # calls in a row, as one is soon over on a GPU
        self.calls = 10 if self.cuda else 1
        self.now: tuple[str, ...] = tuple(name for name in self.variants if name != COMPILED)
        self.outcomes: dict[str, Outcome] = {}
        self.peaks: dict[str, float] = {}
        self.failed: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self._models: dict[str, FewShotModel] = {}
        self._start = time.monotonic()

    def model(self, variant: str) -> FewShotModel:
        """The same weights for each variant; built once."""
        if variant not in self._models:
            note(f'model: {variant}')
            self._models[variant] = self.variants[variant].build()
        return self._models[variant]

    def attempt(self, part: str, job: Callable[[], Result]) -> Result | None:
        """What the job gives; None where it raised or time is up, and it is kept which."""
        limit = self.args.limit
        if time.monotonic() - self._start >= limit:
            self.left_out[part] = f'it would have begun after --limit {limit:g} seconds'
            return None
        try:
            return job()
        except Exception as error:  # whatever it is: the others are measured
            traceback.print_exc()
            said = ' '.join(str(error).split())
            self.failed[part] = f'{type(error).__name__}: {said}'[:2000]
        if self.cuda:
            with suppress(RuntimeError):  # after some errors the GPU fails for good
                torch.cuda.empty_cache()
        return None

    def apart(self, part: str, ours: Outcome, other: Outcome, tolerance: float) -> dict[str, Any]:
        """How far outcomes are apart; too far is a failure of the part, with its figures kept."""
        found = difference(ours, other, tolerance)
        if (fault := fault_of(found)) is not None:
            self.failed[part] = fault
        return found

    def timed(
        self, section: str, makers: Mapping[tuple[str, str], Callable[[], Job]], calls: int = 1
    ) -> Rows:
        """Time jobs, the variants of a work taking turns.

        Args:
            section: for messages.
            makers: (work, variant) -> what makes its job. One that fails leaves the others alone.
            calls: how many a job makes.

        Returns:
            Of each ``seconds`` of a call, ``warm_up_seconds`` (making the job and its first run,
            compilation included) and on a GPU ``before_bytes`` and ``peak_bytes`` of a run.
        """
        rows: Rows = {}
        for work in dict.fromkeys(work for work, _ in makers):
            jobs: dict[str, Job] = {}
            entries: dict[str, dict[str, Any]] = {}
            for variant in (v for w, v in makers if w == work):
                part = f'{section}: {work}, {variant}'
                note(part)
                made = self.attempt(part, partial(self._warmed, makers[work, variant]))
                if made is not None:
                    jobs[variant], entries[variant] = made
            timing = partial(interleaved, jobs, self.repeats, self.clock, warmup=0)
            seconds = self.attempt(f'{section}: {work}', timing) if jobs else None
            if seconds is not None:
                for variant, entry in seconds.items():
                    each = [value / calls for value in entry['values']]
                    entries[variant]['seconds'] = summary(each)
                rows[work] = entries
        return rows

    def _warmed(self, make: Callable[[], Job]) -> tuple[Job, dict[str, Any]]:
        start = self.clock()
        job = make()
        job()
        entry: dict[str, Any] = dict(warm_up_seconds=self.clock() - start)
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(self.target)
            before = torch.cuda.memory_allocated(self.target)
            job()
            torch.cuda.synchronize(self.target)
            peak = torch.cuda.max_memory_allocated(self.target)
            entry.update(before_bytes=before, peak_bytes=peak)
        return job, entry
