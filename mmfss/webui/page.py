"""The page, in Gradio: three tabs over a :class:`mmfss.webui.session.Session`.

Import this only where Gradio is installed; :mod:`mmfss.commands.webui` checks.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from mmfss.webui import layout, views
from mmfss.webui.export import command, export
from mmfss.webui.layout import BESIDE, BOX, BRUSH, POINT, Layout
from mmfss.webui.limits import Limits
from mmfss.webui.marking import Kind
from mmfss.webui.memory import Visitors
from mmfss.webui.session import Session
from mmfss.webui.worker import Models, ModelWorker

_KINDS: dict[str, Kind] = {BOX: 'corner', POINT: 'object', BESIDE: 'rest'}
_WARNING_S = 15
Updates = dict[Any, Any]


def steps(handler: Callable) -> Callable:
    """Turn an error into a message on the page; the session stays, and the page as it was."""

    @functools.wraps(handler)
    def guarded(self: Page, session: Session | None, *args: Any) -> Updates:
        if session is None or session.closed:
            _warn(layout.SESSION_GONE)
            return {self.session: None}
        try:
            updates = handler(self, session, *args)
        except (ValueError, OSError) as error:
            _warn(str(error))
            updates = {}
        except Exception:  # whatever it is, the others' pages and this one go on
            logging.getLogger(__name__).exception('a step of the page failed')
            _warn(layout.UNEXPECTED)
            updates = {}
        self.visitors.seen(session)
        # given back each time: Gradio counts a session's age from here
        return {self.session: session, **updates}

    return guarded


def _warn(message: str) -> None:
    gr.Warning(escape(message), duration=_WARNING_S)


class Page(Layout):
    """The components and what happens on them.

    Args:
        worker: the shared model.
        limits: of each visitor.
        root: folder for the sessions' files.
        models: to pick from; default: the one alone.
    """

    def __init__(
        self, worker: ModelWorker, limits: Limits, root: Path, models: Models | None = None
    ) -> None:
        self.worker, self.limits, self.root = worker, limits, root
        self.models = models or Models(worker)
        self.visitors = Visitors()
        tool = BOX if worker.takes_prompts else BRUSH
        super().__init__(worker.threshold, worker.choice.note, self.models.names, tool)
        with self.blocks:
            self._wire()

    # ------------------------------------------------------------------ what a session shows

    def _show_photos(self, session: Session) -> Updates:
        return {
            self.photos: gr.update(
                value=views.photo_list(session),
                selected_index=session.current,
                visible=bool(session.photos),
            ),
            self.marking: gr.update(visible=bool(session.photos)),
            self.title: views.current_title(session),
        }

    def _show_current(self, session: Session, tool: str) -> Updates:
        """The current image, without paint, in the component of the tool: the editor is slow where
        a browser has no graphics card, so it gets an image only when it is used."""
        if tool != BRUSH:
            return self._show_clicks(session)
        plain = session.current_preview()
        rgb = None if plain is None else plain[..., ::-1]
        return {self.editor: dict(background=rgb, layers=[], composite=rgb)}

    def _show_clicks(self, session: Session) -> Updates:
        drawn = session.current_marks()
        return {self.clickable: None if drawn is None else drawn[..., ::-1]}

    def _show_shots(self, session: Session) -> Updates:
        there = bool(session.supports)
        return {
            self.summary: views.support_summary(session),
            self.shots: gr.update(
                value=views.shot_list(session), visible=there, selected_index=None
            ),
            self.chosen_shot: None,
            self.shot_buttons: gr.update(visible=there),
            self.check_result: views.check_table(session),
        }

    def _show_results(self, session: Session) -> Updates:
        return {
            self.scores: views.score_table(session),
            self.results: gr.update(
                value=views.result_list(session), visible=bool(session.queries)
            ),
        }

    # ------------------------------------------------------------------ steps

    def start(self) -> Updates:
        """A new visitor."""
        session = Session(self.worker, self.limits, self.root)
        self.visitors.seen(session)
        return {self.session: session, self.summary: views.support_summary(session)}

    @steps
    def add_photos(self, session: Session, tool: str, files: list[str] | None) -> Updates:
        for message in session.add_photos(_uploads(files)):
            _warn(message)
        return {
            self.photo_files: None,
            **self._show_photos(session),
            **self._show_current(session, tool),
            **self._show_shots(session),
        }

    @steps
    def choose_photo(self, session: Session, tool: str, event: gr.SelectData) -> Updates:
        session.choose_photo(event.index)
        return {**self._show_photos(session), **self._show_current(session, tool)}

    @steps
    def remove_photo(self, session: Session, tool: str) -> Updates:
        session.drop_photo()
        return {**self._show_photos(session), **self._show_current(session, tool)}

    @steps
    def choose_tool(self, session: Session, tool: str) -> Updates:
        (shown, value), brush = next(iter(self._show_current(session, tool).items())), tool == BRUSH
        hidden = self.clickable if brush else self.editor
        return {
            shown: gr.update(visible=True, value=value),
            hidden: gr.update(visible=False),
            self.click_buttons: gr.update(visible=not brush),
            self.hint: layout.HINTS[tool],
        }

    @steps
    def click(self, session: Session, tool: str, event: gr.SelectData) -> Updates:
        session.click(_KINDS[tool], *event.index)
        return self._show_clicks(session)

    @steps
    def undo_click(self, session: Session) -> Updates:
        session.undo_click()
        return self._show_clicks(session)

    @steps
    def clear_clicks(self, session: Session) -> Updates:
        session.clear_clicks()
        return self._show_clicks(session)

    @steps
    def use_mask(
        self, session: Session, tool: str, name: str, editor: dict | None, negative: bool
    ) -> Updates:
        session.use_mask(name, (editor or {}) if tool == BRUSH else None, negative)
        return {
            self.negative: False,
            **self._show_photos(session),
            **self._show_current(session, tool),
            **self._show_shots(session),
            **self._show_results(session),
        }

    @steps
    def choose_shot(self, session: Session, event: gr.SelectData) -> Updates:
        return {self.chosen_shot: event.index}

    @steps
    def remove_shot(self, session: Session, index: int | None) -> Updates:
        session.drop_shot(-1 if index is None else index)
        return {**self._show_photos(session), **self._show_shots(session)}

    @steps
    def remove_shots(self, session: Session) -> Updates:
        session.clear_shots()
        return {**self._show_photos(session), **self._show_shots(session)}

    @steps
    def choose_method(self, session: Session, tool: str, name: str) -> Updates:
        try:
            session.choose_method(self.models.get(name))
        except ValueError as error:
            _warn(str(error))
        return {
            self.method: self.models.name_of(session.worker),
            self.threshold: session.threshold,
            # a change of the tool shows the image in the component of the new one
            self.tool: tool if session.worker.takes_prompts else BRUSH,
            **self._show_current(session, tool),
            **self._show_shots(session),
            **self._show_results(session),
        }

    @steps
    def check_supports(self, session: Session) -> Updates:
        session.check()
        return self._show_shots(session)

    @steps
    def add_queries(self, session: Session, files: list[str] | None) -> Updates:
        for message in session.add_queries(_uploads(files)):
            _warn(message)
        return {self.query_files: None, **self._show_results(session)}

    @steps
    def label_new(self, session: Session, progress: gr.Progress = gr.Progress()) -> Updates:  # noqa: B008
        """After an upload: label, if there is something to label and to label with."""
        if session.supports and session.queries:
            session.label(lambda done, of: progress((done, of), unit='images'))
        return self._show_results(session)

    @steps
    def label(self, session: Session, progress: gr.Progress = gr.Progress()) -> Updates:  # noqa: B008
        session.label(lambda done, of: progress((done, of), unit='images'))
        return self._show_results(session)

    @steps
    def remove_queries(self, session: Session) -> Updates:
        session.clear_queries()
        return self._show_results(session)

    @steps
    def set_threshold(self, session: Session, value: float) -> Updates:
        session.set_threshold(value)
        return self._show_results(session)

    @steps
    def refresh(self, session: Session) -> Updates:
        return self._show_results(session)

    @steps
    def take(self, session: Session) -> Updates:
        if not session.supports:
            note = layout.NOTHING_TO_TAKE
            hidden = gr.update(visible=False, value=None)
            return {self.take_note: note, self.files: hidden, self.command: hidden}
        files = [str(file) for file in export(session)]
        line = command(session.worker.choice, session.threshold, session.limits.grey_values)
        return {
            self.take_note: views.unlabelled_note(session),
            self.files: gr.update(value=files, visible=True),
            self.command: gr.update(value=line, visible=True),
        }

    # ------------------------------------------------------------------ wiring

    def _wire(self) -> None:
        photos = [self.photo_files, self.photos, self.marking, self.title]
        current = [self.editor, self.clickable]
        shots = [self.summary, self.shots, self.chosen_shot, self.shot_buttons, self.check_result]
        results = [self.query_files, self.scores, self.results]
        self.blocks.load(self.start, None, [self.session, self.summary], api_name='start')
        self._on(
            self.photo_files.upload,
            self.add_photos,
            [self.tool, self.photo_files],
            photos + current + shots,
        )
        self._on(self.photos.select, self.choose_photo, [self.tool], photos + current)
        self._on(self.drop_photo.click, self.remove_photo, [self.tool], photos + current)
        tool_parts = [self.editor, self.clickable, self.click_buttons, self.hint]
        self._on(self.tool.change, self.choose_tool, [self.tool], tool_parts)
        self._on(self.clickable.select, self.click, [self.tool], [self.clickable])
        self._on(self.undo.click, self.undo_click, [], [self.clickable])
        self._on(self.clear.click, self.clear_clicks, [], [self.clickable])
        marked = [self.tool, self.class_name, self.editor, self.negative]
        shown = [*photos, *current, *shots, *results, self.negative]
        self._on(self.use.click, self.use_mask, marked, shown)
        self._on(self.shots.select, self.choose_shot, [], [self.chosen_shot])
        self._on(self.drop_shot.click, self.remove_shot, [self.chosen_shot], photos + shots)
        self._on(self.clear_shots.click, self.remove_shots, [], photos + shots)
        self._on(self.check.click, self.check_supports, [], shots)
        self._on(
            self.method.input, self.choose_method, [self.tool, self.method],
            [self.method, self.threshold, self.tool, *current, *shots, *results],
        )  # fmt: skip
        added = self._on(self.query_files.upload, self.add_queries, [self.query_files], results)
        self._on(added.then, self.label_new, [], results)
        self._on(self.run.click, self.label, [], results)
        self._on(self.clear_queries.click, self.remove_queries, [], results)
        self._on(
            self.threshold.change, self.set_threshold, [self.threshold], results,
            trigger_mode='always_last', show_progress='hidden',
        )  # fmt: skip
        self._on(self.label_tab.select, self.refresh, [], results)
        self._on(self.take_tab.select, self.take, [], [self.take_note, self.files, self.command])

    def _on(
        self,
        event: Callable,
        handler: Callable,
        inputs: list,
        outputs: list,
        **options: Any,
    ) -> Any:
        return event(handler, [self.session, *inputs], [self.session, *outputs], **options)


def _uploads(files: list[str] | None) -> list[tuple[Path, str]]:
    return [(Path(file), Path(file).name) for file in files or []]
