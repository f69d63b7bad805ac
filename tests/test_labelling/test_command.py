"""What the command writes is what the inferencer says, in every file."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from pycocotools.coco import COCO

from mmfss.apis import FewShotInferencer
from mmfss.commands.label import label, thresholds_of
from mmfss.datasets.classes import label_palette
from mmfss.datasets.io import read_mask
from mmfss.labelling import label_folder
from mmfss.labelling.folder import read_run, write_run
from mmfss.labelling.plan import note_runtimes


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def test_labels_are_those_of_the_inferencer(case, predictions):
    out, marked = case.reference, 0
    for name, prediction in predictions.items():
        path = (out / 'ann_dir' / name).with_suffix('.png')
        np.testing.assert_array_equal(read_mask(path), prediction.labels)
        with Image.open(path) as image:
            assert image.mode == 'P' and image.getpalette()[:9] == sum(label_palette(2), [])
        with Image.open((out / 'overlays' / name).with_suffix('.jpg')) as overlay:
            assert overlay.width == prediction.labels.shape[1]
            assert overlay.height > prediction.labels.shape[0]  # and its legend
        marked += len(prediction.present)
    assert marked >= 9  # the comparison is of more than empty masks
    assert len(list((out / 'ann_dir').rglob('*.png'))) == 9


def test_coco_json_is_that_of_the_labels(case, predictions):
    coco = COCO(str(case.reference / 'annotations.json'))
    assert {c['id']: c['name'] for c in coco.loadCats(coco.getCatIds())} == {1: 'disc', 2: 'slab'}
    names = [image['file_name'] for image in coco.loadImgs(coco.getImgIds())]
    assert names == sorted(names, key=lambda name: Path(name)) and set(names) == set(predictions)
    for image in coco.loadImgs(coco.getImgIds()):
        painted = np.zeros((image['height'], image['width']), np.uint8)
        scores = predictions[image['file_name']].scores
        for one in coco.loadAnns(coco.getAnnIds(imgIds=[image['id']])):
            mask = coco.annToMask(one)
            assert one['area'] == mask.sum() and one['iscrowd'] == 0
            y, x = np.nonzero(mask)
            box = [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1]
            assert one['bbox'] == box
            assert one['score'] == pytest.approx(scores[one['category_id'] - 1], abs=1e-6)
            painted[mask == 1] += one['category_id']
        label_file = (case.reference / 'ann_dir' / image['file_name']).with_suffix('.png')
        np.testing.assert_array_equal(painted, read_mask(label_file))


def test_scores_begin_with_the_least_certain(case, predictions):
    rows = rows_of(case.reference / 'scores.csv')
    values = [float(row['certainty']) for row in rows]
    assert values == sorted(values) and {row['image'] for row in rows} == set(predictions)
    for row in rows:
        prediction = predictions[row['image']]
        assert float(row['certainty']) == pytest.approx(prediction.certainty, abs=2e-6)
        for i, name in enumerate(prediction.classes):
            share = (prediction.labels == i + 1).mean()
            assert float(row[f'{name} score']) == pytest.approx(prediction.scores[i], abs=2e-6)
            assert float(row[f'{name} share']) == pytest.approx(share, abs=2e-6)
            assert row[f'{name} present'] == str(int(share > 0))
            sure = prediction.confidence(name)
            assert float(row[f'{name} confidence']) == pytest.approx(sure, abs=2e-6)
    assert rows_of(case.reference / 'failed.csv') == []


def test_a_list_gives_the_same_as_a_folder(case, predictions, tmp_path, files_of, capsys):
    listed = [str(case.images / name) for name in reversed(list(predictions))]
    (tmp_path / 'list.txt').write_text('\n'.join([*listed, '', listed[0], '']), encoding='utf-8')
    assert label(case.arguments(tmp_path / 'out', images=tmp_path / 'list.txt')) == 0
    assert '1 lines; each counts once' in capsys.readouterr().out
    assert files_of(tmp_path / 'out') == files_of(case.reference)


def test_done_images_are_not_done_again(case, tmp_path, files_of, capsys):
    """With the support file that the run wrote in the place of the first."""
    again = case.arguments(case.reference)
    before = {path: path.stat().st_mtime_ns for path in case.reference.glob('ann_dir/**/*.png')}
    again[0] = str(case.reference / 'support.safetensors')
    assert label(again) == 0
    assert capsys.readouterr().out.startswith('0 labelled, 9 done before, 0 failed\n')
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_thresholds_per_class(case, tmp_path):
    scores = rows_of(case.reference / 'scores.csv')
    values = [float(row['disc score']) for row in scores]
    middle = (min(values) + max(values)) / 2
    more = ('--threshold', f'disc={middle}', '--no-overlays')
    assert label(case.arguments(tmp_path / 'out', *more)) == 0
    run = json.loads((tmp_path / 'out/run.json').read_text())['settings']
    assert run['thresholds'] == [pytest.approx(middle, abs=1e-6), 0] and not run['amp']
    assert not (tmp_path / 'out/overlays').exists()
    rows = rows_of(tmp_path / 'out/scores.csv')
    absent = [row for row in rows if float(row['disc score']) < middle]
    assert 1 <= len(absent) < 9 and all(row['disc present'] == '0' for row in absent)
    assert sum(row['disc present'] == '1' for row in rows) >= 1


def test_thresholds_of_the_command_line():
    both = ('cat', 'a=b')
    assert thresholds_of([], 0.3, both) == {'cat': 0.3, 'a=b': 0.3}
    assert thresholds_of(['a=b=0.9', '0.5'], 0.3, both) == {'cat': 0.5, 'a=b': 0.9}
    assert thresholds_of(['cat=1'], {'cat': 0.1, 'a=b': 0.2}, both) == {'cat': 1, 'a=b': 0.2}
    with pytest.raises(ValueError, match="no class 'dog', the supports are of cat, a=b"):
        thresholds_of(['dog=0.5'], 0.3, both)
    with pytest.raises(ValueError, match="0..1 or CLASS=NUMBER, got 'high'"):
        thresholds_of(['high'], 0.3, both)
    for value in ('1.5', 'nan'):
        with pytest.raises(ValueError, match=r'must be a number in 0\.\.1'):
            thresholds_of([value], 0.3, both)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({0: 'nowhere.safetensors'}, 'support file nowhere.safetensors not found'),
        ({1: 'nowhere'}, 'images nowhere not found; give a folder, or a text file'),
        ({4: 'nothing'}, 'config nothing not found'),
        ({6: 'nothing.pth'}, 'weights nothing.pth not found'),
        ({8: 'dog=0.5'}, "there is no class 'dog'"),
    ],
)
def test_wrong_input_is_one_line(case, in_tmp_path, capsys, change, message):
    arguments = case.arguments(in_tmp_path / 'out')
    for position, value in change.items():
        arguments[position] = value
    assert label(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith('error: ') and message in said and 'Traceback' not in said
    assert not (in_tmp_path / 'out').exists()


def test_output_in_the_folder_of_supports(case, tmp_path, capsys):
    arguments = case.arguments(tmp_path / 'support/out')
    (tmp_path / 'support').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'support')
    for support in ('support', 'link'):
        arguments[0] = str(tmp_path / support)
        assert label(arguments) == 2
        assert 'lies in the folder of supports' in capsys.readouterr().err
    assert not list((tmp_path / 'support').iterdir())


def test_what_has_no_effect_is_said(case, tmp_path, capsys):
    images = tmp_path / 'images'
    images.mkdir()
    (images / 'a.jpg').write_bytes((case.images / '01.jpg').read_bytes())
    for name in ('b.psd', 'c.txt', 'd.txt'):
        (images / name).write_text('')
    arguments = case.arguments(tmp_path / 'out', '--prompt-weights', 'x.pth', images=images)
    assert label(arguments) == 0
    said = capsys.readouterr()
    assert 'no support has a prompt, so --prompt-weights is not used' in said.err
    assert 'left out by their ending: 1 .psd, 2 .txt' in said.out


def test_the_model_of_the_demo_says_what_it_knows(case, in_tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('mmfss.apis.loading.DEMO_WEIGHTS', 'no/such.pth')
    command = [str(case.support), str(case.images), 'out', '--config', 'fss_sam2_shapes_1shot']
    assert label(command) == 2
    note, error = capsys.readouterr().err.splitlines()
    assert 'knows generated shapes and not photos; without --config a method is taken' in note
    assert error.startswith('error: the model of `make demo` is not trained yet')


def test_the_dataset_of_a_folder_with_quotes(case, tmp_path):
    images, out = tmp_path / "Tom's images", tmp_path / """Tom's "labels" ä"""
    images.mkdir()
    (images / "it's.jpg").write_bytes((case.images / '01.jpg').read_bytes())
    assert label(case.arguments(out, images=images)) == 0
    (part,) = Config.fromfile(out / 'dataset.py').labelled_dataset.datasets
    assert (part.ann_file, part.data_prefix.img_path) == (f'{out}/lists/jpg.txt', str(images))
    assert part.data_prefix.seg_map_path == f'{out}/ann_dir'


def test_run_json_says_what_ran_before_and_now(tmp_path):
    by_torch, ours = dict(runtime='torch', why='small'), dict(runtime='openvino', why='named')
    write_run(tmp_path, {}, dict(runtimes=dict(sam2=by_torch)))

    def noted(**record) -> dict:
        note_runtimes(tmp_path, record)
        return read_run(tmp_path)['info']['runtimes']

    assert noted(sam2=by_torch) == dict(sam2=by_torch)
    both = dict(runtime='both', torch=by_torch, openvino=ours)
    assert noted(sam2=ours, dino=ours) == dict(sam2=both, dino=ours)
    assert noted(sam2=ours) == dict(sam2=both, dino=ours)
    assert noted(sam2=both) == dict(sam2=both, dino=ours)


@pytest.mark.parametrize('trained', [True, False])
def test_run_json_says_which_weights(case, tmp_path, monkeypatch, trained):
    """Those of the command, none of a model that is built, and that a method has none."""
    info = json.loads((case.reference / 'run.json').read_text())['info']
    assert info.pop('self_check')['method'] == 'FSSAM'
    ours = dict(runtime='torch', why='asked for by name')
    assert info.pop('runtimes') == dict(prior_encoder=ours, sam2=ours)
    assert info == dict(config=str(case.config), weights=str(case.weights), method='FSSAM')
    images = tmp_path / 'images'
    images.mkdir()
    (images / 'a.jpg').write_bytes((case.images / '01.jpg').read_bytes())
    inferencer = FewShotInferencer(case.inferencer().model, threshold=0.0)
    inferencer.load_support(case.support)
    monkeypatch.setattr(inferencer.model, 'needs_checkpoint', trained, raising=False)
    label_folder(inferencer, images, tmp_path / 'out', info=dict(why='a trial'))
    info = json.loads((tmp_path / 'out/run.json').read_text())['info']
    said = {} if trained else dict(trained='nothing trained')
    assert info.pop('runtimes') == dict(prior_encoder=ours, sam2=ours)
    assert info == dict(why='a trial', weights=None, method='FSSAM', **said)
