"""A picture of the first test episodes in the work directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample

from mmfss.files import atomic

from .episodes import draw_episode, stack_rows


def _image(tensor: torch.Tensor) -> np.ndarray:
    """uint8 (3, H, W) BGR -> uint8 (H, W, 3) RGB."""
    return np.ascontiguousarray(tensor.cpu().numpy().transpose(1, 2, 0)[..., ::-1])


def _iou(prediction: np.ndarray, truth: np.ndarray) -> float:
    valid = truth != 255
    both = (prediction == 1) & (truth == 1)
    either = ((prediction == 1) | (truth == 1)) & valid
    return 100.0 * float(both.sum()) / max(float(either.sum()), 1.0)


def draw_sample(
    inputs: dict, index: int, sample: SegDataSample, output: SegDataSample, panel_size: int
) -> np.ndarray:
    """The row of one episode of a batch.

    Args:
        inputs: ``query`` (3, H, W), ``support`` (K, 3, H, W) and ``support_mask`` (K, H, W) of
            each episode, uint8, BGR; stacked or in a list.
        index: which of them.
        sample: its data sample, with ``gt_sem_seg``.
        output: what the model gave for it: ``pred_sem_seg`` and, if it has any,
            ``pseudo_masks`` (2, S, S).
        panel_size: see :func:`draw_episode`.

    Returns:
        uint8 (height, width, 3) RGB.
    """
    prediction = output.pred_sem_seg.data[0].cpu().numpy()
    title = f'episode {sample.get("episode", index)}: {sample.get("class_name", "?")}'
    truth = None
    if 'gt_sem_seg' in sample:
        truth = sample.gt_sem_seg.data[0].cpu().numpy()
        title += f', IoU {_iou(prediction, truth):.1f} %'
    pseudo = None
    if 'pseudo_masks' in output:
        pseudo = output.pseudo_masks.data.float().cpu().numpy()
    return draw_episode(
        query=_image(inputs['query'][index]),
        supports=[_image(support) for support in inputs['support'][index]],
        support_masks=[mask.cpu().numpy() for mask in inputs['support_mask'][index]],
        prediction=prediction,
        truth=truth,
        pseudo_masks=pseudo,
        title=title,
        panel_size=panel_size,
    )


@HOOKS.register_module()
class EpisodeVisualizationHook(Hook):
    """Draws the first episodes of a test into ``<work_dir>/<out_file>``.

    The picture goes to the runner's visualizer too, and with it to TensorBoard and the like.
    Only the main process draws; it sees its own share of the episodes.

    Args:
        max_episodes: how many, >= 1.
        draw_val: draw at validation as well, into ``<stem>_val<suffix>``.
        out_file: name of the picture; ``.png`` or ``.jpg``.
        panel_size: side of a panel in pixels.

    Raises:
        ValueError: On a number or a name out of these bounds.
    """

    priority = 'LOW'

    def __init__(
        self,
        max_episodes: int = 6,
        draw_val: bool = False,
        out_file: str = 'episodes.png',
        panel_size: int = 160,
    ) -> None:
        if max_episodes < 1:
            raise ValueError(
                f'max_episodes must be >= 1, got {max_episodes}; to draw nothing leave the hook out'
            )
        if Path(out_file).suffix not in ('.png', '.jpg'):
            raise ValueError(f"out_file must end in .png or .jpg, got '{out_file}'")
        if not 48 <= panel_size <= 1024:
            raise ValueError(f'panel_size must be from 48 to 1024 pixels, got {panel_size}')
        self.max_episodes = max_episodes
        self.draw_val = draw_val
        self.out_file = out_file
        self.panel_size = panel_size
        self._rows: list[np.ndarray] = []

    def before_test_epoch(self, runner: Runner) -> None:
        """Forget what an earlier test left."""
        self._rows = []

    def before_val_epoch(self, runner: Runner) -> None:
        """Forget what an earlier validation left."""
        self._rows = []

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[SegDataSample] | None = None,
    ) -> None:
        """Draw the episodes of a batch until there are enough."""
        self._collect(data_batch, outputs)

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[SegDataSample] | None = None,
    ) -> None:
        """As :meth:`after_test_iter`, where ``draw_val`` asks for it."""
        if self.draw_val:
            self._collect(data_batch, outputs)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the picture."""
        self._write(runner, Path(runner.work_dir) / self.out_file)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the picture of a validation."""
        path = Path(runner.work_dir) / self.out_file
        self._write(runner, path.with_name(f'{path.stem}_val{path.suffix}'))

    def _collect(self, data_batch: dict | None, outputs: Sequence[SegDataSample] | None) -> None:
        if data_batch is None or outputs is None or not is_main_process():
            return
        room = self.max_episodes - len(self._rows)
        for index, output in enumerate(outputs[:room]):
            sample = data_batch['data_samples'][index]
            self._rows.append(
                draw_sample(data_batch['inputs'], index, sample, output, self.panel_size)
            )

    def _write(self, runner: Runner, path: Path) -> None:
        if not self._rows:
            return
        picture = stack_rows(self._rows)
        self._rows = []
        done, content = cv2.imencode(path.suffix, picture[..., ::-1])
        if not done:
            raise OSError(f'could not write a picture to {path}')
        with atomic(path) as part:
            part.write_bytes(content.tobytes())
        runner.visualizer.add_image(path.stem, picture, step=runner.iter)
        print_log(f'Episodes drawn to {path}', logger='current')
