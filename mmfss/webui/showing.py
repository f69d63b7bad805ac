"""What of a session is shown where, in Gradio."""

from __future__ import annotations

from typing import Any

import gradio as gr

from mmfss.webui import layout, review, views
from mmfss.webui.export import OFFERED
from mmfss.webui.layout import Layout
from mmfss.webui.session import Session
from mmfss.webui.visitors import Visitors

Updates = dict[Any, Any]
"""Component -> what it is to show."""


class Showing(Layout):
    """The components, and what a session shows on them.

    Args:
        visitors: and their sessions.
    """

    def __init__(self, visitors: Visitors) -> None:
        self.visitors = visitors
        worker = visitors.models.get(visitors.models.first)
        names = visitors.models.names
        super().__init__(worker.threshold, worker.choice.note, names, OFFERED)

    def show_photos(self, session: Session) -> Updates:
        """The images to mark and the one that is being marked."""
        there = bool(session.photos)
        return {
            self.photos: gr.update(
                value=views.photo_list(session), selected_index=session.current, visible=there
            ),
            self.marking: gr.update(visible=there),
            self.title: views.current_title(session),
            self.canvas: dict(
                picture=views.current_picture(session), marks=views.current_marks(session)
            ),
            self.example: gr.update(visible=not (there or session.supports or session.queries)),
        }

    def show_marks(self, session: Session) -> Updates:
        """Clicks and proposal."""
        return {
            self.canvas: dict(marks=views.current_marks(session)),
            self.title: views.current_title(session),
        }

    def show_shots(self, session: Session) -> Updates:
        """The marked objects."""
        there, classes = bool(session.supports), list(session.supports.classes)
        return {
            self.summary: views.support_summary(session),
            self.shots: gr.update(
                value=views.shot_list(session), visible=there, selected_index=None
            ),
            self.chosen_shot: None,
            self.shot_buttons: gr.update(visible=there),
            self.check_result: views.check_table(session),
            self.class_name: gr.update(choices=classes),
            self.negative: gr.update(
                interactive=not session.no_negatives, info=session.no_negatives or layout.NOT_IT
            ),
            self.not_it: gr.update(interactive=not session.no_negatives),
        }

    def show_review(self, session: Session) -> Updates:
        """The opened result."""
        query = review.opened(session)
        shown = None if query is None else query.shown
        if query is None or shown is None:
            return {self.review: gr.update(visible=False)}
        classes = list(dict.fromkeys([*session.supports.classes, *shown.classes]))
        chosen = [name for name in classes if name in shown.present] or classes
        said = query.verdict
        return {
            self.review: gr.update(visible=True),
            self.result_title: views.result_title(session),
            self.result: gr.update(value=dict(picture=views.result_picture(session)), visible=True),
            self.editor: gr.update(visible=False),
            self.of_class: gr.update(choices=classes, value=chosen[0]),
            self.verdicts: gr.update(visible=True),
            self.example_buttons: gr.update(visible=True),
            self.edit_buttons: gr.update(visible=False),
            self.accept: gr.update(elem_classes='chosen' if query.kept else ''),
            self.reject: gr.update(elem_classes='chosen' if said == 'rejected' else ''),
            self.take_back: gr.update(interactive=bool(said)),
        }

    def show_results(self, session: Session) -> Updates:
        """All results, and the opened one."""
        listed, query = review.ordered(session), review.opened(session)
        return {
            self.found: views.found_summary(session),
            self.results: gr.update(
                value=views.result_list(session),
                visible=bool(listed),
                selected_index=None if query is None else listed.index(query),
            ),
            self.score_part: gr.update(visible=any(q.prediction for q in listed)),
            self.scores: views.score_table(session),
            **self.show_review(session),
        }

    def show_changed_shots(self, session: Session) -> Updates:
        """Marked objects, and results, which are of earlier ones now."""
        return {**self.show_shots(session), **self.show_results(session)}

    def show_all(self, session: Session) -> Updates:
        """Everything, as after a reload."""
        return {
            self.method: self.visitors.models.name_of(session.worker),
            self.threshold: session.threshold,
            self.take_note: '',
            self.files: gr.update(value=None, visible=False),
            self.command: gr.update(value=None, visible=False),
            **self.show_photos(session),
            **self.show_shots(session),
            **self.show_results(session),
        }
