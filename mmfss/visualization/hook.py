"""Pictures of test episodes: in the work directory, and in MMEngine's backends."""

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

from mmfss.features.images import DeferredImage, DeferredImages
from mmfss.files import atomic
from mmfss.visualization.episodes import stack_rows
from mmfss.visualization.visualizer import EpisodeVisualizer, draw_sample


def _image(image: torch.Tensor | DeferredImage) -> np.ndarray:
    """uint8 (3, H, W) BGR, or the file that has it -> uint8 (H, W, 3) RGB."""
    tensor = image.read() if isinstance(image, DeferredImage) else image
    return np.ascontiguousarray(tensor.cpu().numpy().transpose(1, 2, 0)[..., ::-1])


@HOOKS.register_module()
class EpisodeVisualizationHook(Hook):
    """Draws the first episodes of a test into ``<work_dir>/<out_file>``.

    The picture goes to the runner's visualizer too, and with it to TensorBoard and the like; with
    ``interval`` single episodes do as well, as ``episode_00020`` (``val_episode_00020``). A runner
    with an :class:`EpisodeVisualizer` draws them by it, any other visualizer takes them as they
    are. Only the main process draws; it sees its own share of the episodes.

    Args:
        max_episodes: how many, >= 1.
        interval: send each episode whose number is a multiple of it to the visualizer as a
            picture of its own; 0 sends none.
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
        interval: int = 0,
    ) -> None:
        if max_episodes < 1:
            raise ValueError(
                f'max_episodes must be >= 1, got {max_episodes}; to draw nothing leave the hook out'
            )
        if Path(out_file).suffix not in ('.png', '.jpg'):
            raise ValueError(f"out_file must end in .png or .jpg, got '{out_file}'")
        if not 48 <= panel_size <= 1024:
            raise ValueError(f'panel_size must be from 48 to 1024 pixels, got {panel_size}')
        if interval < 0:
            raise ValueError(f'interval must be >= 0 (0: no single episodes), got {interval}')
        self.max_episodes = max_episodes
        self.interval = interval
        self.draw_val = draw_val
        self.out_file = out_file
        self.panel_size = panel_size
        self._rows: list[np.ndarray] = []
        self._seen = 0

    def before_test_epoch(self, runner: Runner) -> None:
        """Forget what an earlier test left."""
        self._rows, self._seen = [], 0

    def before_val_epoch(self, runner: Runner) -> None:
        """Forget what an earlier validation left."""
        self._rows, self._seen = [], 0

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[SegDataSample] | None = None,
    ) -> None:
        """Draw the episodes of a batch until there are enough."""
        self._collect(runner, data_batch, outputs, 'episode')

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[SegDataSample] | None = None,
    ) -> None:
        """As :meth:`after_test_iter`, where ``draw_val`` asks for it."""
        if self.draw_val:
            self._collect(runner, data_batch, outputs, 'val_episode')

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the picture."""
        self._write(runner, Path(runner.work_dir) / self.out_file)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the picture of a validation."""
        path = Path(runner.work_dir) / self.out_file
        self._write(runner, path.with_name(f'{path.stem}_val{path.suffix}'))

    def _collect(
        self,
        runner: Runner,
        data_batch: dict | None,
        outputs: Sequence[SegDataSample] | None,
        name: str,
    ) -> None:
        if data_batch is None or outputs is None or not is_main_process():
            return
        for index, output in enumerate(outputs):
            number = output.get('episode', self._seen)
            self._seen += 1
            alone = self.interval > 0 and number % self.interval == 0
            on_sheet = len(self._rows) < self.max_episodes
            if not (alone or on_sheet):
                continue
            row = self._draw(runner, data_batch['inputs'], index, output)
            if on_sheet:
                self._rows.append(row)
            if alone:
                runner.visualizer.add_image(f'{name}_{number:05d}', row, step=runner.iter)

    def _draw(self, runner: Runner, inputs: dict, index: int, output: SegDataSample) -> np.ndarray:
        """The row of one episode of a batch, whose inputs are BGR, stacked or in a list, or files
        that are read now."""
        own = isinstance(runner.visualizer, EpisodeVisualizer)
        draw = runner.visualizer.draw_sample if own else draw_sample
        query = inputs['query'][index]
        return draw(
            _image(query[0] if isinstance(query, DeferredImages) else query),
            [_image(support) for support in inputs['support'][index]],
            [mask.cpu().numpy() for mask in inputs['support_mask'][index]],
            output,
            self.panel_size,
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
