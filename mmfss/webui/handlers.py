"""What happens on the page: each handler is a step of a :class:`mmfss.webui.session.Session`, and
gives back what is to be shown anew."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from mmfss.webui import example, layout, review, views
from mmfss.webui.canvas import Drawn, marks_of
from mmfss.webui.export import command, export
from mmfss.webui.guard import VISITOR
from mmfss.webui.marking import Kind
from mmfss.webui.session import Session
from mmfss.webui.showing import Showing, Updates

_WARNING_S = 15


def steps(handler: Callable) -> Callable:
    """Give a handler the session of who asks, and turn an error into a message on the page; the
    session stays, and the page as it was."""

    @functools.wraps(handler)
    def guarded(self: Handlers, session: gr.Request, *args: Any) -> Updates:
        updates: Updates = {}
        found = self.visitors.find(visitor_of(session))
        if found is None:
            warn(layout.SESSION_GONE)
        else:
            try:
                updates = handler(self, found, *args)
            except ValueError as error:
                warn(str(error))
            except OSError as error:  # without the server's path
                warn(error.strerror or str(error))
            except Exception:  # whatever it is, the others' pages and this one go on
                logging.getLogger(__name__).exception('a step of the page failed')
                warn(layout.UNEXPECTED)
            self.visitors.seen(visitor_of(session))
        return {self.done: gr.skip(), **updates}  # Gradio takes no empty answer

    guarded.__annotations__ = {**handler.__annotations__, 'session': gr.Request}
    return guarded


def visitor_of(request: gr.Request) -> str:
    """Name of who asks, which the guard has put there."""
    assert request.request is not None  # of a page that is served
    return str(request.request.scope[VISITOR])


def warn(message: str) -> None:
    """Tell the visitor."""
    gr.Warning(escape(message), duration=_WARNING_S)


class Handlers(Showing):
    """What happens on the components."""

    # ------------------------------------------------------------------ beginning

    def start(self, request: gr.Request) -> Updates:
        """A visitor comes, or comes back."""
        session, notes = self.visitors.start(visitor_of(request))
        for note in notes:
            warn(note)
        return self.show_all(session)

    def start_anew(self, request: gr.Request, sure: bool) -> Updates:
        """Remove all that a visitor has."""
        if sure:
            try:
                self.visitors.forget(visitor_of(request))
            except ValueError as error:
                warn(str(error))
        session, _ = self.visitors.start(visitor_of(request))
        return self.show_all(session)

    @steps
    def try_example(self, session: Session, progress: gr.Progress = gr.Progress()) -> Updates:  # noqa: B008
        progress(0, 'generating pictures')
        made = example.folder(self.visitors.root)
        example.load(session, made)
        session.label(lambda done, of: progress((done, of), unit='images'))
        return self.show_all(session)

    @steps
    def choose_method(self, session: Session, name: str) -> Updates:
        try:
            session.choose_method(self.visitors.models.get(name))
        except ValueError as error:
            warn(str(error))
        return self.show_all(session)

    # ------------------------------------------------------------------ step 1

    @steps
    def add_photos(self, session: Session, files: list[str] | None) -> Updates:
        for message in session.add_photos(_uploads(files)):
            warn(message)
        return {self.photo_files: None, **self.show_photos(session), **self.show_shots(session)}

    @steps
    def choose_photo(self, session: Session, event: gr.SelectData) -> Updates:
        session.choose_photo(event.index)
        return self.show_photos(session)

    @steps
    def remove_photo(self, session: Session) -> Updates:
        session.drop_photo()
        return self.show_photos(session)

    def clicked(self, kind: Kind) -> Callable:
        """The handler of a click of one kind."""

        @steps
        def click(self: Handlers, session: Session, sent: Any) -> Updates:
            drawn = Drawn.of(sent)
            if len(drawn.at) == 2:
                session.click(kind, *drawn.at)
            return self.show_marks(session)

        return click.__get__(self)

    @steps
    def drag(self, session: Session, sent: Any) -> Updates:
        drawn = Drawn.of(sent)
        if len(drawn.at) == 4:
            session.drag(*drawn.at)
        return self.show_marks(session)

    @steps
    def undo(self, session: Session) -> Updates:
        session.undo_click()
        return self.show_marks(session)

    @steps
    def clear(self, session: Session) -> Updates:
        session.clear_clicks()
        return self.show_marks(session)

    @steps
    def use_mask(self, session: Session, name: str | None, sent: Any, negative: bool) -> Updates:
        drawn = Drawn.of(sent)
        if session.current is not None and drawn.mask:
            _same(drawn.picture, session.photos[session.current].path.name)
        session.use_mask(name or '', drawn.mask, negative)
        return {
            self.negative: False,
            **self.show_photos(session),
            **self.show_changed_shots(session),
        }

    @steps
    def choose_shot(self, session: Session, event: gr.SelectData) -> Updates:
        return {self.chosen_shot: event.index}

    @steps
    def remove_shot(self, session: Session, index: int | None) -> Updates:
        session.drop_shot(-1 if index is None else index)
        return {**self.show_photos(session), **self.show_changed_shots(session)}

    @steps
    def remove_shots(self, session: Session) -> Updates:
        session.clear_shots()
        return {**self.show_photos(session), **self.show_changed_shots(session)}

    @steps
    def check_supports(self, session: Session) -> Updates:
        session.check()
        return self.show_shots(session)

    # ------------------------------------------------------------------ step 2

    @steps
    def add_queries(self, session: Session, files: list[str] | None) -> Updates:
        for message in session.add_queries(_uploads(files)):
            warn(message)
        return {self.query_files: None, **self.show_results(session)}

    @steps
    def label_new(self, session: Session, progress: gr.Progress = gr.Progress()) -> Updates:  # noqa: B008
        """After an upload: label, if there is something to label and to label with."""
        if session.supports and session.queries:
            session.label(lambda done, of: progress((done, of), unit='images'))
        return self.show_results(session)

    @steps
    def label(self, session: Session, progress: gr.Progress = gr.Progress()) -> Updates:  # noqa: B008
        session.label(lambda done, of: progress((done, of), unit='images'))
        return self.show_results(session)

    @steps
    def remove_queries(self, session: Session) -> Updates:
        session.clear_queries()
        return self.show_results(session)

    @steps
    def set_threshold(self, session: Session, value: float) -> Updates:
        session.set_threshold(value)
        return self.show_results(session)

    @steps
    def refresh(self, session: Session) -> Updates:
        return self.show_results(session)

    @steps
    def open_result(self, session: Session, event: gr.SelectData) -> Updates:
        review.open_result(session, event.index)
        return self.show_review(session)

    def going(self, places: int) -> Callable:
        """The handler that opens another result."""

        @steps
        def go(self: Handlers, session: Session) -> Updates:
            review.go(session, places)
            return self.show_review(session)

        return go.__get__(self)

    def judging(self, verdict: Literal['', 'accepted', 'rejected']) -> Callable:
        """The handler that says of the opened result what it is."""

        @steps
        def judge(self: Handlers, session: Session) -> Updates:
            review.judge(session, verdict)
            return self.show_results(session)

        return judge.__get__(self)

    @steps
    def correct_result(self, session: Session, name: str | None) -> Updates:
        query = review.opened(session)
        if query is None:
            raise ValueError('no image is labelled yet; press Label first')
        return {
            self.result: gr.update(visible=False),
            self.editor: gr.update(
                value=dict(
                    picture=views.plain_picture(session, query),
                    marks=marks_of(review.mask_preview(session, name or '')),
                ),
                visible=True,
            ),
            self.verdicts: gr.update(visible=False),
            self.example_buttons: gr.update(visible=False),
            self.edit_buttons: gr.update(visible=True),
        }

    @steps
    def save_correction(self, session: Session, name: str | None, sent: Any) -> Updates:
        query, drawn = review.opened(session), Drawn.of(sent)
        if drawn.mask and query is not None:
            _same(drawn.picture, query.path.name)
            review.correct(session, name or '', drawn.mask)
        return self.show_results(session)

    @steps
    def cancel_correction(self, session: Session) -> Updates:
        return self.show_review(session)

    def taking(self, negative: bool) -> Callable:
        """The handler that takes the opened result as a support, or as what the class is not."""

        @steps
        def use(self: Handlers, session: Session, name: str | None) -> Updates:
            taken = review.use_as_example(session, name or '', negative)
            what = f'not {taken}' if negative else taken
            gr.Info(escape(f'It is an example of {what} now. Press Label to use it.'), duration=6)
            return self.show_changed_shots(session)

        return use.__get__(self)

    # ------------------------------------------------------------------ step 3

    @steps
    def take(self, session: Session, forms: list[str]) -> Updates:
        if not session.supports:
            note = layout.NOTHING_TO_TAKE
            hidden = gr.update(visible=False, value=None)
            return {self.take_note: note, self.files: hidden, self.command: hidden}
        files = [str(file) for file in export(session, self.visitors.exports(session), forms)]
        line = command(session.worker.choice, session.threshold, session.limits.grey_values)
        return {
            self.take_note: views.unlabelled_note(session),
            self.files: gr.update(value=files, visible=True),
            self.command: gr.update(value=line, visible=True),
        }


def _same(drawn: str, shown: str) -> None:
    if drawn != shown:
        raise ValueError('another picture is shown since; paint on this one, then press again')


def _uploads(files: list[str] | None) -> list[tuple[Path, str]]:
    return [(Path(file), Path(file).name) for file in files or []]
