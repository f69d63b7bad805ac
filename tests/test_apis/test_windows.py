"""Windows over a photo: where they are, what they weigh, and how their results become one."""

import numpy as np
import pytest
import torch

from mmfss.apis import FewShotInferencer, Prediction, TiledPrediction
from mmfss.apis.nway import class_logits, decide
from mmfss.apis.prediction import sureness_of
from mmfss.apis.windows import Blend, Tiles
from mmfss.functional import up

THRESHOLDS = np.array([0.3, 0.5, 0.0], np.float32)


def _random_windows(grid, seed, side=24, classes=3):
    """(window, logits, scores) of each window; some classes are absent from some windows."""
    rng = torch.Generator().manual_seed(seed)
    return [
        (
            window,
            torch.randn(classes, side, side, generator=rng),
            torch.rand(classes, generator=rng),
        )
        for window in grid.windows
    ]


def _blended(grid, found, sure=True):
    blend = Blend(grid, THRESHOLDS, sure)
    for one in found:
        blend.add(*one)
    return blend


@pytest.mark.parametrize(
    ('size', 'overlap', 'message'),
    [
        (31, 0, 'tiles must be an integer >= 32, got 31'),
        (1024.0, 0, 'tiles must be an integer >= 32, got 1024.0'),
        (64, -1, 'overlap must be an integer >= 0, got -1'),
        (64, 33, 'overlap must be at most half of the tiles, 32 pixels for tiles of 64, got 33'),
    ],
)
def test_wrong_tiles(size, overlap, message):
    with pytest.raises(ValueError, match=message):
        Tiles(size, overlap)


def test_windows_cover_the_photo_and_weigh_one():
    assert Tiles(1024).overlap == 128
    rng = np.random.default_rng(0)
    for _ in range(200):
        size = int(rng.integers(32, 200))
        overlap, length = int(rng.integers(0, size // 2 + 1)), int(rng.integers(1, 1000))
        axis = Tiles(size, overlap).over(length, 7).rows
        starts, ends = zip(*axis.spans)
        assert starts[0] == 0 and ends[-1] == length
        assert {end - start for start, end in axis.spans} == {min(size, length)}
        overlaps = [end - start for start, end in zip(starts[1:], ends)]
        assert min(overlaps, default=overlap) >= overlap
        if len(starts) > 1:  # no window too many, and laid evenly
            assert len(starts) == int(np.ceil((length - overlap) / (size - overlap)))
            assert max(overlaps) - min(overlaps) <= 1
        total, count = np.zeros(length), np.zeros(length, int)
        for weights, (start, end) in zip(axis.weights, axis.spans):
            assert (weights > 0).all()
            total[start:end] += weights.double().numpy()
            count[start:end] += 1
        assert np.abs(total - 1).max() < 1e-6
        for weights, (start, end) in zip(axis.weights, axis.spans):
            assert (weights.numpy()[count[start:end] == 1] == 1).all()
        cells = [np.arange(a, b) for a, b, _ in axis.cells]
        assert np.array_equal(np.concatenate(cells), np.arange(length))


def test_121_megapixels_have_169_windows():
    windows = Tiles(1024, 128).over(11000, 11000).windows
    assert len(windows) == 169
    assert (windows[-1].place, windows[-1].top, windows[-1].left) == ((12, 12), 9976, 9976)


@pytest.mark.parametrize(('size', 'overlap'), [(40, 8), (40, 20), (32, 0), (200, 16)])
def test_labels_are_those_of_a_plain_loop(size, overlap):
    grid = Tiles(size, overlap).over(90, 131)
    found = _random_windows(grid, size)
    total = torch.zeros(4, *grid.shape, dtype=torch.float64)
    score = torch.zeros(3, *grid.shape, dtype=torch.float64)
    for window, logits, scores in found:
        rows = slice(window.top, window.top + window.height)
        columns = slice(window.left, window.left + window.width)
        weight = grid.rows.weights[window.place[0]][:, None].double()
        weight = weight * grid.columns.weights[window.place[1]].double()
        # background 0, score x logit, or ABSENT, as sliding windows of mmseg are averaged
        values = class_logits(logits, scores, torch.from_numpy(THRESHOLDS))
        full = up(values[None], (window.height, window.width))[0]
        total[:, rows, columns] += weight * full
        score[:, rows, columns] += weight * scores[:, None, None]
    blend = _blended(grid, found)
    values, order = total.topk(2, dim=0)
    clear = (values[0] - values[1] > 1e-5).numpy()
    assert clear.mean() > 0.999
    assert np.array_equal(blend.labels[clear], order[0].numpy()[clear])
    own = score.gather(0, (order[:1] - 1).clamp(min=0))[0]
    sure = torch.where(order[0] > 0, own * (values[0] / own).sigmoid() * 255, 0)
    assert np.abs(blend.sure[clear] - sure.numpy()[clear]).max() < 0.51
    assert np.array_equal(blend.scores, torch.stack([one[2] for one in found]).amax(0).numpy())
    assert abs(sum(grid.share(window.place) for window in grid.windows) - 1) < 1e-6


def test_any_order_gives_the_same_bits():
    grid = Tiles(40, 18).over(90, 131)
    found = _random_windows(grid, 1)
    first = _blended(grid, found)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(found))
        other = _blended(grid, [found[i] for i in order])
        assert first.labels.tobytes() == other.labels.tobytes()
        assert first.sure.tobytes() == other.sure.tobytes()
        assert first.tile_scores.tobytes() == other.tile_scores.tobytes()
        assert first.certainty == other.certainty
        assert first.confidences.tolist() == other.confidences.tolist()


def test_one_window_is_the_photo_as_a_whole():
    grid = Tiles(200, 16).over(90, 131)
    ((window, logits, scores),) = _random_windows(grid, 2)
    blend = _blended(grid, [(window, logits, scores)])
    thresholds = torch.from_numpy(THRESHOLDS)
    labels = decide(logits, scores, thresholds, (90, 131))
    assert np.array_equal(blend.labels, labels.numpy()) and len(np.unique(labels)) == 3
    names = ('a', 'b', 'c')
    whole = Prediction.make(names, scores.numpy(), THRESHOLDS, logits.numpy(), (90, 131), 'photo')
    assert blend.certainty == whole.certainty
    assert blend.confidences.tolist() == [whole.confidence(name) for name in names]
    assert np.array_equal(blend.sure, whole.sureness())


def test_windows_that_agree_leave_no_seam():
    """Each window shows its part of one plane: labels and certainty are those of the plane."""
    grid = Tiles(64, 16).over(300, 210)
    rows, columns = torch.meshgrid(torch.arange(300.0), torch.arange(210.0), indexing='ij')
    plane = (3 * rows - 2 * columns) / 100 - 1.2345
    blend = Blend(grid, np.array([0.5], np.float32), sure=True)
    for window in grid.windows:
        part = plane[window.top : window.top + 64, window.left : window.left + 64]
        blend.add(window, up(part[None, None], (24, 24))[0], torch.tensor([0.8]))
    clear = plane.abs() > 1e-4
    assert np.array_equal(blend.labels[clear], (plane >= 0).numpy()[clear])
    want = torch.where(plane >= 0, 0.8 * plane.sigmoid() * 255, 0)
    # z = score x logit is blended, so logit = z / score is the plane
    assert np.abs(blend.sure.astype(float) - want.numpy())[clear].max() <= 0.51
    steps = np.abs(np.diff(blend.sure.astype(int), axis=0))[
        blend.labels[1:] * blend.labels[:-1] > 0
    ]
    assert steps.max() <= 3  # 0.03 of logit a row is at most 1.6 of 255


def test_windows_that_disagree_are_crossed_over():
    """Left nothing, right all: within the overlap values rise in a line, nowhere by a step."""
    grid = Tiles(64, 32).over(64, 96)
    blend = Blend(grid, np.array([0.0], np.float32), sure=True)
    for window in grid.windows:
        value = -4.0 if window.place[1] == 0 else 4.0
        blend.add(window, torch.full((1, 8, 8), value), torch.ones(1))
    left = torch.tensor([(63.5 - x) / 32 for x in range(32, 64)])
    values = -4 * left + 4 * (1 - left)
    assert blend.labels[:, :48].max() == 0 and blend.labels[:, 48:].min() == 1
    want = (values[16:].sigmoid() * 255).round().numpy()
    assert np.array_equal(blend.sure[5, 48:64], want.astype(np.uint8))


def test_memory_is_strips_of_one_row_of_windows():
    grid, classes = Tiles(64, 8).over(1000, 1000), 3
    found = _random_windows(grid, 3)
    blend, most = Blend(grid, THRESHOLDS), 0
    for one in found:
        blend.add(*one)
        kept = [
            value.numel()
            for cell in blend._waiting.values()
            for strip in cell.values()
            for value in strip.logits
            if value is not None
        ]
        most = max(most, sum(kept))
    assert not blend._waiting
    assert 0 < most < 2 * classes * 1000 * 12  # overlaps are 8 to 9 pixels, of a million


def test_sureness_of_a_background():
    from mmfss.apis.nway import Contest

    assert not sureness_of(Contest((3, 4)), torch.ones(2)).any()


# ----------------------------------------------------------------------------- the inferencer
def _image(seed, shape):
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 6, 6)))
    return up(coarse, shape)[0].permute(1, 2, 0).numpy().astype(np.uint8)


@pytest.fixture(scope='module')
def inferencer():
    from mmseg.registry import MODELS
    from tiny_models import FULL

    torch.manual_seed(0)
    inferencer = FewShotInferencer(MODELS.build(FULL), threshold=0.0)
    mask = np.zeros((50, 70), bool)
    mask[10:40, 5:35] = True
    shots = [(_image(i, (50, 70)), mask) for i in range(2)]
    inferencer.set_support({'cat': shots, 'cup': [(_image(3, (50, 70)), ~mask)]})
    return inferencer


def test_tiles_are_photos_of_their_own(inferencer):
    image = _image(7, (150, 190))
    found = inferencer(image, tiles=64, overlap=16)
    assert isinstance(found, TiledPrediction) and found.labels.shape == (150, 190)
    blend = Blend(Tiles(64, 16).over(150, 190), found.thresholds)
    for window in Tiles(64, 16).over(150, 190).windows:
        rows = slice(window.top, window.top + window.height)
        part = inferencer(image[rows, window.left : window.left + window.width])
        blend.add(window, torch.from_numpy(part.logits), torch.from_numpy(part.scores))
    assert np.array_equal(found.labels, blend.labels)
    assert np.array_equal(found.tile_scores, blend.tile_scores)
    assert found.tile_scores.shape == (3, 4, 2)
    assert np.array_equal(found.scores, blend.tile_scores.max((0, 1)))
    assert found.certainty == blend.certainty and 0 < found.certainty <= 1
    assert found.confidence('cup') == blend.confidences[1]
    assert found.draw(image).shape == image.shape
    with pytest.raises(ValueError, match='was not kept; label with sure=True'):
        found.sureness()


def test_every_input_takes_tiles(inferencer, tmp_path):
    from PIL import Image

    images = [_image(7, (100, 90)), _image(8, (30, 40))]
    for i, image in enumerate(images):
        Image.fromarray(image[..., ::-1]).save(tmp_path / f'{i}.png')
    alone = [inferencer(image, tiles=48) for image in images]
    for found in (
        inferencer(images, tiles=48),
        list(inferencer(tmp_path, tiles=48)),
        list(inferencer((image for image in images), tiles=48)),
    ):
        assert all(np.array_equal(a.labels, b.labels) for a, b in zip(found, alone, strict=True))
    whole = inferencer(images[1])
    assert np.array_equal(alone[1].labels, whole.labels)
    assert alone[1].certainty == whole.certainty
    assert inferencer(str(tmp_path / '0.png'), tiles=48).source == str(tmp_path / '0.png')
    with pytest.raises(ValueError, match='overlap is of tiles, and there are none; got 8'):
        inferencer(images[0], overlap=8)
    with pytest.raises(ValueError, match='overlap must be at most half'):
        inferencer(images[0], tiles=48, overlap=40)


def test_windows_go_together_in_batches(inferencer):
    image = _image(9, (150, 190))
    one = inferencer(image, tiles=64)
    done = []
    several = FewShotInferencer(inferencer.model, threshold=0.0, batch_size=5)
    several.set_support(inferencer.support)
    from mmfss.apis.photos import Photo

    found = several.predict_tiled(
        Photo(image), Tiles(64), 'x', done=lambda number, of: done.append((number, of))
    )
    assert done == [(5, 12), (10, 12), (12, 12)]
    np.testing.assert_allclose(found.scores, one.scores, atol=1e-5)
    assert (found.labels == one.labels).mean() > 0.999
