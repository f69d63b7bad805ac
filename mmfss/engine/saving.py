"""Checkpoints that survive: written beside, and only then in the place of what was there."""

from __future__ import annotations

import os
from typing import Any

from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from mmfss.files import atomic, write_text

_WHOLE = 'whole'


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

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._waiting: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        """Note a file that is to go."""
        self._waiting.append(path)

    def now(self, *keep: str | None) -> None:
        """Remove what was noted, but for files that were written anew."""
        kept = {os.path.realpath(path) for path in keep if path}
        while self._waiting:
            path = self._waiting.pop(0)
            if os.path.realpath(path) not in kept and self._backend.isfile(path):
                self._backend.remove(path)


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook`` in another order. That one removes the oldest checkpoint, then
    writes the new one in its place: with ``max_keep_ckpts=1`` a kill or a full disk in between
    leaves none. Here the new one is written beside, flushed to the disk and named; then the file
    ``last_checkpoint`` names it; then the old ones go. So there is one more for a moment.

    Checkpoints on remote storage (``backend_args``, or an ``out_dir`` with a scheme) are saved as
    by mmengine: there an object is whole or not there.
    """

    def before_train(self, runner: Runner) -> None:
        """See :meth:`mmengine.hooks.CheckpointHook.before_train`."""
        super().before_train(runner)
        if isinstance(self.file_backend, LocalBackend) and self.file_client_args is None:
            self.backend_args = dict(backend=_WHOLE)
            self.file_backend = get_file_backend(backend_args=self.backend_args)
        self.file_backend = _RemovesLater(self.file_backend)

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
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        self.file_backend.now(self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best)
