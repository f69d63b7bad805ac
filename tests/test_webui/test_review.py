"""Looking through results: order, verdicts, corrections, results that become supports."""

import numpy as np
import pytest
from webui_steps import box_mask, marked, painted

from mmfss.webui import review, views
from mmfss.webui.export import export


@pytest.fixture
def session(new_session, photo):
    """Three images with results, everything marked in each."""
    session = new_session()
    marked(session, photo, ('cup', 'cat'))
    session.add_queries([photo(f'q{i}.png', 10 + i) for i in range(3)])
    session.set_threshold(0)
    session.label()
    return session


def names(queries):
    return [query.name for query in queries]


def test_the_least_certain_come_first(session, photo):
    listed = review.ordered(session)
    certain = [query.prediction.certainty for query in listed]
    assert certain == sorted(certain) and len(set(certain)) == 3
    assert [query.certainty for query in listed] == certain
    assert review.opened(session) is listed[0]
    review.open_result(session, 1)
    assert review.opened(session) is listed[1]
    review.go(session, 1)
    review.go(session, 1)
    assert review.opened(session) is listed[2]
    review.go(session, -5)
    assert review.opened(session) is listed[0]
    session.add_queries([photo('a.png', 20)])
    assert names(review.ordered(session))[-1] == 'a.png'
    with pytest.raises(ValueError, match='a.png is not labelled yet; press Label first'):
        review.open_result(session, 3)
    with pytest.raises(ValueError, match='there is no result 10; there are 4'):
        review.open_result(session, 9)


def test_what_was_accepted_stays_whatever_moves(session, photo, tmp_path):
    first, second, third = review.ordered(session)
    labels = first.whole().labels
    assert labels.any()
    review.judge(session, 'accepted')
    assert review.opened(session).name == second.name  # the next that nothing was said of
    review.judge(session, 'rejected')
    session.set_threshold(1)
    by_name = {query.name: query for query in session.queries}
    assert not by_name[third.name].whole().labels.any()
    np.testing.assert_array_equal(by_name[first.name].whole().labels, labels)
    np.testing.assert_array_equal(by_name[first.name].shown.labels, labels)
    marked(session, photo, ('pen',))  # results are of earlier supports now
    assert names(session.labelled()) == [first.name] and session.unlabelled == 2
    files = export(session, tmp_path / 'files')
    assert first.name in files[1].read_text() and third.name not in files[1].read_text()
    session.label()
    by_name = {query.name: query for query in session.queries}
    assert by_name[first.name].verdict == 'accepted' and by_name[second.name].verdict == ''
    np.testing.assert_array_equal(by_name[first.name].whole().labels, labels)
    assert by_name[first.name].whole().classes == ('cup', 'cat', 'pen')


def test_rejected_ones_are_not_taken_away_and_a_verdict_is_taken_back(session, tmp_path):
    first = review.opened(session)
    review.judge(session, 'rejected')
    rows = export(session, tmp_path / 'files')[1].read_text().splitlines()
    assert len(rows) == 3 and first.name not in ''.join(rows)
    review.open_result(session, 0)
    review.judge(session, '')
    assert review.opened(session).name == first.name
    rows = export(session, tmp_path / 'files')[1].read_text().splitlines()
    assert len(rows) == 4


def test_a_correction_changes_one_class(session):
    query = review.opened(session)
    before = query.whole().labels.copy()
    review.correct(session, 'cat', painted(box_mask()))
    now = review.opened(session)
    assert now.name == query.name and now.verdict == 'corrected'
    expected = np.where(before == 2, 0, before)
    expected[box_mask()] = 2
    np.testing.assert_array_equal(now.whole().labels, expected)
    np.testing.assert_array_equal(review.mask_preview(session, 'cat'), box_mask())
    assert 'corrected' in views.result_title(session)
    with pytest.raises(ValueError, match='choose a class that is marked in step 1: cup, cat'):
        review.correct(session, 'dog', painted(box_mask()))
    with pytest.raises(ValueError, match='did not arrive whole'):
        review.correct(session, 'cat', 'x')
    np.testing.assert_array_equal(review.opened(session).whole().labels, expected)


def test_a_result_becomes_a_support(session):
    review.correct(session, 'cat', painted(box_mask()))
    query = review.opened(session)
    assert review.use_as_example(session, 'cat') == 'cat'
    shot = session.supports.shots[-1]
    assert (shot.class_name, shot.photo.name) == ('cat', query.name) and len(session.supports) == 3
    np.testing.assert_array_equal(shot.thumb_mask, box_mask())
    assert not session.current_results and review.opened(session) is query
    session.clear_queries()  # a support keeps its photo
    assert shot.photo.path.is_file()
    with pytest.raises(ValueError, match='no image is labelled yet'):
        review.use_as_example(session, 'cat')


def test_what_is_not_there_is_no_support(session):
    session.set_threshold(1)
    with pytest.raises(ValueError, match='no cup is marked in q.*; correct it first'):
        review.use_as_example(session, 'cup')
    session.set_threshold(0)
    with pytest.raises(ValueError, match='FSSAM takes no negatives'):
        review.use_as_example(session, review.opened(session).whole().present[0], negative=True)
    assert len(session.supports) == 2


def test_accepted_labels_of_a_class_that_is_gone_are_not_lost(session, tmp_path):
    query = review.opened(session)
    review.correct(session, 'cat', painted(box_mask()))
    session.drop_shot(1)
    assert session.supports.classes == ('cup',)
    session.label()
    kept = next(one for one in session.queries if one.name == query.name)
    shown = kept.shown
    np.testing.assert_array_equal(shown.mask('cat'), box_mask())
    files = export(session, tmp_path / 'files', ('png', 'coco'))
    assert [file.name for file in files] == [
        'annotations.json', 'masks.zip', 'scores.csv', 'support.safetensors'
    ]  # fmt: skip
    assert '"name": "cat"' in files[0].read_text() and 'cat score' in files[2].read_text()


def test_titles_have_the_colours_and_scores(session):
    session.set_threshold(0.9)
    title = views.result_title(session)
    assert title.startswith('<p>1 of 3: <b>q') and title.count('class="swatch"') == 2
    assert 'rgb(255,0,170)' in title and 'class="absent"' in title and '&lt; 0.90' in title
    summary = views.found_summary(session)
    assert 'cup: in 0 of 3, best score 0.' in summary
    review.judge(session, 'accepted')
    assert '1 accepted' in views.found_summary(session)
    assert any(caption.startswith('✓ ') for _, caption in views.result_list(session))
