"""The results of ``tools/test.py`` on disk: written after each run, taken over by the next call."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count
from typing import Any

from mmengine.dist import is_main_process
from mmengine.logging import print_log

from mmfss.checkpoints.record import plain
from mmfss.commands.evaluation_plan import Job, Plan
from mmfss.distributed import first
from mmfss.evaluation.episode_csv import holds
from mmfss.evaluation.report import Report, Run
from mmfss.evaluation.report_text import markdown, text, to_json
from mmfss.files import locked, write_text
from mmfss.words import listed

_DIGEST = 'digest'


class Results:
    """Collects the runs of a report.

    Args:
        report: Gets the runs.
        plan: What it is to hold.
        base: Files are BASE.json, BASE.md and BASE.txt; None writes none.
    """

    def __init__(self, report: Report, plan: Plan, base: str | None) -> None:
        self.report, self.plan, self.base = report, plan, base
        self._order = {job.key: place for place, job in enumerate(plan.jobs)}

    def has(self, job: Job) -> bool:
        """Whether the run of a job is there."""
        return any(run.key == job.key for run in self.report.runs)

    def add(self, run: Run) -> None:
        """Take a run and store all that are there.

        An error of the disk is logged, not raised: the runs to come may be stored again.
        """
        self.report.runs.append(run)
        self.report.runs.sort(key=lambda run: self._order[run.key])
        if self.base is not None and is_main_process():
            try:
                write_text(f'{self.base}.json', self._json())
            except OSError as error:
                said = f'{self.base}.json could not be written ({error}); testing goes on'
                print_log(said, 'current', logging.ERROR)

    def write(self) -> None:
        """Write all three files.

        Raises:
            OSError: the disk is full or was taken away.
        """
        if self.base is not None:
            write_text(f'{self.base}.json', self._json())
            write_text(f'{self.base}.md', markdown(self.report))
            write_text(f'{self.base}.txt', text(self.report))

    def _json(self) -> str:
        data = self.report.to_dict()
        for run in data['runs']:
            run[_DIGEST] = _digest(run)
        return to_json(data) + '\n'

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within, no other call writes the same files; all processes of this one enter together.

        Raises:
            ValueError: Another one is at it. OSError: Their folder cannot be written to.
        """
        with ExitStack() as stack:
            if self.base is not None:
                lock = os.path.join(
                    os.path.dirname(self.base), f'.{os.path.basename(self.base)}.lock'
                )
                first(lambda: stack.enter_context(locked(lock, f'is testing into {self.base}')))
            yield

    # ------------------------------------------------------------------------- earlier calls
    def take_over(self, protocol_of: Callable[[Job], Mapping[str, Any]]) -> None:
        """Take runs of an earlier call from BASE.json whose settings are those of now.

        These are: environment, model, data and metric configs, the user's own code, checksum of the
        checkpoint and protocol; a CSV that is asked for must be there and of the run, and the cost
        measured. What does not fit is run again, and it is said why. If the file has anything else,
        it is kept as BASE.json.old. All processes call this; the main one reads and decides.

        Args:
            protocol_of: Protocol of the dataset of a job; called by all processes together.
        """
        data = _read(f'{self.base}.json') if self.base and is_main_process() else None
        kept, damaged = _runs(data or {})
        for name in damaged:
            print(f'{name}: what is stored does not fit its checksum; it is run again')
        stored = {run.key: run for run in kept}
        why = {
            place: self._what_differs(data or {}, job, stored[job.key])
            for place, job in enumerate(self.plan.jobs)
            if job.key in stored
        }
        places = first(lambda: [place for place in why if not why[place]])
        for place in places:
            protocol = plain(protocol_of(self.plan.jobs[place]))
            if is_main_process():
                before = plain(stored[self.plan.jobs[place].key].protocol)
                why[place] = _differing('protocol', before, protocol)
        runs = {place: stored[self.plan.jobs[place].key] for place in why}
        found = [run for place, run in runs.items() if not why[place]]
        if data is not None:
            self._set_aside(data, len(found))
        for reason in dict.fromkeys(filter(None, why.values())):
            rows = [_name(run) for place, run in runs.items() if why[place] == reason]
            print(f'{listed(rows, 4, "; ")}: run again, as {reason}')
        shared = first(lambda: [replace(run, counts=()) for run in found])
        self.report.runs += found if is_main_process() else shared

    def _what_differs(self, data: Mapping[str, Any], job: Job, run: Run) -> str:
        """Why a run of a file is not that of a job, but for its protocol, in words; '' where it
        is."""
        now = plain(self.report.header['environment'])
        said = [_differing('environment', data.get('environment') or {}, now)]
        for part, digests in job.settings.items():
            said.append(_differing(part, run.settings[part], digests))
        checksum = self.plan.checkpoints[job.path]['sha256']
        if checksum is None or run.checkpoint['sha256'] != checksum:
            said.append('the weights are others, or their checksum is not known')
        if job.csv_file is not None and not _has_episodes(job.csv_file, run):
            said.append(f'{job.csv_file} is not there or of another run')
        if self.plan.cost and not run.cost:
            said.append('its cost was not measured')
        return ', '.join(filter(None, said))

    def _set_aside(self, data: Mapping[str, Any], kept: int) -> None:
        """Say what was taken over; keep a file with anything else beside the one to come."""
        path = f'{self.base}.json'
        if kept:
            print(f'{path}: {kept} of {len(self.plan.jobs)} runs are there already')
        if kept < len(data.get('runs', [])) or not data:
            names = (f'{path}.old{number or ""}' for number in count())
            kept_as = next(name for name in names if not os.path.exists(name))
            os.replace(path, kept_as)
            print(f'{path} had other runs or settings too; it is kept as {kept_as}')


def stored_runs(path: str) -> tuple[dict[str, Any], list[Run]]:
    """All of a file that ``tools/test.py --out`` wrote: what it says of the whole, and its runs.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no such file, or a run does not fit its checksum.
    """
    data = _read(path)
    if data is None:
        raise FileNotFoundError(f'results not found: {path}; tools/test.py --out BASE writes them')
    if not data:
        raise ValueError(f'{path} is no file of results as tools/test.py --out writes it')
    runs, _ = _runs(data)
    if len(runs) < len(data['runs']):
        raise ValueError(
            f'{path}: {len(data["runs"]) - len(runs)} of {len(data["runs"])} runs do not fit their '
            'checksum or are of another version; test again with the same --out'
        )
    return data, runs


def _has_episodes(path: str, run: Run) -> bool:
    """Whether a CSV is that of a run, and not of a later one with another checkpoint."""
    try:
        with open(path, encoding='utf-8', newline='') as file:
            return holds(file.read(), run.counts)
    except (OSError, ValueError):
        return False


def _read(path: str) -> dict[str, Any] | None:
    """Content of a file of results; empty where it is something else, None without a file."""
    if not os.path.exists(path):
        return None
    try:
        with open(path, encoding='utf-8') as file:
            data = json.load(file)
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) and isinstance(data.get('runs'), list) else {}


def _runs(data: Mapping[str, Any]) -> tuple[list[Run], list[str]]:
    """The runs of a file that fit their checksums, and the names of those that do not; what is of
    another version is neither."""
    found, damaged = [], []
    for given in data.get('runs', []):
        try:
            fits = given[_DIGEST] == _digest(given)
            run = Run.from_dict(given)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            continue  # of another version
        if fits:
            found.append(run)
        else:
            damaged.append(_name(run))
    return found, damaged


def _differing(what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Which entries of two records differ, in words; '' where none does."""
    keys = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    return f'other {what}: {listed(keys, 3)}' if keys else ''


def _name(run: Run) -> str:
    return f'{run.label}, {run.shots}-shot, fold {run.fold}, seed {run.seed}'


def _digest(run: Mapping[str, Any]) -> str:
    """Of all that the file has of a run, but for the digest itself."""
    rest = {key: value for key, value in run.items() if key != _DIGEST}
    return hashlib.sha256(to_json(rest).encode()).hexdigest()
