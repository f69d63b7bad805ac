"""What a model gave for the episodes of a test, drawn: in the work directory, and in MMEngine's
backends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.dist import is_main_process, master_only
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmseg.registry import HOOKS, VISUALIZERS
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from mmfss.features.images import DeferredImage, DeferredImages
from mmfss.files import atomic
from mmfss.visualization.episodes import draw_episode, stack_rows, with_notes
from mmfss.visualization.overlays import EXTRA, HIT, IGNORED, MISSED, error_kinds


@dataclass(frozen=True)
class ShownEpisode:
    """What a picture of an episode is made of, as arrays.

    Attributes:
        number, class_name: '?' where they are not known.
        query: uint8 (H, W, 3) RGB, as the model saw it.
        supports: K such images.
        support_masks: K masks (H, W) of 0, 1, 255.
        prediction: (h, w) of 0, 1.
        truth: (h, w) of 0, 1, 255, of the prediction's size; None where it is not known.
        maps: name -> (h', w') float32 in 0..1, of any size.
    """

    number: int | str
    class_name: str
    query: np.ndarray
    supports: Sequence[np.ndarray]
    support_masks: Sequence[np.ndarray]
    prediction: np.ndarray
    truth: np.ndarray | None
    maps: Mapping[str, np.ndarray]

    @cached_property
    def iou(self) -> float | None:
        """Of the foreground in percent, 0 where there is none; None without a truth."""
        if self.truth is None:
            return None
        kinds = error_kinds(self.prediction, self.truth)
        counts = np.bincount(kinds.ravel(), minlength=IGNORED + 1)
        return float(100.0 * counts[HIT] / max(counts[HIT] + counts[EXTRA] + counts[MISSED], 1))


def shown_episode(
    query: np.ndarray,
    supports: Sequence[np.ndarray],
    support_masks: Sequence[np.ndarray],
    sample: SegDataSample,
) -> ShownEpisode:
    """An episode with what the model gave for it; arguments as those of :func:`draw_sample`.

    Raises:
        ValueError: a sample without a prediction.
    """
    if 'pred_sem_seg' not in sample:
        raise ValueError(
            f'the data sample has no pred_sem_seg, it has {sorted(sample.keys())}; draw what '
            "a model's predict returns"
        )
    truth = sample.gt_sem_seg.data[0].cpu().numpy() if 'gt_sem_seg' in sample else None
    maps = sample.get('maps', {})
    return ShownEpisode(
        sample.get('episode', '?'),
        sample.get('class_name', '?'),
        query,
        supports,
        support_masks,
        sample.pred_sem_seg.data[0].cpu().numpy(),
        truth,
        {name: torch.as_tensor(one).float().cpu().numpy() for name, one in maps.items()},
    )


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
        sample: what the model gave: ``pred_sem_seg``; where it has them ``gt_sem_seg`` and the
            meta data ``episode``, ``class_name`` and ``maps``: name -> tensor (h, w) of any size,
            0..1, that the method made on its way to the prediction.
        panel_size: side of a panel in pixels.

    Returns:
        uint8 (height, width, 3) RGB.

    Raises:
        ValueError: On a sample without a prediction, and see :func:`draw_episode`.
    """
    shown = shown_episode(query, supports, support_masks, sample)
    title = f'episode {shown.number}: {shown.class_name}'
    if shown.iou is not None:
        title += f', IoU {shown.iou:.1f} %'
    return draw_episode(
        query=query,
        supports=supports,
        support_masks=support_masks,
        prediction=shown.prediction,
        truth=shown.truth,
        maps=shown.maps,
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


def map_texts(model: Any) -> Mapping[str, str]:
    """What the maps of a method show, by name; of any model, in a wrapper or not."""
    return getattr(getattr(model, 'module', model), 'map_texts', {})


def _image(image: torch.Tensor | DeferredImage) -> np.ndarray:
    """uint8 (3, H, W) BGR, or the file that has it -> uint8 (H, W, 3) RGB."""
    tensor = image.read() if isinstance(image, DeferredImage) else image
    return np.ascontiguousarray(tensor.cpu().numpy().transpose(1, 2, 0)[..., ::-1])


def _images(inputs: Mapping, index: int) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Query, supports and masks of an episode of a batch."""
    query = inputs['query'][index]
    return (
        _image(query[0] if isinstance(query, DeferredImages) else query),
        [_image(support) for support in inputs['support'][index]],
        [mask.cpu().numpy() for mask in inputs['support_mask'][index]],
    )


class KeepEpisodesHook(Hook):
    """Keeps all episodes of a test, for figures; of a short one.

    Attributes:
        episodes: by number.
    """

    priority = 'LOW'

    def __init__(self) -> None:
        self.episodes: dict[int | str, ShownEpisode] = {}

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[SegDataSample] | None = None,
    ) -> None:
        """Take those of a batch."""
        if data_batch is not None:
            for index, output in enumerate(outputs or ()):
                shown = shown_episode(*_images(data_batch['inputs'], index), output)
                self.episodes[shown.number] = shown


@HOOKS.register_module()
class EpisodeVisualizationHook(Hook):
    """Draws the first episodes of a test into ``<work_dir>/<out_file>``.

    The picture goes to the runner's visualizer too, and with it to TensorBoard and the like; with
    ``interval`` single episodes do as well, as ``episode_00020`` (``val_episode_00020``). A runner
    with an :class:`EpisodeVisualizer` draws them by it, any other visualizer takes them as they
    are. Below it stands what each map shows, where the method says so. Only the main process draws;
    it sees its own share of the episodes.

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
        self._maps: dict[str, None] = {}  # names, in order
        self._seen = 0

    def before_test_epoch(self, runner: Runner) -> None:
        """Forget what an earlier test or validation left."""
        self._rows, self._maps, self._seen = [], {}, 0

    before_val_epoch = before_test_epoch

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
        own = isinstance(runner.visualizer, EpisodeVisualizer)
        draw = runner.visualizer.draw_sample if own else draw_sample
        inputs = data_batch['inputs']  # BGR, stacked or in a list, or files that are read now
        for index, output in enumerate(outputs):
            number = output.get('episode', self._seen)
            self._seen += 1
            alone = self.interval > 0 and number % self.interval == 0
            on_sheet = len(self._rows) < self.max_episodes
            if not (alone or on_sheet):
                continue
            row = draw(*_images(inputs, index), output, self.panel_size)
            self._maps.update(dict.fromkeys(output.get('maps', {})))
            if on_sheet:
                self._rows.append(row)
            if alone:
                runner.visualizer.add_image(f'{name}_{number:05d}', row, step=runner.iter)

    def _write(self, runner: Runner, path: Path) -> None:
        if not self._rows:
            return
        texts = map_texts(runner.model)
        notes = [f'{name}: {texts[name]}' for name in self._maps if name in texts]
        picture = with_notes(stack_rows(self._rows), notes)
        self._rows = []
        done, content = cv2.imencode(path.suffix, picture[..., ::-1])
        if not done:
            raise OSError(f'could not write a picture to {path}')
        with atomic(path) as part:
            part.write_bytes(content.tobytes())
        runner.visualizer.add_image(path.stem, picture, step=runner.iter)
        print_log(f'Episodes drawn to {path}', logger='current')
