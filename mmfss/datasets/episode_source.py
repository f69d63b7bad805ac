"""The images that episodes are drawn from, read once: by one process for all."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from mmengine.dist import broadcast_object_list, get_dist_info
from mmseg.registry import DATASETS
from torch.utils.data import Dataset

from mmfss.datasets.class_index import ClassIndex


def built(dataset: dict | Dataset) -> Dataset:
    """The dataset of a config. Its list is read once here, so packing it into bytes, which takes
    longer than all else, is left out unless the config asks for it."""
    if not isinstance(dataset, dict):
        return dataset
    kind = dataset.get('type')
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    if inspect.isclass(kind) and 'serialize_data' in inspect.signature(kind).parameters:
        dataset = {'serialize_data': False, **dataset}
    return DATASETS.build(dataset)


def on_first_process(build: Callable[[], ClassIndex]) -> ClassIndex:
    """What ``build`` gives; among several processes only the first does the work."""
    rank, world_size = get_dist_info()
    if world_size == 1:
        return build()
    shared: list = [None, None]
    if rank == 0:
        try:
            shared[0] = build()
        except (ValueError, OSError) as error:  # the others must not wait for ever
            shared[1] = error
    broadcast_object_list(shared)
    if shared[1] is not None:
        raise shared[1]
    return shared[0]
