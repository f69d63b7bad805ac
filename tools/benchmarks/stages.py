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

import torch
from mmengine.evaluator import Evaluator
from torch.profiler import record_function
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop

from benchmarks import naive
from mmfss import functional
from mmfss.features import cache, fingerprint, images
from mmfss.methods.base import FewShotModel
from mmfss.methods.fssam.model import FSSAM
from mmfss.methods.gf_sam import GFSAM
from mmfss.methods.gf_sam import votes as gf_sam
from mmfss.methods.insid3 import INSID3
from mmfss.methods.insid3.matching import average_linkage, backward_votes
from mmfss.methods.sam2_memory import SAM2Memory

Rule = str | Mapping[str, str]
"""Name of a stage; or, for what runs in several, names by the stage around it ('' for others)."""
OTHER = 'other'
MARK = 'stage: '
"""Before the stage's name in a trace."""
READ, SAM2, PRIOR = 'read + resize', 'SAM 2 encoder', 'prior encoder'
KEPT = 'feature cache'
FINGERPRINT = 'fingerprint of the encoders'
ENCODERS = {'sam2': SAM2, 'prior_encoder': PRIOR, 'encoder': 'encoder'}
"""Stage of an encoder, by its name in the method."""
_SUPPORT, _JOINED = 'prototypes, keys', 'joined batch'


def code_of(function: Callable) -> CodeType:
    """Code that runs when a function or a module is called, below its decorators."""
    return inspect.unwrap(getattr(function, 'forward', function)).__code__


def rules_of(model: FewShotModel, dataset: Dataset | None = None) -> dict[CodeType, Rule]:
    """What begins a stage when episodes of ``dataset`` go through ``model``."""
    stages: dict[Any, Rule] = {
        images.DeferredImage.read: READ,
        cache.FeatureCache.get: KEPT,
        cache.FeatureCache.put: KEPT,
        fingerprint.fingerprint: FINGERPRINT,
        model.data_preprocessor: 'check + stack',
        model.encode_support: _SUPPORT,
        model.segment: 'segment',
        functional.logits_to_mask: 'resize + metric',
        Evaluator.process: 'resize + metric',
    }
    for name, encoder in model.encoders.items():
        for step in (encoder, *(step.run for step in encoder.steps())):
            stages[step] = ENCODERS.get(name, name)
    if dataset is not None:
        stages[type(dataset).__getitem__] = READ
    if isinstance(model, GFSAM):
        stages.update({
            model.encode_query: 'similarities',
            model.maps: 'similarities',
            model.masks: 'decoder',
            gf_sam.union_logits: 'union',
        })  # fmt: skip
    if isinstance(model, INSID3):
        stages.update({average_linkage: 'clustering', backward_votes: 'matching'})
    if isinstance(model, SAM2Memory):
        stages.update({
            model.sam2.encode_memory: 'support memory',
            model.sam2.encode_pointer: 'support pointer',
            model.sam2.memory_attention: 'attention',
            model.sam2.decode: 'decoder',
        })  # fmt: skip
    if isinstance(model, (FSSAM, naive.NaiveFSSAM)):
        del stages[model.segment]
        sam2, attention = model.sam2, model.sam2.memory_attention
        stages.update({
            model.prompt_generator: 'prompts',
            naive.pseudo_masks: 'prompts',
            model.memory_refinement: 'refinement',
            naive.refine: 'refinement',
            sam2.forward_image: SAM2,
            naive.explicit_prior: PRIOR,
            attention.encode_query: 'attention',
            attention.attend: 'attention',
            naive.attend: 'attention',
            sam2.decode: 'decoder',
            **dict.fromkeys(
                (sam2.encode_memory, naive.memory_of),
                {_SUPPORT: 'support memory', _JOINED: 'memories', '': 'query memories'},
            ),
            **dict.fromkeys(
                (sam2.encode_pointer, sam2._use_mask_as_output),
                {_SUPPORT: 'support pointer', _JOINED: 'pointers', '': 'query pointer'},
            ),
        })  # fmt: skip
        if isinstance(model, FSSAM):  # supports and query of an episode go together
            stages[model.run_episode] = _JOINED
            stages.update(dict.fromkeys((model._prototypes, model._support_state), _SUPPORT))
        stages.pop(None, None)  # parts that the model does without
    return {code_of(function): stage for function, stage in stages.items()}


def flop_counter() -> FlopCounterMode:
    """torch's counter, with the attention of CPUs, which it leaves out."""

    def attention(query: Any, key: Any, value: Any, *rest: Any, **more: Any) -> int:
        return sdpa_flop(query, key, value)

    name = '_scaled_dot_product_flash_attention_for_cpu'
    return FlopCounterMode(display=False, custom_mapping={getattr(torch.ops.aten, name): attention})


def marks() -> tuple[Callable[[str], Any], Callable[[str], Any]]:
    """``enter`` and ``leave`` of :class:`Stages` that show stages to :mod:`torch.profiler`, as
    spans of the name ``MARK + stage``."""
    spans: list[record_function] = []

    def enter(name: str) -> None:
        spans.append(record_function(MARK + name))
        spans[-1].__enter__()

    def leave(name: str) -> None:
        spans.pop().__exit__(None, None, None)

    return enter, leave


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
            if not isinstance(rule, str):
                rule = next(
                    (rule[name] for name in reversed(self._stack) if name in rule), rule['']
                )
            self._stack.append(rule)
            if self.enter is not None:
                self.enter(self._stack[-1])
        elif len(self._stack) > 1:
            name = self._stack.pop()
            if self.leave is not None:
                self.leave(name)
        self._last = self.read()
