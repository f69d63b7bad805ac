"""How what a run spends is shared among its stages, without a change to what runs.

Python calls back at each call and return (:func:`sys.setprofile`); those of the functions that
begin a stage switch the account that is charged. A stage inside another is taken out of it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from types import CodeType, FrameType
from typing import Any

from mmengine.evaluator import Evaluator
from torch.utils.data import Dataset

from benchmarks.naive import NaiveFSSAM
from benchmarks.plain import explicit_prior
from mmfss import functional
from mmfss.features import cache, fingerprint, images
from mmfss.methods.fssam.model import FSSAM

Rule = str | Mapping[str, str]
"""Name of a stage; or, for what runs in several, names by the stage around it ('' for others)."""
OTHER = 'other'
READ, SAM2, PRIOR = 'read + resize', 'SAM 2 encoder', 'prior encoder'
KEPT = 'feature cache'
FINGERPRINT = 'fingerprint of the encoders'
ENCODERS = (SAM2, PRIOR)
_SUPPORT = 'prototypes, keys'


def code_of(function: Callable) -> CodeType:
    """Code that runs when a function is called, below its decorators."""
    return inspect.unwrap(function).__code__


def rules_of(model: FSSAM, dataset: Dataset | None = None) -> dict[CodeType, Rule]:
    """What begins a stage when episodes of ``dataset`` go through ``model``."""
    sam2, kind = type(model.sam2), type(model)
    rules: dict[CodeType, Rule] = {
        code_of(images.DeferredImage.read): READ,
        code_of(cache.FeatureCache.get): KEPT,
        code_of(cache.FeatureCache.put): KEPT,
        code_of(fingerprint.fingerprint): FINGERPRINT,
        code_of(type(model.data_preprocessor).forward): 'check + stack',
        code_of(kind.encode_support): _SUPPORT,
        code_of(sam2.decode): 'decoder',
        code_of(functional.logits_to_mask): 'resize + metric',
        code_of(Evaluator.process): 'resize + metric',
    }
    attention = type(model.sam2.memory_attention)
    for name in ('forward', 'encode_query', 'attend'):
        if hasattr(attention, name):
            rules[code_of(getattr(attention, name))] = 'attention'
    for method in (sam2.encode_image, sam2.encode_trunk, sam2.encode_neck, sam2.forward_image):
        rules[code_of(method)] = SAM2
    for method in (sam2.encode_memory, NaiveFSSAM._memory):
        rules[code_of(method)] = {_SUPPORT: 'support memory', '': 'query memories'}
    for method in (sam2.encode_pointer, sam2._use_mask_as_output):
        rules[code_of(method)] = {_SUPPORT: 'support pointer', '': 'query pointer'}
    plain = ((explicit_prior, PRIOR), (NaiveFSSAM._prompts, 'prompts'))
    for function, name in (*plain, (NaiveFSSAM._refined, 'refinement')):
        rules[code_of(function)] = name
    parts = (
        (model.prior_encoder, PRIOR),
        (model.prompt_generator, 'prompts'),
        (model.memory_refinement, 'refinement'),
    )
    for part, name in parts:
        if part is not None:
            rules[code_of(type(part).forward)] = name
    if dataset is not None:
        rules[code_of(type(dataset).__getitem__)] = READ
    return rules


class Stages:
    """Shares what ``read`` counts among stages; a context manager, one thread, not nested.

    Args:
        rules: of :func:`rules_of`.
        read: a count that never falls, e.g. seconds.
        enter, leave: called with the name of a stage where one begins and ends.

    Attributes:
        spent: stage -> share, in the order in which stages began.
    """

    def __init__(
        self,
        rules: Mapping[CodeType, Rule],
        read: Callable[[], float],
        enter: Callable[[str], Any] | None = None,
        leave: Callable[[str], Any] | None = None,
    ) -> None:
        self.rules, self.read, self.enter, self.leave = dict(rules), read, enter, leave
        self.spent: dict[str, float] = {}
        self._stack: list[str] = []
        self._last = 0.0

    def __enter__(self) -> Stages:
        self.spent, self._stack, self._last = {}, [OTHER], self.read()
        sys.setprofile(self._event)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.setprofile(None)
        self._charge()

    def _charge(self) -> None:
        now = self.read()
        top = self._stack[-1]
        self.spent[top] = self.spent.get(top, 0.0) + now - self._last
        self._last = now

    def _event(self, frame: FrameType, event: str, argument: Any) -> None:
        if event not in ('call', 'return'):
            return
        rule = self.rules.get(frame.f_code)
        if rule is None:
            return
        self._charge()
        if event == 'call':
            self._stack.append(self._name(rule))
            if self.enter is not None:
                self.enter(self._stack[-1])
        elif len(self._stack) > 1:
            name = self._stack.pop()
            if self.leave is not None:
                self.leave(name)
        self._last = self.read()

    def _name(self, rule: Rule) -> str:
        if isinstance(rule, str):
            return rule
        return next((rule[name] for name in reversed(self._stack) if name in rule), rule[''])
