"""Phone photos through all tools: supports of a COCO file, labels, a prepared folder, episodes."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from coco_cases import SHAPE, coco_folder, write
from prepared_checks import episodes, prepare, read

from mmfss.commands.label import label
from mmfss.datasets.account import FILE
from mmfss.datasets.preparation.own_coco import CROWD_OBJECT

pytest.importorskip('pycocotools')


@pytest.mark.parametrize('orientation', [1, 3, 6, 8])
def test_what_label_writes_of_phone_photos_prepare_reads(case, tmp_path, capsys, orientation):
    content, _ = coco_folder(tmp_path / 'support', orientation=orientation)
    content['annotations'][0]['iscrowd'] = 1
    write(tmp_path / 'support', content)
    coco_folder(tmp_path / 'photos', number=3, orientation=orientation)
    images, out = tmp_path / 'photos/images', tmp_path / 'labels'
    given = [tmp_path / 'support', images, out, '--config', case.config, '--weights', case.weights]
    assert label([*map(str, given), '--threshold', '0', '--no-self-check']) == 0
    with open(out / FILE, encoding='utf-8') as file:
        lines = list(csv.DictReader(file))
    assert [line['what'] for line in lines if line['reason'] == CROWD_OBJECT.text] == [
        'annotation 0'
    ]
    capsys.readouterr()
    options = ['--annotations', out / 'annotations.json', '--images', images, '--min-area', 1]
    said = prepare(capsys, 'folder', tmp_path / 'photos', tmp_path / 'data', *options)
    assert 'data: 3 images (layout coco)' in said
    for i in range(3):
        labelled = read(out / f'ann_dir/{i}.png')
        assert labelled.shape == SHAPE and labelled.any()
        np.testing.assert_array_equal(read(tmp_path / f'data/masks/{i}.png'), labelled)
    data = episodes(tmp_path / 'data', 'all', 'novel', num_episodes=3)
    for item in (data[i] for i in range(3)):
        assert tuple(item['data_samples'].ori_shape) == SHAPE
        assert item['inputs']['query'].shape[1:] == SHAPE
