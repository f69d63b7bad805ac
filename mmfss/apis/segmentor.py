"""A few-shot method with a fixed support set: an ordinary segmentor of mmseg.

Call chain; the parts marked (mmseg) are those of mmseg's EncoderDecoder, as they are:

    predict (mmseg) -> inference (mmseg) -> whole_inference or slide_inference (mmseg)
      encode_decode(images)       per image or window: encode, segment all classes, compete
    postprocess_result (mmseg)    resize to the original size, largest logit wins

Shapes: B images of H x W, S side of the model's images, N classes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmseg.models.segmentors import BaseSegmentor, EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.nway import ClassStates, class_logits, encode_classes, segment_classes
from mmfss.apis.prediction import check_threshold
from mmfss.apis.support import SupportSet
from mmfss.apis.support_folder import read_support
from mmfss.arguments import integer, optional
from mmfss.checkpoints.weights import check_state_dict
from mmfss.datasets.classes import label_palette
from mmfss.datasets.grey_values import GreyValues
from mmfss.functional import RESIZES, up
from mmfss.methods.base import FewShotModel, method_of

PREPROCESSOR = dict(type='SegDataPreProcessor', bgr_to_rgb=True)


@dataclass(frozen=True)
class DecodeHead:
    """What mmseg asks the decode head of a segmentor for."""

    num_classes: int
    align_corners: bool

    @property
    def out_channels(self) -> int:
        """One logit for each class."""
        return self.num_classes


@MODELS.register_module()
class FewShotSegmentor(BaseSegmentor):
    """N classes at once, for mmseg's own tools, metrics, hooks and inferencers.

    It holds a few-shot method and has its weights, key by key: a checkpoint of ``tools/train.py``
    is loaded as it is. A method without trained parameters needs none; the weights of its encoders
    are loaded at the first image.
    On images that the pipeline resizes to S x S it gives the labels of
    :class:`mmfss.apis.FewShotInferencer`. Test through a Runner with the
    :class:`mmfss.engine.SupportClassesHook`, which checks the classes of the dataset.

    Each class competes by object score x logit (:func:`mmfss.apis.nway.class_logits`). In a
    sliding-window test the object scores are those of each window, and mmseg averages the logits
    of the windows that a pixel lies in.

    Args:
        model: config of a :class:`~mmfss.methods.base.FewShotModel`, or one that is built.
        support: ``{class: [(image, mask), ...]}`` with paths, a support file of
            ``FewShotInferencer.save_support``, a folder (see
            :func:`mmfss.apis.support_folder.read_support`), or a ``SupportSet``. A folder is read
            when it is first needed, since prompts in it need the weights.
        negatives: ``{class: [image, (image, mask), ...]}`` with paths, of what a class is not, for
            a ``support`` that is a dict; see :func:`mmfss.apis.support.make_negative`. Files and
            folders have their own.
        threshold: of the object score, in [0, 1]: a class that scores below it in an image (or
            window) is not marked there. One for all classes or ``{class: threshold}``.
        test_cfg: mmseg's: ``dict(mode='whole')``, or ``dict(mode='slide', crop_size=(h, w),
            stride=(h, w))``. Windows, and images of another size, are resized to S x S.
        data_preprocessor: of mmseg; images must reach the model as RGB 0..255, without padding.
        prompt_checkpoint: whose heads turn the prompts in a folder into masks, see
            :class:`mmfss.apis.prompts.Proposer`; None for those of the model itself. No file is
            looked for beside the weights, whose path a model does not know.
        batch_size: images of a batch (or windows at one place of them) that go together; by
            default each by itself, so that a result does not depend on the batch, bit by bit. The
            encoders have an ``encode_batch`` of their own.
        pairs: of image and class that go through the model at once, at most; None takes what suits
            the device, see :func:`mmfss.apis.nway.segment_classes`.
        grey_values: see :class:`mmfss.apis.FewShotInferencer`, for the photos of supports; those of
            the pipeline are read by ``LoadImage``, which takes the same.
        train_cfg, pretrained: None; mmseg's ``init_model`` sets them in every config.
        init_cfg: of mmseg's ``BaseSegmentor``.

    Raises:
        FileNotFoundError, ValueError: The support set, see :meth:`SupportSet.build` and
            :meth:`SupportSet.load`; a threshold, test_cfg or data_preprocessor that does not fit.
            When weights are loaded: keys missing, unexpected or of another shape, values that are
            not finite.
    """

    align_corners = True
    inference = EncoderDecoder.inference
    whole_inference = EncoderDecoder.whole_inference
    slide_inference = EncoderDecoder.slide_inference
    predict = EncoderDecoder.predict

    def __init__(
        self,
        model: dict | FewShotModel,
        support: Mapping[str, Sequence[tuple[str, str]]] | SupportSet | str | os.PathLike,
        threshold: float | Mapping[str, float] = 0.5,
        test_cfg: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        prompt_checkpoint: str | None = None,
        batch_size: int = 1,
        pairs: int | None = None,
        train_cfg: dict | None = None,
        pretrained: str | None = None,
        init_cfg: dict | None = None,
        negatives: Mapping[str, Sequence[Any]] | None = None,
        grey_values: GreyValues | Mapping[str, Any] | None = None,
    ) -> None:
        for name, value in (('train_cfg', train_cfg), ('pretrained', pretrained)):
            if value is not None:
                raise ValueError(f'model.{name} must be None for FewShotSegmentor, got {value!r}')
        if data_preprocessor is None:
            data_preprocessor = PREPROCESSOR
        check_preprocessor(data_preprocessor)
        if isinstance(data_preprocessor, Mapping):
            # built here: mmengine would look for it in its own registry where no scope is set
            data_preprocessor = MODELS.build(data_preprocessor)
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if not isinstance(model, FewShotModel):
            method_of(dict(model=model))
            model = MODELS.build(model)
        self.model = model
        self._has_weights = False
        self.test_cfg = checked_test_cfg(test_cfg)
        self.threshold = threshold
        self.grey_values = GreyValues.of(grey_values)
        self.prompt_checkpoint = prompt_checkpoint
        self.batch_size = integer('model.batch_size', batch_size, 1)
        self.pairs = optional('model.pairs', pairs)
        if negatives is not None and not isinstance(support, Mapping):
            raise ValueError(
                'model.negatives goes with a model.support that is a dict; a support file, folder '
                'or SupportSet has its own'
            )
        self._source, self._negatives = support, negatives
        self._support: SupportSet | None = None
        self._states: ClassStates | None = None
        self._encoded_under: torch.dtype | None = None
        if not _is_folder(support):
            _ = self.support  # mistakes come to light before anything is loaded

    # ------------------------------------------------------------------ the support set

    @property
    def support(self) -> SupportSet:
        """The classes with their marked images; read on first use where it is a folder.

        Raises:
            FileNotFoundError, ValueError: See the class.
        """
        if self._support is None:
            self._support = self._read_support()
            self._thresholds(self._support.classes)
        return self._support

    @property
    def num_classes(self) -> int:
        """N + 1, background included."""
        return len(self.support.classes) + 1

    @property
    def out_channels(self) -> int:
        """N + 1, for mmseg's sliding windows and test-time augmentation."""
        return self.num_classes

    @property
    def decode_head(self) -> DecodeHead:
        """What mmseg reads from a decode head; there is none."""
        return DecodeHead(self.num_classes, self.align_corners)

    @property
    def dataset_meta(self) -> dict[str, Any]:
        """``classes`` ('background', then those of the support set) and ``palette`` (RGB).

        mmseg's ``init_model`` and ``MMSegInferencer`` assign what they find in the checkpoint: the
        classes of the benchmark that it was trained on. This model marks those of its support set,
        so the assigned ones are not taken.
        """
        classes = self.support.classes
        return dict(classes=('background', *classes), palette=label_palette(len(classes)))

    @dataset_meta.setter
    def dataset_meta(self, of_checkpoint: dict | None) -> None:
        pass

    def _read_support(self) -> SupportSet:
        source = self._source
        if _is_folder(source):
            self._need_weights()
            inferencer = FewShotInferencer(self.model, grey_values=self.grey_values)
            return read_support(source, inferencer, self.prompt_checkpoint)[0]
        if isinstance(source, (str, os.PathLike)):
            source = SupportSet.load(source)
        if not isinstance(source, SupportSet):
            size, resize = self.model.image_size, self.model.resize
            return SupportSet.build(source, size, resize, self._negatives, self.grey_values)
        source.check_image_size(self.model.image_size, self.model.resize)
        return source

    def _thresholds(self, classes: tuple[str, ...]) -> Tensor:
        return torch.from_numpy(check_threshold(self.threshold, classes))

    def forget_support(self) -> None:
        """Encode the supports anew at the next image. Called when weights are loaded, the model is
        moved or trained; to be called by who changes weights in place."""
        self._states = None
        if _is_folder(self._source):
            self._support = None  # masks from prompts came from the weights

    @torch.no_grad()
    def _class_states(self, device: torch.device) -> ClassStates:
        """The supports as the model keeps them, encoded once, one image at a time."""
        cast = torch.is_autocast_enabled(device.type)
        under = torch.get_autocast_dtype(device.type) if cast else None
        if self._states is not None and self._encoded_under == under:
            return self._states
        self._need_weights()
        states = encode_classes(self.model, *self.support.pairs())
        self._states, self._encoded_under = states, under
        return states

    # ------------------------------------------------------------------ mmseg's interface

    @torch.no_grad()
    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> Tensor:
        """Logits of background and classes.

        Args:
            inputs: (B, 3, H, W) float, RGB 0..255; resized to S x S where they are not.
            batch_img_metas: not read.

        Returns:
            (B, N + 1, H, W) float32; the largest is the decision, see :func:`class_logits`.
        """
        side, how = self.model.image_size, RESIZES[self.model.resize]
        size = tuple(inputs.shape[-2:])
        states = self._class_states(inputs.device)
        thresholds = self._thresholds(self.support.classes).to(inputs.device)
        results = []
        for images in inputs.split(self.batch_size):
            if size != (side, side):
                images = F.interpolate(
                    images,
                    (side, side),
                    mode=how['interpolation'],
                    align_corners=False,
                    antialias=how['backend'] == 'pillow',
                )
            found = segment_classes(self.model, self.model.encode_image(images), states, self.pairs)
            logits = torch.stack(
                [class_logits(*one, thresholds) for one in zip(found.logits, found.scores)]
            )
            results.append(logits if size == (side, side) else up(logits, size))
        return torch.cat(results)

    def extract_feat(self, inputs: Tensor) -> Any:
        """The method's features of images."""
        return self.model.extract_feat(inputs)

    def _forward(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> Tensor:
        """Logits (B, N + 1, H, W)."""
        return self.encode_decode(inputs)

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """There is none.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            'FewShotSegmentor is not trained: its classes come from the support set alone. Train '
            'the model that it holds on episodes with tools/train.py, and give the checkpoint to '
            'this one'
        )

    # ------------------------------------------------------------------ changes of the weights

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The method's, under its own names."""
        return self.model.state_dict(*args, **kwargs)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        # Every loader comes through here, mmengine's too, which would load whatever fits.
        own = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
        whole = self.model.completed(own, 'the checkpoint of FewShotSegmentor')
        check_state_dict(self.state_dict(), whole, 'FewShotSegmentor')
        for name in own:
            del state_dict[f'{prefix}{name}']
        state_dict.update({f'{prefix}model.{name}': value for name, value in whole.items()})
        self.forget_support()
        self._has_weights = True
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def init_weights(self) -> None:
        """Load the weights of the method's encoders."""
        self.model.init_weights()
        self._has_weights = True

    def _need_weights(self) -> None:
        """A method without trained parameters is ready with its encoders' weights."""
        if not self._has_weights and not self.model.needs_checkpoint:
            self.init_weights()

    @property
    def arch(self) -> dict[str, Any]:
        """That of the method, which a checkpoint is compared with."""
        return self.model.arch

    def _apply(self, *args: Any, **options: Any) -> FewShotSegmentor:
        """Of ``to``, ``cuda``, ``half``, ...: the supports move by being encoded anew."""
        self.forget_support()
        return super()._apply(*args, **options)

    def train(self, mode: bool = True) -> FewShotSegmentor:
        """The supports are encoded anew in another mode."""
        if mode != self.training:
            self.forget_support()
        super().train(mode)
        return self


def _is_folder(support: Any) -> bool:
    return isinstance(support, (str, os.PathLike)) and os.path.isdir(support)


def check_preprocessor(cfg: dict | nn.Module) -> None:
    """Images must reach the model as RGB 0..255; a module that is built is taken as it is.

    Raises:
        ValueError: Another preprocessor, BGR, or one that normalises or pads: padding would count
            as a part of the image, and lower all object scores.
    """
    if not isinstance(cfg, Mapping):
        return
    wrong = [key for key in ('mean', 'std', 'rgb_to_bgr', 'test_cfg') if cfg.get(key)]
    if cfg.get('type') != PREPROCESSOR['type'] or not cfg.get('bgr_to_rgb') or wrong:
        raise ValueError(
            'model.data_preprocessor of FewShotSegmentor must hand on RGB images in 0..255, which '
            f'the encoders normalise themselves: {PREPROCESSOR}, without mean, std and test_cfg '
            '(it pads, and images of any size are taken as they are); got '
            f'{dict(cfg)}. Where it comes from a _base_ config, add _delete_=True'
        )


def checked_test_cfg(test_cfg: dict | None) -> ConfigDict:
    """mmseg's ``test_cfg``; None is the whole image. It would fail in the middle of a test.

    Raises:
        ValueError: Another mode, or windows that leave pixels out.
    """
    cfg = ConfigDict(test_cfg or dict(mode='whole'))
    allowed = "dict(mode='whole') or dict(mode='slide', crop_size=(h, w), stride=(h, w))"
    if cfg.get('mode') not in ('whole', 'slide'):
        raise ValueError(f'model.test_cfg must be {allowed}, got {dict(cfg)}')
    if cfg.mode == 'slide':
        pairs = [cfg.get('crop_size'), cfg.get('stride')]
        fits = all(
            isinstance(pair, (tuple, list))
            and len(pair) == 2
            and all(isinstance(value, int) and value > 0 for value in pair)
            for pair in pairs
        )
        if not fits or any(step > side for side, step in zip(*pairs)):
            raise ValueError(
                f'model.test_cfg must be {allowed} with whole numbers of pixels, and a stride no '
                f'larger than the window; got {dict(cfg)}'
            )
    return cfg
