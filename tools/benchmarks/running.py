"""Episodes through dataset, preprocessor, model and metric, as ``tools/test.py`` runs them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from torch.utils.data import DataLoader

from benchmarks.memory import held_by_stage
from benchmarks.stages import Stages, flop_counter, rules_of
from benchmarks.subject import Subject
from benchmarks.timing import clock_of, note
from mmfss.datasets.episodes import EpisodicDataset
from mmfss.evaluation.counts import EpisodeCounts
from mmfss.evaluation.metrics import FewShotIoUMetric
from mmfss.methods.base import FewShotModel

TOLERANCE = 1e-3
"""Largest difference of logits that passes, relative to the largest logit: fp32 sums in another
order. The published formulation itself moves by as much between 1 and 2 threads."""
AMP_TOLERANCE = 5e-2
KEPT_LOGITS = 64  # episodes of which logits are kept for comparison


@dataclass
class Outcome:
    """What came out of some episodes.

    Attributes:
        seconds: of each batch, reading and metric included.
        stages: stage -> seconds of all episodes; empty where they were not taken apart.
        logits: (1, S, S) of the first ``KEPT_LOGITS`` episodes.
        masks: packed bits of the predicted masks of all.
        figures: of the metric. counts: of each episode.
        cache: counters of the model's feature cache, empty without one.
    """

    seconds: list[float] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    logits: list[torch.Tensor] = field(default_factory=list)
    masks: list[np.ndarray] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    counts: tuple[EpisodeCounts, ...] = ()
    cache: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """Seconds of all episodes."""
        return sum(self.seconds)

    @property
    def episodes(self) -> int:
        """How many there were."""
        return len(self.counts)


class Episodes:
    """Runs episodes of a dataset through a model.

    Args:
        model: in eval mode.
        dataset: of :func:`benchmarks.pictures.episodes_of`.
        subject: whose device and autocast are used.
        batch: episodes at a time.
        staged: take the seconds apart by stage.
    """

    def __init__(
        self,
        model: FewShotModel,
        dataset: EpisodicDataset,
        subject: Subject,
        batch: int = 1,
        staged: bool = False,
    ) -> None:
        self.model, self.dataset, self.subject, self.batch = model, dataset, subject, batch
        self.clock = clock_of(subject.target)
        self.stages = Stages(rules_of(model, dataset), self.clock) if staged else None

    def run(self, limit: int | None = None) -> Outcome:
        """All episodes, or the first ``limit``."""
        number = len(self.dataset) if limit is None else min(limit, len(self.dataset))
        evaluator = Evaluator([FewShotIoUMetric(absent_classes='exclude')])
        evaluator.dataset_meta = self.dataset.metainfo
        batches = iter(
            DataLoader(self.dataset, self.batch, sampler=range(number), collate_fn=pseudo_collate)
        )
        out = Outcome()
        with self.stages or nullcontext():
            while True:
                start = self.clock()
                batch = next(batches, None)
                if batch is None:
                    break
                with self.subject.context(), torch.no_grad():
                    samples = self.model.test_step(batch)
                evaluator.process(samples, batch)
                out.seconds.append(self.clock() - start)
                for sample in samples:
                    if len(out.logits) < KEPT_LOGITS:
                        out.logits.append(sample.seg_logits.data.cpu())
                    out.masks.append(np.packbits(sample.pred_sem_seg.data.cpu().numpy()))
                if len(out.seconds) % 50 == 0:
                    note(f'{len(out.masks)} episodes, {out.total:.0f} s')
        if self.stages is not None:
            out.stages = dict(self.stages.spent)
        out.figures = dict(evaluator.evaluate(number))
        out.counts = evaluator.metrics[0].counts
        if self.model.encoding.cache is not None:
            out.cache = asdict(self.model.encoding.cache.stats)
        return out

    def flops(self) -> dict[str, float]:
        """Operations (a multiplication and an addition are two) of the first episode, by stage;
        matrix products, convolutions and attention are counted."""
        counter = flop_counter()
        rules = rules_of(self.model, self.dataset)
        with counter:
            return self._first(Stages(rules, lambda: float(counter.get_total_flops()))).stages

    def held(self) -> dict[str, dict[str, int]]:
        """Bytes of the first episode by stage: see :func:`benchmarks.memory.held_by_stage`."""
        rules = rules_of(self.model, self.dataset)
        return held_by_stage(rules, self._first, self.subject.target.type == 'cuda')

    def _first(self, stages: Stages) -> Outcome:
        runner = Episodes(self.model, self.dataset, self.subject)
        runner.stages = stages
        return runner.run(1)


def tolerance_of(subject: Subject) -> float:
    """Of logits, relative to the largest."""
    return AMP_TOLERANCE if subject.amp else TOLERANCE


def difference(ours: Outcome, other: Outcome, tolerance: float = TOLERANCE) -> dict[str, Any]:
    """How far two runs of the same episodes are apart; the shorter one decides how many.

    Returns:
        ``episodes`` compared, ``max_logit_difference`` and ``max_logit`` (of the first ones),
        ``tolerance``, ``different_pixels`` of ``pixels`` (of all masks), ``miou_difference`` in
        points, None where the runs have different lengths.
    """
    pairs = list(zip(ours.logits, other.logits))
    # of tensors, whose maximum hands a NaN on
    largest = float(torch.stack([b.abs().max() for _, b in pairs]).max())
    apart = float(torch.stack([(a.double() - b.double()).abs().max() for a, b in pairs]).max())
    masks = list(zip(ours.masks, other.masks))
    pixels = sum(8 * len(b) for _, b in masks)
    different = sum(int(np.unpackbits(a ^ b).sum()) for a, b in masks)
    same_length = ours.episodes == other.episodes
    return dict(
        episodes=len(masks),
        max_logit_difference=apart,
        max_logit=largest,
        tolerance=tolerance,
        different_pixels=different,
        pixels=pixels,
        miou_difference=ours.figures['mIoU'] - other.figures['mIoU'] if same_length else None,
    )


def fault_of(found: Mapping[str, Any]) -> str | None:
    """What is wrong with a :func:`difference`: logits differ by more than ``tolerance`` times the
    largest one, or masks in more pixels than that explains (one in a thousand)."""
    apart, largest, tolerance = (
        found[key] for key in ('max_logit_difference', 'max_logit', 'tolerance')
    )
    different, pixels = found['different_pixels'], found['pixels']
    if apart <= tolerance * largest and different <= tolerance * pixels:
        return None
    return (
        f'results are not equal: logits differ by {apart:.3g} where {tolerance:g} of the '
        f'largest ({largest:.3g}) is allowed, masks in {different} of {pixels} pixels. One of '
        'the two is wrong: run tests/test_benchmarks and tests/test_methods'
    )


def compare(ours: Outcome, other: Outcome, tolerance: float = TOLERANCE) -> dict[str, Any]:
    """Their :func:`difference`.

    Raises:
        ValueError: it is too large, see :func:`fault_of`.
    """
    found = difference(ours, other, tolerance)
    if (fault := fault_of(found)) is not None:
        raise ValueError(fault)
    return found
