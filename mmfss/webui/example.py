"""The example that a visitor may try: generated pictures, some of them marked."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from mmfss.datasets.io import read_mask
from mmfss.datasets.preparation.example import SHOTS, Example, write_example
from mmfss.webui.session import Session
from mmfss.webui.supports import Photo
from mmfss.webui.uploads import read_upload

EXAMPLE = Example(images=8, image_size=192)
_SHOWN = 2
"""Marked objects of each class."""
_making = threading.Lock()


def folder(root: Path) -> Path:
    """Where the example is, below a page's folder; made the first time, which takes seconds."""
    made = root / 'example'
    with _making:
        write_example(made, EXAMPLE)
    return made


def load(session: Session, made: Path) -> None:
    """Give a session with nothing in it the example: marked objects, and pictures to label.

    Args:
        session: of the visitor.
        made: of :func:`folder`.

    Raises:
        ValueError: There is something in it.
    """
    if session.photos or session.supports or session.queries:
        raise ValueError('the example is for an empty page; press Start anew first')
    for name in SHOTS:
        for path in sorted((made / 'support' / name / 'images').iterdir())[:_SHOWN]:
            session.add_photos([(path, f'{name}_{path.name}')])
            with session.step():
                photo: Photo = session.photos[-1]
                mask = read_mask(made / 'support' / name / 'masks' / path.name) > 0
                image = read_upload(photo.path, photo.name, session.limits)
                session.add_shot(name, photo, image, np.asarray(mask), False)
    session.add_queries([(path, path.name) for path in sorted((made / 'images').iterdir())])
