"""The components of the page, in Gradio: what they say, and how they are arranged."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from mmfss.webui.marking import PREVIEW_SIDE

BRUSH, BOX, POINT, BESIDE = 'Brush', 'Box', 'Point on it', 'Point beside it'


HEAD = """# Show a few, label the rest
Mark an object in one or more images, name its class, and see it marked in your other images."""

SHOW = 'Load images, mark an object in each, and name its class. One per class is enough to begin.'
LABEL = 'Drop the images to label. Each is marked with the classes that were found in it.'
NOT_IT = (
    'What is marked looks like the class and is not; without a mark, nothing here is the class.'
)
TAKE = 'Masks of all labelled images, their scores, and the marked objects as one small file.'
METHOD = 'Another one looks at the marked objects anew, and the images are to be labelled again.'
THRESHOLD = 'A class that scores less in an image is not marked there. Decides anew at once.'

HINTS = {
    BRUSH: '<p class="note">Paint over the whole object.</p>',
    BOX: '<p class="note">Click two opposite corners of a box around the object. The proposed '
    'mask is used only when you press the button.</p>',
    POINT: '<p class="note">Click on the object, more than once if needed. The proposed '
    'mask is used only when you press the button.</p>',
    BESIDE: '<p class="note">Click on what the proposed mask should not hold.</p>',
}

SESSION_GONE = 'This page was open for too long and its data was removed. Reload the page.'
UNEXPECTED = 'This step failed for a reason of its own; the log of the server has it. Try again.'
NOTHING_TO_TAKE = '<p class="note">Nothing to take away yet: mark an object in step 1 first.</p>'

CSS = """
.gradio-container {width: 100% !important; max-width: 1180px !important; margin: 0 auto !important}
.notice {border-left: 4px solid #d97706; background: #fef3c7; color: #422006;
  padding: .5em .8em; margin: 0; border-radius: 4px}
.note {opacity: .75; margin: .2em 0}
.legend span {margin-right: 1.2em; white-space: nowrap}
.swatch {display: inline-block; width: .9em; height: .9em; margin-right: .4em;
  vertical-align: -.08em; border-radius: 2px; border: 1px solid #0003}
.scroll {overflow: auto; max-height: 320px}
.scores {border-collapse: collapse; border: 0 !important;
  width: auto !important; margin: 0 !important}
.scores thead, .scores tbody, .scores tr {border: 0 !important}
.scores th, .scores td {padding: .25em .8em; text-align: left; white-space: nowrap;
  border: 0 !important; border-bottom: 1px solid #8884 !important}
.scores td:first-child, .scores th {max-width: 24em; overflow: hidden; text-overflow: ellipsis}
#clickable img {width: 100%; height: 100%; object-fit: contain; cursor: crosshair}
.there {font-weight: 700}
.absent {opacity: .55}
#photos .grid-wrap, #shots .grid-wrap, #results .grid-wrap {padding-top: 28px}
#results .grid-wrap {max-height: none}
#files .label-clear-button {display: none}
@media (max-width: 640px) {
  #clickable, #editor {height: 380px !important}
  .scores td:first-child, #scores th {max-width: 9em}
  #results .grid-container {grid-template-columns: 1fr !important}
}
"""


def theme() -> gr.themes.Base:
    """Fonts of the visitor's system: nothing is fetched from elsewhere."""
    fonts = ['system-ui', 'sans-serif']
    base = gr.themes.Default(
        primary_hue='blue', font=fonts, font_mono=['ui-monospace', 'monospace']
    )
    # as pale as it is, what explains a field is hard to read
    return base.set(block_info_text_color='*neutral_600', block_info_text_color_dark='*neutral_300')


class Layout:
    """Three tabs: mark objects, label images, take files away.

    Args:
        threshold: of the object score, to begin with.
        note: HTML that is to be known of the model; '' for nothing.
        methods: names to pick from, the first to begin with.
        tool: objects are marked with to begin with.
    """

    def __init__(self, threshold: float, note: str, methods: Sequence[str], tool: str) -> None:
        with gr.Blocks(
            title='mmfss', analytics_enabled=False, delete_cache=(600, 3600)
        ) as self.blocks:
            self.session = gr.State(None, delete_callback=lambda gone: gone and gone.close())
            gr.Markdown(HEAD)
            if note:
                gr.HTML(f'<p class="notice">{note}</p>', padding=False)
            with gr.Tabs():
                with gr.Tab('1 Show'):
                    self._show_tab(methods, tool)
                with gr.Tab('2 Label') as self.label_tab:
                    self._label_tab(threshold)
                with gr.Tab('3 Take away') as self.take_tab:
                    self._take_tab()

    def _show_tab(self, methods: Sequence[str], tool: str) -> None:
        gr.Markdown(SHOW)
        self.method = gr.Dropdown(
            list(methods), value=methods[0], label='Method', info=METHOD, elem_id='method',
            visible=len(methods) > 1,
        )  # fmt: skip
        self.photo_files = gr.File(
            label='Images to mark, or a support.safetensors', height=130,
            file_count='multiple', elem_id='photo-files',
        )  # fmt: skip
        self.photos = gr.Gallery(
            label='Click an image to mark it', columns=8, fit_columns=False, rows=1, height=170,
            visible=False, allow_preview=False, interactive=False, object_fit='contain',
            format='jpeg', elem_id='photos', buttons=[],
        )  # fmt: skip
        with gr.Column(visible=False) as self.marking:
            self._marking(tool)
        self.summary = gr.HTML(elem_id='summary', padding=False)
        self.shots = gr.Gallery(
            label='Marked objects', columns=8, fit_columns=False, rows=1, height=170, visible=False,
            elem_id='shots', allow_preview=False, interactive=False, object_fit='contain',
            format='jpeg', buttons=[],
        )  # fmt: skip
        self.chosen_shot = gr.State(None)
        with gr.Row(visible=False) as self.shot_buttons:
            self.drop_shot = gr.Button('Remove the chosen one', size='sm', elem_id='drop-shot')
            self.clear_shots = gr.Button('Remove all', size='sm', elem_id='clear-shots')
            self.check = gr.Button('Self-check', size='sm', elem_id='check')
        self.check_result = gr.HTML(elem_id='check-result', padding=False)

    def _marking(self, tool: str) -> None:
        """The current image, and what is done with it."""
        self.title = gr.HTML(elem_id='title', padding=False)
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                self.editor = gr.ImageEditor(
                    label='Paint over the object', transforms=(), sources=(), layers=False,
                    brush=gr.Brush(default_size=24, colors=['#ff2d55'], color_mode='fixed'),
                    canvas_size=(PREVIEW_SIDE, PREVIEW_SIDE), height=520, elem_id='editor',
                    buttons=[], visible=tool == BRUSH,
                )  # fmt: skip
                self.clickable = gr.Image(
                    label='Click on the image', interactive=False, format='jpeg',
                    height=520, elem_id='clickable', buttons=[], visible=tool != BRUSH,
                )  # fmt: skip
            with gr.Column(scale=1, min_width=240):
                self.class_name = gr.Textbox(
                    label='Name of the class', placeholder='e.g. cup', max_length=100,
                    elem_id='class-name',
                )  # fmt: skip
                self.tool = gr.Radio(
                    [BOX, POINT, BESIDE, BRUSH], value=tool, label='Mark with',
                    elem_id='tool',
                )  # fmt: skip
                self.hint = gr.HTML(HINTS[tool], elem_id='hint', padding=False)
                self.negative = gr.Checkbox(
                    label='This is not it', info=NOT_IT, elem_id='negative',
                )  # fmt: skip
                self.use = gr.Button('Use this mask', variant='primary', elem_id='use')
                with gr.Row(visible=tool != BRUSH) as self.click_buttons:
                    self.undo = gr.Button('Undo click', size='sm', min_width=80)
                    self.clear = gr.Button('Clear clicks', size='sm', min_width=80)
                self.drop_photo = gr.Button('Take this image off the list', size='sm')

    def _label_tab(self, threshold: float) -> None:
        gr.Markdown(LABEL)
        self.query_files = gr.File(
            label='Images to label', file_count='multiple', elem_id='query-files', height=130
        )
        with gr.Row():
            self.run = gr.Button('Label', variant='primary', elem_id='label', min_width=120)
            self.clear_queries = gr.Button('Remove all', elem_id='clear-queries', min_width=120)
        self.threshold = gr.Slider(
            0, 1, value=threshold, step=0.01, label='Threshold of the object score',
            info=THRESHOLD, elem_id='threshold', buttons=['reset'],
        )  # fmt: skip
        self.scores = gr.HTML(elem_id='scores', padding=False)
        self.results = gr.Gallery(
            label='Results', columns=3, visible=False, interactive=False, elem_id='results',
            object_fit='contain', format='jpeg', height='auto', buttons=['fullscreen'],
        )  # fmt: skip

    def _take_tab(self) -> None:
        gr.Markdown(TAKE)
        self.take_note = gr.HTML(elem_id='take-note', padding=False)
        self.files = gr.File(
            label='Files', file_count='multiple', interactive=False, visible=False,
            elem_id='files',
        )  # fmt: skip
        self.command = gr.Code(
            label='The same for a folder', language='shell', interactive=False, visible=False,
            elem_id='command', lines=1, wrap_lines=True,
        )  # fmt: skip
