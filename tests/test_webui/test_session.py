"""One visitor's steps, with a tiny model: results are the inferencer's, errors lose nothing."""

import gc
import threading

import cv2
import numpy as np
import pytest
from webui_steps import box_mask, click_box, marked, painted, pixels

from mmfss.apis import FewShotInferencer, SupportSet
from mmfss.apis.box_masks import BOX, GRABCUT
from mmfss.webui import views
from mmfss.webui.folders import VisitorFolder
from mmfss.webui.limits import Limits
from mmfss.webui.marking import png_to_mask
from mmfss.webui.session import Session
from mmfss.webui.worker import ModelChoice, ModelWorker


def test_results_are_those_of_the_inferencer(new_session, photo, tiny_model):
    session = new_session()
    marked(session, photo, ('cup', 'cat'))
    session.add_queries([photo(f'q{i}.png', 10 + i) for i in range(3)])
    session.label()
    direct = FewShotInferencer(tiny_model, threshold=0.3)
    direct.set_support({name: [(pixels(i)[..., ::-1], box_mask())] for i, name in
                        enumerate(('cup', 'cat'))})  # fmt: skip
    for i, query in enumerate(session.queries):
        expected = direct(pixels(10 + i)[..., ::-1].copy())
        np.testing.assert_array_equal(query.whole().labels, expected.labels)
        np.testing.assert_array_equal(query.prediction.scores, expected.scores)
        assert query.whole().certainty == expected.certainty


def test_the_threshold_decides_anew_without_encoding(new_session, photo, tiny_model, monkeypatch):
    session = new_session()
    marked(session, photo)
    session.add_queries([photo('q.png', 10)])
    session.set_threshold(0)
    session.label()
    there = session.queries[0].whole()
    assert there.present == ('cup',)

    def no_encoding(images):
        raise AssertionError('an image is encoded')

    monkeypatch.setattr(tiny_model, 'encode_image', no_encoding)
    session.set_threshold(1)
    assert session.queries[0].whole().present == ()
    session.set_threshold(0.0)
    np.testing.assert_array_equal(session.queries[0].whole().labels, there.labels)
    with pytest.raises(ValueError, match='must be a number in 0..1, got 2'):
        session.set_threshold(2)
    assert session.threshold == 0


def test_a_proposal_counts_only_when_it_is_used(new_session, photo, proposer):
    session = new_session()
    session.add_photos([photo('a.png')])
    with pytest.raises(ValueError, match='there is no mask yet'):
        session.use_mask('cup')
    click_box(session, (30, 20), (59, 49))
    assert proposer.prompts[-1].box == (30, 20, 60, 50)
    np.testing.assert_array_equal(session.proposal, box_mask())
    assert not session.supports
    session.undo_click()
    assert session.proposal is None and len(session.clicks) == 1
    session.clear_clicks()
    assert session.clicks == ()
    click_box(session, (30, 20), (59, 49))
    assert session.use_mask(' cup ') == 'cup'
    assert (session.clicks, session.proposal) == ((), None)


def test_a_prompt_that_finds_nothing_leaves_the_clicks_before(new_session, photo):
    session = new_session()
    session.add_photos([photo('a.png')])
    session.click('object', 320, 240)
    before, proposal = session.clicks, session.proposal
    with pytest.raises(ValueError, match='gives an empty mask'):
        session.click('rest', 320, 240)
    assert session.clicks == before and session.proposal is proposal


def test_without_heads_for_prompts_a_box_and_the_brush_are_left(
    tiny_model, photo, tmp_path, monkeypatch
):
    def none(inferencer, checkpoint=None):
        if checkpoint == 'official':
            raise FileNotFoundError('no official weights')
        raise ValueError('Matcher takes no points')

    monkeypatch.setattr('mmfss.apis.box_masks.Proposer', none)
    inferencer = FewShotInferencer(tiny_model, threshold=0.3)
    worker = ModelWorker(inferencer)
    session = Session(worker, Limits(), VisitorFolder.below(tmp_path))
    session.add_photos([photo('a.png')])
    assert not worker.takes_points and views.current_marks(session)['points'] is False
    with pytest.raises(ValueError, match='^Matcher takes no points. A box does with every method'):
        session.click('object', 40, 30)
    session.drag(25, 15, 65, 55)  # around the rectangle, which GrabCut finds by its colour
    assert session.made_by in (GRABCUT, BOX)
    assert 'look at its border' in views.current_title(session) or 'is the box itself' in (
        views.current_title(session)
    )
    session.clear_clicks()
    assert views.current_title(session).endswith('<b>a.png</b>')
    assert session.use_mask('cup', painted(box_mask())) == 'cup'
    session.close()
    worker.close()
    # weights that were asked for must be there
    monkeypatch.setattr('mmfss.webui.worker.FewShotInferencer', lambda *_, **how: inferencer)
    with pytest.raises(ValueError, match='^Matcher takes no points$'):
        ModelWorker.load(ModelChoice(method='prototype'), prompt_weights='some.pth')


def test_paint_is_a_mask(new_session, photo):
    session = new_session()
    session.add_photos([photo('a.png')])
    session.use_mask('cup', painted(box_mask()))
    np.testing.assert_array_equal(session.supports.shots[0].thumb_mask, box_mask())


def test_a_box_is_dragged_and_its_mask_painted_on(new_session, photo, proposer):
    """In a photo that is larger than its preview: what is not painted on stays to the pixel."""
    session = new_session()
    session.add_photos([photo('a.png', width=2000, height=500)])
    assert session.current_preview().shape == (400, 1600, 3)
    session.drag(300.1, 100.1, 100.1, 50.1)
    assert proposer.prompts[-1].box == (125, 62, 376, 126)
    session.drag(100.1, 50.1, 300.1, 100.1)
    assert len(session.clicks) == 2 and proposer.prompts[-1].box == (125, 62, 376, 126)
    small = session.proposal_preview()
    small[60:80, 1000:1100] = True
    small[:, :200] = False
    session.use_mask('cup', painted(small))
    mask = png_to_mask(session.supports.shots[0].mask)
    expected = np.zeros((500, 2000), bool)
    expected[62:126, 250:376] = expected[75:100, 1250:1375] = True
    away = np.abs(np.arange(2000) - 250) > 2  # a pixel of the preview from where was erased
    np.testing.assert_array_equal(mask[:, away], expected[:, away])


@pytest.mark.parametrize(
    ('name', 'paint', 'message'),
    [
        ('', '', 'the object has no name yet'),
        ('  ', '', 'the object has no name yet'),
        ('Background', '', "not be 'background'"),
        ('x' * 101, '', '1 to 100 printable'),
        ('cup', 'x', 'did not arrive whole'),
        ('cup', painted(np.ones((8, 8), bool)), 'did not arrive whole'),
        (
            'cup',
            painted(np.zeros((80, 96), bool)),
            'the mask of a.png is empty|no pixel|marks none',
        ),
        ('cup', painted(np.ones((80, 96), bool)), 'the mask of a.png marks every pixel'),
    ],
)
def test_what_cannot_be_used_is_said_and_nothing_is_lost(new_session, photo, name, paint, message):
    session = new_session()
    session.add_photos([photo('a.png')])
    click_box(session, (30, 20), (59, 49))
    with pytest.raises(ValueError, match=message):
        session.use_mask(name, paint)
    assert session.proposal is not None and len(session.clicks) == 2 and not session.supports


def test_one_name_is_one_class_whatever_its_case(new_session, photo):
    session = new_session()
    marked(session, photo, ('Cup', 'cat', 'cup'))
    assert session.supports.classes == ('Cup', 'cat')
    assert [s.class_name for s in session.supports.by_class()] == ['Cup', 'Cup', 'cat']
    assert session.marked_as(2) == ['Cup']
    session.drop_shot(2)
    assert session.supports.classes == ('Cup',)
    with pytest.raises(ValueError, match='no marked object is chosen'):
        session.drop_shot(2)
    session.clear_shots()
    assert session.supports.classes == ()


def test_after_a_mask_comes_the_next_image_without_one(new_session, photo):
    session = new_session()
    session.add_photos([photo(f'{i}.png', i) for i in range(3)])
    session.choose_photo(1)
    seen = []
    for _ in range(3):
        seen.append(session.current)
        click_box(session, (30, 20), (59, 49))
        session.use_mask('cup')
    assert seen == [1, 2, 0]
    session.drop_photo()
    assert [photo.name for photo in session.photos] == ['1.png', '2.png']
    with pytest.raises(ValueError, match='there is no image 8; there are 2'):
        session.choose_photo(7)


def test_new_supports_make_results_old(new_session, photo):
    session = new_session()
    marked(session, photo)
    session.add_queries([photo('q.png', 10), photo('r.png', 11)])
    assert session.unlabelled == 2
    calls = []
    session.label(lambda done, of: calls.append((done, of)))
    assert session.unlabelled == 0 and calls == [(0, 2), (1, 2)]
    marked(session, photo, ('cat',))
    assert session.unlabelled == 2 and session.labelled() == ()
    session.label()
    assert session.queries[0].prediction.classes == ('cup', 'cat')


def test_steps_out_of_order_are_explained(new_session, photo):
    session = new_session()
    for step in (session.drop_photo, lambda: session.click('corner', 1, 1)):
        with pytest.raises(ValueError, match='there is no image to mark yet; load one first'):
            step()
    with pytest.raises(ValueError, match='no object is marked yet; mark one in step 1 first'):
        session.label()
    marked(session, photo)
    with pytest.raises(ValueError, match='there is no image to label yet; load some first'):
        session.label()


def test_data_is_bounded(new_session, photo):
    session = new_session(max_photos=1, max_shots=1, max_queries=1)
    files = [photo(f'{i}.png', i) for i in range(2)]
    assert session.add_photos(files) == ['1.png was left out: 1 images are the most']
    assert session.add_queries(files) == ['1.png was left out: 1 images are the most']
    click_box(session, (30, 20), (59, 49))
    session.use_mask('cup')
    click_box(session, (30, 20), (59, 49))
    with pytest.raises(ValueError, match='1 marked objects are the most; remove one first'):
        session.use_mask('cup')
    session.clear_queries()
    assert session.add_queries(files[:1]) == []


def test_visitors_share_the_model_and_nothing_else(new_session, photo):
    one, other = new_session(), new_session()
    marked(one, photo, ('cup',))
    marked(other, photo, ('cat', 'dog'), (5, 5), (25, 25))
    for session in (one, other):
        session.add_queries([photo('q.png', 10)])
    threads = [threading.Thread(target=session.label) for session in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert one.queries[0].prediction.classes == ('cup',)
    assert other.queries[0].prediction.classes == ('cat', 'dog')
    assert not set(one.folder.path.iterdir()) & set(other.folder.path.iterdir())


def test_files_go_with_the_session(new_session, worker, photo, tmp_path):
    closed = new_session()
    closed.add_photos([photo('a.png')])
    assert len(list(closed.folder.path.iterdir())) == 1
    closed.close()
    assert not closed.folder.path.exists()
    forgotten = Session(worker, Limits(), VisitorFolder.below(tmp_path))
    forgotten.add_photos([photo('b.png')])
    folder = forgotten.folder.path
    assert folder.exists()
    del forgotten
    gc.collect()
    assert not folder.exists()


def test_a_step_waits_for_the_one_before(new_session, monkeypatch):
    session = new_session()
    monkeypatch.setattr('mmfss.webui.marking_session.PATIENCE_S', 0.01)
    with session.step(), pytest.raises(ValueError, match='the step before is still running'):
        session.clear_shots()
    session.clear_shots()


def test_the_threshold_moves_while_images_are_labelled(new_session, photo, monkeypatch):
    monkeypatch.setattr('mmfss.webui.marking_session.PATIENCE_S', 0.01)
    session = new_session()
    marked(session, photo)
    session.add_queries([photo(f'q{i}.png', 10 + i) for i in range(3)])
    session.label(lambda done, of: session.set_threshold(0 if done < 2 else 1))
    assert session.threshold == 1
    assert [query.prediction.thresholds[0] for query in session.queries] == [1, 1, 1]
    assert all(query.whole().present == () for query in session.queries)


def test_another_image_of_the_same_name_is_not_marked(new_session, photo):
    session = new_session()
    marked(session, photo)
    session.drop_photo()
    session.add_photos([photo('0.png', 7)])
    assert session.supports.classes == ('cup',) and session.marked_as(0) == []


def test_a_support_file_is_loaded_beside_images(new_session, photo, tmp_path):
    one = new_session()
    marked(one, photo, ('cup', 'cat', 'Cup'))
    file = tmp_path / 'support.safetensors'
    one.supports.as_set(one.worker.image_size).save(file)
    other = new_session()
    marked(other, photo, ('CAT',))
    assert other.add_photos([(file, 'mine.safetensors'), photo('a.png', 4)]) == []
    assert other.supports.classes == ('CAT', 'cup') and len(other.supports) == 4
    assert [photo.name for photo in other.photos] == ['0.png', 'a.png']
    shot, same = other.supports.by_class()[2], one.supports.shots[0]
    np.testing.assert_array_equal(shot.shot.image, same.shot.image)
    np.testing.assert_array_equal(shot.shot.mask, same.shot.mask)
    assert shot.thumb.shape == (267, 320, 3) and shot.thumb_mask.shape == (267, 320)
    assert abs(shot.thumb_mask.mean() - box_mask().mean()) < 0.02
    other.add_queries([photo('q.png', 10)])
    other.label()
    assert other.queries[0].prediction.classes == ('CAT', 'cup')


def test_support_files_that_do_not_fit_are_refused_and_nothing_is_lost(
    new_session, photo, tmp_path, monkeypatch
):
    session = new_session(max_shots=2)
    marked(session, photo, ('cup', 'cat'))
    before, size = session.supports, session.worker.image_size
    file, small, text = (tmp_path / f'{name}.safetensors' for name in 'abc')
    before.as_set(size).save(file)
    SupportSet(before.as_set(size).shots, size + 1).save(small)
    text.write_text('hello')
    monkeypatch.setattr(SupportSet, '_from_content', None)  # nothing is decoded
    said = session.add_photos([(small, 'small.safetensors'), (text, 'text.safetensors')])
    assert f'small.safetensors is for models of {size + 1} x {size + 1} pixels' in said[0]
    assert 'text.safetensors is no support file of mmfss' in said[1]
    assert not any(str(tmp_path) in line for line in said)
    monkeypatch.undo()
    assert session.add_photos([(file, 'full.safetensors')]) == [
        '2 marked objects are the most; remove one first'
    ]
    assert new_session(max_shots=1).add_photos([(file, 'f.safetensors')]) == [
        'f.safetensors has 2 marked objects, 1 are the most'
    ]
    assert session.supports is before


def test_lost_grey_values_are_said_with_the_uploads(worker, tmp_path):
    deep = (pixels(3).astype(np.uint16) << 4)[..., ::-1]
    for i in range(2):
        cv2.imwrite(str(tmp_path / f'{i}.png'), deep)
    uploads = [(tmp_path / f'{i}.png', f'mine {i}.png') for i in range(2)]
    for limits, number in ((Limits(), 1), (Limits(grey_values=dict(bit_depth=12)), 0)):
        session = Session(worker, limits, VisitorFolder.below(tmp_path))
        for notes in (session.add_photos(uploads), session.add_queries(uploads)):
            assert len(notes) == number
            assert all(note.startswith('image mine 0.png uses ') for note in notes)
        assert len(session.photos) == len(session.queries) == 2
        if not number:
            np.testing.assert_array_equal(session.queries[0].preview()[..., ::-1], pixels(3))
