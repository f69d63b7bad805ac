"""What every few-shot segmentation method is to the rest of mmfss.

Call chain (B episodes, K shots, S image side):

    loss / predict / _forward
      encode_image(images, role)        encoders, through the feature cache -> features
      encode_support(features, masks)   once per support set -> state
      segment(query, state)             for each query and class -> Segmentation

Features and state are the method's own records: dataclasses, tuples, lists and dicts of tensors
whose first axis is the image (of features) or the episode (of a state), and None. Nobody else looks
inside; :mod:`mmfss.batching` joins, takes and repeats them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any, Protocol

import torch
from mmengine.logging import print_log
from mmengine.structures import PixelData
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmfss.checkpoints.trained_only import completed
from mmfss.encoders.base import Encoder
from mmfss.encoders.encoding import Encoding, leading_frozen
from mmfss.features.images import DeferredBatch
from mmfss.functional import RESIZES, logits_to_mask, resize_mask

from .light_pass import LightPass

NOTHING_TRAINED = 'nothing trained'
"""What records and tables say where a checkpoint would be named, of a method that needs none."""

SMALL = (
    'a marked object covers less than half of any patch of the {} x {} grid: it is taken by its '
    'share of them. A crop of the photo around it, or a larger image_size, shows more of it.'
)
"""What a method says of an object that vanishes on its grid and counts all the same."""


_NO_PARTS = ('data_preprocessor', 'loss_decode', 'feature_cache', 'encoder_runtime', 'init_cfg')
"""Entries of a model's config with a type that no result of given weights depends on."""


@dataclass(frozen=True)
class Segmentation:
    """Result for B queries.

    Attributes:
        logits: (B, 1, S, S); >= 0 is foreground.
        maps: what led there, name -> (B, 1, h, w) in [0, 1]; drawn under these names.
        trace: the method's own, for tests.
        parts: of each query the masks of single objects that make up its mask, (m, l, l) float
            logits, > 0 inside, m >= 0, at a size of the method's own; None of methods that find no
            single objects. They may overlap, and keep the objects of a class apart where they do.
    """

    logits: Tensor
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    trace: Any = None
    parts: Sequence[Tensor] | None = None


@dataclass(frozen=True)
class Negatives:
    """What is not the class, though it may look like it: M images of each of B episodes.

    Attributes:
        features: of :meth:`FewShotModel.encode_image` of the B M images, episode-major.
        masks: (B, M, S, S) uint8 in {0, 1}: 1 where the class is not; 0 says nothing.
    """

    features: Any
    masks: Tensor


class Prompter(Protocol):
    """Makes masks from points and boxes on single images."""

    def encode(self, images: Tensor) -> Any:
        """Features of (N, 3, S, S) RGB 0..255."""

    def __call__(self, features: Any, coords: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(N, P, 2) x, y in pixels of the S x S image and (N, P) labels, see
        :mod:`mmfss.encoders.sam2.prompts` -> (N, M, h, w) logits and (N, M) predicted IoUs."""


class _FinishedWhenBuilt(type(BaseSegmentor)):  # type: ignore[misc]
    """What a method trains can be told when its last part is there, after its ``__init__``."""

    def __call__(cls, *args: Any, **kwargs: Any) -> FewShotModel:
        # which init_model sets in the config of any model
        if all(name in kwargs and kwargs[name] is None for name in ('pretrained', 'train_cfg')):
            raise ValueError(
                f"{cls.__name__} marks what supports show, and mmseg's init_model knows of none: "
                'give it a config of FewShotSegmentor, which holds a method and a support set, as '
                'configs/few_shot_segmentor.py (few_shot_segmentor_shapes.py for the model of '
                'make demo) with SUPPORT=FOLDER; mmfss.apis.FewShotInferencer takes this config'
            )
        model = super().__call__(*args, **kwargs)
        model.parts = {
            name: value
            for name, value in kwargs.items()
            if isinstance(value, Mapping)
            and 'type' in value
            and name not in {*model.encoders, *_NO_PARTS}
        }
        model.set_trainable(model.trainable)
        return model.train()


class FewShotModel(BaseSegmentor, metaclass=_FinishedWhenBuilt):
    """A few-shot segmentor with one class at a time.

    A method implements :meth:`encode_support`, :meth:`segment` and :meth:`compared`; it may
    override :meth:`encode_image`, :meth:`encode_query` and :meth:`prompter`. K is read from the
    shape of the masks. ``docs/own_method.md`` walks through one.

    Args:
        encoders: by the names that they get as attributes of the model (and in its state dict);
            those that are None are left out. They are frozen.
        image_size: side S in pixels of the images that the model takes.
        trainable: what is trained, by names: of a module or parameter of the model, or patterns of
            them with ``*``, such as ``'sam2.memory_encoder'`` or ``'*.lora_*'``; each must hit a
            parameter. All else of the encoders is frozen and stays in eval mode; so is what lies
            outside of them, if some of that is named. None trains all but the encoders.
        frozen: what is not trained for all that, by names and patterns like these.
        loss_decode: loss on (B, S, S) logits and labels; None for methods that are not trained.
        feature_cache: ``dict(type='FeatureCache', directory=..., memory_bytes=...)`` keeps what
            the encoders give for an image, see :class:`mmfss.features.cache.FeatureCache`.
        encode_batch, compile: of :class:`mmfss.encoders.encoding.Encoding`.
        encoder_runtime: its ``runtime``: what runs encoders that are frozen on a CPU, e.g.
            ``'torch'`` or ``dict(type='openvino', precision='bf16')``, and what comes after them,
            see :mod:`mmfss.methods.light_pass`.
        resize: how photos are brought to S x S, one of :data:`mmfss.functional.RESIZES`.
        data_preprocessor, init_cfg: of mmseg's ``BaseSegmentor``.

    Attributes:
        needs_checkpoint: whether it has weights that only a training gives; one without is tested
            and labelled with as it is built, on the encoders' own weights.
        needs_truth: whether :meth:`segment` wants the true masks of the queries.
        takes_negatives: whether :meth:`encode_support` takes what is marked as not the class.
        max_shots: the largest K that it takes; None for any. :func:`check_shots` says so.
        builders: entries of the config without a type -> function that takes what they hold.
        map_texts: names of the maps that :meth:`segment` gives -> what each shows, in a line, which
            stands below pictures.
        query_encoders, support_encoders: which encoders :meth:`encode_image` runs for each role.
        light: runs :meth:`run_episode`, :meth:`encode_query` and :meth:`segment` by the runtime of
            the encoders, where it can.

    Raises:
        ValueError: a subclass that lacks one of the three methods, a pattern that hits nothing, or
            see :class:`~mmfss.encoders.encoding.Encoding`.
    """

    needs_checkpoint = True
    needs_truth = False
    takes_negatives = False
    max_shots: int | None = None
    builders: Mapping[str, Callable[..., Any]] = {}
    map_texts: Mapping[str, str] = {}

    def __init__(
        self,
        encoders: Mapping[str, Encoder | None],
        image_size: int,
        trainable: Sequence[str] | None = None,
        loss_decode: dict | None = None,
        feature_cache: dict | None = None,
        frozen: Sequence[str] = (),
        encode_batch: int = 1,
        compile: dict | None = None,
        encoder_runtime: str | dict | None = None,
        resize: str = 'bilinear',
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        own = ('encode_support', 'segment', 'compared')
        missing = [name for name in own if getattr(type(self), name) is getattr(FewShotModel, name)]
        if missing:
            raise ValueError(
                f'{type(self).__name__} lacks {", ".join(missing)}: a few-shot method implements '
                f'{", ".join(own)}, see mmfss.methods.base.FewShotModel'
            )
        # built here: mmengine would look for it in its own registry where no scope is set
        if isinstance(data_preprocessor, dict):
            data_preprocessor = MODELS.build(data_preprocessor)
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if resize not in RESIZES:
            raise ValueError(f'model.resize must be one of {list(RESIZES)}, got {resize!r}')
        self.image_size, self.resize = image_size, resize
        found = {name: encoder for name, encoder in encoders.items() if encoder is not None}
        for name, encoder in found.items():
            setattr(self, name, encoder.requires_grad_(False).eval())
        self.query_encoders = self.support_encoders = tuple(found)
        self.loss_decode = None if loss_decode is None else MODELS.build(loss_decode)
        self.encoding = Encoding(
            found,
            None if feature_cache is None else MODELS.build(feature_cache),
            encode_batch,
            compile,
            encoder_runtime,
        )
        self.light = LightPass(self)
        self.trainable, self.frozen = trainable, frozen
        self.parts: dict[str, Mapping[str, Any]] = {}
        self._learning: list[nn.Module] = []
        self._resting: list[nn.Module] = []
        # keys are no strings: what was said is no setting, see mmfss.features.modules.settings_of
        self._warned: dict[int, str] = {}
        self._starts_from_encoders = True

    # ------------------------------------------------------------------ what a method implements

    def encode_support(self, features: Any, masks: Tensor) -> Any:
        """Encode supports once. A method that ``takes_negatives`` has a further argument,
        ``negatives: Negatives | None = None``.

        Args:
            features: of :meth:`encode_image` of the B K support images, episode-major.
            masks: (B, K, S, S) uint8 in {0, 1, 255}; 255 counts as 0.

        Returns:
            The state of B episodes.
        """
        raise NotImplementedError

    def segment(self, query: Any, state: Any, truth: Tensor | None = None) -> Segmentation:
        """Segment B queries given their supports.

        Args:
            query: features of the B query images, of :meth:`encode_query` or not.
            state: of :meth:`encode_support`.
            truth: (B, 1, S, S) float in {0, 1} where the method ``needs_truth``.
        """
        raise NotImplementedError

    def run_episode(
        self, query: Any, supports: Any, masks: Tensor, truth: Tensor | None = None
    ) -> Segmentation:
        """Segment B queries by supports that serve nobody else; to be overridden where encoding
        both at once saves time. Arguments as those of the two methods above."""
        return self.segment(query, self.encode_support(supports, masks), truth)

    @property
    def in_two_steps(self) -> bool:
        """Whether :meth:`run_episode` is the support, then the query, and nothing of its own."""
        return type(self).run_episode is FewShotModel.run_episode

    def compared(self, features: Any) -> Tensor:
        """The features (N, C, h, w) in which object scores are measured: do what a mask covers and
        the supported objects look alike? See :mod:`mmfss.apis.nway`."""
        raise NotImplementedError

    def encode_image(self, images: Tensor | DeferredBatch, role: str = 'query') -> Any:
        """Features of N images.

        Args:
            images: (N, 3, S, S) RGB 0..255, or images that are read only where the cache has no
                features of them.
            role: 'query' or 'support'.

        Returns:
            By default ``{encoder: (level, ...)}`` with tensors (N, ...).
        """
        names = self.support_encoders if role == 'support' else self.query_encoders
        return self.encoding(names, images, self.training)

    def encode_query(self, features: Any) -> Any:
        """The features with what :meth:`segment` makes of them for whichever support: saves time
        where several classes are looked for in an image."""
        return features

    def not_static(self) -> dict[str, str]:
        """What ``mmfss export``, and another runtime than torch, can make no graph of, with why:
        ``segment`` or ``encode_support``, where operators or sizes depend on what the images or
        masks show. A method that exports says so by its own one, ``{}`` where both are static; all
        else of it must be."""
        why = 'it does not say that its operators are the same for all images (not_static)'
        return dict(segment=why, encode_support=why)

    def prompter(self, checkpoint: str | None = None) -> Prompter:
        """What turns boxes, points and scribbles on a support image into masks.

        Args:
            checkpoint: whose weights it takes, None for the model's own.

        Raises:
            ValueError: by default; the method has nothing for prompts.
        """
        raise ValueError(
            f'{type(self).__name__} takes no boxes, points or scribbles: it has no prompt encoder. '
            "Give masks, or take a method on SAM, which makes them, such as 'sam2_memory', 'gf_sam'"
        )

    @property
    def takes_prompts(self) -> bool:
        """Whether there is a :meth:`prompter`."""
        return type(self).prompter is not FewShotModel.prompter

    def warn_once(self, text: str) -> None:
        """Log a warning, the first time that this model has it to say."""
        if text not in self._warned.values():
            self._warned[len(self._warned)] = text
            print_log(
                f'{type(self).__name__}: {text} (Said once.)', 'current', level=logging.WARNING
            )

    # ------------------------------------------------------------------ weights

    @property
    def encoders(self) -> dict[str, Encoder]:
        """The encoders by name."""
        return self.encoding.encoders

    @property
    def device(self) -> torch.device:
        """Where its tensors are and images are to go; a method may have no tensor at all."""
        own = next(chain(self.parameters(), self.buffers()), None)
        return self.data_preprocessor.device if own is None else own.device

    @property
    def title(self) -> str:
        """What records and tables call it: its class, and what in it is not as published."""
        return type(self).__name__

    @property
    def arch(self) -> dict[str, Any]:
        """What decides which weights fit and what they give, for checkpoints: the method, its
        encoders, and under ``parts`` the configs of its other parts of a registered type."""
        found = {name: encoder.record() for name, encoder in self.encoders.items()}
        parts = {
            name: dict(part, type=getattr(part['type'], '__name__', part['type']))
            for name, part in self.parts.items()
        }
        return dict(type=type(self).__name__, **found, parts=parts)

    def trained_names(self) -> set[str]:
        """Names in the state dict of what a training changes: parameters with a gradient, and the
        buffers of what is in training mode with them."""
        names = {name for name, value in self.named_parameters() if value.requires_grad}
        learning = {module for part in self._learning for module in part.modules()}
        for encoder in self.encoders.values():
            steps = encoder.steps()
            for step in steps[: leading_frozen(steps)]:
                learning -= {part for module in step.modules.values() for part in module.modules()}
        for path, module in self.named_modules():
            if module in learning:
                own = (name for name, _ in module.named_buffers(recurse=False))
                names |= {f'{path}.{name}'.lstrip('.') for name in own}
        return names & self.state_dict().keys()

    def completed(self, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """A checkpoint's state dict; of one of trained weights alone with the encoders' own, see
        :mod:`mmfss.checkpoints.trained_only`.

        Raises:
            ValueError, FileNotFoundError: the encoders' weights are others, or not there.
        """
        return completed(state, self.state_dict, self.load_encoders, source)

    def load_encoders(self) -> None:
        """Load the official or given weights of the encoders."""
        for encoder in self.encoders.values():
            encoder.init_weights()

    def leave_pretrained(self) -> None:
        """Let :meth:`init_weights` load no encoder: a checkpoint follows that sets every weight. A
        run starts and resumes so where the official weights cannot be had."""
        self._starts_from_encoders = False

    def init_weights(self) -> None:
        """Load the official or given weights of the encoders, strictly, and initialise the other
        parts. MMEngine calls this before training; testing takes all from the checkpoint."""
        if self._starts_from_encoders:
            self.load_encoders()
        for name, part in self.named_children():
            if name not in self.encoders and hasattr(part, 'init_weights'):
                part.init_weights()
        self._is_init = True

    @classmethod
    def trains_from_pixels(cls, trainable: Sequence[str] | None) -> bool:
        """Whether training needs the pixels of all images, as the first step of an encoder learns.

        Args:
            trainable: the model's, as its config says.
        """
        return False

    def set_trainable(self, patterns: Sequence[str] | None) -> None:
        """Let only what the patterns name learn, see the class.

        Raises:
            ValueError: no list of names, or one hits no parameter.
        """
        for what, names in (('trainable', patterns), ('frozen', self.frozen)):
            if names is not None and (
                isinstance(names, str) or not all(isinstance(name, str) for name in names)
            ):
                raise ValueError(
                    f'model.{what} must be {"None or " * (what == "trainable")}a list of names, '
                    f"such as ['sam2.memory_encoder'], got {names!r}"
                )
        self.trainable = None if patterns is None else tuple(patterns)
        others = [part for name, part in self.named_children() if name not in self.encoders]
        hit = [self._named('trainable', pattern) for pattern in patterns or ()]
        inside = {id(p) for encoder in self.encoders.values() for p in encoder.parameters()}
        if all(id(p) in inside for _, found in hit for p in found):
            for encoder in self.encoders.values():
                encoder.requires_grad_(False)
            self._learning = others
        else:
            self.requires_grad_(False)
            self._learning = []
        for modules, found in hit:
            for parameter in found:
                parameter.requires_grad_(True)
            self._learning = [*self._learning, *modules]
        self._resting = []
        for pattern in self.frozen:
            modules, found = self._named('frozen', pattern)
            for parameter in found:
                parameter.requires_grad_(False)
            self._resting += modules

    def _named(self, what: str, pattern: str) -> tuple[list[nn.Module], list[nn.Parameter]]:
        """Modules and parameters that a pattern names.

        Raises:
            ValueError: it names no parameter.
        """
        parts = [m for name, m in self.named_modules() if name and fnmatchcase(name, pattern)]
        named = {name: p for name, p in self.named_parameters() if fnmatchcase(name, pattern)}
        found = [p for part in parts for p in part.parameters()] + [*named.values()]
        if not found:
            children = dict(self.named_children())
            raise ValueError(
                f'{what} names {pattern!r}, and {type(self).__name__} has no parameter of '
                'that name. Give names of modules or parameters, or patterns of them, such as '
                f'{sorted(n for n, m in children.items() if list(m.parameters()))} or '
                "'sam2.memory_*'"
            )
        # a parameter alone may be named (LoRA in a layer): its module is put into the mode
        owners = [self.get_submodule(name.rpartition('.')[0]) for name in named]
        return [*parts, *owners], found

    def what_learns(self) -> str:
        """Which parts are trained and which are frozen, with their numbers of parameters, in a
        sentence."""
        counts: dict[bool, dict[str, int]] = {True: {}, False: {}}
        for name, parameter in self.named_parameters():
            words = name.split('.')
            part = '.'.join(words[: 2 if words[0] in self.encoders else 1])
            of_kind = counts[parameter.requires_grad]
            of_kind[part] = of_kind.get(part, 0) + parameter.numel()
        total = {kind: sum(of_kind.values()) for kind, of_kind in counts.items()}
        said = [
            f'{what} {total[kind]:,} parameters'
            + ''.join(
                f'{", " if i else ": "}{part} {number:,}'
                for i, (part, number) in enumerate(counts[kind].items())
            )
            for what, kind in (('trained are', True), ('frozen are', False))
        ]
        return '; '.join(said)

    def train(self, mode: bool = True) -> FewShotModel:
        """Put what learns into training mode; the rest stays in eval mode."""
        # eval for all first: frozen parts keep their dropout off and their running statistics
        super().train(False)
        self.training = mode
        for part in self._learning:
            part.train(mode)
        for part in self._resting:
            part.eval()
        for encoder in self.encoders.values():  # some of it is inside of what learns
            steps = encoder.steps()
            for step in steps[: leading_frozen(steps)]:
                for module in step.modules.values():
                    module.eval()
        return self

    def warm_up(self, batch: int, shots: int) -> float:
        """Compile now what a batch needs, on noise; nothing of it is kept.

        Args:
            batch: number of episodes B.
            shots: K.

        Returns:
            Seconds that it took. In training mode the backward pass is compiled too.
        """
        side, device = self.image_size, self.device
        query = 255 * torch.rand(batch, 3, side, side, device=device)
        supports = 255 * torch.rand(batch * shots, 3, side, side, device=device)
        masks = torch.ones(batch, shots, side, side, dtype=torch.uint8, device=device)
        truth = torch.ones(batch, 1, side, side, device=device)
        start = time.monotonic()
        with self.encoding.without_cache():  # noise is not worth keeping
            with torch.set_grad_enabled(self.training):
                features = self.encode_image(query)
                state = self.encode_support(self.encode_image(supports, 'support'), masks)
                logits = self.segment(features, state, truth).logits
            if self.training and logits.requires_grad:
                logits.mean().backward()
                self.zero_grad(set_to_none=True)
            if device.type == 'cuda':
                torch.cuda.synchronize(device)
        return time.monotonic() - start

    # ------------------------------------------------------------------ mmseg's interface

    def run(
        self,
        inputs: dict,
        data_samples: list[SegDataSample] | None = None,
        traced: bool = True,
    ) -> Segmentation:
        """All steps for a batch of episodes.

        Args:
            inputs: ``query`` (B, 3, S, S) and ``support`` (B, K, 3, S, S) RGB 0..255, or each of
                them images that are read when they must be (the supports episode-major), and
                ``support_mask`` (B, K, S, S) in {0, 1, 255}.
            data_samples: read only where the method ``needs_truth``.
            traced: with the trace. Without it the runtime of the encoders may run all steps, see
                :mod:`mmfss.methods.light_pass`.

        Raises:
            ValueError: pixels of another size, or the method returns something else.
        """
        side = self.image_size
        for name in ('query', 'support', 'support_mask'):
            # images that are not read yet are checked when they are
            if isinstance(inputs[name], Tensor) and tuple(inputs[name].shape[-2:]) != (side, side):
                raise ValueError(
                    f'{name} is {tuple(inputs[name].shape[-2:])} pixels, but the model takes '
                    f'{(side, side)} (its image_size). Resize in the pipelines, or set the '
                    "model's image_size (of FSSAM: model.sam2.image_size)."
                )
        masks = inputs['support_mask']
        query, images = self.encode_image(inputs['query']), inputs['support']
        flat = images.flatten(0, 1) if isinstance(images, Tensor) else images
        supports = self.encode_image(flat, 'support')
        truth = None
        if self.needs_truth and data_samples and all('gt_sem_seg' in s for s in data_samples):
            # nearest: the truth stays in {0, 1}; 255 is background in it
            labels = [(s.gt_sem_seg.data[None] == 1).float() for s in data_samples]
            small = [resize_mask(label, (side, side), mode='nearest') for label in labels]
            truth = torch.cat(small).to(masks.device)
        run_episode = self.run_episode if traced else self.light.run_episode
        result = run_episode(query, supports, masks, truth)
        wanted = (len(masks), 1, side, side)
        shape = tuple(result.logits.shape) if isinstance(result, Segmentation) else None
        if shape != wanted:
            got = type(result).__name__ if shape is None else f'logits {shape}'
            raise ValueError(
                f'{type(self).__name__}.segment must return a Segmentation with logits {wanted}, '
                f'got {got}'
            )
        return result

    def loss(self, inputs: dict, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Loss of a batch of episodes whose labels have the size S of the input.

        Raises:
            ValueError: the method is not trained, or labels of another size.
        """
        if self.loss_decode is None:
            raise ValueError(
                f'{type(self).__name__} is not trained: it has no loss_decode. Test it as it is '
                '(tools/test.py CONFIG), or give it a loss and something that learns'
            )
        logits = self.run(inputs, data_samples).logits[:, 0]
        return self.decoded_loss(logits, self.labels_of(data_samples, logits))

    def decoded_loss(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """``loss_decode`` by name: it gives a dict of its own, or a tensor."""
        loss = self.loss_decode(logits, labels)
        return loss if isinstance(loss, Mapping) else {self.loss_decode.loss_name: loss}

    @staticmethod
    def labels_of(data_samples: Sequence[SegDataSample], logits: Tensor) -> Tensor:
        """Labels (B, S, S) of the queries, on the device of their logits (..., S, S).

        Raises:
            ValueError: they have another size.
        """
        labels = [sample.gt_sem_seg.data[0] for sample in data_samples]
        wrong = {tuple(label.shape) for label in labels} - {tuple(logits.shape[-2:])}
        if wrong:
            raise ValueError(
                f'labels of a training batch are {sorted(wrong)} pixels but the images are '
                f'{tuple(logits.shape[-2:])}; the query_pipeline for training must resize or crop '
                'both to one size'
            )
        return torch.stack(labels).to(logits.device)

    def predict(self, inputs: dict, data_samples: list[SegDataSample]) -> list[SegDataSample]:
        """Add to each data sample ``pred_sem_seg`` (1, H, W) uint8 in {0, 1}, ``seg_logits``
        (1, S, S), and ``maps``, {name: (h, w) in [0, 1]}.

        H, W are the size of the label, or ``ori_shape`` for an unlabelled query.
        """
        result = self.run(inputs, data_samples, traced=False)
        for i, sample in enumerate(data_samples):
            logits = result.logits[i : i + 1].float()
            # M = [sigmoid(up(z)) >= 1/2] at the label's own size: the metric is not measured at S
            size = sample.gt_sem_seg.shape if 'gt_sem_seg' in sample else sample.ori_shape
            sample.pred_sem_seg = PixelData(data=logits_to_mask(logits, tuple(size[:2]))[0])
            sample.seg_logits = PixelData(data=logits[0])
            sample.maps = {name: values[i, 0] for name, values in result.maps.items()}
        return data_samples

    def _forward(self, inputs: dict, data_samples: list[SegDataSample] | None = None) -> Tensor:
        """Logits (B, 1, S, S)."""
        return self.run(inputs, data_samples, traced=False).logits

    def extract_feat(self, inputs: Tensor) -> Any:
        """mmseg's name of :meth:`encode_image`."""
        return self.encode_image(inputs)

    def encode_decode(self, inputs: dict, batch_data_samples: list[SegDataSample]) -> Tensor:
        """mmseg's name of ``_forward``."""
        return self._forward(inputs, batch_data_samples)


def check_takes_negatives(model: FewShotModel) -> None:
    """Make sure that a method takes what is marked as not the class.

    Raises:
        ValueError: it does not; the message has those that do.
    """
    if not model.takes_negatives:
        takers = [name for name, cls in _registered().items() if cls.takes_negatives]
        raise ValueError(
            f'{type(model).__name__} takes no negatives (what is marked as not the class); '
            f'{", ".join(takers)} do. Use one of them, or leave the negatives out'
        )


def check_shots(method: FewShotModel | type[FewShotModel], shots: int) -> None:
    """Make sure that a method takes K supports of a class; one with ``max_shots`` asks this in its
    :meth:`~FewShotModel.encode_support`, others may ask before they encode anything.

    Raises:
        ValueError: it takes fewer.
    """
    most = method.max_shots
    if most is not None and shots > most:
        name = method.__name__ if isinstance(method, type) else type(method).__name__
        supports = 'one support' if most == 1 else f'at most {most} supports'
        raise ValueError(
            f'{name} takes {supports} of a class, got {shots}: it has no way to use more. Leave '
            'out the others, or take a method for any number of supports, such as PrototypeMatcher'
        )


def _registered() -> dict[str, type[FewShotModel]]:
    """The few-shot methods by name, sorted."""
    found = sorted(MODELS.module_dict.items())
    return {n: c for n, c in found if isinstance(c, type) and issubclass(c, FewShotModel)}


def method_of(cfg: Mapping[str, Any]) -> type[FewShotModel]:
    """The class of the method that a config's ``model`` names.

    Raises:
        ValueError: it names none; the message has those that are registered.
    """
    kind = (cfg.get('model') or {}).get('type')
    cls = MODELS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(cls, type) and issubclass(cls, FewShotModel)):
        raise ValueError(
            f'{getattr(cfg, "filename", None) or "the config"} has a model of type {kind!r}, which '
            f'is no few-shot method; registered are {", ".join(_registered())}. Use one of '
            'configs/fss_*.py'
        )
    return cls
