from __future__ import annotations

import shutil

import pytest
from mmseg.registry import DATASETS

from mmfss.datasets.segmentation import CocoFewShot, PascalVOCFewShot, ShapesDataset

LIST = 'ImageSets/Segmentation/train.txt'


def test_classes_and_palettes():
    for cls, number in ((PascalVOCFewShot, 20), (ShapesDataset, 20), (CocoFewShot, 80)):
        classes, palette = cls.METAINFO['classes'], cls.METAINFO['palette']
        assert classes[0] == 'background' and len(classes) == len(palette) == number + 1
        assert len({tuple(colour) for colour in palette}) == number + 1
    assert PascalVOCFewShot.METAINFO['palette'][:3] == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    assert PascalVOCFewShot.METAINFO['palette'][20] == [0, 64, 128]


def test_reads_the_voc_layout(voc):
    dataset = DATASETS.build(dict(type='PascalVOCFewShot', data_root=str(voc), ann_file=LIST))
    assert len(dataset) == 40
    info = dataset.get_data_info(7)
    assert info['img_path'] == str(voc / 'JPEGImages/im007.jpg')
    assert info['seg_map_path'] == str(voc / 'SegmentationClassAug/im007.png')


def test_reads_the_coco_layout(voc, tmp_path):
    root = tmp_path / 'coco'
    shutil.copytree(voc / 'JPEGImages', root / 'val2014')
    shutil.copytree(voc / 'SegmentationClassAug', root / 'annotations/val2014')
    dataset = CocoFewShot('val2014', str(root))
    assert len(dataset) == 40
    assert dataset.get_data_info(0)['seg_map_path'] == str(root / 'annotations/val2014/im000.png')
    (root / 'annotations/val2014/im003.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'1 of 40 masks .*im003\.png; .*prepare\.py coco'):
        CocoFewShot('val2014', str(root))
    shutil.rmtree(root / 'annotations')
    with pytest.raises(
        FileNotFoundError,
        match=r'seg_map_path directory not found: .*annotations/'
        r'\{train2014,val2014\}/\*\.png\. Set DATA_ROOT=FOLDER .*, or its data_prefix, or make '
        r'the masks: '
        r'python tools/prepare\.py coco .*/coco$',
    ):
        CocoFewShot('val2014', str(root))


def test_directory_that_is_not_there(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r'dataset directory not found: .*none; expected '
        r'there: JPEGImages/\*\.jpg, .*Set DATA_ROOT=FOLDER in the environment, or data_root of',
    ):
        PascalVOCFewShot(LIST, str(tmp_path / 'none'))


@pytest.mark.parametrize(
    'folder, key', [('JPEGImages', 'img_path'), ('SegmentationClassAug', 'seg_map_path')]
)
def test_other_layout(voc, folder, key):
    (voc / folder).rename(voc / 'elsewhere')
    with pytest.raises(FileNotFoundError, match=rf'{key} directory not found: .*{folder}.*expect'):
        PascalVOCFewShot(LIST, str(voc))
    prefix = dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug')
    prefix[key] = 'elsewhere'
    assert len(PascalVOCFewShot(LIST, str(voc), prefix)) == 40


def test_missing_list(voc):
    with pytest.raises(FileNotFoundError, match=r'image list not found: .*none\.txt; .*Set ann'):
        PascalVOCFewShot('none.txt', str(voc))


@pytest.mark.parametrize(
    'text, message',
    [
        ('', r'no image is listed in .*train\.txt; expected JPEGImages'),
        ('im000\nim001\nim000\n', r'names images more than once: im000; remove'),
        ('im000.jpg\n', r"has the line 'im000\.jpg'; expected one image name a line"),
        (
            'JPEGImages/im000.jpg SegmentationClassAug/im000.png\n',
            r'expected one image name a line',
        ),
        ('/JPEGImages/im000\n', r'expected one image name a line'),
    ],
)
def test_bad_lists(voc, text, message):
    (voc / LIST).write_text(text)
    with pytest.raises(ValueError, match=message):
        PascalVOCFewShot(LIST, str(voc))


@pytest.mark.parametrize(
    'file, message',
    [
        ('JPEGImages/im003.jpg', r'1 of 40 images not found in .*JPEGImages: im003\.jpg; restore'),
        ('SegmentationClassAug/im003.png', r'1 of 40 masks not found in .*: im003\.png; restore'),
    ],
)
def test_listed_file_is_missing(voc, file, message):
    (voc / file).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        PascalVOCFewShot(LIST, str(voc))


def test_many_missing_files_are_counted(voc):
    for i in range(8):
        (voc / f'JPEGImages/im00{i}.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'8 of 40 images .*im004\.jpg and 3 more'):
        PascalVOCFewShot(LIST, str(voc))
