"""What is taken away is what the page showed, and what the command makes of a folder."""

import csv
import io
import json
import shlex
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from PIL import Image
from webui_steps import box_mask, marked, painted

from mmfss.apis import FewShotInferencer, SupportSet
from mmfss.configs import find_config
from mmfss.datasets.classes import label_palette
from mmfss.labelling.formats import FORMATS
from mmfss.webui.export import OFFERED, command, export
from mmfss.webui.folders import VisitorFolder
from mmfss.webui.limits import Limits
from mmfss.webui.session import Session
from mmfss.webui.worker import ModelChoice, ModelWorker


def masks_in(archive: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(archive) as files:
        return {
            name: np.array(Image.open(io.BytesIO(files.read(name))))
            for name in files.namelist()
            if name.endswith('.png')
        }


def test_masks_are_palette_pngs_at_full_size_with_the_visitors_names(new_session, photo, tmp_path):
    session = new_session()
    marked(session, photo, ('cup', 'Кошка'))
    names = ('猫 é.jpg', '../x.png', 'x.png', 'wide.png')
    sizes = ({}, {}, {}, dict(width=1600, height=100))
    files = [photo(Path(name).name, 10 + i, **size)[0] for i, (name, size) in
             enumerate(zip(names, sizes))]  # fmt: skip
    session.add_queries(list(zip(files, names)))
    session.set_threshold(0)
    session.label()
    archive, scores, support = export(session, tmp_path / 'files')
    masks = masks_in(archive)
    assert list(masks) == [f'ann_dir/{stem}.png' for stem in ('猫 é', 'x', 'x_2', 'wide')]
    for mask, query in zip(masks.values(), session.queries):
        np.testing.assert_array_equal(mask, query.whole().labels)
    assert masks['ann_dir/wide.png'].shape == (100, 1600)
    with zipfile.ZipFile(archive) as opened:
        assert opened.read('classes.txt').decode() == '0 background\n1 cup\n2 Кошка\n'
        image = Image.open(opened.open('ann_dir/x.png'))
        assert image.mode == 'P'
        colours = np.array(image.getpalette()).reshape(-1, 3)[:3]
        assert colours.tolist() == label_palette(2)
    rows = list(csv.DictReader(io.StringIO(scores.read_text(encoding='utf-8'))))
    assert sorted(row['image'] for row in rows) == sorted(q.name for q in session.queries)
    certain = [float(row['certainty']) for row in rows]
    assert certain == sorted(certain)
    by_name = {row['image']: row for row in rows}
    first = session.queries[0].whole()
    assert by_name['猫 é.jpg']['Кошка score'] == f'{first.scores[1]:.6f}'
    assert by_name['猫 é.jpg']['cup share'] == f'{np.mean(first.labels == 1):.6f}'
    assert SupportSet.load(support).classes == ('cup', 'Кошка')


def test_supports_alone_are_taken_before_anything_is_labelled(new_session, photo, tmp_path):
    session = new_session()
    with pytest.raises(ValueError, match='no object is marked yet'):
        export(session, tmp_path / 'files')
    marked(session, photo)
    assert [file.name for file in export(session, tmp_path / 'files')] == ['support.safetensors']


def test_every_form_that_the_command_writes_is_offered(new_session, photo, tmp_path):
    session = new_session()
    marked(session, photo, ('cup', 'cat'))
    session.add_queries([photo(f'q{i}.png', 10 + i) for i in range(2)])
    session.set_threshold(0)
    session.label()
    names = [name for _, name in OFFERED]
    assert names[:2] == ['png', 'coco'] and names[2:] == list(FORMATS)
    files = export(session, tmp_path / 'files', names)
    expected = {'annotations.json', 'masks.zip', 'scores.csv', 'support.safetensors'}
    assert {file.name for file in files} == expected | {f'{name}.zip' for name in FORMATS}
    assert len(files) == len(set(files)) and all(file.is_file() for file in files)
    labels = session.queries[0].whole().labels
    with zipfile.ZipFile(tmp_path / 'files/labelme-masks.zip') as opened:
        content = json.loads(opened.read('labelme-masks/q0.json'))
    assert content['imagePath'] == '../images/q0.png'
    assert {shape['label'] for shape in content['shapes']} == set(
        session.queries[0].whole().present
    )
    with zipfile.ZipFile(tmp_path / 'files/voc.zip') as opened:
        assert 'voc/ImageSets/Segmentation/train.txt' in opened.namelist()
        mask = np.array(Image.open(opened.open('voc/SegmentationClass/q0.png')))
    np.testing.assert_array_equal(mask, labels)
    coco = json.loads((tmp_path / 'files/annotations.json').read_text())
    assert sum(one['area'] for one in coco['annotations'] if one['image_id'] == 1) == (
        np.count_nonzero(labels)
    )
    with pytest.raises(ValueError, match='there is no form docx of labels'):
        export(session, tmp_path / 'files', ['docx'])


def test_the_command_names_the_model_and_is_quoted():
    assert command(ModelChoice(), 0.7) == (
        'mmfss label support.safetensors IMAGES OUT --threshold 0.7'
    )
    line = command(ModelChoice('my config.py', 'a b.pth'), 0.55)
    assert shlex.split(line)[5:] == [
        '--threshold', '0.55', '--config', 'my config.py', '--weights', 'a b.pth'
    ]  # fmt: skip
    assert command(ModelChoice(method='gf_sam'), 0.7).endswith(' --threshold 0.7 --method gf_sam')


def test_the_command_gives_the_same_files(tmp_path, photo, monkeypatch):
    """The model of the demo with random weights, labelled by the page and by the command shown."""
    label = pytest.importorskip('mmfss.commands.label').label
    weights = tmp_path / 'random weights.pth'
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS.build(Config.fromfile(find_config('fss_sam2_shapes_1shot')).model)
    torch.save(dict(state_dict=model.state_dict(), meta={}), weights)
    choice = ModelChoice('fss_sam2_shapes_1shot', str(weights))
    worker = ModelWorker(FewShotInferencer(choice.config, weights, 'cpu'), None, choice)
    session = Session(worker, Limits(), VisitorFolder.below(tmp_path))
    session.add_photos([photo('a.png', 0)])
    session.click('object', 45, 34)  # SAM 2's own prompts, of random weights
    session.clear_clicks()
    session.use_mask('cup', painted(box_mask()))
    session.use_mask('cat', painted(np.roll(box_mask(), 20, 1)))
    images = tmp_path / 'images'
    images.mkdir()
    for i in range(3):
        path, _ = photo(f'q{i}.png', 10 + i, width=90 + 40 * i)
        path.rename(images / f'q{i}.png')
    session.set_threshold(0.25)
    session.add_queries([(path, path.name) for path in sorted(images.iterdir())])
    session.label()
    archive, scores, support = export(session, tmp_path / 'files')

    words = shlex.split(command(choice, session.threshold))
    assert words[:2] == ['mmfss', 'label']
    places = {
        'support.safetensors': str(support),
        'IMAGES': str(images),
        'OUT': str(tmp_path / 'o'),
    }
    monkeypatch.setattr(sys, 'argv', ['label.py'])
    assert label([places.get(word, word) for word in words[2:]]) == 0
    for name, mask in masks_in(archive).items():
        np.testing.assert_array_equal(mask, np.array(Image.open(tmp_path / 'o' / name)))
    assert scores.read_text(encoding='utf-8') == (tmp_path / 'o' / 'scores.csv').read_text()
    worker.close()
    session.close()
