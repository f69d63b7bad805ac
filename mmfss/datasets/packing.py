"""The images of an episode in the form that the model takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmfss.features.images import ImageFiles, image_tensor


def pack_episode(query: dict, supports: Sequence[dict], meta: dict) -> dict:
    """Put the transformed images of an episode into the form that the model takes.

    Args:
        query: Results of the query's pipeline, with its label (the truth, not an input). Where
            images are deferred, all results have an ``image_file`` and their ``img`` is a
            stand-in.
        supports: Results of the K supports' pipelines, all of one size.
        meta: Further metainfo of the data sample: class, episode number.

    Returns:
        ``inputs``: ``query`` uint8 (3, H, W) BGR, ``support`` uint8 (K, 3, H, W), and
        ``support_mask`` uint8 (K, H, W) of {0, 1, 255}; where images are deferred, ``query``
        and ``support`` are :class:`~mmfss.features.images.ImageFiles`. ``data_samples``: a
        SegDataSample with ``gt_sem_seg`` uint8 (1, h, w) and the metainfo.

    Raises:
        ValueError: Supports of different sizes, or a support label unlike its image.
    """
    shapes = [s['img'].shape[:2] for s in supports]
    shapes += [s['gt_seg_map'].shape for s in supports]
    if len(set(shapes)) != 1:
        raise ValueError(
            f'support images and masks of an episode must have one size, got '
            f'{shapes} for {[s["img_path"] for s in supports]}; end the support '
            'pipeline with Resize(scale=(S, S)) or RandomCropKeepObject(S)'
        )
    sample = SegDataSample(
        metainfo=dict(
            img_path=query['img_path'],
            seg_map_path=query['seg_map_path'],
            ori_shape=tuple(query['ori_shape']),
            img_shape=tuple(query['img'].shape[:2]),
            shots=len(supports),
            support_paths=[s['img_path'] for s in supports],
            **meta,
        )
    )
    sample.gt_sem_seg = PixelData(data=torch.from_numpy(query['gt_seg_map'][None].copy()))
    masks = torch.stack([torch.from_numpy(s['gt_seg_map'].copy()) for s in supports])
    deferred = 'image_file' in query
    inputs = dict(
        query=_files([query]) if deferred else image_tensor(query['img']),
        support_mask=masks,
        support=_files(supports)
        if deferred
        else torch.stack([image_tensor(s['img']) for s in supports]),
    )
    return dict(inputs=inputs, data_samples=sample)


def _files(images: Sequence[dict]) -> ImageFiles:
    return ImageFiles(tuple(results['image_file'] for results in images))
