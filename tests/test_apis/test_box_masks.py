"""A mask from a box with every method: by heads that give one, else GrabCut, else the box."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import tiny_models

from mmfss.apis import FewShotInferencer
from mmfss.apis import prompts as prompts_module
from mmfss.apis.box_masks import BOX, GRABCUT, BoxMasks, box_mask, fits, grab_cut
from mmfss.apis.prompts import Prompt, Proposal, Proposer
from mmfss.apis.support_annotations import FILLED, GRABBED
from mmfss.apis.support_folder import draw_support, read_support
from mmfss.encoders.sam2.model import SAM2

HEIGHT, WIDTH = 90, 120
Y, X = np.mgrid[:HEIGHT, :WIDTH]
DISC = (Y - 40) ** 2 + (X - 60) ** 2 < 25**2
PHOTO = np.random.default_rng(0).integers(0, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8)
PHOTO[DISC] += np.array([20, 120, 150], np.uint8)
PROMPT = Prompt(box=(36, 16, 85, 65))


@pytest.fixture(scope='module')
def inferencer():
    return FewShotInferencer(tiny_models.build())


@pytest.fixture
def without_heads(inferencer, monkeypatch):
    """Of a method that has none."""

    def none(*_):
        raise ValueError('it takes no boxes')

    monkeypatch.setattr(type(inferencer.model), 'prompter', none)
    monkeypatch.setenv('MMFSS_WEIGHTS', '/nowhere')
    return inferencer


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_grab_cut():
    found = grab_cut(PHOTO, PROMPT)
    assert found.shape == DISC.shape and iou(found, DISC) > 0.95
    np.testing.assert_array_equal(grab_cut(PHOTO, PROMPT), found)  # the same each time
    large = np.kron(PHOTO, np.ones((9, 9, 1), np.uint8))
    big = Prompt(box=tuple(9 * v for v in PROMPT.box))
    assert iou(grab_cut(large, big), np.kron(DISC, np.ones((9, 9), bool))) > 0.95
    everything = Prompt(box=(0, 0, WIDTH, HEIGHT))
    assert not grab_cut(PHOTO, everything).any()  # nothing is around it
    off = Prompt(PROMPT.box, ((60, 40),), (0,), (((40, 18), (44, 18)),))
    marked = grab_cut(PHOTO, off)
    assert not marked[40, 60] and marked[18, 42]


def test_boxes_as_masks():
    assert box_mask((1.4, 2.6, 3.4, 4.4), 6, 7).nonzero()[0].tolist() == [3, 3]
    assert box_mask((6.9, 5.9, 7, 6), 6, 7).sum() == 1
    for mask, good in ((DISC, True), (DISC & (X < 50), False), (DISC | True, False),
                       (DISC & (X < 0), False), (DISC & ((X + Y) % 2 > 0), True)):  # fmt: skip
        assert fits(mask, PROMPT.box) is good


def test_a_scrap_is_never_taken(inferencer, monkeypatch):
    """Heads give way where their mask is not of the box, GrabCut where it finds nothing."""
    masks = BoxMasks(inferencer)
    some = [Proposal(DISC & (X < 40), 0.9, PROMPT)]
    monkeypatch.setattr(masks.heads, 'candidates', lambda *_: some)
    found = masks.propose(PHOTO, PROMPT)
    assert found.how == GRABCUT and iou(found.mask, DISC) > 0.95
    some[:] = []
    assert masks.propose(PHOTO, PROMPT).how == GRABCUT
    some[:] = [Proposal(DISC, 0.9, PROMPT), Proposal(~DISC, 0.1, PROMPT)]
    found = masks.propose(PHOTO, PROMPT)
    assert found.how == '' and found.score == 0.9 and found.mask is DISC
    loose = Proposal(DISC & (X > 44), 0.9, PROMPT)  # of heads that nobody asked for
    some[:] = [loose]
    assert fits(loose.mask, PROMPT.box) and not fits(loose.mask, PROMPT.box, 0.9)
    some[:] = [Proposal(DISC & ((X + Y) % 4 == 0), 0.9, PROMPT)]
    assert masks.propose(PHOTO, PROMPT).how == GRABCUT
    masks._asked = True
    assert masks.propose(PHOTO, PROMPT).how == ''
    some[:] = []
    flat = masks.propose(np.full_like(PHOTO, 9), PROMPT)
    assert flat.how == BOX
    np.testing.assert_array_equal(flat.mask, box_mask(PROMPT.box, HEIGHT, WIDTH))
    with pytest.raises(ValueError, match='the box must be'):
        masks.propose(PHOTO, Prompt(box=(5, 5, 500, 10)))


def test_points_need_heads(without_heads):
    masks = BoxMasks(without_heads)
    assert masks.heads is None and masks.propose(PHOTO, PROMPT).how == GRABCUT
    with pytest.raises(ValueError, match=r'it takes no boxes\. A box does with every method'):
        masks.propose(PHOTO, Prompt(points=((60, 40),), labels=(1,)))
    with pytest.raises(FileNotFoundError, match='mmfss weights fetch sam2_small'):
        BoxMasks(without_heads, 'official')


def test_official_heads_work_with_every_config(without_heads, monkeypatch):
    """Of a SAM 2 of their own, at its size, whatever the method has."""
    built = []

    def build(arch, side):
        built.append((arch, side))
        return tiny_models.build().sam2

    monkeypatch.setattr(prompts_module, 'build_sam2', build)
    monkeypatch.setattr(SAM2, 'load_pretrained', lambda self: built.append('loaded'))
    proposer = Proposer(without_heads, 'official')
    assert built == [('sam2_small', 1024), 'loaded']
    assert proposer._prompter._encoder[0] is not without_heads.model.sam2
    for one in proposer.candidates(PHOTO, PROMPT):
        assert one.mask.shape == DISC.shape
    monkeypatch.setattr(prompts_module, 'local_file', lambda one: one.arch == 'sam2.1_tiny')
    Proposer(without_heads, 'official')
    assert built[2] == ('sam2.1_tiny', 1024)
    assert BoxMasks(without_heads).heads is not None  # taken where it is at hand


def test_supports(without_heads, tmp_path, caplog):
    """With a word, and the box in the picture."""
    from PIL import Image

    (tmp_path / 'disc').mkdir()
    for name, photo in (('a', PHOTO), ('b', np.full_like(PHOTO, 9))):
        Image.fromarray(photo).save(tmp_path / f'disc/{name}.bmp')
        (tmp_path / f'disc/{name}.json').write_text('{"box": [36, 16, 85, 65]}')
    support, prompted = read_support(tmp_path, without_heads)
    assert len(prompted) == 2
    rows = {reason: [row.what for row in rows] for reason, rows in support.account.rows.items()}
    assert rows == {GRABBED: ['a.json'], FILLED: ['b.json']}
    assert 'made from a box by GrabCut' in caplog.text or support.account.table()
    assert support.shots['disc'][0].prompts == (PROMPT,)
    yellow = (draw_support(support) == (0, 220, 255)).all(-1)
    assert 300 < yellow.sum() < 900
    plain = SimpleNamespace(**vars(support))
    plain.shots = {
        'disc': tuple(type(s)(s.image, s.mask, s.shape, s.source) for s in support.shots['disc'])
    }
    assert not (draw_support(plain) == (0, 220, 255)).all(-1).any()
    support.save(tmp_path / 's.safetensors')
    again, _ = read_support(tmp_path / 's.safetensors', without_heads)
    assert again.shots['disc'][0].prompts == ()
