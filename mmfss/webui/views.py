"""How a session looks: pictures, captions and HTML. Names come from visitors and are escaped."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import cast

import numpy as np

from mmfss.apis.prediction import Prediction
from mmfss.datasets.classes import label_palette
from mmfss.visualization.overlays import overlay_labels
from mmfss.webui.marking import OUTLINE_PART
from mmfss.webui.session import Session

CHECK = (
    '<p class="note">Each object is predicted from the others of its class. <b>Expected IoU</b>: '
    'how well such masks fit, with an interval; <b>spread</b>: from image to image. '
    '<b>Threshold</b>: half-way between the mean object scores of images with the class '
    '(<b>there</b>) and without it (<b>absent</b>); <b>wrong side</b>: images with + without it '
    'that it gets wrong; <b>separation</b>: how well the scores tell them apart, 1 is all.</p>'
)
"""Below the table of the self-check."""
Picture = tuple[np.ndarray, str]
"""An image uint8 (h, w, 3) RGB with its caption."""


def photo_list(session: Session) -> list[Picture]:
    """The images to mark."""
    pictures = []
    for i, photo in enumerate(session.photos):
        marked = session.marked_as(i)
        caption = f'{photo.name}: {", ".join(marked)}' if marked else photo.name
        pictures.append((_rgb(photo.thumb), caption))
    return pictures


def shot_list(session: Session) -> list[Picture]:
    """The supports, class by class, each mask in the colour of its class, or black where it marks
    what is not the class."""
    colours = label_palette(len(session.supports.classes))
    pictures = []
    for shot in session.supports.by_class():
        colour = colours[session.supports.classes.index(shot.class_name) + 1][::-1]
        both = ((0, 0, 0), (0, 0, 0) if shot.negative else colour)
        picture = overlay_labels(shot.thumb, shot.thumb_mask, both, outline_part=OUTLINE_PART)
        pictures.append((_rgb(picture), f'{shot.title} ({shot.shot.source})'))
    return pictures


def result_list(session: Session) -> list[Picture]:
    """The images to label, with what was found."""
    labelled = {id(query) for query in session.labelled()}
    pictures = []
    for query in session.queries:
        if id(query) not in labelled or query.prediction is None:
            pictures.append((_rgb(query.preview()), f'{query.name}: not labelled yet'))
            continue
        found = [
            f'{name} {score:.2f}'
            for name, score in zip(session.supports.classes, query.prediction.scores)
            if name in query.prediction.present
        ]
        pictures.append((_rgb(query.drawn()), f'{query.name}: {", ".join(found) or "nothing"}'))
    return pictures


def _rgb(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[..., ::-1])


def current_title(session: Session) -> str:
    """Which image is being marked."""
    if session.current is None:
        return 'No image yet.'
    name = session.photos[session.current].name
    return f'Image {session.current + 1} of {len(session.photos)}: <b>{escape(name)}</b>'


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
    return f'<p class="legend">{"".join(f"<span>{item}</span>" for item in items)}</p>'


def swatch(label: int) -> str:
    """A patch in the colour of a label."""
    red, green, blue = label_palette(label)[label]
    return f'<i class="swatch" style="background:rgb({red},{green},{blue})"></i>'


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
    note = unlabelled_note(session)
    if not labelled:
        return note
    heads = ''.join(
        f'<th>{swatch(i)}{escape(name)}</th>' for i, name in enumerate(session.supports.classes, 1)
    )
    rows = []
    for query in labelled:
        made = cast(Prediction, query.prediction)
        cells = [f'<td>{escape(query.name)}</td>']
        for score, threshold in zip(made.scores, made.thresholds):
            kind = 'there' if score >= threshold else 'absent'
            cells.append(f'<td class="{kind}">{score:.2f}</td>')
        rows.append(f'<tr>{"".join(cells)}</tr>')
    return (
        f'{note}<div class="scroll"><table class="scores"><thead><tr><th>image</th>{heads}</tr>'
        f'</thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


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
