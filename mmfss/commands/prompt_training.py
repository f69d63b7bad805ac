"""A short training of SAM 2's prompt encoder and mask decoder on box, point and scribble prompts.

For models whose SAM 2 has no official weights: the model of the demo learns the empty prompt of
tracking alone. Only copies are trained (:class:`mmfss.encoders.sam2.prompts.PromptHeads`), on the
model's own training images; nothing of FSSAM changes. Prompts, candidates and losses are those of
SAM and SAM 2: of three candidates the best one is trained, focal and Dice loss 20 : 1, and the
predicted IoUs learn the true ones.

Shapes: B prompts, P points, M candidates, (h, w) of the mask decoder's logits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from mmfss.apis.marks import Prompt
from mmfss.batching import cat
from mmfss.encoders.sam2.model import SAM2, SAM2Features
from mmfss.encoders.sam2.prompts import PADDING, PromptHeads

KINDS = ('box', 'point', 'points', 'scribble')
MIN_PIXELS = 16


def largest_object(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a bool (H, W) mask: prompts mark one object."""
    parts, count = ndimage.label(mask, np.ones((3, 3)))
    if count <= 1:
        return mask
    return parts == np.bincount(parts[parts > 0]).argmax()


def draw_prompt(
    mask: np.ndarray, kind: str, rng: np.random.Generator, shake: float = 0.0
) -> Prompt:
    """A prompt as a person may give it for an object.

    Args:
        mask: bool (H, W), not empty.
        kind: 'box'; 'point', one well inside; 'points', two to four on the object and one to three
            near it; 'scribble', a stroke over it.
        rng: source of chance.
        shake: of the box: each side is moved by a normal share of the box's size.
    """
    rows, columns = np.nonzero(mask)
    height, width = mask.shape
    x1, x2, y1, y2 = columns.min(), columns.max() + 1, rows.min(), rows.max() + 1
    if kind == 'box':
        dx, dy = shake * (x2 - x1), shake * (y2 - y1)
        moved = np.array([x1, y1, x2, y2]) + rng.normal(0, 1, 4) * [dx, dy, dx, dy]
        left, top, right, bottom = np.clip(moved, 0, [width, height, width, height])
        if right - left < 1 or bottom - top < 1:
            left, top, right, bottom = x1, y1, x2, y2
        return Prompt(box=(float(left), float(top), float(right), float(bottom)))
    if kind == 'scribble':
        return Prompt(scribbles=(_stroke(mask, rng),))
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    inside = np.argwhere(depth >= 0.5 * depth.max())
    if kind == 'point':
        return Prompt(points=_some(inside, 1, rng), labels=(1,))
    near = np.zeros_like(mask)
    margin = 2 + max(x2 - x1, y2 - y1) // 5
    near[max(0, y1 - margin) : y2 + margin, max(0, x1 - margin) : x2 + margin] = True
    off = np.argwhere(near & ~mask)
    yes = _some(np.argwhere(mask), int(rng.integers(2, 5)), rng)
    no = _some(off, int(rng.integers(1, 4)), rng) if len(off) else ()
    return Prompt(points=yes + no, labels=(1,) * len(yes) + (0,) * len(no))


def _some(where: np.ndarray, count: int, rng: np.random.Generator) -> tuple:
    """Points (x, y) out of (n, 2) rows and columns."""
    return tuple((float(x), float(y)) for y, x in where[rng.integers(0, len(where), count)])


def _stroke(mask: np.ndarray, rng: np.random.Generator) -> tuple:
    """Where a line through three pixels of the object runs over it."""
    y, x = np.argwhere(mask)[rng.integers(0, mask.sum(), 3)].T
    at = np.linspace(0, 2, 65)
    line = np.stack([np.interp(at, range(3), x), np.interp(at, range(3), y)], axis=1)
    on = mask[np.rint(line[:, 1]).astype(int), np.rint(line[:, 0]).astype(int)]
    return tuple((float(a), float(b)) for a, b in line[on])


def prompt_batch(
    masks: Sequence[np.ndarray], kind: str, rng: np.random.Generator, side: int
) -> tuple[Tensor, Tensor]:
    """Prompts of one kind for B objects.

    Args:
        masks: B bool (H, W).
        kind: of :data:`KINDS`.
        rng: source of chance.
        side: S of the model.

    Returns:
        (B, P, 2) float32 and (B, P) int32, padded to the longest.
    """
    tokens = []
    for mask in masks:
        height, width = mask.shape
        tokens.append(draw_prompt(mask, kind, rng, shake=0.05).tokens(width, height, side))
    longest = max(len(labels) for _, labels in tokens)
    coords = torch.zeros(len(masks), longest, 2)
    labels = torch.full((len(masks), longest), PADDING, dtype=torch.int32)
    for b, (points, values) in enumerate(tokens):
        coords[b, : len(points)], labels[b, : len(points)] = map(torch.from_numpy, (points, values))
    return coords, labels


def prompt_loss(logits: Tensor, ious: Tensor, target: Tensor) -> Tensor:
    """SAM 2's loss without the object score.

    Args:
        logits: (B, M, h, w).
        ious: (B, M) predicted.
        target: (B, h, w) in [0, 1].

    Returns:
        Scalar: 20 focal + Dice of each prompt's best candidate, + L1 of all predicted IoUs.
    """
    target = target[:, None].expand_as(logits)
    inside = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction='none')
    missed = inside * (1 - target) + (1 - inside) * target
    balance = 0.25 * target + 0.75 * (1 - target)
    focal = (balance * missed**2 * entropy).mean((-2, -1))
    both = (inside * target).sum((-2, -1))
    dice = 1 - (2 * both + 1) / (inside.sum((-2, -1)) + target.sum((-2, -1)) + 1)
    hard, truth = logits > 0, target > 0.5
    union = (hard | truth).sum((-2, -1)).clamp(min=1)
    actual = (hard & truth).sum((-2, -1)) / union
    return (20 * focal + dice).min(1).values.mean() + (ious - actual).abs().mean()


@dataclass(frozen=True)
class Objects:
    """N objects, encoded.

    Attributes:
        features: of their images.
        masks: N bool (S, S).
    """

    features: SAM2Features
    masks: list[np.ndarray]

    def pick(self, where: np.ndarray) -> tuple[SAM2Features, list[np.ndarray]]:
        """Features and masks of some of them."""
        low, mid = self.features.high_res
        top, top_pos = self.features.top, self.features.top_pos
        at = torch.from_numpy(where)
        part = SAM2Features((low[at], mid[at]), top[at], top_pos[at])
        return part, [self.masks[i] for i in where]


@torch.no_grad()
def encode_objects(sam2: SAM2, dataset: Sequence, number: int, batch_size: int) -> Objects:
    """The largest objects of the first episodes' queries and supports, encoded once.

    Args:
        sam2: in eval mode.
        dataset: episodes for training, of base classes alone.
        number: N.
        batch_size: images encoded at once.
    """
    device = next(sam2.parameters()).device
    parts: list[SAM2Features] = []
    masks: list[np.ndarray] = []
    waiting: list[Tensor] = []
    for image, mask in itertools.islice(_objects(dataset), number):
        waiting.append(image)
        masks.append(mask)
        if len(waiting) == batch_size or len(masks) == number:
            images = torch.stack(waiting).float().to(device)
            parts.append(sam2.features(*sam2(images)))
            waiting = []
    if len(masks) < number:
        raise ValueError(f'the data have {len(masks)} objects, fewer than the {number} asked for')
    return Objects(cat(parts), masks)


def _objects(dataset: Sequence) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Images (3, S, S) RGB 0..255 and their largest object, bool (S, S)."""
    for index in range(len(dataset)):
        item = dataset[index]
        inputs = item['inputs']
        images = [inputs['query'], *inputs['support']]
        labels = [item['data_samples'].gt_sem_seg.data[0], *inputs['support_mask']]
        for image, label in zip(images, labels):
            mask = largest_object(label.numpy() == 1)
            if mask.sum() >= MIN_PIXELS:
                yield image.flip(0), mask  # datasets give BGR


def train_prompts(
    sam2: SAM2, objects: Objects, iterations: int, batch_size: int, lr: float, seed: int
) -> Iterator[tuple[PromptHeads, float]]:
    """Train heads for prompts; gives them with the loss after each iteration.

    Args:
        sam2: in eval mode; not changed.
        objects: of the base classes.
        iterations: batches; their kind of prompt goes round :data:`KINDS`.
        batch_size: B.
        lr: of AdamW, falling to 0 as a cosine after a short rise.
        seed: of prompts and order.
    """
    device = next(sam2.parameters()).device
    rng = np.random.default_rng(seed)
    heads = PromptHeads(sam2, drawn=True).to(device).train()
    heads.requires_grad_(True)
    for conv in (heads.sam_mask_decoder.conv_s0, heads.sam_mask_decoder.conv_s1):
        conv.requires_grad_(False)  # they run in the image encoder
    parameters = [p for p in heads.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01)
    warm = max(1, iterations // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / iterations)),
    )
    for step in range(iterations):
        features, masks = objects.pick(rng.integers(0, len(objects.masks), batch_size))
        kind = KINDS[step % len(KINDS)]
        coords, labels = prompt_batch(masks, kind, rng, sam2.image_size)
        logits, ious = heads(features, coords.to(device), labels.to(device))
        target = torch.from_numpy(np.stack(masks)).float().to(device)
        target = F.interpolate(target[:, None], logits.shape[-2:], mode='area')[:, 0]
        loss = prompt_loss(logits, ious, target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        yield heads, float(loss.detach())
