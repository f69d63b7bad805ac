"""Models so small that a forward pass takes milliseconds, and random episodes for them."""

from __future__ import annotations

import copy

import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

SIZE = 64  # side of the images; the memory's grid is 4 x 4
DIM, MEM = 32, 8  # channels of image features and memory: 4 tokens per object pointer


def tiny_arch(base: str = 'sam2_small', num_layers: int = 2) -> dict:
    """A SAM 2 of 5 trunk blocks with 32 channels; all else as in the official YAML."""
    attention = dict(embedding_dim=DIM)
    return dict(
        base=base,
        image_encoder=dict(
            trunk=dict(embed_dim=8, stages=[1, 1, 2, 1], global_att_blocks=[3]),
            neck=dict(
                d_model=DIM,
                backbone_channel_list=[64, 32, 16, 8],
                position_encoding=dict(num_pos_feats=DIM),
            ),
        ),
        memory_attention=dict(
            d_model=DIM,
            num_layers=num_layers,
            layer=dict(
                d_model=DIM,
                dim_feedforward=64,
                dropout=0.0,
                self_attention=dict(dropout=0.0, **attention),
                cross_attention=dict(dropout=0.0, kv_in_dim=MEM, **attention),
            ),
        ),
        memory_encoder=dict(
            in_dim=DIM,
            out_dim=MEM,
            position_encoding=dict(num_pos_feats=MEM),
            mask_downsampler=dict(embed_dim=DIM),
            fuser=dict(layer=dict(dim=DIM)),
        ),
    )


TINY_DINO = dict(embed_dim=16, depth=1, num_heads=2)
#: a SAM 1 of one windowed and one full block; a grid of 4 x 4 leaves windows of 3 x 3 unfilled
TINY_SAM1 = dict(
    embed_dim=16,
    depth=2,
    num_heads=2,
    global_attn_indexes=[1],
    img_size=SIZE,
    window_size=3,
    out_chans=DIM,
    iou_head_hidden_dim=16,
    transformer_mlp_dim=16,
    transformer_num_heads=4,
)
#: FSSAM as published, tiny
FULL = dict(
    type='FSSAM',
    sam2=dict(arch=tiny_arch(), image_size=SIZE, checkpoint=None),
    prior_encoder=dict(type='DINOv2', arch=TINY_DINO, image_size=70, checkpoint=None),
    prompt_generator=dict(type='PseudoPromptGenerator'),
    memory_refinement=dict(type='IterativeMemoryRefinement'),
    memory_attention=dict(type='SupportCalibratedMemoryAttention'),
)
PRIOR = FULL['prior_encoder']
SAM1 = dict(type='SAM1', arch=TINY_SAM1, checkpoint=None)
#: every registered few-shot method, tiny: what tests/test_methods/test_contract.py asks of each
METHODS = dict(
    AllForeground=dict(type='AllForeground', image_size=SIZE),
    DensityMatcher=dict(
        type='DensityMatcher',
        image_size=SIZE,
        encoder=PRIOR,
        refine=dict(type='GrabCut', side=32),
    ),
    FSSAM=FULL,
    FSSAM2=dict(
        type='FSSAM2',
        image_size=SIZE,
        resize='bilinear',
        sam2=dict(arch=tiny_arch('sam2.1_small'), checkpoint=None),
    ),
    GFSAM=dict(
        type='GFSAM',
        image_size=SIZE,
        encoder=dict(
            type='DINOv2',
            arch=TINY_DINO,
            image_size=126,
            checkpoint=None,
            final_norm=False,
            resize='centres',
        ),
        sam2=dict(arch=tiny_arch(), checkpoint=None),
        resize='bilinear',
    ),
    INSID3=dict(
        type='INSID3',
        image_size=SIZE,
        resize='bilinear',  # as the pipelines of these tests do
        encoder=PRIOR,
        svd_components=8,
        tau=0.9,
        merge_threshold=0.0,
    ),
    PerSAM=dict(type='PerSAM', image_size=SIZE, resize='bilinear', sam1=SAM1),
    PerSAMF=dict(type='PerSAMF', image_size=SIZE, resize='bilinear', sam1=SAM1, steps=5),
    PrototypeMatcher=dict(type='PrototypeMatcher', image_size=SIZE, encoder=PRIOR),
    PseudoMask=dict(
        type='PseudoMask',
        image_size=SIZE,
        encoder=PRIOR,
        prompt_generator=dict(type='PseudoPromptGenerator'),
    ),
    # the gate of random weights is often shut; in the order of a video supports are not alike
    SAM2Memory=dict(
        type='SAM2Memory',
        image_size=SIZE,
        sam2=dict(arch=tiny_arch('sam2.1_small'), checkpoint=None),
        object_gate=False,
        shots_in_order=False,
    ),
)
METHODS['SANSA'] = dict(
    type='SANSA',
    image_size=SIZE,
    sam2=dict(
        arch=tiny_arch(),
        image_size=SIZE,
        checkpoint=None,
        adapters=dict(stages=(2, 3), channel_factor=0.5),
    ),
    resize='bilinear',
    # in the order of a video supports are not alike; what is frozen is in eval mode elsewhere
    shots_in_order=False,
    attention_dropout=False,
)
#: patterns of trained parameters that the loss need not reach: heads that nothing is read from,
#: and masks that were not chosen
IDLE = dict(
    FSSAM=[
        f'sam2.sam_mask_decoder.{part}.*'
        for part in ('iou_prediction_head', 'pred_obj_score_head', 'output_hypernetworks_mlps')
    ],
)


def config(base: str = 'sam2_small', **changes) -> dict:
    """``FULL`` with some entries replaced."""
    cfg = copy.deepcopy(FULL)
    cfg['sam2']['arch'] = tiny_arch(base)
    cfg.update(changes)
    return cfg


def randomised(model: nn.Module, seed: int = 0, scale: float = 0.2) -> nn.Module:
    """Add noise to all parameters, so that none stays at an initial zero, one or 1e-6."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return model


def build(base: str = 'sam2_small', seed: int = 0, **changes):
    """A tiny FSSAM in eval mode; the same weights for the same config and seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MODELS.build(config(base, **changes))
    return randomised(model, seed).eval()


def episodes(batch: int = 1, shots: int = 1, seed: int = 0, size: int = SIZE) -> dict[str, Tensor]:
    """Inputs of a model: noise with a brighter rectangle that is the object, no smaller than the
    distance of a 4 x 4 grid's points."""
    generator = torch.Generator().manual_seed(seed)

    def images(*lead: int) -> tuple[Tensor, Tensor]:
        image = torch.rand(*lead, 3, size, size, generator=generator) * 160
        mask = torch.zeros(*lead, size, size, dtype=torch.uint8)
        for one, its_image in zip(mask.view(-1, size, size), image.view(-1, 3, size, size)):
            top, left = torch.randint(0, size // 2, (2,), generator=generator).tolist()
            tall, wide = torch.randint(size * 3 // 8, size // 2, (2,), generator=generator).tolist()
            one[top : top + tall, left : left + wide] = 1
            its_image[:, one == 1] += torch.tensor([[90.0], [40.0], [10.0]])
            one[-3:] = 255
        return image, mask

    query, truth = images(batch)
    support, masks = images(batch, shots)
    return dict(query=query, support=support, support_mask=masks, truth=truth)


def inputs_of(data: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the preprocessor hands to the model."""
    return {key: data[key] for key in ('query', 'support', 'support_mask')}


def samples_of(data: dict[str, Tensor]) -> list[SegDataSample]:
    """Data samples with the query's truth."""
    samples = []
    for truth in data['truth']:
        sample = SegDataSample(metainfo=dict(ori_shape=tuple(truth.shape)))
        sample.gt_sem_seg = PixelData(data=truth[None])
        samples.append(sample)
    return samples


def encoded(sam2, images: Tensor):
    """SAM 2's features of images (N, 3, S, S) that are normalised already, as sam2 takes them."""
    return sam2.features(*sam2._neck(*sam2.image_encoder.trunk(images)))
