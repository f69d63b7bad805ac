"""FSSAM with a fixed support set: an ordinary segmentor of mmseg over background and N classes.

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
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmfss.apis.nway import ClassStates, class_logits, encode_classes, segment_classes
from mmfss.apis.segmentor_config import PREPROCESSOR, check_preprocessor, checked_test_cfg
from mmfss.arguments import integer, optional
from mmfss.checkpoints.weights import check_state_dict
from mmfss.datasets.classes import label_palette
from mmfss.functional import up
from mmfss.methods.fssam.model import FSSAM

if TYPE_CHECKING:
    from mmfss.apis.support import SupportSet


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
class FewShotSegmentor(FSSAM):
    """N classes at once, for mmseg's own tools, metrics, hooks and inferencers.

    It has the weights of FSSAM, key by key: a checkpoint of ``tools/train.py`` is loaded as it is.
    On images that the pipeline resizes to S x S it gives the labels of
    :class:`mmfss.apis.FewShotInferencer`. Test through a Runner with the
    :class:`mmfss.engine.SupportClassesHook`, which checks the classes of the dataset.

    Each class competes by object score x logit (:func:`mmfss.apis.nway.class_logits`). In a
    sliding-window test the object scores are those of each window, and mmseg averages the logits
    of the windows that a pixel lies in.

    Args:
        support: ``{class: [(image, mask), ...]}`` with paths, a support file of
            ``FewShotInferencer.save_support``, a folder (see
            :func:`mmfss.apis.support_folder.read_support`), or a ``SupportSet``. A folder is read
            when it is first needed, since prompts in it need the weights.
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
        train_cfg, pretrained: None; mmseg's ``init_model`` sets them in every config.
        fssam: arguments of :class:`FSSAM`.

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
        support: Mapping[str, Sequence[tuple[str, str]]] | SupportSet | str | os.PathLike,
        threshold: float | Mapping[str, float] = 0.5,
        test_cfg: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        prompt_checkpoint: str | None = None,
        batch_size: int = 1,
        pairs: int | None = None,
        train_cfg: dict | None = None,
        pretrained: str | None = None,
        **fssam: Any,
    ) -> None:
        for name, value in (('train_cfg', train_cfg), ('pretrained', pretrained)):
            if value is not None:
                raise ValueError(f'model.{name} must be None for FewShotSegmentor, got {value!r}')
        if data_preprocessor is None:
            data_preprocessor = PREPROCESSOR
        check_preprocessor(data_preprocessor)
        super().__init__(data_preprocessor=data_preprocessor, **fssam)
        self.test_cfg = checked_test_cfg(test_cfg)
        self.threshold = threshold
        self.prompt_checkpoint = prompt_checkpoint
        self.batch_size = integer('model.batch_size', batch_size, 1)
        self.pairs = optional('model.pairs', pairs)
        self._source = support
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
        # here, since mmfss.apis imports the models
        from mmfss.apis.inferencer import FewShotInferencer
        from mmfss.apis.support import SupportSet
        from mmfss.apis.support_folder import read_support

        source, side = self._source, self.sam2.image_size
        if _is_folder(source):
            return read_support(source, FewShotInferencer(self), self.prompt_checkpoint)[0]
        if isinstance(source, (str, os.PathLike)):
            source = SupportSet.load(source)
        if not isinstance(source, SupportSet):
            return SupportSet.build(source, side)
        source.check_image_size(side)
        return source

    def _thresholds(self, classes: tuple[str, ...]) -> Tensor:
        from mmfss.apis.prediction import check_threshold

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
        shots = self.support.shots.values()
        states = encode_classes(self, ([(s.image, s.mask) for s in of_class] for of_class in shots))
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
        side = self.sam2.image_size
        size = tuple(inputs.shape[-2:])
        states = self._class_states(inputs.device)
        thresholds = self._thresholds(self.support.classes).to(inputs.device)
        results = []
        for images in inputs.split(self.batch_size):
            if size != (side, side):
                images = F.interpolate(images, (side, side), mode='bilinear', align_corners=False)
            found = segment_classes(self, self.encode_image(images), states, self.pairs)
            logits = torch.stack(
                [class_logits(*one, thresholds) for one in zip(found.logits, found.scores)]
            )
            results.append(logits if size == (side, side) else up(logits, size))
        return torch.cat(results)

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
            "the model of type 'FSSAM' on episodes with tools/train.py, and give the checkpoint "
            'to this one'
        )

    # ------------------------------------------------------------------ changes of the weights

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        # Every loader comes through here, mmengine's too, which would load whatever fits.
        own = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
        check_state_dict(self.state_dict(), own, 'FewShotSegmentor')
        self.forget_support()
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _apply(self, *args: Any, **options: Any) -> FewShotSegmentor:
        """Of ``to``, ``cuda``, ``half``, ...: the supports move by being encoded anew."""
        self.forget_support()
        return super()._apply(*args, **options)

    def train(self, mode: bool = True) -> FewShotSegmentor:
        """As :meth:`FSSAM.train`."""
        if mode != self.training:
            self.forget_support()
        super().train(mode)
        return self


def _is_folder(support: Any) -> bool:
    return isinstance(support, (str, os.PathLike)) and os.path.isdir(support)
