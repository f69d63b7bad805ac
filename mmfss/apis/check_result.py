"""What a self-check says: of each support, of each class, of the set; and of several methods.

IoU and scores are in 0..1, and in percent in texts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfss.evaluation.presence import roc_auc
from mmfss.evaluation.report_text import table_lines

SAME_PHOTO = 'from changed copies of the same photo, which says little'
"""What stands beside figures of a class with one photo."""
_T_975 = 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228
"""Student's t at 97.5 %, for 1 to 10 degrees of freedom."""


@dataclass(frozen=True)
class SupportCheck:
    """A support that was predicted from the others of its class.

    Attributes:
        source: of the support.
        iou: of its mask and the predicted one, in the model's S x S pixels; 255 does not count.
        score: object score of the class in it.
        oddness: how far it is from the others, see :func:`mmfss.apis.self_check.oddness`; NaN where
            there are fewer than two others to compare.
        reason: why it is named as one that spoils the set; '' for all others.
        others: mean IoU of the others, with it and without it among the supports; given for one
            that is named.
    """

    source: str
    iou: float
    score: float
    oddness: float = math.nan
    reason: str = ''
    others: tuple[float, float] | None = None


@dataclass(frozen=True)
class ClassCheck:
    """A class.

    Attributes:
        name: of the class.
        supports: its K supports; with one photo its changed copies.
        absent: object scores of the class in images of other classes.
        same_photo: the class has one photo, and ``supports`` are changed copies of it.
    """

    name: str
    supports: tuple[SupportCheck, ...]
    absent: tuple[float, ...] = ()
    same_photo: bool = False

    @property
    def expected(self) -> float:
        """Mean IoU. K - 1 supports predict, so it is slightly low for K."""
        return float(np.mean([one.iou for one in self.supports]))

    @property
    def spread(self) -> float | None:
        """Standard deviation of the IoU from image to image; None for one."""
        ious = [one.iou for one in self.supports]
        return float(np.std(ious, ddof=1)) if len(ious) > 1 else None

    @property
    def interval(self) -> tuple[float, float]:
        """Where the mean IoU over many images of the class lies, at 95 %.

        Student's t with the variance of Nadeau and Bengio (2003), ``s^2 (1 / K + 1 / (K - 1))``:
        predictions that share supports are not independent. All of (0, 1) where nothing is known.
        """
        count, spread = len(self.supports), self.spread
        if spread is None or self.same_photo:
            return 0.0, 1.0
        degrees = count - 1
        # beyond the table by its expansion in 1 / degrees, right to 1e-3
        t = _T_975[degrees - 1] if degrees <= 10 else 1.96 + 2.372 / degrees + 2.82 / degrees**2
        half = t * spread * math.sqrt(1 / count + 1 / degrees)
        return max(0.0, self.expected - half), min(1.0, self.expected + half)

    @property
    def present(self) -> tuple[float, ...]:
        """Object scores where the class is."""
        return tuple(one.score for one in self.supports)

    @property
    def threshold(self) -> float | None:
        """Half-way between the mean score where the class is and where it is not, to 4 digits.

        None where that is not known: a class with one photo, fewer than two images of each kind, or
        scores that are no higher where the class is.
        """
        if self.same_photo or min(len(self.supports), len(self.absent)) < 2:
            return None
        there, absent = np.mean(self.present), np.mean(self.absent)
        return round(float(there + absent) / 2, 4) if there > absent else None

    @property
    def separation(self) -> float | None:
        """Area under the ROC curve of the scores: 1 they do not overlap, 0.5 they say nothing."""
        if not self.absent:
            return None
        scores = np.array([*self.present, *self.absent])
        return roc_auc(scores, np.arange(len(scores)) < len(self.supports))

    @property
    def wrong_side(self) -> tuple[int, int] | None:
        """At the threshold: images of the class that score below, and of others that do not."""
        if self.threshold is None:
            return None
        below = sum(score < self.threshold for score in self.present)
        return below, sum(score >= self.threshold for score in self.absent)

    @property
    def spoilers(self) -> tuple[SupportCheck, ...]:
        """Supports that are named, the oddest first."""
        named = [one for one in self.supports if one.reason]
        return tuple(sorted(named, key=lambda one: -one.oddness))

    def line(self) -> str:
        """What there is to say, in one line."""
        if self.same_photo:
            return f'{self.name}: IoU {_percent(self.expected)} % {SAME_PHOTO}; mark more photos'
        low, high = self.interval
        text = (
            f'{self.name}: expected IoU {_percent(self.expected)} % ({_percent(low)} to '
            f'{_percent(high)}), {len(self.supports)} supports'
        )
        if self.threshold is not None and self.wrong_side is not None:
            below, above = self.wrong_side
            wrong, images = below + above, len(self.supports) + len(self.absent)
            text += (
                f'; threshold {self.threshold:.2f}, {wrong} of {images} images on its wrong side'
            )
        elif self.absent:
            text += '; object scores do not tell where it is absent'
        for one in self.spoilers:
            text += f'; look at {one.source}: {one.reason}'
        return text


@dataclass(frozen=True)
class SelfCheck:
    """A support set.

    Attributes:
        method: the model's class.
        encoders: classes of its encoders.
        classes: each, in the order of the labels.
    """

    method: str
    encoders: tuple[str, ...]
    classes: tuple[ClassCheck, ...]

    @property
    def expected(self) -> float:
        """Mean expected IoU of the classes."""
        return float(np.mean([one.expected for one in self.classes]))

    @property
    def spoilers(self) -> dict[str, tuple[SupportCheck, ...]]:
        """Supports that spoil the set, by class; classes without any are left out."""
        return {one.name: one.spoilers for one in self.classes if one.spoilers}

    def thresholds(self, default: float | Mapping[str, float]) -> dict[str, float]:
        """A threshold of each class: the one that was found, else ``default``."""
        found = {}
        for one in self.classes:
            other = default[one.name] if isinstance(default, Mapping) else default
            found[one.name] = float(other) if one.threshold is None else one.threshold
        return found

    def lines(self) -> list[str]:
        """One line per class."""
        return [one.line() for one in self.classes]

    def rows(self) -> list[list[str]]:
        """A table, its head first: a row per class."""
        head = ['class', 'supports', 'expected IoU %', '95 %', 'spread', 'threshold', 'there']
        rows = [[*head, 'absent', 'wrong side', 'separation']]
        for one in self.classes:
            known = not one.same_photo
            low, high = one.interval
            wrong = one.wrong_side
            scores = _mean(one.present) if known else '-'
            rows.append([
                one.name,
                f'{len(one.supports)}' if known else '1 photo',
                _percent(one.expected) if known else f'({_percent(one.expected)})',
                f'{_percent(low)} to {_percent(high)}',
                '-' if one.spread is None or not known else _percent(one.spread),
                '-' if one.threshold is None else f'{one.threshold:.2f}',
                scores,
                _mean(one.absent),
                '-' if wrong is None else f'{wrong[0]} + {wrong[1]}',
                '-' if one.separation is None or not known else f'{one.separation:.2f}',
            ])  # fmt: skip
        return rows

    def notes(self) -> list[str]:
        """What the table does not say: supports to look at, and classes of one photo."""
        notes = []
        for name, supports in self.spoilers.items():
            for one in supports:
                text = f'look at {one.source} of {name}: {one.reason}'
                if one.others is not None:
                    before, after = (_percent(value) for value in one.others)
                    text += f'; the others are predicted with IoU {before} %, without it {after} %'
                notes.append(text)
        single = [one.name for one in self.classes if one.same_photo]
        if single:
            notes.append(
                f'{", ".join(single)}: IoU {SAME_PHOTO}: it is high where other photos look '
                'different. Mark a second photo of the class, better five'
            )
        return notes

    def text(self) -> str:
        """Table and notes, in lines."""
        head = f'{self.method} ({", ".join(self.encoders) or "no encoder"})'
        return '\n'.join([head, *table_lines(self.rows(), False), *self.notes()])

    def record(self) -> dict[str, Any]:
        """All of it in JSON types, for run.json."""
        return dict(
            method=self.method,
            encoders=list(self.encoders),
            classes=[
                dict(
                    name=one.name,
                    expected=_rounded(one.expected),
                    spread=_rounded(one.spread),
                    interval=[_rounded(value) for value in one.interval],
                    threshold=one.threshold,
                    separation=_rounded(one.separation),
                    same_photo=one.same_photo,
                    absent=[_rounded(score) for score in one.absent],
                    line=one.line(),
                    supports=[
                        dict(
                            source=support.source,
                            iou=_rounded(support.iou),
                            score=_rounded(support.score),
                            oddness=_rounded(support.oddness),
                            reason=support.reason,
                            others=support.others and [_rounded(x) for x in support.others],
                        )
                        for support in one.supports
                    ],
                )
                for one in self.classes
            ],
        )


@dataclass(frozen=True)
class Comparison:
    """The same supports by several methods.

    Attributes:
        checks: by the name of the candidate, in the order given.
        refused: why the others were not tried, by name.
    """

    checks: Mapping[str, SelfCheck]
    refused: Mapping[str, str]

    @property
    def recommended(self) -> str | None:
        """The candidate with the largest expected IoU; None without any."""
        if not self.checks:
            return None
        return max(self.checks, key=lambda name: self.checks[name].expected)

    @property
    def equals(self) -> tuple[str, ...]:
        """Candidates that are as good within the error: their IoU of the same supports is lower by
        less than two standard errors."""
        best = self.recommended
        if best is None:
            return ()
        top = _ious(self.checks[best])
        found = []
        for name, check in self.checks.items():
            gap = top - _ious(check)
            error = gap.std(ddof=1) / math.sqrt(len(gap)) if len(gap) > 1 else math.inf
            if name != best and not gap.mean() > 2 * error:
                found.append(name)
        return tuple(found)

    def text(self) -> str:
        """A row per candidate, then which one to take."""
        rows = [['method', 'model', 'expected IoU %', 'lowest class', 'separation']]
        for name, one in self.checks.items():
            lowest = min(one.classes, key=lambda c: c.expected)
            separations = [c.separation for c in one.classes if c.separation is not None]
            rows.append([
                name,
                f'{one.method} ({", ".join(one.encoders) or "no encoder"})',
                _percent(one.expected),
                f'{lowest.name} {_percent(lowest.expected)}',
                _mean(separations),
            ])  # fmt: skip
        lines = table_lines(rows, False) if self.checks else []
        lines += [f'{name}: not tried, {why}' for name, why in self.refused.items()]
        if self.recommended is not None:
            also = f'; as good within the error: {", ".join(self.equals)}' if self.equals else ''
            lines.append(f'recommended for these photos: {self.recommended}{also}')
        return '\n'.join(lines)


def _ious(check: SelfCheck) -> np.ndarray:
    return np.array([support.iou for one in check.classes for support in one.supports])


def _percent(value: float) -> str:
    return f'{100 * value:.0f}'


def _mean(scores: Sequence[float]) -> str:
    return f'{np.mean(scores):.2f}' if len(scores) else '-'


def _rounded(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(float(value), 4)
