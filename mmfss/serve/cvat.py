"""The door for CVAT: a function for ``cvat-cli task auto-annotate``, which needs no service. ::

    cvat-cli task auto-annotate 5 --function-module mmfss.serve.cvat -p task=int:5

Supports are what people have drawn in the task: shapes whose source is not 'auto'. The frames are
marked as CVAT's labels have it: masks, polygons or rectangles, with ``--conv-mask-to-poly``
polygons in the place of masks. A class is not marked in frames where it has been drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from mmfss.apis import FewShotInferencer
from mmfss.apis.box_masks import BoxMasks
from mmfss.apis.images import as_bgr
from mmfss.apis.prediction import Prediction
from mmfss.apis.prompts import Proposal
from mmfss.regions import (
    cvat_points,
    cvat_points_mask,
    ellipse,
    joined,
    outlines_of,
    rectangle,
)
from mmfss.serve.marks import TOLERANCE, Found, Marks, objects_in

KINDS = ('any', 'mask', 'polygon', 'rectangle')
"""Types of labels that are marked."""


class FewShotFunction:
    """A detection function of :mod:`cvat_sdk.auto_annotation`.

    Args:
        inferencer: whose support set is replaced.
        samples: of a :class:`cvat_sdk.datasets.TaskDataset`.
        labels: of the task: names, types and ids.
        prompt_weights: see :class:`mmfss.apis.box_masks.BoxMasks`.
        max_shots: supports of a class, the last ones of the task.

    Raises:
        ValueError: Nothing is drawn that can be used.
    """

    def __init__(
        self,
        inferencer: FewShotInferencer,
        samples: Iterable[Any],
        labels: Iterable[Any],
        prompt_weights: str | None = None,
        max_shots: int = 10,
    ) -> None:
        import cvat_sdk.auto_annotation as cvataa

        self.inferencer = inferencer
        self._prompt_weights = prompt_weights
        self._masks: BoxMasks | None = None
        names = {one.id: one.name for one in labels}
        kinds = {one.name: str(one.type) for one in labels}
        most = min(max_shots, inferencer.model.max_shots or max_shots)
        supports: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        self.drawn: dict[str, frozenset[str]] = {}
        self.notes: list[str] = []
        for sample in samples:
            there = sample.annotations.shapes
            shapes = [one for one in there if f'{getattr(one, "source", "manual")}' != 'auto']
            if not shapes:
                continue
            pixels = as_bgr(sample.media.load_image(), sample.frame_name)
            marks = marks_of(shapes, names, *pixels.shape[:2])
            masks = marks.masks(partial(self._propose, pixels))
            self.notes += [f'{sample.frame_name}: {note}' for note in marks.notes]
            self.drawn[sample.frame_name] = frozenset(names[one.label_id] for one in shapes)
            for name, mask in masks.items():
                if kinds[name] in KINDS:
                    supports.setdefault(name, []).append((pixels, mask))
        if not supports:
            raise ValueError(
                'nothing is drawn in the task that can be used: draw an object of a label of type '
                f'{", ".join(KINDS)} in at least one frame, save, and run the command again'
                + ''.join(f'; {note}' for note in self.notes)
            )
        inferencer.set_support({name: some[-most:] for name, some in supports.items()})
        self.kinds = [kinds[name] for name in inferencer.classes]
        specs = [cvataa.label_spec(name, number) for number, name in enumerate(inferencer.classes)]
        self.spec = cvataa.DetectionFunctionSpec(labels=specs)

    def _propose(self, pixels: np.ndarray, prompt: Any) -> Proposal:
        if self._masks is None:  # weights for it are loaded where they are needed alone
            self._masks = BoxMasks(self.inferencer, self._prompt_weights)
        return self._masks.propose(pixels, prompt)

    def detect(self, context: Any, image: Image.Image) -> list[Any]:
        """The shapes of a frame."""
        pixels = as_bgr(image, context.frame_name)
        (prediction,) = self.inferencer.predict([pixels], [context.frame_name])
        return self.shapes(prediction, context)

    def shapes(self, prediction: Prediction, context: Any) -> list[Any]:
        """A prediction as shapes of CVAT."""
        least, drawn = context.conf_threshold or 0.0, self.drawn.get(context.frame_name, ())
        found = []
        for one in objects_in(prediction):
            if one.score >= least and one.name not in drawn:
                kind = self.kinds[one.label - 1]
                if kind == 'any':
                    kind = 'polygon' if context.conv_mask_to_poly else 'mask'
                elif kind == 'mask' and context.conv_mask_to_poly:
                    raise ValueError(
                        f'label {one.name!r} takes masks alone: leave out --conv-mask-to-poly'
                    )
                found += _shapes(one, kind)
        return found


def _shapes(one: Found, kind: str) -> list[Any]:
    import cvat_sdk.auto_annotation as cvataa

    label = one.label - 1
    if kind == 'rectangle':
        x, y, width, height = one.box
        return [cvataa.rectangle(label, [x, y, x + width, y + height])]
    if kind == 'mask':
        return [cvataa.mask(label, cvat_points(one.mask))]
    rings = [joined(outline) for outline in outlines_of(one.mask, TOLERANCE)]
    return [cvataa.polygon(label, ring.ravel().tolist()) for ring in rings]


def marks_of(shapes: Iterable[Any], names: Mapping[int, str], height: int, width: int) -> Marks:
    """What shapes of CVAT mark in a frame."""
    marks = Marks(height, width)
    for shape in shapes:
        kind, name, flat = f'{shape.type}', names[shape.label_id], list(shape.points or ())
        turned = getattr(shape, 'rotation', 0) or 0
        try:
            if kind == 'mask':
                marks.draw(name, cvat_points_mask(flat, height, width))
                continue
            points = np.array(flat, np.float64).reshape(-1, 2)
            if kind == 'polygon':
                marks.outline(name, points)
            elif kind == 'ellipse':  # its centre, then the right and the upper end
                (x, y), (right, top) = points.tolist()
                marks.outline(name, ellipse((x, y), (right - x, y - top), turned))
            elif kind == 'rectangle':
                marks.box(name, rectangle(tuple(points[0]), tuple(points[1]), turned))
            elif kind == 'points':
                for point in points:
                    marks.point(name, point)
            else:
                raise ValueError('it has no area')
        except ValueError as error:
            marks.notes.append(f'a {kind} of {name} is left out: {error}')
    return marks


def create(
    task: int,
    method: str | None = None,
    config: str | None = None,
    weights: str | None = None,
    device: str | None = None,
    threshold: float | None = None,
    prompt_weights: str | None = None,
    max_shots: int = 10,
    server_host: str | None = None,
    server_port: int | None = None,
    profile: str | None = None,
    auth: str | None = None,
    organization: str | None = None,
) -> FewShotFunction:
    """What cvat-cli calls, with its ``-p NAME=TYPE:VALUE``.

    The function is not told to which server cvat-cli speaks: as for that, a profile or
    CVAT_ACCESS_TOKEN tell, or the last five arguments.

    Args:
        task: whose annotated frames are the supports.
        method, config, weights, device, threshold: see :class:`mmfss.apis.FewShotInferencer`.
        prompt_weights, max_shots: see :class:`FewShotFunction`.
        server_host, server_port, profile, organization: those of cvat-cli.
        auth: USER, with the password in PASS.

    Raises:
        ValueError: See :class:`FewShotFunction`.
    """
    from cvat_sdk.core.auth import ClientAuthParameters, get_auth_factory, make_client_from_cli
    from cvat_sdk.datasets import TaskDataset

    login = None if auth is None else get_auth_factory(auth)
    asked = dict(server_host=server_host, server_port=server_port, profile=profile)
    parameters = ClientAuthParameters(auth=login, organization=organization, **asked)
    inferencer = FewShotInferencer(config, weights, device, threshold, method=method)
    with make_client_from_cli(parameters) as client:
        dataset = TaskDataset(client, task)
        function = FewShotFunction(
            inferencer, dataset.samples, dataset.labels, prompt_weights, max_shots
        )
        for note in function.notes:
            client.logger.warning(note)
        return function
