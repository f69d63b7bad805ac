"""FSSAM: few-shot segmentation with SAM 2, top to bottom as in the paper.

Xu et al., "Unlocking the Power of SAM 2 for Few-Shot Segmentation", ICML 2025, arXiv 2505.14100.

Call chain (B episodes, K shots, S image side):

    loss / predict / _forward
      encode_image(images)              frozen encoders: SAM 2 features, prior features
      encode_support(features, masks)   prototypes, memories, pointers, keys of each layer
      segment(query, support)           pseudo prompts -> query memories -> refinement
                                        -> calibrated memory attention -> mask decoder

K is read from the shape of the support; parts that are None in the config are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from mmengine.structures import PixelData
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmfss.encoders.backbones import ImageNetNormalise, PriorEncoder
from mmfss.encoders.compiling import compile_parts
from mmfss.encoders.sam2.memory_attention import MemoryFrames, start_at_same_place
from mmfss.encoders.sam2.model import SAM2Features, build_sam2, load_sam2
from mmfss.features.images import DeferredBatch
from mmfss.functional import logits_to_mask, resize_mask
from mmfss.methods.fssam.image_encoding import ImageEncoding
from mmfss.methods.fssam.parts import build_part, check_parts, check_size, freeze, truth_for
from mmfss.methods.fssam.prompts import PromptGenerator, PseudoMasks
from mmfss.methods.fssam.refinement import MemoryRefinement, RefinedMemory
from mmfss.methods.fssam.structures import ImageFeatures, Segmentation, SupportState


@MODELS.register_module()
class FSSAM(BaseSegmentor):
    """Few-shot segmentor with one class at a time.

    Args:
        sam2: ``dict(arch=..., image_size=512, checkpoint='official' | path | None)``, see
            :mod:`mmfss.encoders.sam2.model`. For a SAM 2 that starts from random weights
            ``same_place=2.0`` lets its cross-attention start out local, see
            :func:`mmfss.encoders.sam2.memory_attention.start_at_same_place`.
        prior_encoder: config of a :class:`~mmfss.encoders.backbones.PriorEncoder`; may be None
            where the prompt generator needs none, and is not run then.
        prompt_generator: makes the pseudo masks; None uses the support memory alone.
        memory_refinement: mends the query memory; None leaves it as encoded.
        memory_attention: ``dict(type='SupportCalibratedMemoryAttention', strength=10.0)``, or
            None for SAM 2's own.
        loss_decode: loss on (B, S, S) logits and labels.
        trainable: modules of SAM 2 that are trained, out of ``TRAINABLE``; all else is frozen and
            stays in eval mode. The decoder's ``conv_s0`` and ``conv_s1`` run inside the image
            encoder and are trained only with it.
        feature_cache: ``dict(type='FeatureCache', directory=..., memory_bytes=...)`` keeps what
            the frozen encoders give for an image, see :class:`mmfss.features.cache.FeatureCache`.
        encode_batch: images that the frozen encoders take at a time in eval mode, see
            :class:`mmfss.encoders.frozen.FrozenEncoding`.
        compile: of :func:`mmfss.encoders.compiling.compile_parts`.
        data_preprocessor, init_cfg: of mmseg's ``BaseSegmentor``.

    Raises:
        ValueError: unknown arch or module, or parts that need one that is None.
    """

    def __init__(
        self,
        sam2: dict,
        prior_encoder: dict | None = None,
        prompt_generator: dict | None = None,
        memory_refinement: dict | None = None,
        memory_attention: dict | None = None,
        loss_decode: dict | None = None,
        trainable: Sequence[str] = ('sam_mask_decoder', 'memory_encoder', 'memory_attention'),
        feature_cache: dict | None = None,
        encode_batch: int = 1,
        compile: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        # built here: mmengine would look for it in its own registry where no scope is set
        if isinstance(data_preprocessor, dict):
            data_preprocessor = MODELS.build(data_preprocessor)
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        options = dict(sam2)
        self.sam2_arch = options.pop('arch', None)
        self.sam2_checkpoint = options.pop('checkpoint', 'official')
        self.same_place = options.pop('same_place', 0.0)
        if self.same_place and self.sam2_checkpoint is not None:
            raise ValueError(
                'model.sam2.same_place is a start for random weights; with '
                f'checkpoint={self.sam2_checkpoint!r} it would spoil the loaded ones. Leave it out.'
            )
        self.sam2 = build_sam2(self.sam2_arch, memory_attention=memory_attention, **options)
        self.normalise = ImageNetNormalise()
        self.prior_encoder = build_part('prior_encoder', prior_encoder, PriorEncoder)
        self.prompt_generator = build_part('prompt_generator', prompt_generator, PromptGenerator)
        self.memory_refinement = build_part(
            'memory_refinement', memory_refinement, MemoryRefinement
        )
        self.loss_decode = MODELS.build(loss_decode or dict(type='SquaredDiceLoss'))
        check_parts(
            self.prompt_generator, self.prior_encoder, self.memory_refinement, memory_attention
        )
        self.trainable = tuple(trainable)
        freeze(self, self.sam2, self.trainable)
        needs_prior = self.prompt_generator is not None and self.prompt_generator.needs_prior
        self.encoding = ImageEncoding(
            self.sam2,
            self.normalise,
            self.prior_encoder if needs_prior else None,
            self.trainable,
            None if feature_cache is None else MODELS.build(feature_cache),
            encode_batch,
            compile,
        )
        self.compiled_parts = compile_parts(self, compile)
        FSSAM.train(self)  # frozen parts are in eval mode from the start

    # ------------------------------------------------------------------ the method

    def encode_image(self, images: Tensor | DeferredBatch) -> ImageFeatures:
        """Features of N images, RGB 0..255: pixels (N, 3, S, S), or images that are read only where
        the cache has no features of them. No gradient where the encoder is frozen."""
        return self.encoding.image_features(images, self.training)

    def encode_support(self, features: ImageFeatures, masks: Tensor) -> SupportState:
        """Encode supports once.

        Args:
            features: of the B K support images, episode-major.
            masks: (B, K, S, S) in {0, 1, 255}; 255 counts as 0.
        """
        shots = masks.shape[1]
        masks = (masks == 1).float()
        flat = masks.flatten(0, 1).unsqueeze(1)
        memory, pos = self.sam2.encode_memory(features.sam2, flat)
        pointers = self.sam2.encode_pointer(features.sam2, flat)
        frames = self.sam2.memory_frames(memory, pos, pointers, shots)
        on_grid = resize_mask(masks, memory.shape[-2:], mode='nearest')
        prototypes = refinement = None
        if self.prompt_generator is not None:
            prior = features.prior
            prior = prior.unflatten(0, (-1, shots)) if prior is not None else None
            prototypes = self.prompt_generator.encode_support(prior, masks)
        if self.memory_refinement is not None:
            refinement = self.memory_refinement.encode_support(
                memory.unflatten(0, (-1, shots)), masks
            )
        attention = self.sam2.memory_attention.encode_support(frames, on_grid)
        return SupportState(prototypes, refinement, frames, attention)

    def encode_query(self, features: ImageFeatures) -> ImageFeatures:
        """The features with what :meth:`segment` makes of them for whichever support: saves time
        where several classes are looked for in an image."""
        return replace(
            features,
            tokens=self.sam2.memory_attention.encode_query(*features.sam2.top_tokens()),
        )

    def segment(
        self, query: ImageFeatures, support: SupportState, truth: Tensor | None = None
    ) -> Segmentation:
        """Segment B queries given their supports.

        Args:
            query: features of the B query images, of :meth:`encode_query` or not.
            support: of :meth:`encode_support`.
            truth: (B, 1, S, S) float in {0, 1}, for an oracle prompt generator only.
        """
        pseudo = frames = refined = None
        if self.prompt_generator is not None:
            pseudo = self.prompt_generator(
                query.prior, support.prototypes, self.sam2.image_size, truth
            )
            frames, refined = self._query_memory(query.sam2, pseudo, support)
        if query.tokens is None:
            query = self.encode_query(query)
        attended = self.sam2.memory_attention.attend(
            query.tokens, query.sam2.top_tokens()[1], frames, support.attention
        )
        attended = attended.transpose(1, 2).unflatten(-1, query.sam2.top.shape[-2:])
        decoded = self.sam2.decode(attended, query.sam2.high_res)
        return Segmentation(decoded.logits, decoded, attended, pseudo, frames, refined)

    def _query_memory(
        self, query: SAM2Features, pseudo: PseudoMasks, support: SupportState
    ) -> tuple[MemoryFrames, RefinedMemory | None]:
        """Memory of the query under its pseudo masks, refined; position and pointer are those
        that came with ``pseudo.ae`` before refinement."""
        pointer = self.sam2.encode_pointer(query, pseudo.ae)
        refined = None
        if self.memory_refinement is None:
            memory, pos = self.sam2.encode_memory(query, pseudo.ae)
        else:
            both = self.sam2.encode_memory(query, torch.cat([pseudo.ae, pseudo.fg]))
            (memory, memory_fg), (pos, _) = (x.chunk(2) for x in both)
            refined = self.memory_refinement(
                memory_fg, memory, pseudo.fg, pseudo.ae, support.refinement
            )
            memory = refined.memory
        return self.sam2.memory_frames(memory, pos, pointer, 1), refined

    # ------------------------------------------------------------------ mmseg's interface

    def run(self, inputs: dict, data_samples: list[SegDataSample] | None = None) -> Segmentation:
        """All steps for a batch of episodes.

        Args:
            inputs: ``query`` (B, 3, S, S) and ``support`` (B, K, 3, S, S) RGB 0..255, or each of
                them images that are read when they must be (the supports episode-major), and
                ``support_mask`` (B, K, S, S) in {0, 1, 255}.
            data_samples: read only by an oracle prompt generator.
        """
        check_size(inputs, self.sam2.image_size)
        query = self.encode_image(inputs['query'])
        supports = inputs['support']
        flat = supports if isinstance(supports, DeferredBatch) else supports.flatten(0, 1)
        support = self.encode_support(self.encode_image(flat), inputs['support_mask'])
        truth = truth_for(self.prompt_generator, data_samples, query.sam2.top, self.sam2.image_size)
        return self.segment(query, support, truth)

    def loss(self, inputs: dict, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Loss of a batch of episodes whose labels have the size S of the input."""
        logits = self.run(inputs, data_samples).logits[:, 0]
        labels = [sample.gt_sem_seg.data[0] for sample in data_samples]
        wrong = {tuple(label.shape) for label in labels} - {tuple(logits.shape[-2:])}
        if wrong:
            raise ValueError(
                f'labels of a training batch are {sorted(wrong)} pixels but the images are '
                f'{tuple(logits.shape[-2:])}; the query_pipeline for training must resize or crop '
                'both to one size'
            )
        target = torch.stack(labels).to(logits.device)
        return {self.loss_decode.loss_name: self.loss_decode(logits, target)}

    def predict(self, inputs: dict, data_samples: list[SegDataSample]) -> list[SegDataSample]:
        """Add to each data sample ``pred_sem_seg`` (1, H, W) uint8 in {0, 1}, ``seg_logits``
        (1, S, S), and where there are any ``pseudo_masks`` (2, S, S) [fg, ae] and
        ``refined_prior`` (1, h, w), in [0, 1].

        H, W are the size of the label, or ``ori_shape`` for an unlabelled query.
        """
        result = self.run(inputs, data_samples)
        for i, sample in enumerate(data_samples):
            logits = result.logits[i : i + 1].float()
            labelled = 'gt_sem_seg' in sample
            size = sample.gt_sem_seg.shape if labelled else sample.ori_shape
            sample.pred_sem_seg = PixelData(data=logits_to_mask(logits, tuple(size[:2]))[0])
            sample.seg_logits = PixelData(data=logits[0])
            if result.pseudo_masks is not None:
                both = torch.cat([result.pseudo_masks.fg[i], result.pseudo_masks.ae[i]])
                sample.pseudo_masks = PixelData(data=both)
            if result.refined is not None:
                sample.refined_prior = PixelData(data=result.refined.prior_ae[i])
        return data_samples

    def _forward(self, inputs: dict, data_samples: list[SegDataSample] | None = None) -> Tensor:
        """Logits (B, 1, S, S)."""
        return self.run(inputs, data_samples).logits

    def extract_feat(self, inputs: Tensor) -> ImageFeatures:
        """mmseg's name of :meth:`encode_image`."""
        return self.encode_image(inputs)

    def encode_decode(self, inputs: dict, batch_data_samples: list[SegDataSample]) -> Tensor:
        """mmseg's name of ``_forward``."""
        return self._forward(inputs, batch_data_samples)

    def init_weights(self) -> None:
        """Load the official or given weights of both encoders, strictly. MMEngine calls this
        before training; testing takes all weights from the checkpoint."""
        if self.sam2_checkpoint is not None:
            load_sam2(self.sam2, self.sam2_arch, self.sam2_checkpoint)
        elif self.same_place:
            start_at_same_place(self.sam2.memory_attention, self.same_place)
        if self.prior_encoder is not None:
            self.prior_encoder.init_weights()
        self._is_init = True

    def train(self, mode: bool = True) -> FSSAM:
        """Put the trained modules into training mode; frozen ones stay in eval mode."""
        super().train(False)
        self.training = mode
        for name in self.trainable:
            self.sam2.get_submodule(name).train(mode)
        for frozen in self.encoding.modules.values():  # some are inside of a trained one
            frozen.eval()
        return self
