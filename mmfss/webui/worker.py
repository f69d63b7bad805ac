"""The one model that all visitors share."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from mmfss.apis import FewShotInferencer
from mmfss.apis.box_masks import BoxMasks
from mmfss.apis.loading import choose_config
from mmfss.apis.prompts import Prompt
from mmfss.configs import DEMO_CONFIG, EMBEDDED_METHOD

T = TypeVar('T')


class Proposes(Protocol):
    """What turns a prompt into a mask: :class:`mmfss.apis.box_masks.BoxMasks`."""

    def propose(self, image: np.ndarray, prompt: Prompt) -> Any:
        """A proposal with ``mask``, bool (H, W), and maybe ``how`` it was made, for a uint8
        (H, W, 3) BGR image."""


@dataclass(frozen=True)
class ModelChoice:
    """Which model was asked for on the command line; goes into the command that visitors get."""

    config: str | None = None
    weights: str | None = None
    method: str | None = None

    @property
    def note(self) -> str:
        """What visitors are to know of it before they begin; '' for nothing."""
        if self.config is not None and Path(self.config).stem == DEMO_CONFIG:
            return (
                '<b>This model is for trying the page out.</b> It was trained on generated shapes '
                'only and does not know photos: start the page without <code>--config</code>.'
            )
        if self.method == EMBEDDED_METHOD:
            return (
                '<b>Masks are coarse here:</b> this is a small network that needs no download. For '
                'better ones run <code>mmfss weights fetch default</code> once, and start the page '
                'again.'
            )
        return ''


class ModelWorker:
    """Runs the model's jobs one after the other, first come, first served, in a thread of its own:
    the encoders' memory of images is not made for several threads.

    Args:
        inferencer: its model and threshold are shared; its support set is not used.
        proposer: default: boxes become masks whatever the method; points do where there are heads
            for them.
        choice: what the model is called.
    """

    def __init__(
        self,
        inferencer: FewShotInferencer,
        proposer: Proposes | None = None,
        choice: ModelChoice | None = None,
    ) -> None:
        self._inferencer = inferencer
        self._proposer = proposer or BoxMasks(inferencer)
        self.choice = choice or ModelChoice()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix='mmfss-model')

    @classmethod
    def load(
        cls,
        choice: ModelChoice,
        device: str | None = None,
        prompt_weights: str | None = None,
        threshold: float | None = None,
        amp: bool = False,
        feature_cache: Mapping[str, Any] | None = None,
        runtime: Mapping[str, Any] | None = None,
    ) -> ModelWorker:
        """Load the model that was chosen.

        Args:
            choice: its config or method, and weights; the default method where it has neither.
            device: default: the first GPU, else the CPU.
            prompt_weights: see :class:`mmfss.apis.box_masks.BoxMasks`.
            threshold, amp, feature_cache, runtime: see :class:`mmfss.apis.FewShotInferencer`.

        Raises:
            FileNotFoundError, ValueError: See :func:`mmfss.apis.loading.load_model` and
                :class:`mmfss.apis.box_masks.BoxMasks`.
        """
        weights = None if choice.weights is None else os.path.expanduser(choice.weights)
        path = choose_config(choice.config, choice.method, weights)
        if choice.config is None:  # by its name in the command that visitors get, too
            choice = replace(choice, method=path.stem)
        inferencer = FewShotInferencer(
            path, weights, device, threshold, amp, feature_cache=feature_cache, runtime=runtime
        )
        return cls(inferencer, BoxMasks(inferencer, prompt_weights), choice)

    @property
    def name(self) -> str:
        """Of the method or config."""
        model = self._inferencer.model
        return self.choice.method or self.choice.config or type(model).__name__

    @property
    def takes_points(self) -> bool:
        """Whether points become masks here; boxes always do."""
        return getattr(self._proposer, 'heads', True) is not None

    @property
    def image_size(self) -> int:
        """Side S of the square that images are brought to."""
        return self._inferencer.image_size

    @property
    def resize(self) -> str:
        """How they are brought to it, out of :data:`mmfss.functional.RESIZES`."""
        return self._inferencer.resize

    @property
    def threshold(self) -> float:
        """Of the object score, as the config has it."""
        value = self._inferencer.threshold
        if not isinstance(value, (int, float)):
            raise ValueError(
                f'the page needs one threshold for all classes to begin with, got {value!r}'
            )
        return float(value)

    def new_inferencer(self) -> FewShotInferencer:
        """One for a visitor, with supports of its own around the shared model."""
        return FewShotInferencer(
            self._inferencer.model, threshold=self.threshold, amp=self._inferencer.amp
        )

    def run(self, job: Callable[..., T], *args: Any) -> T:
        """Do a job with the model when those before are done; its errors are raised here."""
        return self._pool.submit(job, *args).result()

    def begin(self, job: Callable[[], object]) -> None:
        """As :meth:`run`, but nobody waits; its errors are nobody's."""
        self._pool.submit(job)

    def propose(self, image: np.ndarray, prompt: Prompt) -> Any:
        """What a prompt means, see :class:`Proposes`.

        Raises:
            ValueError: The prompt is not inside the image, or finds nothing; or there are points
                alone and no heads for them.
        """
        return self.run(self._proposer.propose, image, prompt)

    def close(self) -> None:
        """Finish the job that runs, drop those that wait."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Models:
    """The workers that visitors may pick from by the name of a method, each made when it is first
    asked for and shared by all.

    Args:
        first: the one that every visitor begins with.
        names: of other methods.
        device: of those.
        runtime: of those, see :class:`mmfss.apis.FewShotInferencer`.
    """

    def __init__(
        self,
        first: ModelWorker,
        names: Sequence[str] = (),
        device: str | None = None,
        runtime: Mapping[str, Any] | None = None,
    ) -> None:
        self.first = first.choice.method or first.choice.config or DEMO_CONFIG
        self.names = (self.first, *(name for name in names if name != self.first))
        self._made = {self.first: first}
        self._how: dict[str, Any] = dict(device=device, runtime=runtime)
        self._lock = threading.Lock()

    def get(self, name: str) -> ModelWorker:
        """The worker of a method; loads its model the first time.

        Raises:
            ValueError: No such name, or the model cannot be had here.
        """
        if name not in self.names:
            raise ValueError(f'there is no method {name!r}; there are {", ".join(self.names)}')
        with self._lock:
            if name not in self._made:
                try:
                    self._made[name] = ModelWorker.load(ModelChoice(method=name), **self._how)
                except (OSError, ImportError) as error:
                    raise ValueError(f'{name} cannot be used here: {error}') from error
            return self._made[name]

    def name_of(self, worker: ModelWorker) -> str:
        """The name of one of them."""
        return next(name for name, made in self._made.items() if made is worker)

    def close(self) -> None:
        """Close all workers, see :meth:`ModelWorker.close`."""
        with self._lock:
            for worker in self._made.values():
                worker.close()
