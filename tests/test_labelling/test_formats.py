"""Labels in the forms of other tools: read back by our own reader, and by theirs where they are
installed (``pip install labelme label-studio-sdk supervision``)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prepared_checks import picture, prepare
from region_cases import CASES

from mmfss.commands.label import label
from mmfss.datasets.folds import get_benchmark
from mmfss.datasets.io import read_mask
from mmfss.labelling.annotations import objects_of, regions_of
from mmfss.labelling.formats import FORMATS, Terms, photo_of, write_formats

CLASSES = ('cat', 'a cup & "saucer"')


def label_maps() -> dict[str, np.ndarray]:
    """Of photos by name: class 1 of each case, class 2 where it leaves room; one without any."""
    found = {}
    for number, mask in enumerate(CASES.values()):
        labels = np.zeros((20, 30), np.uint8)
        height, width = mask.shape
        labels[:height, :width][mask] = 1
        labels[-height:, -width:][mask] = 2
        folder = 'below/' if number % 3 == 0 else ''
        found[f'{folder}{number:02d} é.{("jpg", "png")[number % 2]}'] = labels
    return found


def write(root: Path, names, apart=False, tolerance=0.0) -> dict[str, np.ndarray]:
    maps = label_maps()
    photos = []
    for name, labels in maps.items():
        picture(root / 'photos' / name, labels.shape)
        annotations = (objects_of if apart else regions_of)(labels, 2)
        height, width = labels.shape
        record = dict(height=height, width=width, scores=[0.75, 0.5], annotations=annotations)
        photos.append(photo_of(name, record))
    terms = Terms(CLASSES, root / 'photos', apart, tolerance)
    kept = write_formats(names, root / 'out', photos, terms)
    assert kept == dict.fromkeys(names, 0)
    return maps


@pytest.mark.parametrize('apart', [False, True])
@pytest.mark.parametrize('name', list(FORMATS))
def test_prepare_reads_what_is_written(name, apart, tmp_path, capsys):
    maps = write(tmp_path, [name], apart)
    own = name in ('yolo', 'voc')  # which have links to the photos
    photos = [] if own else ['--images', tmp_path / 'photos']
    source = tmp_path / 'out' / name
    prepare(capsys, 'folder', source, tmp_path / 'data', '--min-area', 1, *photos)
    assert get_benchmark(str(tmp_path / 'data')).classes == CLASSES
    for photo, labels in maps.items():
        mask = (tmp_path / 'data/masks' / photo).with_suffix('.png')
        np.testing.assert_array_equal(read_mask(mask), labels, err_msg=photo)


def test_one_entry_for_each_region(tmp_path):
    """Of a class all parts, or of each object one."""
    for apart in (False, True):
        maps = write(tmp_path, [*FORMATS], apart)
        out = tmp_path / 'out'
        annotate = objects_of if apart else regions_of
        number = sum(len(annotate(labels, 2)) for labels in maps.values())
        coco = json.loads((out / 'coco-polygons/annotations.json').read_text(encoding='utf-8'))
        assert len(coco['annotations']) == number and len(coco['images']) == len(maps)
        tasks = json.loads((out / 'label-studio/tasks.json').read_text(encoding='utf-8'))
        assert sum(len(t['predictions'][0]['result']) for t in tasks) == number
        texts = {p: p.read_text().splitlines() for p in (out / 'yolo/labels').rglob('*.txt')}
        assert len(texts) == len(maps)
        parts = sum(len(objects_of(labels, 2)) for labels in maps.values())
        assert sum(map(len, texts.values())) == parts
        shapes = [
            shape
            for path in (out / 'labelme').rglob('*.json')
            for shape in json.loads(path.read_text(encoding='utf-8'))['shapes']
        ]
        assert len(shapes) == parts
        assert any(shape['group_id'] for shape in shapes) is not apart
        assert {s['score'] for s in shapes} == {0.75, 0.5}
        assert (out / 'voc/SegmentationObject').is_dir() is apart
    objects = read_mask(out / 'voc/SegmentationObject/05 é.png')
    assert len(np.unique(objects)) - 1 == len(objects_of(maps['05 é.png'], 2))


def test_what_a_person_changed_is_kept(tmp_path):
    maps = write(tmp_path, ['labelme', 'yolo'])
    out = tmp_path / 'out'
    changed = out / 'labelme/01 é.json'
    changed.write_text(changed.read_text().replace('"cat"', '"dog"'))
    (out / 'labelme/02 é.json').unlink()
    before = {path: path.stat().st_mtime_ns for path in out.rglob('*.json')}
    name = next(iter(maps))
    terms = Terms(CLASSES, tmp_path / 'photos')
    photos = [
        photo_of(n, dict(height=20, width=30, scores=[1, 1], annotations=[]))
        for n in maps
        if n != name
    ]
    assert write_formats(['labelme', 'yolo'], out, photos, terms) == dict(labelme=1, yolo=0)
    assert '"dog"' in changed.read_text() and changed.stat().st_mtime_ns == before[changed]
    assert json.loads((out / 'labelme/02 é.json').read_text())['shapes'] == []  # is there again
    assert not (out / 'labelme' / name).with_suffix('.json').exists()  # of a photo that is gone
    assert not (out / 'yolo/labels' / name).with_suffix('.txt').exists()
    assert (out / 'yolo/labels/01 é.txt').read_text() == ''


def test_a_kill_leaves_nothing_that_looks_like_a_persons_work(tmp_path, monkeypatch):
    """Between two photos, and between the note of a file and the file."""
    from mmfss.labelling.formats import files

    real, count = files.atomic, [0]

    def killed(path, flush=True):
        count[0] += 1
        if count[0] == 4:
            raise KeyboardInterrupt
        return real(path, flush)

    monkeypatch.setattr(files, 'atomic', killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, ['labelme'])
    monkeypatch.undo()
    for tolerance in (1.0, 0.0):  # other content than that of the first time, and the same
        write(tmp_path, ['labelme'], tolerance=tolerance)


def test_wrong_formats(tmp_path):
    terms = Terms(CLASSES, tmp_path)
    with pytest.raises(ValueError, match="no format 'coc'; there are coco-polygons, labelme, "):
        write_formats(['coc'], tmp_path / 'out', [], terms)
    with pytest.raises(ValueError, match='tolerance of outlines must be 0 or more pixels, got -1'):
        write_formats(['yolo'], tmp_path / 'out', [], Terms(CLASSES, tmp_path, tolerance=-1))
    assert not (tmp_path / 'out').exists()


def test_the_command(case, tmp_path, capsys, files_of):
    out = tmp_path / 'out'
    assert label(case.arguments(out)) == 0
    before = files_of(out)
    assert label(case.arguments(out, '--format', 'yolo', 'coco-polygons', '--tolerance', '1')) == 0
    said = capsys.readouterr().out
    assert '0 labelled, 9 done before' in said and f'yolo: {out / "yolo"}' in said
    after = files_of(out)
    assert label(case.arguments(out, '--format', 'yolo', '--tolerance', '1')) == 0
    said = capsys.readouterr().out
    assert 'coco-polygons: of an earlier run and left as it was; --format coco-polygons' in said
    assert {name: after[name] for name in before} == before
    assert {n.split('/')[0] for n in after} - {n.split('/')[0] for n in before} == {
        'yolo',
        'coco-polygons',
    }
    with Image.open(out / 'yolo/images/01.jpg') as photo, Image.open(case.images / '01.jpg') as own:
        assert photo.size == own.size
    assert label(case.arguments(tmp_path / 'no', '--format', 'coc')) == 2
    assert label(case.arguments(tmp_path / 'no', '--tolerance', '1')) == 2
    said = capsys.readouterr().err
    assert "no format 'coc'" in said and '--tolerance 1 is of outlines; give a --format' in said
    assert not (tmp_path / 'no').exists()


# ------------------------------------------------------------------- the tools' own readers
def near(found: np.ndarray, mask: np.ndarray) -> bool:
    """A tool that takes corners for pixels reaches one pixel farther; nothing is missing."""
    wide = np.pad(mask, 1)
    height, width = mask.shape
    shifts = [wide[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return not (mask & ~found).any() and not (found & ~np.logical_or.reduce(shifts)).any()


@pytest.mark.parametrize('apart', [False, True])
def test_labelme_reads_it(apart, tmp_path):
    pytest.importorskip('labelme')
    from labelme._label_file import read_label_file
    from labelme.utils.shape import shape_to_mask

    maps = write(tmp_path, ['labelme', 'labelme-masks'], apart)
    for name, labels in maps.items():
        for form in ('labelme', 'labelme-masks'):
            file = (tmp_path / 'out' / form / name).with_suffix('.json')
            found = np.zeros((2, *labels.shape), bool)
            for shape in read_label_file(str(file)).shapes:
                of = CLASSES.index(shape['label'])
                if form == 'labelme':
                    found[of] |= shape_to_mask(labels.shape, shape['points'], 'polygon')
                else:
                    (x1, y1), (x2, y2) = np.array(shape['points'], int)
                    found[of, y1 : y2 + 1, x1 : x2 + 1] |= shape['mask']
            for of in range(2):
                exact = np.array_equal(found[of], labels == of + 1)
                assert exact or (form == 'labelme' and near(found[of], labels == of + 1))


def test_label_studio_reads_it(tmp_path):
    brush = pytest.importorskip('label_studio_sdk.converter.brush')
    from label_studio_sdk.label_interface import LabelInterface

    maps = write(tmp_path, ['label-studio', 'label-studio-polygons'])
    for form in ('label-studio', 'label-studio-polygons'):
        folder = tmp_path / 'out' / form
        interface = LabelInterface((folder / 'label_config.xml').read_text(encoding='utf-8'))
        tasks = json.loads((folder / 'tasks.json').read_text(encoding='utf-8'))
        for task, labels in zip(tasks, maps.values(), strict=True):
            (prediction,) = task['predictions']
            assert interface.validate_prediction(prediction), prediction
            if form == 'label-studio':
                layers = brush.decode_from_annotation('label', [
                    {**one, **one['value']} for one in prediction['result']
                ])  # fmt: skip
                found = np.zeros(labels.shape, np.uint8)
                for name, layer in layers.items():
                    found[layer > 0] = 1 if '-cat-' in name else 2
                np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize('apart', [False, True])
def test_supervision_reads_it(apart, tmp_path):
    supervision = pytest.importorskip('supervision')
    maps = write(tmp_path, ['yolo', 'coco-polygons'], apart)
    out = tmp_path / 'out'
    flat = {name: labels for name, labels in maps.items() if '/' not in name}
    yolo = supervision.DetectionDataset.from_yolo(
        str(out / 'yolo/images'), str(out / 'yolo/labels'), str(out / 'yolo/data.yaml'), True
    )
    coco = supervision.DetectionDataset.from_coco(
        str(tmp_path / 'photos'), str(out / 'coco-polygons/annotations.json'), force_masks=True
    )
    for dataset, names in ((yolo, flat), (coco, maps)):
        assert dataset.classes == [*CLASSES]
        by_name = {Path(path).name: found for path, _, found in dataset}
        for name in names:
            found = by_name[Path(name).name]
            for of in range(2):
                masks = [] if found.mask is None else found.mask[found.class_id == of]
                union = np.logical_or.reduce([np.zeros(maps[name].shape, bool), *masks])
                assert near(union, maps[name] == of + 1), name


def test_pycocotools_reads_it(tmp_path):
    coco_module = pytest.importorskip('pycocotools.coco')
    maps = write(tmp_path, ['coco-polygons'])
    coco = coco_module.COCO(str(tmp_path / 'out/coco-polygons/annotations.json'))
    for image in coco.loadImgs(coco.getImgIds()):
        found = np.zeros((image['height'], image['width']), np.uint8)
        for one in coco.loadAnns(coco.getAnnIds(imgIds=[image['id']])):
            found[coco.annToMask(one) == 1] = one['category_id']
        np.testing.assert_array_equal(found, maps[image['file_name']])
