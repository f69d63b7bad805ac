"""Looking through results: which comes first, and what the visitor says of each."""

from __future__ import annotations

from typing import Literal

import numpy as np

from mmfss.webui import marking
from mmfss.webui.queries import Query
from mmfss.webui.session import Session
from mmfss.webui.supports import Photo
from mmfss.webui.uploads import read_upload


def ordered(session: Session) -> tuple[Query, ...]:
    """The images to label: the least certain first, those without a result last."""
    return tuple(sorted(session.queries, key=lambda q: (not q.has_labels, q.certainty, q.name)))


def labelled(session: Session) -> list[Query]:
    """Those of :func:`ordered` that can be looked at."""
    return [query for query in ordered(session) if query.has_labels]


def opened(session: Session) -> Query | None:
    """The result that is looked at: the one that was opened, else the first; None without any."""
    listed = labelled(session)
    found = [query for query in listed if query.name == session.opened]
    return next(iter(found or listed), None)


def _opened(session: Session) -> Query:
    query = opened(session)
    if query is None:
        raise ValueError('no image is labelled yet; press Label first')
    return query


def open_result(session: Session, place: int) -> None:
    """Look at a result.

    Args:
        session: of the visitor.
        place: among those of :func:`ordered`.

    Raises:
        ValueError: There is none, or it is not labelled yet.
    """
    with session.step():
        listed = ordered(session)
        if not 0 <= place < len(listed):
            raise ValueError(f'there is no result {place + 1}; there are {len(listed)}')
        if not listed[place].has_labels:
            raise ValueError(f'{listed[place].name} is not labelled yet; press Label first')
        session.opened = listed[place].name


def go(session: Session, steps: int) -> None:
    """Look at the result ``steps`` further on, which stops at both ends."""
    with session.step():
        listed = labelled(session)
        here = listed.index(_opened(session))
        session.opened = listed[min(max(here + steps, 0), len(listed) - 1)].name


def judge(session: Session, verdict: Literal['', 'accepted', 'rejected']) -> None:
    """Say of the opened result that its labels are right as they are shown, and stay, or that they
    are wrong and are not to be taken away; '' takes it back, and corrections too. The next one that
    nothing was said of is then opened.

    Raises:
        ValueError: No result.
    """
    with session.step():
        query = _opened(session)
        if verdict == 'accepted' and query.kept is None:
            whole = query.whole()
            file = session.folder.new('.png')
            new = query.with_labels(whole.classes, whole.labels, file, verdict)
        elif verdict == 'accepted':
            new = query  # corrected before
        else:
            new = query.with_verdict(verdict)
        session.replace(query, new)
        session.opened = query.name
        if verdict:
            listed = labelled(session)
            here = listed.index(new)
            open_ones = [q for q in (*listed[here + 1 :], *listed[:here]) if not q.verdict]
            session.opened = open_ones[0].name if open_ones else query.name


def mask_preview(session: Session, class_name: str) -> np.ndarray:
    """Where a class is in the opened result, at the size of the review's picture: bool (h, w)."""
    query = _opened(session)
    size = marking.preview_shape(query.shape)
    shown = query.shown_at(size)
    if shown is None or class_name not in shown.classes:
        return np.zeros(size, bool)
    return shown.mask(class_name)


def correct(session: Session, class_name: str, painted: str) -> None:
    """Give a class of the opened result another mask. What else was there below it is of the class
    then, and what was erased is background.

    Args:
        session: of the visitor.
        class_name: one that is marked in step 1.
        painted: the mask on the picture, see :func:`mmfss.webui.marking.painted_mask`.

    Raises:
        ValueError: No result, no such class, or the mask did not arrive.
    """
    with session.step():
        query = _opened(session)
        whole = query.whole()
        name = _class_of(session, class_name)
        classes = whole.classes if name in whole.classes else (*whole.classes, name)
        before = mask_preview(session, name)
        drawn = marking.painted_mask(painted, (before.shape[0], before.shape[1]))
        labels, label = whole.labels.copy(), classes.index(name) + 1
        mask = marking.repainted(labels == label, before, drawn)
        labels[(labels == label) & ~mask] = 0
        labels[mask] = label
        file = session.folder.new('.png')
        session.replace(query, query.with_labels(classes, labels, file, 'corrected'))
        session.opened = query.name


def _class_of(session: Session, text: str) -> str:
    if text not in session.supports.classes:
        known = ', '.join(session.supports.classes) or 'none yet'
        raise ValueError(f'choose a class that is marked in step 1: {known}')
    return text


def use_as_example(session: Session, class_name: str, negative: bool = False) -> str:
    """Take a class of the opened result, as it is shown, as a support, or as what the class is not.

    Returns:
        The name of the class.

    Raises:
        ValueError: No result, none of the class in it, or see
            :meth:`mmfss.webui.session.Session.use_mask`.
    """
    with session.step():
        query = _opened(session)
        name = session.class_for(_class_of(session, class_name), negative)
        whole = query.whole()
        if name not in whole.classes or not whole.mask(name).any():
            raise ValueError(
                f'no {name} is marked in {query.name}; correct it first, or choose another class'
            )
        image = read_upload(query.path, query.name, session.limits)
        photo = Photo.of(query.name, session.folder.keep(query.path), image)
        session.add_shot(name, photo, image, whole.mask(name), negative)
        session.opened = query.name
        return name
