"""The components of the page, in Gradio: what they say, and how they are arranged."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from mmfss.webui.canvas import EDITS, LOOKS, MARKS, STATIC, template

HEAD = """# Show a few, label the rest
Mark an object in one or more images, name its class, and see it marked in your other images."""

SHOW = 'Load images, mark an object in each, and name its class. One per class is enough to begin.'
LABEL = (
    'Drop the images to label. A class that scores less than the threshold in an image is not '
    'marked there; moving the threshold decides anew at once.'
)
NOT_IT = (
    'What is marked looks like the class and is not; without a mark, nothing here is the class.'
)
TAKE = (
    'Labels of all images but the rejected ones, their scores, and the marked objects as one small '
    'file.'
)
METHOD = 'Another one looks at the marked objects anew, and the images are to be labelled again.'
MARK_KEYS = (
    '<p class="keys">Keys: <kbd>b</kbd> box <kbd>p</kbd> point <kbd>d</kbd> brush <kbd>e</kbd> '
    'eraser <kbd>[</kbd> <kbd>]</kbd> width <kbd>+</kbd> <kbd>-</kbd> <kbd>0</kbd> zoom '
    '<kbd>u</kbd> undo <kbd>Enter</kbd> use</p>'
)
REVIEW_KEYS = (
    '<p class="keys">Keys: <kbd>&larr;</kbd> <kbd>&rarr;</kbd> go <kbd>a</kbd> accept <kbd>r</kbd> '
    'reject <kbd>u</kbd> take back <kbd>c</kbd> correct (<kbd>Enter</kbd> save, <kbd>Esc</kbd> '
    'cancel) <kbd>x</kbd> example <kbd>n</kbd> not it</p>'
)
SESSION_GONE = 'This page was open for too long and its data was removed. Reload the page.'
UNEXPECTED = 'This step failed for a reason of its own; the log of the server has it. Try again.'
NOTHING_TO_TAKE = '<p class="note">Nothing to take away yet: mark an object in step 1 first.</p>'
SURE = "() => [confirm('Remove all images, marked objects and results of this page?')]"
"""Asks before a visitor's data is removed."""


def css() -> str:
    """Of the page."""
    return (STATIC / 'page.css').read_text(encoding='utf-8')


def theme() -> gr.themes.Base:
    """Fonts of the visitor's system: nothing is fetched from elsewhere."""
    fonts = ['system-ui', 'sans-serif']
    base = gr.themes.Default(
        primary_hue='blue', font=fonts, font_mono=['ui-monospace', 'monospace']
    )
    # as pale as it is, what explains a field is hard to read
    return base.set(block_info_text_color='*neutral_600', block_info_text_color_dark='*neutral_300')


def _gallery(label: str, elem_id: str, height: int | None) -> gr.Gallery:
    return gr.Gallery(
        label=label, height=height, visible=False, allow_preview=False, interactive=False,
        object_fit='contain', format='jpeg', elem_id=elem_id, buttons=[], columns=6,
    )  # fmt: skip


def canvas(tools: Sequence[str], elem_id: str, visible: bool = True) -> gr.HTML:
    """What objects are marked on. Its value is what is to be shown, ``picture`` and ``marks``
    (:mod:`mmfss.webui.canvas`) or one of them, and what comes back, see :meth:`.canvas.Drawn.of`.
    (A class of our own would make Gradio write a file beside this one.)"""
    return gr.HTML(
        html_template=template(tools),
        js_on_load=(STATIC / 'canvas.js').read_text(encoding='utf-8'),
        elem_id=elem_id,
        visible=visible,
    )


class Layout:
    """Three tabs: mark objects, label images and look through results, take files away.

    Args:
        threshold: of the object score, to begin with.
        note: HTML that is to be known of the model; '' for nothing.
        methods: names to pick from, the first to begin with.
        formats: that labels can be taken away in: what each is, and its name.
    """

    def __init__(
        self,
        threshold: float,
        note: str,
        methods: Sequence[str],
        formats: Sequence[tuple[str, str]],
    ) -> None:
        with gr.Blocks(
            title='mmfss', analytics_enabled=False, delete_cache=(600, 3600)
        ) as self.blocks:
            with gr.Row(elem_id='head'):
                gr.Markdown(HEAD)
                self.anew = gr.Button('Start anew', size='sm', elem_id='anew', scale=0)
            self.sure = gr.Checkbox(visible=False)
            self.done = gr.State(None)
            if note:
                gr.HTML(f'<p class="notice">{note}</p>', padding=False)
            with gr.Tabs() as self.tabs:
                with gr.Tab('1 Show', id='show'):
                    self._show_tab(methods)
                with gr.Tab('2 Label', id='label') as self.label_tab:
                    self._label_tab(threshold)
                with gr.Tab('3 Take away', id='take') as self.take_tab:
                    self._take_tab(formats)
            gr.HTML(
                js_on_load=(STATIC / 'page.js').read_text(encoding='utf-8'), html_template=' ',
                padding=False,
            )  # fmt: skip

    def _show_tab(self, methods: Sequence[str]) -> None:
        gr.Markdown(SHOW)
        with gr.Row():
            self.photo_files = gr.File(
                label='Images to mark, or a support.safetensors', height=130, scale=3,
                file_count='multiple', elem_id='photo-files',
            )  # fmt: skip
            with gr.Column(scale=1, min_width=220):
                self.method = gr.Dropdown(
                    list(methods), value=methods[0], label='Method', info=METHOD,
                    elem_id='method', visible=len(methods) > 1,
                )  # fmt: skip
                self.example = gr.Button('Try an example', elem_id='try')
        self.photos = _gallery('Click an image to mark it', 'photos', 170)
        with gr.Row(visible=False, elem_id='marking') as self.marking:
            with gr.Column(scale=3, min_width=320):
                self.title = gr.HTML(elem_id='title', padding=False)
                self.canvas = canvas(MARKS, 'canvas')
                gr.HTML(MARK_KEYS, padding=False)
            with gr.Column(scale=1, min_width=240):
                self.class_name = gr.Dropdown(
                    [], value=None, allow_custom_value=True, label='Name of the class',
                    info='A new one, or one of the list.', elem_id='class-name',
                )  # fmt: skip
                self.negative = gr.Checkbox(
                    label='This is not it', info=NOT_IT, elem_id='negative',
                )  # fmt: skip
                self.use = gr.Button('Use this mask', variant='primary', elem_id='use')
                self.drop_photo = gr.Button('Take this image off the list', size='sm')
        self.summary = gr.HTML(elem_id='summary', padding=False)
        self.shots = _gallery('Marked objects', 'shots', 170)
        self.chosen_shot = gr.State(None)
        with gr.Row(visible=False) as self.shot_buttons:
            self.drop_shot = gr.Button('Remove the chosen one', size='sm', elem_id='drop-shot')
            self.clear_shots = gr.Button('Remove all', size='sm', elem_id='clear-shots')
            self.check = gr.Button('Self-check', size='sm', elem_id='check')
        self.check_result = gr.HTML(elem_id='check-result', padding=False)

    def _label_tab(self, threshold: float) -> None:
        gr.Markdown(LABEL)
        with gr.Row():
            self.query_files = gr.File(
                label='Images to label', file_count='multiple', elem_id='query-files', height=130,
                scale=3,
            )  # fmt: skip
            with gr.Column(scale=1, min_width=220):
                self.run = gr.Button('Label', variant='primary', elem_id='label')
                self.clear_queries = gr.Button('Remove all', elem_id='clear-queries')
        self.threshold = gr.Slider(
            0, 1, value=threshold, step=0.01, label='Threshold of the object score',
            elem_id='threshold', buttons=['reset'],
        )  # fmt: skip
        self.found = gr.HTML(elem_id='found', padding=False)
        with gr.Row(elem_id='results-row'):
            with gr.Column(scale=3, min_width=320, visible=False, elem_id='review') as self.review:
                self._review()
            with gr.Column(scale=1, min_width=260):
                self.results = _gallery('Least certain first', 'results', None)
        with gr.Accordion(
            'Object scores', open=False, visible=False, elem_id='score-part'
        ) as self.score_part:
            self.scores = gr.HTML(elem_id='scores', padding=False)

    def _review(self) -> None:
        """The opened result, and what is said of it."""
        self.result_title = gr.HTML(elem_id='result-title', padding=False)
        self.result = canvas(LOOKS, 'result')
        self.editor = canvas(EDITS, 'correction', visible=False)
        with gr.Row(elem_id='verdicts') as self.verdicts:
            self.previous = gr.Button('← Back', size='sm', elem_id='previous')
            self.accept = gr.Button('Accept', size='sm', elem_id='accept')
            self.reject = gr.Button('Reject', size='sm', elem_id='reject')
            self.take_back = gr.Button('Take back', size='sm', elem_id='take-back')
            self.next = gr.Button('Next →', size='sm', elem_id='next')
        with gr.Row():
            self.of_class = gr.Dropdown(
                [], value=None, label='Class', elem_id='of-class', min_width=120, scale=1,
            )  # fmt: skip
            with gr.Row(scale=3, elem_id='example-buttons') as self.example_buttons:
                self.correct = gr.Button('Correct', size='sm', elem_id='correct', min_width=90)
                self.use_result = gr.Button(
                    'Use as example', size='sm', elem_id='example', min_width=90
                )
                self.not_it = gr.Button('This is not it', size='sm', elem_id='not-it', min_width=90)
            with gr.Row(scale=3, visible=False) as self.edit_buttons:
                self.save = gr.Button('Save', variant='primary', size='sm', elem_id='save')
                self.cancel = gr.Button('Cancel', size='sm', elem_id='cancel')
        gr.HTML(REVIEW_KEYS, padding=False)

    def _take_tab(self, formats: Sequence[tuple[str, str]]) -> None:
        gr.Markdown(TAKE)
        self.formats = gr.CheckboxGroup(
            list(formats), value=[formats[0][1]], label='Labels as', elem_id='formats'
        )
        self.take_note = gr.HTML(elem_id='take-note', padding=False)
        self.files = gr.File(
            label='Files', file_count='multiple', interactive=False, visible=False,
            elem_id='files',
        )  # fmt: skip
        self.command = gr.Code(
            label='The same for a folder', language='shell', interactive=False, visible=False,
            elem_id='command', lines=1, wrap_lines=True,
        )  # fmt: skip
