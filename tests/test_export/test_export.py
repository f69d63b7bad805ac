"""Exported graphs give what torch gives, and the runner labels with them where torch is absent."""

from __future__ import annotations

import copy
import csv
import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from mmseg.registry import MODELS
from PIL import Image
from tiny_models import METHODS, SIZE, config, randomised, tiny_arch

from mmfss.apis.images import as_bgr, to_model_size
from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.nway import decide, segment_classes
from mmfss.datasets.classes import label_palette
from mmfss.export import runner
from mmfss.export.folder import check_free, export
from mmfss.export.formats import NEEDS, check_format, write_graph
from mmfss.export.graphs import _traced, _Whole, check_static
from mmfss.files import as_cell

BLOCKED = ('torch', 'mmfss', 'mmengine', 'mmseg', 'mmcv', 'cv2', 'sam2')
WITHOUT = f"""
import sys
for name in {BLOCKED}:
    sys.modules[name] = None
import runpy
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def photo(seed: int, height: int = 90, width: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Noise uint8 (H, W, 3) with a bright object, and its mask."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), np.uint8)
    top, left = rng.integers(5, height // 2), rng.integers(5, width // 2)
    mask[top : top + height // 3, left : left + width // 3] = 1
    image[mask == 1] += np.array([110, 60 * (seed % 2), 20], np.uint8)
    return image, mask


def photos(folder, number: int = 4):
    folder.mkdir()
    for i in range(number):
        image, _ = photo(20 + i, 70 + 13 * i, 140 - 17 * i)
        Image.fromarray(np.ascontiguousarray(image[..., ::-1])).save(folder / f'{i}.png')
    return folder


def support(*counts: int) -> dict:
    return {f'class{n}': [photo(10 * n + k) for k in range(c)] for n, c in enumerate(counts)}


def shown(name: str = 'FSSAM', threshold: float = 0.0, counts=(2, 1), **changes):
    """An inferencer of a tiny method, that was shown classes of as many supports."""
    cfg = dict(copy.deepcopy(METHODS[name]), **changes)
    if name == 'FSSAM':
        cfg['sam2']['arch'] = tiny_arch(num_layers=1)
    torch.manual_seed(0)
    made = FewShotInferencer(randomised(MODELS.build(cfg)).eval(), threshold=threshold)
    if counts:
        made.set_support(support(*counts))
    return made


def run_without_torch(model, *args: str) -> str:
    command = [sys.executable, '-c', WITHOUT, str(model / 'runner.py'), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def check_labels(made, folder, out):
    """The label files are those of the inferencer: IoU of each class, palette."""
    for path in sorted(folder.glob('*.png')):
        wanted = made(path).labels
        with Image.open(out / 'ann_dir' / path.name) as image:
            labels = np.asarray(image)
            count = len(made.classes)
            assert image.mode == 'P'
            assert image.getpalette()[: 3 * count + 3] == sum(label_palette(count), [])
        for label in range(1, count + 1):
            one, other = labels == label, wanted == label
            union = (one | other).sum()
            assert union == 0 or (one & other).sum() / union >= 0.999


def exported(tmp_path_factory, form: str, made, **how):
    for package in NEEDS[form]:
        pytest.importorskip(package, reason='mmfss[export] has it')
    out = tmp_path_factory.mktemp(form) / 'out'
    export(made, out, form, **how)
    return made, out


@pytest.fixture(scope='module')
def baked(tmp_path_factory):
    made = shown('PrototypeMatcher', 0.0, counts=(2, 1))
    return exported(tmp_path_factory, 'onnx', made)


@pytest.fixture(scope='module')
def parts(tmp_path_factory):
    made = shown('PrototypeMatcher', counts=())
    return exported(tmp_path_factory, 'openvino', made, shots=2)


# ------------------------------------------------------------------------------- graphs, both forms
@pytest.mark.parametrize(('form', 'name'), [('openvino', 'FSSAM'), ('onnx', 'PrototypeMatcher')])
def test_baked_classes_are_labelled_as_by_the_inferencer_without_torch(
    request, tmp_path_factory, tmp_path, form, name
):
    if form == 'onnx':
        made, out = request.getfixturevalue('baked')
    else:
        made, out = exported(tmp_path_factory, form, shown(name, 0.0, counts=(1, 1)))
    folder = photos(tmp_path / 'photos')
    assert '4 labelled, 0 failed' in run_without_torch(out, folder, tmp_path / 'labels')
    assert len({label for p in folder.glob('*.png') for label in np.unique(made(p).labels)}) > 1
    check_labels(made, folder, tmp_path / 'labels')
    with open(tmp_path / 'labels/scores.csv', newline='') as file:
        first = next(csv.DictReader(file))
    wanted = made(folder / '0.png')
    for label, name in enumerate(made.classes, 1):
        share = (wanted.labels == label).mean()
        assert float(first[f'{name} score']) == pytest.approx(wanted.scores[label - 1], abs=1e-3)
        assert float(first[f'{name} share']) == pytest.approx(share, abs=1e-3)
        assert first[f'{name} present'] == f'{share > 0:d}'
    rows = (tmp_path / 'labels/classes.csv').read_text().splitlines()
    assert rows == ['label,name,red,green,blue', '1,class0,128,0,0', '2,class1,0,128,0']


def test_parts_take_supports_without_torch(parts, tmp_path):
    made, out = parts
    folder = photos(tmp_path / 'photos')
    for name, pairs in support(2, 2).items():
        (tmp_path / 'support' / name).mkdir(parents=True)
        for i, (image, mask) in enumerate(pairs):
            place = tmp_path / 'support' / name
            cv2.imwrite(str(place / f'{i}.bmp'), image)
            Image.fromarray(mask * 255).save(place / f'{i}.png')
    made.set_support(support(2, 2))
    shown_by = ('--support', tmp_path / 'support', '--threshold', '0')
    run_without_torch(out, folder, tmp_path / 'labels', *shown_by)
    check_labels(made, folder, tmp_path / 'labels')


def test_manifest_says_what_there_is(baked, parts):
    manifest = json.loads((baked[1] / 'manifest.json').read_text())
    assert manifest['classes'] == ['class0', 'class1'] and manifest['thresholds'] == [0.0, 0.0]
    assert manifest['shots'] == {'class0': 2, 'class1': 1}
    assert manifest['method'] == 'PrototypeMatcher' and manifest['runtime'] == 'onnx'
    assert manifest['image_size'] == SIZE and manifest['resize'] == 'bilinear'
    assert set(manifest['files']) == {'image.onnx', 'runner.py'}
    manifest = json.loads((parts[1] / 'manifest.json').read_text())
    assert list(manifest['graphs']) == ['encoder', 'support', 'light']
    assert manifest['shots'] == 2 and manifest['classes'] is None
    light = manifest['graphs']['light']
    assert [one['name'] for one in light['inputs']] == [
        'feature_0', 'state_0', 'state_1', 'prototypes',
    ]  # fmt: skip
    assert light['outputs'] == ['logits', 'scores']


def test_classes_of_other_shots_come_out_in_their_order():
    made = shown('PrototypeMatcher', counts=(2, 1, 2))
    pixels = torch.rand(1, 3, SIZE, SIZE) * 255
    with torch.no_grad():
        logits, scores = _Whole(made.model, made.states)(pixels)
        wanted = segment_classes(made.model, made.model.encode_image(pixels), made.states)
    torch.testing.assert_close(logits, wanted.logits)
    torch.testing.assert_close(scores, wanted.scores)


# ----------------------------------------------------------------------------------- the runner
@pytest.mark.parametrize('size', [(90, 120), (128, 128), (64, 64), (33, 700), (1, 1), (200, 64)])
def test_runner_resizes_to_the_last_bit(size):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    for how in ('bilinear', 'pillow_bilinear', 'pillow_bicubic'):
        wanted = to_model_size(image, 64, how).transpose(2, 0, 1)[None].astype(np.float32)
        assert np.array_equal(runner.as_input(image, 64, how), wanted)
    mask = rng.integers(0, 2, size, dtype=np.uint8)
    wanted = cv2.resize(mask, (64, 64), interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(runner.nearest(mask, 64), wanted)


@pytest.mark.parametrize('size', [(64, 64), (301, 77), (600, 640), (1, 5)])
def test_runner_decides_as_the_inferencer(size):
    rng = np.random.default_rng(1)
    coarse = rng.normal(size=(3, 8, 8)).astype(np.float32)
    logits = np.stack([cv2.resize(one, (64, 64)) for one in coarse])
    scores = np.array([0.9, 0.0, 0.4], np.float32)
    for limits in ([0.0, 0.0, 0.0], [0.5, 0.0, 0.5], [0.95, 0.5, 0.5]):
        thresholds = np.array(limits, np.float32)
        wanted = decide(*map(torch.from_numpy, (logits, scores, thresholds)), size).numpy()
        found = runner.decide(logits, scores, thresholds, size)
        assert (found == wanted).mean() > 0.9995
        assert len(np.unique(wanted)) > 1 or limits[0] > 0.9


def test_photo_that_cannot_be_read_is_a_line_and_the_others_are_done(baked, tmp_path, capsys):
    folder = photos(tmp_path / 'photos', 2)
    (folder / 'broken.jpg').write_bytes(b'no image')
    cv2.imwrite(str(folder / 'colour.png'), np.zeros((9, 9, 3), np.uint16))
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(folder / 'deep.png')
    bad = ['broken.jpg', 'colour.png', 'deep.png']
    status = runner.main([str(folder), str(tmp_path / 'labels'), '--model', str(baked[1])])
    said = ''.join(capsys.readouterr())
    assert status == 1
    assert 'broken.jpg cannot be read' in said and said.count('more than 8 bits per channel') == 2
    assert '2 labelled, 3 failed' in said
    rows = (tmp_path / 'labels/failed.csv').read_text().splitlines()
    assert [row.partition(',')[0] for row in rows] == ['image', *bad]
    assert sorted(p.name for p in (tmp_path / 'labels/ann_dir').iterdir()) == ['0.png', '1.png']


class _Difference(torch.nn.Module):
    def forward(self, unread, one, nor_this, other):
        one = one.repeat(1, 1)
        return one - 2 * other, one * other


@pytest.mark.parametrize('form', list(NEEDS))
def test_inputs_that_nothing_reads_may_be_left_out_of_a_graph(tmp_path, form):
    """FSSAM's supports leave levels of the features out. Of OpenVINO's inputs the first is gone."""
    for package in NEEDS[form]:
        pytest.importorskip(package, reason='mmfss[export] has it')
    names = ('unread', 'one', 'nor_this', 'other')
    given = {name: torch.full((2, 3), float(i + 1)) for i, name in enumerate(names)}
    graph = _traced('difference', _Difference(), given, ('difference', 'product'))
    about = dict(
        file=write_graph(graph, tmp_path, form).name,
        inputs=[dict(name=name) for name in names],
        outputs=list(graph.gives),
    )
    manifest = dict(runtime=form, versions={})
    arrays = [tensor.numpy() for tensor in given.values()]
    difference, product = runner.Graph(tmp_path, about, manifest)(*arrays)
    assert (difference == 2 - 2 * 4).all() and (product == 2 * 4).all()


# ------------------------------------------------------------------------------------- bad input
def test_changed_or_missing_files_are_refused(parts, tmp_path):
    out = tmp_path / 'out'
    shutil.copytree(parts[1], out)
    (out / 'light.bin').write_bytes((out / 'light.bin').read_bytes()[:-1] + b'x')
    with pytest.raises(ValueError, match=r'light\.bin is not the file that was exported'):
        runner.Labeller(out)
    (out / 'light.bin').unlink()
    with pytest.raises(FileNotFoundError, match=r'light\.bin is missing'):
        runner.Labeller(out)
    whole = json.loads((out / 'manifest.json').read_text())
    for text in ('{', '[]', json.dumps(dict(whole, files=[]))):
        (out / 'manifest.json').write_text(text)
        with pytest.raises(ValueError, match='is damaged'):
            runner.Labeller(out)
    (out / 'manifest.json').write_text(json.dumps(dict(whole, format_version=2)))
    with pytest.raises(
        ValueError, match=r'is of format mmfss-export 2.*take the runner\.py of that'
    ):
        runner.Labeller(out)
    with pytest.raises(FileNotFoundError, match='no folder of mmfss export'):
        runner.Labeller(tmp_path)


def test_other_shots_and_classes_are_refused(baked, parts):
    labeller = runner.Labeller(parts[1])
    image, mask = photo(0)
    with pytest.raises(ValueError, match='class cat has 1 supports, this export takes 2'):
        labeller.set_support({'cat': [(image, mask == 1)]})
    with pytest.raises(ValueError, match='has no support set in it'):
        labeller(image)
    labeller = runner.Labeller(baked[1])
    with pytest.raises(ValueError, match=r'has its support set in the graph \(class0, class1\)'):
        labeller.set_support({'cat': [(image, mask == 1)] * 2})
    with pytest.raises(ValueError, match="no class 'cat'; this export has 2: class0, class1"):
        labeller.set_thresholds(['cat=0.5'])
    with pytest.raises(ValueError, match='a number in 0..1'):
        labeller.set_thresholds(['2'])


def test_a_manifest_that_was_changed_is_refused(baked, tmp_path):
    out = tmp_path / 'out'
    shutil.copytree(baked[1], out)
    manifest = json.loads((out / 'manifest.json').read_text())
    assert runner.Labeller(out).manifest == manifest
    without = {name: value for name, value in manifest.items() if name != 'classes'}
    for changed in (
        without, dict(manifest, classes=['class0']), dict(manifest, resize='foo'),
        dict(manifest, image_size=2 * SIZE), dict(manifest, thresholds=['x', 0.5]),
        dict(manifest, graphs=None),
    ):  # fmt: skip
        (out / 'manifest.json').write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=r'manifest\.json is not as it was exported'):
            runner.Labeller(out)


@pytest.mark.parametrize(
    ('values', 'why'),
    [
        ([[0, 7], [1, 255]], r'has the values \[7\], allowed are 0, 1 and 255'),
        ([[0, 0], [0, 0]], 'marks no pixel with 255'),
        ([[1, 1], [1, 1]], 'marks every pixel with 1'),
        ([[0, 1]], r'is \(1, 2\), the upright photo \(2, 2\)'),
        ('png', r'mask .*x\.png cannot be read'),
        (None, r'mask .*x\.png of a support is not there'),
    ],
)
def test_masks_that_say_nothing_are_refused(tmp_path, values, why):
    place = tmp_path / 'cat'
    place.mkdir()
    Image.new('RGB', (2, 2)).save(place / 'x.jpg')
    if values == 'png':
        (place / 'x.png').write_bytes(b'no image')
    elif values is not None:
        Image.fromarray(np.array(values, np.uint8)).save(place / 'x.png')
    with pytest.raises((ValueError, FileNotFoundError), match=why):
        runner.read_support(tmp_path)


def test_labels_are_not_written_among_photos_or_over_others(baked, tmp_path):
    folder = photos(tmp_path / 'photos', 1)
    labeller = runner.Labeller(baked[1], threads=1)
    with pytest.raises(ValueError, match='lie in each other'):
        runner.label_folder(labeller, folder, folder / 'labels')
    assert runner.label_folder(labeller, folder, tmp_path / 'labels') == 0
    with pytest.raises(ValueError, match='has labels already; give another folder, or --overwrite'):
        runner.label_folder(labeller, folder, tmp_path / 'labels')
    assert runner.label_folder(labeller, folder, tmp_path / 'labels', overwrite=True) == 0


def test_photos_are_upright(tmp_path):
    image = Image.fromarray(photo(0)[0])
    tag = image.getexif()
    tag[0x0112] = 6
    image.save(tmp_path / 'a.jpg', exif=tag, quality=95)
    assert runner.read_photo(tmp_path / 'a.jpg').shape == (120, 90, 3)
    assert np.array_equal(
        runner.read_photo(tmp_path / 'a.jpg')[..., ::-1], as_bgr(tmp_path / 'a.jpg')
    )


def test_output_that_is_not_empty_and_unknown_formats_are_refused(tmp_path):
    (tmp_path / 'a').touch()
    with pytest.raises(ValueError, match='is not an empty folder'):
        check_free(tmp_path)
    with pytest.raises(ValueError, match=r"must be one of \['openvino', 'onnx'\], got 'tflite'"):
        check_format('tflite')


def test_absent_packages_are_named_with_the_remedy(monkeypatch):
    monkeypatch.setitem(NEEDS, 'onnx', ('onnx', 'no_such_runtime'))
    with pytest.raises(ValueError, match=r"needs .*no_such_runtime.*pip install 'mmfss\[export\]'"):
        check_format('onnx')


@pytest.mark.parametrize(
    ('name', 'why'),
    [
        ('INSID3', 'clusters the patches'),
        ('GFSAM', 'prompts SAM with points'),
        ('PerSAM', 'box of a mask'),
        ('DensityMatcher', 'GrabCut cuts a graph'),
        ('AllForeground', 'does not say'),
    ],
)
def test_methods_without_a_static_graph_say_so(name, why):
    with pytest.raises(ValueError, match=f'{name} has no static graph: .*{why}'):
        check_static(MODELS.build(METHODS[name]))


def test_cells_of_its_tables_are_those_of_mmfss_label():
    texts = ('cat', '=1+1', '+a', '-a', '-1.5', '@a', '\ta', "'a", '', 'a=b')
    assert [runner.as_cell(text) for text in texts] == [as_cell(text) for text in texts]
    assert runner.as_cell('=1+1') == "'=1+1" and runner.as_cell(-1) == '-1'


def test_an_oracle_is_not_exported():
    model = MODELS.build(config(prompt_generator=dict(type='OraclePromptGenerator')))
    with pytest.raises(ValueError, match='takes the true mask'):
        check_static(model)
