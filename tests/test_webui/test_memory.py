"""What visitors hold is bounded: by number, by bytes, and given back to the system."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from reliability.visits import Visitor
from reliability.visits import photo as jpeg
from webui_steps import marked, pixels

from mmfss.commands import webui
from mmfss.hosts import HostNames
from mmfss.webui.limits import Limits
from mmfss.webui.memory import bytes_of
from mmfss.webui.visitors import Visitors
from mmfss.webui.worker import Models

guard = pytest.importorskip('mmfss.webui.guard', exc_type=ImportError)


def test_bytes_are_counted(new_session, photo, tmp_path):
    session = new_session()
    assert session.nbytes() == 0
    marked(session, photo)
    thumb, shot = session.photos[0].thumb, session.supports.shots[0]
    by_hand = 2 * (thumb.nbytes + len('0.png'))  # of the list, and of what was marked
    by_hand += shot.shot.image.nbytes + shot.shot.mask.nbytes + len('0.png')
    by_hand += shot.thumb.nbytes + shot.thumb_mask.nbytes + len(shot.mask) + len('cup')
    assert session.nbytes() == by_hand
    session.add_queries([photo('q.png', 5)])
    session.label()
    labels = session.queries[0].prediction.labels.nbytes
    states = bytes_of(session._inferencer.states)
    assert states > 1000 and by_hand + labels + states <= session.nbytes()
    assert session.nbytes() < by_hand + labels + states + 1000  # logits are in a file
    np.save(tmp_path / 'a.npy', np.zeros(1000))
    assert bytes_of(np.load(tmp_path / 'a.npy', mmap_mode='r')) == 0


def test_those_idle_longest_go(worker, photo, tmp_path):
    visitors = Visitors(Models(worker), Limits(), tmp_path / 'page')
    sessions = []
    for name in 'abcd':
        sessions.append(visitors.start(name)[0])
        sessions[-1].add_photos([photo()])
        visitors.seen(name)
        if name == 'a':
            size = sessions[0].nbytes()
            visitors.most_bytes = 3 * size
        if name == 'c':
            visitors.seen('a')
            at_work = sessions[1].step()
            at_work.__enter__()
    at_work.__exit__(None, None, None)
    # one who is at work is not sent away
    assert [visitors.find(name) is not None for name in 'abcd'] == [True, True, False, True]
    assert visitors.nbytes() == 3 * size
    assert not sessions[2].folder.path.exists() and sessions[1].folder.path.exists()
    visitors.most_bytes = 0
    visitors.seen('d')  # alone too large: it stays
    assert [visitors.find(name) is not None for name in 'abcd'] == [False, False, False, True]


def test_sessions_that_are_gone_hold_nothing(worker, photo, tmp_path):
    visitors = Visitors(Models(worker), Limits(), tmp_path / 'page')
    session = visitors.start('a')[0]
    session.add_photos([photo()])
    visitors.seen('a')
    assert visitors.nbytes() > 0
    gone = weakref.ref(session)
    del session
    visitors.forget('a')
    gc.collect()
    assert gone() is None and visitors.nbytes() == 0


def test_the_names_of_files_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(guard, 'MAX_FILES', 3)
    made = guard.Guard(None, HostNames(['a'], False, ()), [tmp_path], b'key')
    for number in (0, 1, 2, 0, 3):
        made._give('v', [f'/x/{number}'])
    assert [made._may('v', f'/x/{number}') for number in range(4)] == [True, False, True, True]


@pytest.fixture
def page(worker, tmp_path, monkeypatch):
    pytest.importorskip('gradio')
    monkeypatch.setattr(webui, 'MAX_SESSIONS', 3)
    page = webui.make_page(Models(worker), Limits(), tmp_path / 'page')
    (tmp_path / 'page').mkdir()
    url = webui.launch(page, '127.0.0.1', 0, block=False)
    yield page, url
    page.blocks.close()


def test_visits_one_after_the_other(page, worker, tmp_path, monkeypatch):
    """The short form of ``tools/analysis_tools/reliability.py page``."""
    page, url = page
    most = 1_000_000  # two visitors of these
    monkeypatch.setattr(page.visitors, 'most_bytes', most)
    inferencer = worker.new_inferencer()
    mask = np.zeros((80, 96), bool)
    mask[20:50, 30:60] = True
    inferencer.set_support({'cup': [(pixels(0), mask)]})
    inferencer.save_support(tmp_path / 'support.safetensors')
    support, held = (tmp_path / 'support.safetensors').read_bytes(), []
    for i in range(8):
        visitor = Visitor(url)
        assert visitor.visit(support, [jpeg(i)]) == 3
        held.append(page.visitors.nbytes())
        visitor.leave()
    assert 0 < held[0] < held[1] <= most and set(held[2:]) == {held[1]}
    gc.collect()
    assert len(list((tmp_path / 'page').glob('visitor_*'))) == 2
