"""What the page says."""

from __future__ import annotations

HEAD = """# Show a few, label the rest
Mark an object in one or more images, name its class, and see it marked in your other images."""

DEFAULT_NOTE = """<p class="notice"><b>This model is for trying the page out.</b> It was trained on
generated shapes only and does not know photos. To get weights for photos and start the page with
them, see <code>docs/labelling.md</code>.</p>"""

SHOW = 'Load images, mark an object in each, and name its class. One per class is enough to begin.'
LABEL = 'Drop the images to label. Each is marked with the classes that were found in it.'
TAKE = 'Masks of all labelled images, their scores, and the marked objects as one small file.'
THRESHOLD = 'A class that scores less in an image is not marked there. Decides anew at once.'

HINTS = {
    'Brush': '<p class="note">Paint over the whole object.</p>',
    'Box': '<p class="note">Click two opposite corners of a box around the object. The proposed '
    'mask is used only when you press the button.</p>',
    'Point on it': '<p class="note">Click on the object, more than once if needed. The proposed '
    'mask is used only when you press the button.</p>',
    'Point beside it': '<p class="note">Click on what the proposed mask should not hold.</p>',
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
  .scores td:first-child, .scores th {max-width: 9em}
  #results .grid-container {grid-template-columns: 1fr !important}
}
"""
