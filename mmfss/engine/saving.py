"""Checkpoints that survive: written beside, and only then in the place of what was there."""

from __future__ import annotations

import os
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import MessageHub
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from mmfss.checkpoints.trained_only import only_trained
from mmfss.checkpoints.weights import state_digest
from mmfss.engine.guards import bare_model
from mmfss.files import atomic, write_text
from mmfss.methods.base import FewShotModel

_WHOLE = 'whole'
_GOING = 'checkpoints_going'
"""Of mmengine's message hub, which is in each checkpoint: files that go once that one is there."""


class WholeFilesBackend(LocalBackend):
    """Local files that are whole or not there, and on the disk before they take their name."""

    def put(self, obj: Any, filepath: str | os.PathLike) -> None:
        """Write bytes.

        Raises:
            OSError: The folder cannot be written to, the disk is full; what was there stays.
        """
        with atomic(filepath) as part:
            part.write_bytes(obj)


register_backend(_WHOLE, WholeFilesBackend, force=True)


class _RemovesLater:
    """A file backend whose files go when it is told that what comes after them is there."""

    def __init__(self, backend: Any, hub: MessageHub) -> None:
        self._backend = backend
        self._hub = hub
        self._waiting: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        """Note a file that is to go."""
        self._waiting.append(path)
        self._hub.update_info(_GOING, [os.path.basename(path) for path in self._waiting])

    def now(self, *keep: str | None) -> None:
        """Remove what was noted, but for files that were written anew."""
        kept = {os.path.realpath(path) for path in keep if path}
        while self._waiting:
            path = self._waiting.pop(0)
            if os.path.realpath(path) not in kept and self._backend.isfile(path):
                self._backend.remove(path)
        self._hub.update_info(_GOING, [])


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook`` in another order. That one removes the oldest checkpoint, then
    writes the new one in its place: with ``max_keep_ckpts=1`` a kill or a full disk in between
    leaves none. Here the new one is written beside, flushed to the disk and named; then the file
    ``last_checkpoint`` names it; then the old ones go. So there is one more for a moment. A new one
    says which are to go: a run that goes on from it after a kill removes them.

    Checkpoints on remote storage (``backend_args``, or an ``out_dir`` with a scheme) are saved as
    by mmengine: there an object is whole or not there.

    Args:
        trained_only: save the trained weights alone, with the digest of the others, which are had
            again from the encoders' own weight files: some MB for adapters. Of few-shot methods
            whose frozen weights are those of such files.
        *args, **kwargs: of :class:`mmengine.hooks.CheckpointHook`.

    Raises:
        ValueError: from ``before_train``, with ``trained_only``: frozen weights that are random, or
            that ``load_from`` set to others than those of the files; nothing is trained.
    """

    def __init__(self, *args: Any, trained_only: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(trained_only, bool):
            raise ValueError(f'trained_only must be True or False, got {trained_only!r}')
        self.trained_only = trained_only
        self._base = b''

    def before_train(self, runner: Runner) -> None:
        """See :meth:`mmengine.hooks.CheckpointHook.before_train`."""
        super().before_train(runner)
        if isinstance(self.file_backend, LocalBackend) and self.file_client_args is None:
            self.backend_args = dict(backend=_WHOLE)
            self.file_backend = get_file_backend(backend_args=self.backend_args)
        self.file_backend = later = _RemovesLater(self.file_backend, runner.message_hub)
        folder, begun = str(self.out_dir), runner._load_from or ''
        own = os.path.realpath(os.path.dirname(begun)) == os.path.realpath(folder)
        if own and is_main_process():  # one of another folder says nothing of the files here
            for name in runner.message_hub.get_info(_GOING, []):
                later.remove(os.path.join(folder, name))
            later.now(begun, *self._best())
        if self.trained_only:
            self._base = base_digest(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Leave out what is not trained, where asked to."""
        if self.trained_only:
            names = bare_model(runner).trained_names()
            checkpoint['state_dict'] = only_trained(checkpoint['state_dict'], names, self._base)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        self._remove_old(runner)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        super()._save_best_checkpoint(runner, metrics)
        self._remove_old(runner)

    def _remove_old(self, runner: Runner) -> None:
        pointer = os.path.join(runner.work_dir, 'last_checkpoint')
        if os.path.isfile(pointer) and self.last_ckpt:  # mmengine writes it in place
            write_text(pointer, str(self.last_ckpt))
        self.file_backend.now(self.last_ckpt, *self._best())

    def _best(self) -> list[str | None]:
        of_each = getattr(self, 'best_ckpt_path_dict', {}).values()
        return [getattr(self, 'best_ckpt_path', None), *of_each]


def base_digest(runner: Runner) -> bytes:
    """Digest of the weights that a training leaves as they are.

    Raises:
        ValueError: they could not be had again from the files of the encoders.
    """
    model = bare_model(runner)
    if not isinstance(model, FewShotModel):
        raise ValueError(
            'trained_only of the checkpoint hook is for few-shot methods, whose encoders have '
            f'weight files; got a {type(model).__name__}. Leave it out'
        )
    trained = model.trained_names()

    def digest() -> bytes:
        return state_digest({k: v for k, v in model.state_dict().items() if k not in trained})

    found = digest()
    if not trained:
        raise ValueError('trained_only saves what is trained, and nothing is; see model.trainable')
    for name, encoder in model.encoders.items():
        if getattr(encoder, 'checkpoint', '') is None:
            raise ValueError(
                f'trained_only leaves out the frozen weights of {name}, which are random '
                f'(model.{name}.checkpoint=None) and could not be had again. Set its checkpoint, '
                'or leave out default_hooks.checkpoint.trained_only'
            )
    if runner._load_from is not None:  # it set all weights; are they those of the files?
        kept = {key: value.clone() for key, value in model.state_dict().items()}
        model.load_encoders()
        same = digest() == found
        model.load_state_dict(kept)
        if not same:
            raise ValueError(
                f'trained_only leaves out the frozen weights, and those of {runner._load_from} '
                'are not those of the encoders\' files, from which they would be had again. Give '
                'that file as checkpoint of the encoder (model.sam2.checkpoint=...) in the place '
                'of load_from, or leave out default_hooks.checkpoint.trained_only'
            )
    return found
