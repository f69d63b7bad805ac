"""Sessions that stay: a restart takes up what was done, whole or not at all."""

import json
import os

import numpy as np
import pytest
from webui_steps import box_mask, click_box, marked, painted

from mmfss.webui import review, views
from mmfss.webui import visitors as module
from mmfss.webui.limits import Limits
from mmfss.webui.visitors import Visitors
from mmfss.webui.worker import ModelChoice, Models


@pytest.fixture
def again(worker, tmp_path):
    """Makes the visitors of a page that starts again in the same folder."""
    kept = tmp_path / 'kept'
    kept.mkdir(mode=0o700)
    return lambda: Visitors(Models(worker), Limits(), tmp_path / 'page', kept)


def done(session, photo):
    """Something of everything."""
    marked(session, photo, ('cup', 'cat'))
    session.add_queries([photo(f'q{i}.png', 10 + i) for i in range(3)])
    session.set_threshold(0.1)
    session.label()
    review.judge(session, 'accepted')
    review.correct(session, 'cat', painted(box_mask()))
    review.go(session, 1)
    return session


def test_a_restart_takes_all_up(again, photo, tmp_path, tiny_model):
    before = done(again().start('a')[0], photo)
    visitors = again()
    session, notes = visitors.start('a')
    assert session is not before and notes == []
    assert visitors.start('a')[0] is session and len(visitors) == 1
    assert visitors.start('b')[0].photos == ()
    assert [p.name for p in session.photos] == [p.name for p in before.photos]
    for one, other in zip(session.photos, before.photos):
        assert one.path == other.path and one.shape == other.shape
        np.testing.assert_array_equal(one.thumb, other.thumb)
    assert (session.current, session.threshold) == (before.current, 0.1)
    for one, other in zip(session.supports.shots, before.supports.shots):
        assert (one.class_name, one.title, one.mask) == (other.class_name, other.title, other.mask)
        assert one.shot.shape == other.shot.shape and one.shot.source == other.shot.source
        for key in ('image', 'mask'):
            np.testing.assert_array_equal(getattr(one.shot, key), getattr(other.shot, key))
        np.testing.assert_array_equal(one.thumb_mask, other.thumb_mask)
    assert session.supports.shots[0].photo is session.photos[0]
    assert views.result_title(session) == views.result_title(before)
    assert [c for _, c in views.result_list(session)] == [c for _, c in views.result_list(before)]
    for one, other in zip(session.queries, before.queries):
        assert (one.verdict, one.certainty) == (other.verdict, other.certainty)
        np.testing.assert_array_equal(one.whole().labels, other.whole().labels)
        np.testing.assert_array_equal(one.whole().logits, other.whole().logits)
    # and goes on: results are current, a new support makes them old
    assert session.unlabelled == 0
    session.add_queries([photo('new.png', 20)])
    session.label()
    assert session.unlabelled == 0
    click_box(session, (5, 5), (25, 25))
    session.use_mask('cup')
    assert session.unlabelled == 2  # two of four are accepted or corrected


def test_killed_at_any_moment_what_was_said_to_be_done_is_there(again, photo, monkeypatch):
    """The record never names a file that is not whole, and what it does not name goes."""
    session = done(again().start('a')[0], photo)
    folder = session.folder.path
    text = (folder / 'session.json').read_text()
    named = {name for name in _strings(json.loads(text)) if (folder / name).is_file()}
    there = {file.name for file in folder.iterdir()}
    previews = {f'{q.path.name}.preview' for q in session.queries}
    assert there == named | previews | {'session.json'}

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr('mmfss.webui.keeping.write_text', killed)
    for step in (
        lambda: session.add_photos([photo('late.png', 30)]),
        lambda: session.drop_shot(0),
        session.clear_queries,
    ):
        with pytest.raises(KeyboardInterrupt):
            step()
        monkeypatch.undo()
        assert (folder / 'session.json').read_text() == text
        restarted = again().start('a')[0]
        assert restarted.notes == [] and len(restarted.supports) == 2
        assert [q.name for q in restarted.queries] == ['q0.png', 'q1.png', 'q2.png']
        monkeypatch.setattr('mmfss.webui.keeping.write_text', killed)
    monkeypatch.undo()
    restarted.clear_queries()
    assert len(list(folder.iterdir())) == 5  # two photos, two supports, the record


def _strings(value):
    if isinstance(value, str):
        yield value
    for one in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from _strings(one)


def test_what_is_damaged_is_said_and_the_rest_taken_up(again, photo):
    session = done(again().start('a')[0], photo)
    folder = session.folder.path
    session.photos[1].path.unlink()  # also of the second support
    accepted = next(q for q in session.queries if q.verdict == 'accepted')
    accepted.kept.path.write_bytes(b'no image')
    restarted, notes = again().start('a')
    assert len(notes) == 3 and all('could not be taken up again' in note for note in notes)
    assert not any(str(folder) in note for note in notes)
    assert len(restarted.photos) == 1 and restarted.supports.classes == ('cup',)
    assert len(restarted.queries) == 3 and not restarted.current_results
    assert [q.verdict for q in restarted.queries if q.kept] == ['corrected']


@pytest.mark.parametrize('text', ['', '{', '[]', '{"version": 99}', '{"version": 1}'])
def test_a_record_that_cannot_be_read_is_put_aside(again, photo, text):
    session = done(again().start('a')[0], photo)
    folder = session.folder.path
    (folder / 'session.json').write_text(text)
    restarted, notes = again().start('a')
    assert len(notes) == 1 and notes[0].endswith('it is begun anew')
    assert restarted.photos == () and restarted.folder.path == folder
    (aside,) = [one for one in folder.parent.iterdir() if one.name.startswith(f'{folder.name}.')]
    assert (aside / '00001.png').is_file()


def test_paths_in_a_record_stay_in_the_folder(again, photo, tmp_path):
    session = done(again().start('a')[0], photo)
    record = session.folder.path / 'session.json'
    secret = tmp_path / 'secret.png'
    secret.write_bytes(session.photos[0].path.read_bytes())
    known = json.loads(record.read_text())
    for path in (str(secret), '../../secret.png', '.', ''):
        known['photos'][0]['file'] = path
        record.write_text(json.dumps(known))
        restarted, notes = again().start('a')
        assert len(restarted.photos) == 1 and 'its file is gone' in notes[0]
        record.write_text(json.dumps(known))


def test_another_model_labels_anew_and_keeps_what_was_accepted(again, photo, worker):
    session = done(again().start('a')[0], photo)
    worker.choice = ModelChoice(weights='other.pth')
    restarted, notes = again().start('a')
    assert notes == [] and restarted.threshold == worker.threshold
    assert [q.verdict for q in review.ordered(restarted) if q.kept] == ['accepted', 'corrected']
    assert all(q.prediction is None for q in restarted.queries) and restarted.unlabelled == 1
    assert len(restarted.supports) == 2 and session.supports.classes == ('cup', 'cat')


def test_nothing_is_written_before_something_is_done(again):
    visitors = again()
    session, _ = visitors.start('a')
    session.set_threshold(0.2)
    assert list(visitors.kept.iterdir()) == []


def test_forgotten_is_gone(again, photo):
    visitors = again()
    session = done(visitors.start('a')[0], photo)
    other = done(visitors.start('b')[0], photo)
    visitors.forget('a')
    assert not session.folder.path.exists() and visitors.find('a').photos == ()
    assert visitors.start('a')[0].photos == () and other.folder.path.exists()
    again().forget('b')  # which is not in memory
    assert not other.folder.path.exists()


def test_few_sessions_are_in_memory(again, photo, monkeypatch, worker, tmp_path):
    monkeypatch.setattr(module, 'MAX_IN_MEMORY', 3)
    monkeypatch.setattr(module, 'MAX_SESSIONS', 3)
    visitors = again()
    first, _ = visitors.start('0')
    first.add_photos([photo('a.png')])
    with first.step():  # one that works is not taken away
        for i in range(1, 6):
            visitors.start(str(i))
        assert len(visitors) == 3 and visitors.find('0') is first
    for i in range(6, 9):
        visitors.start(str(i))
    assert len(visitors) == 3
    back = visitors.find('0')
    assert back is not first and [p.name for p in back.photos] == ['a.png']
    # a page that keeps nothing: the one who was idle longest loses it
    forgetful = Visitors(Models(worker), Limits(), tmp_path / 'page')
    gone, _ = forgetful.start('0')
    gone.add_photos([photo('a.png')])
    for i in range(1, 5):
        forgetful.start(str(i))
    assert len(forgetful) == 3 and forgetful.find('0') is None
    assert not gone.folder.path.exists() and not os.path.exists(forgetful.exports(gone))
