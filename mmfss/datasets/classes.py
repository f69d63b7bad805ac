"""Classes: their names in each dataset, which of them mean the same thing, colours of labels."""

from __future__ import annotations

PASCAL_CLASSES = (
    'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow',
    'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train',
    'tvmonitor',
)  # fmt: skip
COCO_CLASSES = (
    'person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train', 'truck', 'boat',
    'traffic light', 'fire hydrant', 'stop sign', 'parking meter', 'bench', 'bird', 'cat', 'dog',
    'horse', 'sheep', 'cow', 'elephant', 'bear', 'zebra', 'giraffe', 'backpack', 'umbrella',
    'handbag', 'tie', 'suitcase', 'frisbee', 'skis', 'snowboard', 'sports ball', 'kite',
    'baseball bat', 'baseball glove', 'skateboard', 'surfboard', 'tennis racket', 'bottle',
    'wine glass', 'cup', 'fork', 'knife', 'spoon', 'bowl', 'banana', 'apple', 'sandwich', 'orange',
    'broccoli', 'carrot', 'hot dog', 'pizza', 'donut', 'cake', 'chair', 'couch', 'potted plant',
    'bed', 'dining table', 'toilet', 'tv', 'laptop', 'mouse', 'remote', 'keyboard', 'cell phone',
    'microwave', 'oven', 'toaster', 'sink', 'refrigerator', 'book', 'clock', 'vase', 'scissors',
    'teddy bear', 'hair drier', 'toothbrush',
)  # fmt: skip
SHAPES_CLASSES = (
    'star', 'ring', 'cross', 'crescent', 'heart',
    'gear', 'arrow', 'triangle', 'drop', 'flower',
    'bolt', 'key', 'horseshoe', 'fish', 'hourglass',
    'comb', 'mushroom', 'tree', 'pinwheel', 'ell',
)  # fmt: skip

#: names that PASCAL VOC, LVIS and others have for classes of COCO, as :func:`canonical` spells them
_SAME_CLASS = {
    'aeroplane': 'airplane',
    'motorbike': 'motorcycle',
    'sofa': 'couch',
    'tvmonitor': 'tv',
    'televisionset': 'tv',
    'car(automobile)': 'car',
    'bus(vehicle)': 'bus',
    'train(railroadvehicle)': 'train',
    'fireplug': 'firehydrant',
    'necktie': 'tie',
    'ski': 'skis',
    'orange(fruit)': 'orange',
    'doughnut': 'donut',
    'laptopcomputer': 'laptop',
    'mouse(computerequipment)': 'mouse',
    'remotecontrol': 'remote',
    'computerkeyboard': 'keyboard',
    'cellulartelephone': 'cellphone',
    'microwaveoven': 'microwave',
    'hairdryer': 'hairdrier',
}


def canonical(name: str) -> str:
    """One spelling per class: ``'tvmonitor'``, ``'TV monitor'`` -> ``'tv'``,
    ``'dining table'`` -> ``'diningtable'``."""
    plain = name.lower().replace(' ', '').replace('-', '').replace('_', '')
    return _SAME_CLASS.get(plain, plain)


def label_palette(num_classes: int) -> list[list[int]]:
    """RGB colours of the labels 0..C in PASCAL VOC's scheme: C + 1 distinct triples."""
    palette = []
    for label in range(num_classes + 1):
        colour, rest = [0, 0, 0], label
        for shift in range(7, -1, -1):
            for channel in range(3):
                colour[channel] |= ((rest >> channel) & 1) << shift
            rest >>= 3
        palette.append(colour)
    return palette
