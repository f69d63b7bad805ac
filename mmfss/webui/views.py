"""How a session looks: pictures, captions and HTML. Names come from visitors and are escaped."""

from __future__ import annotations

from collections import Counter
from html import escape
from pathlib import PurePath
from typing import Any

import cv2
import numpy as np

from mmfss.apis.box_masks import BOX, GRABCUT
from mmfss.visualization.overlays import class_colours, contrasting, overlay_labels
from mmfss.webui import marking, review
from mmfss.webui.canvas import marks_of, picture_of
from mmfss.webui.queries import Query
from mmfss.webui.session import Session
from mmfss.webui.supports import THUMB_SIDE
from mmfss.webui.uploads import read_upload

OUTLINE_PART = 160
"""Part of the longer side that the outline of a mask is wide, on thumbnails."""
CHECK = (
    '<p class="note">Each object is predicted from the others of its class. <b>Expected IoU</b>: '
    'how well such masks fit, with an interval; <b>spread</b>: from image to image. '
    '<b>Threshold</b>: half-way between the mean object scores of images with the class '
    '(<b>there</b>) and without it (<b>absent</b>); <b>wrong side</b>: images with + without it '
    'that it gets wrong; <b>separation</b>: how well the scores tell them apart, 1 is all.</p>'
)
"""Below the table of the self-check."""
MADE_BY = {
    GRABCUT: 'The mask is by colours alone (GrabCut): look at its border.',
    BOX: 'The mask is the box itself: paint and erase it into shape.',
}
"""What made a proposal, where it was not the heads for prompts."""
SIGNS = {'': '', 'accepted': '✓ ', 'corrected': '✎ ', 'rejected': '✗ '}
Picture = tuple[np.ndarray, str]
"""An image uint8 (h, w, 3) RGB with its caption."""


# ---------------------------------------------------------------------------------- step 1
def photo_list(session: Session) -> list[Picture]:
    """The images to mark."""
    pictures = []
    for i, photo in enumerate(session.photos):
        marked = session.marked_as(i)
        caption = f'✓ {", ".join(marked)}: {photo.name}' if marked else photo.name
        pictures.append((_rgb(photo.thumb), caption))
    return pictures


def shot_list(session: Session) -> list[Picture]:
    """The supports, class by class, each mask in the colour of its class, or black where it marks
    what is not the class."""
    colours = class_colours(len(session.supports.classes))
    pictures = []
    for shot in session.supports.by_class():
        colour = colours[session.supports.classes.index(shot.class_name) + 1]
        own = (0, 0, 0) if shot.negative else colour
        picture = overlay_labels(
            _rgb(shot.thumb), shot.thumb_mask, (own, own),
            outline_part=OUTLINE_PART, halos=[contrasting(own)] * 2,
        )  # fmt: skip
        pictures.append((picture, f'{shot.title} ({PurePath(shot.shot.source).name})'))
    return pictures


def current_title(session: Session) -> str:
    """Which image is being marked."""
    if session.current is None:
        return 'No image yet.'
    name = session.photos[session.current].name
    title = f'Image {session.current + 1} of {len(session.photos)}: <b>{escape(name)}</b>'
    if session.made_by in MADE_BY:
        title += f'. <span class="note">{MADE_BY[session.made_by]}</span>'
    return title


def current_picture(session: Session) -> dict[str, Any] | None:
    """The image that is being marked, for the canvas."""
    image = session.current_preview()
    if image is None or session.current is None:
        return None
    return picture_of(image, session.photos[session.current].path.name)


def current_marks(session: Session) -> dict[str, Any]:
    """Clicks and proposed mask, for the canvas."""
    points = session.worker.takes_points
    if session.current is None:
        return marks_of(None, points=points)
    shape = session.photos[session.current].shape
    scale = max(marking.preview_shape(shape)) / max(shape)
    return marks_of(session.proposal_preview(), session.clicks, scale, points)


def support_summary(session: Session) -> str:
    """How many objects of which class are marked, with the colours."""
    if not session.supports:
        return '<p class="note">Nothing marked yet. One object per class is enough to begin.</p>'
    counts = Counter(shot.title for shot in session.supports.shots)
    items = []
    for i, name in enumerate(session.supports.classes, 1):
        others = counts[f'not {name}']
        more = f', not: {others}' if others else ''
        items.append(f'{swatch(i)}{escape(name)}: {counts[name]}{more}')
    return _legend(items)


def check_table(session: Session) -> str:
    """What the self-check found, a row per class, and what is to be looked at; nothing before."""
    found = session.self_check
    if found is None:
        return ''
    head, *rows = found.rows()
    cells = ''.join(f'<th>{escape(name)}</th>' for name in head)
    body = ''.join(
        '<tr>' + ''.join(f'<td>{escape(cell)}</td>' for cell in row) + '</tr>' for row in rows
    )
    table = f'<table class="scores"><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>'
    notes = ''.join(f'<p class="notice">{escape(note)}</p>' for note in found.notes())
    return f'<div class="scroll">{table}</div>{CHECK}{notes}'


# ---------------------------------------------------------------------------------- step 2
def result_list(session: Session) -> list[Picture]:
    """The images to label, with what was found, the least certain first."""
    pictures = []
    for query in review.ordered(session):
        image, shown = query.drawn(THUMB_SIDE), query.shown
        if shown is None:
            pictures.append((_rgb(image), f'{query.name}: not labelled yet'))
            continue
        found = ', '.join(shown.present) or 'nothing'
        sure = f'{100 * query.certainty:.0f} %' if query.prediction is not None else ''
        pictures.append((_rgb(image), f'{SIGNS[query.verdict]}{sure} {query.name}: {found}'))
    return pictures


def result_title(session: Session) -> str:
    """Which result is looked at, what was said of it, and the legend of its colours with the
    scores."""
    query = review.opened(session)
    shown = None if query is None else query.shown
    if query is None or shown is None:
        return ''
    listed = review.labelled(session)
    said = f', <b>{query.verdict}</b>' if query.verdict else ''
    sure = f'certainty {query.certainty:.2f}' if query.prediction is not None else 'kept labels'
    if query.prediction is not None and not session.current_results:
        sure += ', of earlier examples: press Label'
    first = (
        f'<p>{listed.index(query) + 1} of {len(listed)}: <b>{escape(query.name)}</b>, {sure}{said}'
        '</p>'
    )
    items, present = [], shown.present
    for i, (name, score, limit) in enumerate(zip(shown.classes, shown.scores, shown.thresholds), 1):
        there = name in present
        digits = 2 if f'{score:.2f}' != f'{limit:.2f}' else 3
        more = '' if there or score >= limit else f' &lt; {limit:.{digits}f}'
        kind = 'there' if there else 'absent'
        items.append(
            f'<span class="{kind}">{swatch(i)}{escape(name)} {score:.{digits}f}{more}</span>'
        )
    return f'{first}<p class="legend">{" ".join(items)}</p>'


def result_picture(session: Session) -> dict[str, Any] | None:
    """The opened result with its labels, for the canvas."""
    query = review.opened(session)
    if query is None:
        return None
    image = _large(session, query)
    shown = query.shown_at((image.shape[0], image.shape[1]))
    return picture_of(image if shown is None else shown.draw(image), query.path.name)


def plain_picture(session: Session, query: Query) -> dict[str, Any]:
    """A result without labels, to correct it."""
    return picture_of(_large(session, query), query.path.name)


def _large(session: Session, query: Query) -> np.ndarray:
    """As large as photos are marked, so that one can look closely."""
    return marking.preview(read_upload(query.path, query.name, session.limits))


def found_summary(session: Session) -> str:
    """In how many images each class was found, the best score of each, how many were looked
    through, and how many have no result yet."""
    labelled = session.labelled()
    note = unlabelled_note(session)
    if not labelled:
        return note
    items = []
    results = [(one, one.present) for q in labelled if (one := q.shown) is not None]
    for i, name in enumerate(session.supports.classes, 1):
        known = [(one, present) for one, present in results if name in one.classes]
        there = sum(name in present for _, present in known)
        best = max((float(one.scores[one.place(name)]) for one, _ in known), default=0.0)
        items.append(
            f'{swatch(i)}{escape(name)}: in {there} of {len(labelled)}, best score {best:.2f}'
        )
    counts = Counter(query.verdict for query in session.queries if query.verdict)
    looked = ', '.join(f'{SIGNS[verdict]}{count} {verdict}' for verdict, count in counts.items())
    return note + _legend([*items, *([looked] if looked else [])])


def unlabelled_note(session: Session) -> str:
    """How many images have no result yet, and what to do; nothing where all have one."""
    waiting = session.unlabelled
    if not waiting:
        return ''
    why = 'press Label in step 2' if session.supports else 'mark an object in step 1 first'
    return f'<p class="note">{waiting} of {len(session.queries)} not labelled yet: {why}.</p>'


def score_table(session: Session) -> str:
    """Object scores of each image and class; those at or above the threshold are bold."""
    labelled = session.labelled()
    results = [(q, q.prediction) for q in review.ordered(session) if q in labelled]
    classes = session.supports.classes
    heads = ''.join(f'<th>{swatch(i)}{escape(name)}</th>' for i, name in enumerate(classes, 1))
    rows = []
    for query, made in results:
        if made is None:
            continue
        cells = [f'<td>{escape(query.name)}</td>', f'<td>{query.certainty:.2f}</td>']
        for score, threshold in zip(made.scores, made.thresholds):
            kind = 'there' if score >= threshold else 'absent'
            cells.append(f'<td class="{kind}">{score:.2f}</td>')
        rows.append(f'<tr>{"".join(cells)}</tr>')
    if not rows:
        return ''
    return (
        '<div class="scroll"><table class="scores"><thead><tr><th>image</th><th>certainty</th>'
        f'{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def swatch(label: int) -> str:
    """A patch in the colour of a label."""
    red, green, blue = class_colours(label)[label]
    return f'<i class="swatch" style="background:rgb({red},{green},{blue})"></i>'


def _legend(items: list[str]) -> str:
    return f'<p class="legend">{" ".join(f"<span>{item}</span>" for item in items)}</p>'


def _rgb(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
