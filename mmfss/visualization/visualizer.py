"""What the model gave for an episode, drawn and sent to MMEngine's backends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmengine.dist import master_only
from mmseg.registry import VISUALIZERS
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from mmfss.visualization.episodes import draw_episode
from mmfss.visualization.overlays import EXTRA, HIT, IGNORED, MISSED, error_kinds


def _iou(prediction: np.ndarray, truth: np.ndarray) -> float:
    counts = np.bincount(error_kinds(prediction, truth).ravel(), minlength=IGNORED + 1)
    return 100.0 * counts[HIT] / max(counts[HIT] + counts[EXTRA] + counts[MISSED], 1)


def draw_sample(
    query: np.ndarray,
    supports: Sequence[np.ndarray],
    support_masks: Sequence[np.ndarray],
    sample: SegDataSample,
    panel_size: int = 160,
) -> np.ndarray:
    """The row of one episode, see :func:`draw_episode`.

    Args:
        query: uint8 (H, W, 3) RGB.
        supports: K such images.
        support_masks: K masks (H, W) of 0, 1, 255.
        sample: what the model gave: ``pred_sem_seg`` and, where it has them, ``gt_sem_seg``,
            ``pseudo_masks``, ``refined_prior`` and the meta data ``episode`` and ``class_name``.
        panel_size: side of a panel in pixels.

    Returns:
        uint8 (height, width, 3) RGB.

    Raises:
        ValueError: On a sample without a prediction, and see :func:`draw_episode`.
    """
    if 'pred_sem_seg' not in sample:
        raise ValueError(
            f'the data sample has no pred_sem_seg, it has {sorted(sample.keys())}; draw what '
            "FSSAM's predict returns"
        )

    def data(name: str) -> np.ndarray | None:
        return sample.get(name).data.float().cpu().numpy() if name in sample else None

    prediction, truth, refined = data('pred_sem_seg')[0], data('gt_sem_seg'), data('refined_prior')
    title = f'episode {sample.get("episode", "?")}: {sample.get("class_name", "?")}'
    if truth is not None:
        title += f', IoU {_iou(prediction, truth[0]):.1f} %'
    return draw_episode(
        query=query,
        supports=supports,
        support_masks=support_masks,
        prediction=prediction,
        truth=None if truth is None else truth[0],
        pseudo_masks=data('pseudo_masks'),
        refined_prior=None if refined is None else refined[0],
        title=title,
        panel_size=panel_size,
    )


@VISUALIZERS.register_module()
class EpisodeVisualizer(SegLocalVisualizer):
    """mmseg's visualizer that can draw episodes too, into all of its backends::

        visualizer = dict(type='EpisodeVisualizer', vis_backends=[
            dict(type='LocalVisBackend'),
            dict(type='TensorboardVisBackend'),
            dict(type='WandbVisBackend', init_kwargs=dict(project='mmfss'))])

    TensorBoard and W&B are packages of their own (``pip install tensorboard``, ``wandb``).
    :class:`~mmfss.visualization.EpisodeVisualizationHook` draws by :meth:`draw_sample`, so a
    subclass that draws otherwise is all it takes to change the pictures. The arguments and
    ``add_datasample`` are those of mmseg.
    """

    def draw_sample(
        self,
        query: np.ndarray,
        supports: Sequence[np.ndarray],
        support_masks: Sequence[np.ndarray],
        sample: SegDataSample,
        panel_size: int = 160,
    ) -> np.ndarray:
        """The picture of one episode, see :func:`draw_sample`."""
        return draw_sample(query, supports, support_masks, sample, panel_size)

    @master_only
    def add_episode(
        self,
        name: str,
        query: np.ndarray,
        supports: Sequence[np.ndarray],
        support_masks: Sequence[np.ndarray],
        sample: SegDataSample,
        step: int = 0,
        panel_size: int = 160,
    ) -> None:
        """Draw an episode and send it to every backend; only the main process does.

        Args:
            name: of the picture; the local backend makes it a file name.
            query, supports, support_masks, sample, panel_size: see :func:`draw_sample`.
            step: iteration that the picture is of.

        Raises:
            ValueError: See :func:`draw_sample`.
        """
        picture = self.draw_sample(query, supports, support_masks, sample, panel_size)
        self.add_image(name, picture, step)
