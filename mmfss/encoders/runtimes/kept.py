"""Converted models, and what was decided of them, on disk::

    DIRECTORY/models/<key, 24 characters>/model.xml, model.bin, record.json
    DIRECTORY/decisions/<key, 24 characters>.json

Processes may share it. A model is written into a folder beside and takes its place by one rename;
one of which a file is not as the record says is removed and made again. Trouble with the disk is
said once and costs time, never the run.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from mmfss.features.folders import OLD_PART_SECONDS
from mmfss.files import PART_SUFFIX, checksum_of, take_lock, write_text

MODEL, RECORD = 'model.xml', 'record.json'
KEY_CHARACTERS = 24
BUDGET_BYTES = 4 * 2**30
"""Of all models; beyond it those that were not used for longest go."""
_WAIT_SECONDS, _SAY_SECONDS = 900.0, 5.0


class KeptModels:
    """Models and decisions below ``directory``, which is made when something is written."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._said: set[str] = set()

    # ------------------------------------------------------------------ decisions

    def decision(self, key: str) -> dict[str, Any] | None:
        """What was decided under a key; None where nothing was, or the file is damaged."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(self._decision(key).read_text(encoding='utf-8'))
            times = [found[name] for name in ('torch_ms', 'openvino_ms') if name in found]
            known = found['runtime'] in ('torch', 'openvino') and isinstance(found['why'], str)
            if known and all(isinstance(one, (int, float)) for one in times):
                return found
        return None

    def keep_decision(self, key: str, decided: Mapping[str, Any]) -> None:
        """Write what was decided, if there is a way."""
        try:
            write_text(self._decision(key), json.dumps(decided, indent=1) + '\n')
        except OSError as error:
            self._trouble(error)

    def _decision(self, key: str) -> Path:
        return self.directory / 'decisions' / f'{key[:KEY_CHARACTERS]}.json'

    # ------------------------------------------------------------------ models

    def model(self, key: str) -> Path | None:
        """The .xml of a model that is whole, which is then the most recently used; else None."""
        folder = self._model(key)
        try:
            record = json.loads((folder / RECORD).read_text(encoding='utf-8'))
            whole = (
                record['key'] == key
                and isinstance(record['about'], dict)
                and MODEL in record['files']
                and all(
                    (folder / name).stat().st_size == size and checksum_of(folder / name) == crc
                    for name, (size, crc) in record['files'].items()
                )
            )
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            whole = False
        if not whole:
            self._say(f'{folder} is damaged or of another version, and is made again')
            self.drop(key)
            return None
        with suppress(OSError):
            os.utime(folder / RECORD)
        return folder / MODEL

    def record(self, key: str) -> dict[str, Any]:
        """What was said of a model that is kept."""
        return json.loads((self._model(key) / RECORD).read_text(encoding='utf-8'))['about']

    def note(self, key: str, **said: Any) -> None:
        """Say more of a model, if it is kept."""
        file = self._model(key) / RECORD
        try:
            record = json.loads(file.read_text(encoding='utf-8'))
            record['about'].update(said)
            write_text(file, json.dumps(record, indent=1) + '\n')
        except (FileNotFoundError, NotADirectoryError):
            pass  # it could not be kept, and that has been said
        except OSError as error:
            self._trouble(error)

    def keep_model(
        self, key: str, about: Mapping[str, Any], write: Callable[[Path], None]
    ) -> Path | None:
        """Keep a model.

        Args:
            key: of it.
            about: what it is, of JSON types.
            write: writes it to the path of an .xml file that it is given.

        Returns:
            The .xml; None where it could not be written.
        """
        folder, part = self._model(key), None
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._make_room(folder.parent)
            part = Path(tempfile.mkdtemp(PART_SUFFIX, '.', folder.parent))
            try:
                write(part / MODEL)
            except RuntimeError as error:  # of OpenVINO, whose errors of the disk have no number
                raise OSError(f'{error}'.splitlines()[0]) from error
            files = {file.name: (file.stat().st_size, checksum_of(file)) for file in part.iterdir()}
            said = dict(key=key, files=files, about=dict(about))
            write_text(part / RECORD, json.dumps(said, indent=1) + '\n')
            os.chmod(part, 0o755)
            with suppress(OSError):  # another process was first, with the same
                os.rename(part, folder)
        except OSError as error:
            self._trouble(error)
            return None
        finally:
            if part is not None:
                shutil.rmtree(part, ignore_errors=True)
        return self.model(key)

    def drop(self, key: str) -> None:
        """Remove a model, as far as that is possible."""
        shutil.rmtree(self._model(key), ignore_errors=True)

    def _model(self, key: str) -> Path:
        return self.directory / 'models' / key[:KEY_CHARACTERS]

    def _make_room(self, models: Path) -> None:
        """Remove what dead writers left, and the models that are over the budget. Whoever has one
        open goes on with it."""
        found = []
        for folder in models.iterdir():
            with suppress(OSError):
                used = (folder / RECORD if (folder / RECORD).exists() else folder).stat().st_mtime
                size = sum(file.stat().st_size for file in folder.iterdir())
                if folder.name.endswith(PART_SUFFIX):
                    if time.time() - used > OLD_PART_SECONDS:
                        shutil.rmtree(folder, ignore_errors=True)
                    continue
                found.append((used, size, folder))
        total = 0
        for _, size, folder in sorted(found, reverse=True):
            total += size
            if total > BUDGET_BYTES:
                shutil.rmtree(folder, ignore_errors=True)

    # ------------------------------------------------------------------ processes, trouble

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within, other processes wait, so that of several one converts and the others find it;
        where the folder takes no lock, or one has it for longer than a conversion can take, they
        do not."""
        with ExitStack() as stack:
            with suppress(OSError):
                self.directory.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(open(self.directory / 'lock', 'a'))
                start = time.monotonic()
                while (waited := time.monotonic() - start) < _WAIT_SECONDS:
                    try:
                        take_lock(file)
                        break
                    except BlockingIOError:
                        if waited > _SAY_SECONDS:
                            self._say('waiting for another process, which converts a model')
                        time.sleep(0.1)
            yield

    def _trouble(self, error: OSError) -> None:
        self._say(
            f'cannot write to {self.directory} ({error.strerror or error}). This run goes on; the '
            'next one converts and measures again. Make room or make it writable, or set '
            'XDG_CACHE_HOME to another folder'
        )

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            print_log(f'Encoder runtime: {text}', 'current', logging.WARNING)
