"""The page's self-check, and picking another method."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import tiny_models
import torch
from mmseg.registry import MODELS
from tiny_models import METHODS
from webui_steps import BoxProposer, box_mask, marked

from mmfss.apis import FewShotInferencer
from mmfss.webui import views
from mmfss.webui.marking import mask_to_png, png_to_mask
from mmfss.webui.worker import ModelChoice, Models, ModelWorker


@pytest.fixture
def other():
    """A worker of another method, at another image size."""
    config = dict(copy.deepcopy(METHODS['PrototypeMatcher']), image_size=80)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = tiny_models.randomised(MODELS.build(config)).eval()
    made = ModelWorker(
        FewShotInferencer(model, threshold=0.4), BoxProposer(), ModelChoice(method='prototype')
    )
    yield made
    made.close()


def test_the_self_check_is_of_the_supports_as_they_are(new_session, photo):
    session = new_session()
    with pytest.raises(ValueError, match='no object is marked yet'):
        session.check()
    marked(session, photo, ('cup', 'cup', 'pen'))
    assert session.self_check is None and views.check_table(session) == ''
    session.add_queries([photo('q.png', 7)])
    session.label()
    assert session.labelled()
    session.check()
    assert session.labelled()  # of the same supports
    found = session.self_check
    assert [one.name for one in found.classes] == ['cup', 'pen']
    direct = FewShotInferencer(session.worker.new_inferencer().model, threshold=0.3)
    worker = session.worker
    expected = direct.check(session.supports.as_set(worker.image_size, worker.resize))
    assert found.record() == expected.record()
    table = views.check_table(session)
    assert '<td>cup</td><td>2</td>' in table and 'Mark a second photo' in table
    session.drop_shot(0)
    assert session.self_check is None and views.check_table(session) == ''
    session.check()
    assert not session.labelled()  # those were of other supports


def test_another_method_sees_the_photos_anew(new_session, photo, other):
    session = new_session()
    marked(session, photo, ('cup', 'pen'))
    session.add_queries([photo('q.png', 7)])
    session.label()
    before = session.supports
    session.choose_photo(0)
    session.drop_photo()  # a support keeps its photo
    session.choose_method(other)
    assert session.worker is other and session.threshold == 0.4
    assert [one.shot.image.shape[0] for one in session.supports.shots] == [80, 80]
    assert not session.labelled() and session.unlabelled == 1 and session.self_check is None
    session.label()
    direct = FewShotInferencer(other.new_inferencer().model, threshold=0.4)
    direct.set_support(session.supports.as_set(80))
    image = session.queries[0].preview()
    np.testing.assert_array_equal(session.queries[0].whole().labels, direct(image).labels)
    session.choose_method(other)
    assert session.labelled()  # nothing has changed
    assert before.classes == session.supports.classes


def test_what_came_in_a_file_stays_with_its_size(new_session, photo, other, tmp_path):
    session = new_session()
    marked(session, photo, ('cup',))
    file = tmp_path / 'support.safetensors'
    session.supports.as_set(session.worker.image_size).save(file)
    session = new_session()
    session.add_photos([(file, file.name)])
    worker = session.worker
    with pytest.raises(ValueError, match=r'came in a support file for models of 64 pixels.*80'):
        session.choose_method(other)
    assert session.worker is worker and len(session.supports) == 1


def test_models_are_made_once_and_refused_with_a_reason(worker, other):
    models = Models(worker, ('prototype', 'no_such'))
    models._made['prototype'] = other
    assert models.names[1:] == ('prototype', 'no_such')
    assert models.get('prototype') is other and models.get(models.first) is worker
    assert models.name_of(other) == 'prototype' != models.name_of(worker)
    with pytest.raises(ValueError, match="there is no method 'fssam'; there are"):
        models.get('fssam')
    with pytest.raises(ValueError, match='method must be one of'):
        models.get('no_such')


def test_a_mask_is_kept_as_it_is():
    assert np.array_equal(png_to_mask(mask_to_png(box_mask())), box_mask())
