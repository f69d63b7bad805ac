"""The page, in Gradio: which handler answers which event, and what it shows anew.

Import this only where Gradio is installed; :mod:`mmfss.commands.webui` checks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmfss.webui import layout
from mmfss.webui.handlers import Handlers
from mmfss.webui.visitors import Visitors


class Page(Handlers):
    """The components, and what happens on them.

    Args:
        visitors: and their sessions.
    """

    def __init__(self, visitors: Visitors) -> None:
        super().__init__(visitors)
        with self.blocks:
            self._wire()

    def _wire(self) -> None:
        photos = [
            self.photo_files, self.photos, self.marking, self.title, self.canvas, self.example,
        ]  # fmt: skip
        shots = [
            self.summary, self.shots, self.chosen_shot, self.shot_buttons, self.check_result,
            self.class_name, self.negative, self.not_it,
        ]  # fmt: skip
        opened = [
            self.review, self.result_title, self.result, self.editor, self.of_class, self.verdicts,
            self.example_buttons, self.edit_buttons, self.accept, self.reject, self.take_back,
        ]  # fmt: skip
        results = [
            self.query_files, self.found, self.results, self.score_part, self.scores, *opened
        ]  # fmt: skip
        taken = [self.take_note, self.files, self.command]
        everything = [self.method, self.threshold, *taken, *photos, *shots, *results]
        changed = [*photos, *shots, *results]
        self.blocks.load(self.start, None, everything, api_name='start')
        self.anew.click(self.start_anew, [self.sure], everything, js=layout.SURE)
        self._on(self.example.click, self.try_example, [], everything)
        self._on(self.method.input, self.choose_method, [self.method], everything)

        self._on(self.photo_files.upload, self.add_photos, [self.photo_files], photos + shots)
        self._on(self.photos.select, self.choose_photo, [], photos)
        self._on(self.drop_photo.click, self.remove_photo, [], photos)
        quick = dict(show_progress='minimal')
        for kind in ('corner', 'object', 'rest'):
            event = getattr(self.canvas, kind)
            self._on(event, self.clicked(kind), [self.canvas], [self.canvas, self.title], **quick)
        self._on(self.canvas.drag, self.drag, [self.canvas], [self.canvas, self.title], **quick)
        self._on(self.canvas.undo, self.undo, [], [self.canvas, self.title], **quick)
        self._on(self.canvas.clear, self.clear, [], [self.canvas, self.title], **quick)
        marked = [self.class_name, self.canvas, self.negative]
        self._on(self.use.click, self.use_mask, marked, changed)
        self._on(self.shots.select, self.choose_shot, [], [self.chosen_shot])
        self._on(self.drop_shot.click, self.remove_shot, [self.chosen_shot], changed)
        self._on(self.clear_shots.click, self.remove_shots, [], changed)
        self._on(self.check.click, self.check_supports, [], shots)

        added = self._on(self.query_files.upload, self.add_queries, [self.query_files], results)
        self._on(added.then, self.label_new, [], results)
        self._on(self.run.click, self.label, [], results)
        self._on(self.clear_queries.click, self.remove_queries, [], results)
        self._on(
            self.threshold.change, self.set_threshold, [self.threshold], results,
            trigger_mode='always_last', show_progress='hidden',
        )  # fmt: skip
        self._on(self.label_tab.select, self.refresh, [], results, show_progress='hidden')
        self._on(self.results.select, self.open_result, [], opened, **quick)
        self._on(self.previous.click, self.going(-1), [], opened, **quick)
        self._on(self.next.click, self.going(1), [], opened, **quick)
        self._on(self.accept.click, self.judging('accepted'), [], results, **quick)
        self._on(self.reject.click, self.judging('rejected'), [], results, **quick)
        self._on(self.take_back.click, self.judging(''), [], results, **quick)
        self._on(self.correct.click, self.correct_result, [self.of_class], opened, **quick)
        self._on(self.save.click, self.save_correction, [self.of_class, self.editor], results)
        self._on(self.cancel.click, self.cancel_correction, [], opened, **quick)
        both = [*shots, *results]
        self._on(self.use_result.click, self.taking(False), [self.of_class], both)
        self._on(self.not_it.click, self.taking(True), [self.of_class], both)

        self._on(self.take_tab.select, self.take, [self.formats], taken)
        self._on(self.formats.input, self.take, [self.formats], taken, trigger_mode='always_last')

    def _on(
        self, event: Callable, handler: Callable, inputs: list, outputs: list, **options: Any
    ) -> Any:
        return event(handler, inputs, [self.done, *outputs], **options)
