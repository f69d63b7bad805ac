"""What comes after the encoders, by the runtime that runs these.

    model.light.run_episode(query, supports, masks, truth)   in the place of model.run_episode
    model.light.encode_query(features)                       of model.encode_query
    model.light.segment(query, state)                        of model.segment

Each gives what the method gives, less the trace. Where OpenVINO is asked for by name, it runs this
too if it is faster (:class:`mmfss.encoders.runtimes.Runtimes`): one query at a time, on a CPU,
without gradient or autocast, of a model that has not been trained in this process, where the method
says that it is static (:meth:`~mmfss.methods.base.FewShotModel.not_static`). There is one model for
each set of shapes, so for each number of supports. Elsewhere the method is called as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmfss.batching import walk, with_tensors
from mmfss.features.fingerprint import Fingerprint, WeightsVersion, fingerprint

if TYPE_CHECKING:
    from .base import FewShotModel, Segmentation


class LightPass:
    """Runs what a model does after its encoders, see the module.

    A change of weights is noticed at any time; other attributes of the model and its parts must not
    be set after the first use. A copy starts with nothing converted.
    """

    def __init__(self, model: FewShotModel) -> None:
        self.model = model
        self._functions: dict[Hashable, _Function] = {}
        self._made: tuple[WeightsVersion, Fingerprint] | None = None

    def __reduce__(self) -> tuple[type[LightPass], tuple]:
        return LightPass, (self.model,)

    def run_episode(
        self, query: Any, supports: Any, masks: Tensor, truth: Tensor | None = None
    ) -> Segmentation:
        """As :meth:`~mmfss.methods.base.FewShotModel.run_episode`; of a method whose supports are
        not static the second step."""
        model, given = self.model, (query, supports, masks)
        if truth is not None:
            return model.run_episode(*given, truth)
        whole = self._graph('run_episode', ('segment', 'encode_support'), given)
        if whole is not None:
            return whole()
        if (
            model.in_two_steps
            and 'encode_support' in model.not_static()
            and self._may(('segment',))
        ):
            return self.segment(query, model.encode_support(supports, masks))
        return model.run_episode(*given)

    def encode_query(self, features: Any) -> Any:
        """As :meth:`~mmfss.methods.base.FewShotModel.encode_query`."""
        graph = self._graph('encode_query', ('segment',), (features,))
        return self.model.encode_query(features) if graph is None else graph()

    def segment(self, query: Any, state: Any) -> Segmentation:
        """As :meth:`~mmfss.methods.base.FewShotModel.segment`."""
        graph = self._graph('segment', ('segment',), (query, state))
        return self.model.segment(query, state) if graph is None else graph()

    def _graph(
        self, name: str, parts: Sequence[str], given: tuple[Any, ...]
    ) -> Callable[[], Any] | None:
        """What gives the same as a function of the method; None where that is to be called.

        Args:
            name: of the function.
            parts: of the method, which must be static.
            given: arguments, the features of the query first.
        """
        if not self._may(parts):
            return None
        form, tensors = [name], list[Tensor]()
        known = walk(given, form, tensors) and tensors and tensors[0].shape[:1] == (1,)
        if not known or any(tensor.device.type != 'cpu' for tensor in tensors):
            return None
        place = tuple(form)
        ours = self._functions.get(place)
        if ours is None:
            ours = _Function(self.model, name, given, len(tensors))
            ours.look(tensors)
            self._functions[place] = ours
        if not ours.makes:
            return None
        runner = self.model.encoding.runtimes.of_pass(
            f'light pass: {name}', self.model, ours, tensors, self._about
        )
        return None if runner is None else lambda: ours.whole(tensors, runner(*tensors))

    def _may(self, parts: Sequence[str]) -> bool:
        """Whether another runtime than torch may run these parts of the method now."""
        model = self.model
        if not model.encoding.runtimes.settings.named:
            return False
        if model.training or model.encoding.has_trained or torch.is_grad_enabled():
            return False
        if torch.is_autocast_enabled('cpu') or torch.compiler.is_compiling():
            return False
        return not model.needs_truth and model.not_static().keys().isdisjoint(parts)

    def _about(self) -> dict[str, Any]:
        # it reads all weights: made again only where a version counter has moved
        if self._made is None or not self._made[0].holds():
            version = WeightsVersion([self.model])
            self._made = version, fingerprint({'model': self.model}, {}, (), (__name__,))
        return self._made[1].about


class _Function(nn.Module):
    """A function of the method as one from tensors to tensors.

    Args:
        model: whose it is.
        name: of the method.
        given: arguments, whose form is kept.
        count: how many tensors they hold.

    Attributes:
        makes: places, among the tensors of what the function gives, of those that it makes; the
            others are some that it was given. Empty where it makes none, as ``encode_query`` of the
            base, or gives what has no fixed number of tensors.
    """

    def __init__(self, model: FewShotModel, name: str, given: Any, count: int) -> None:
        super().__init__()
        self.model, self.name = model, name
        self.given = _empty(given, count)
        self.makes: tuple[int, ...] = ()
        self._gives: Any = None
        self._from: dict[int, int] = {}
        self.training = False

    def look(self, tensors: Sequence[Tensor]) -> None:
        """Call the function, and note what it gives."""
        found, made = self._call(tensors), list[Tensor]()
        if getattr(found, 'parts', None) is not None or not walk(found, [], made):
            return
        place = {id(tensor): i for i, tensor in enumerate(tensors)}
        self._from = {i: place[id(one)] for i, one in enumerate(made) if id(one) in place}
        self.makes = tuple(i for i in range(len(made)) if i not in self._from)
        self._gives = _empty(found, len(made))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """What it makes of tensors of the same shapes."""
        made: list[Tensor] = []
        walk(self._call(tensors), [], made)
        return tuple(made[i] for i in self.makes)

    def whole(self, tensors: Sequence[Tensor], made: Sequence[Tensor]) -> Any:
        """What the function gives, of the tensors that it was given and those that were made."""
        rest = iter(made)
        total = len(self.makes) + len(self._from)
        every = [tensors[self._from[i]] if i in self._from else next(rest) for i in range(total)]
        return with_tensors(self._gives, every)

    def _call(self, tensors: Sequence[Tensor]) -> Any:
        found = getattr(self.model, self.name)(*with_tensors(self.given, tensors))
        if self.name == 'encode_query' or not hasattr(found, 'maps'):
            return found
        return replace(found, maps=dict(found.maps), trace=None)


def _empty(kept: Any, count: int) -> Any:
    """Something of the same form with as many tensors, all empty."""
    return with_tensors(kept, [torch.empty(0)] * count)
