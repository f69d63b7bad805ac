"""What becomes of training images that show a held-out class: left out, or kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from episode_cases import build

from mmfss.checkpoints.provenance import read_checkpoint
from mmfss.checkpoints.record import check_continuation, describe_run
from mmfss.datasets.class_index import ClassIndex
from mmfss.datasets.folds import get_split
from mmfss.datasets.sampling import build_pool


@pytest.mark.parametrize('fold', range(4))
def test_both_conventions_on_coco_from_a_class_index(fold):
    """By a loop over an index such as COCO's: some classes an image, some of them small."""
    rng = np.random.default_rng(fold)
    areas = {
        f'{i:06d}': {
            int(c): int(rng.integers(1, 8000)) for c in rng.integers(1, 81, rng.integers(1, 6))
        }
        for i in range(2000)
    }
    split, index = get_split('coco-20i', fold), ClassIndex(areas)
    large = [i for i, a in areas.items() if any(a.get(c, 0) >= 2048 for c in split.base)]
    clean = [i for i in large if not any((c - 1) % 4 == fold for c in areas[i])]
    kept = build_pool(index, split.base, 2048).images
    left_out = build_pool(index, split.base, 2048, split.held_out('base')).images
    assert (list(kept), list(left_out)) == (large, clean) and 0 < len(clean) < len(large) < 2000


def test_the_option_is_in_protocol_and_record(big_voc, tmp_path):
    counts = {}
    for excluded, name in ((None, 'left_out'), (True, 'left_out'), (False, 'kept')):
        data = build(big_voc, 'base', exclude_novel_images=excluded, num_episodes=None)
        assert data.metainfo['novel_images'] == name
        assert data.protocol['exclude_novel_images'] == (name == 'left_out')
        counts[name] = len(data)
    assert counts['left_out'] < counts['kept']
    split = get_split('pascal-5i', 0)
    meta = describe_run(split, 'base', 1, {}, set(), None, 'kept')
    assert meta['novel_images'] == 'kept'
    assert describe_run(split, 'base', 1, {}, set())['novel_images'] == 'left_out'
    torch.save(dict(state_dict={}, meta=dict(mmfss=meta)), tmp_path / 'epoch_1.pth')
    info, _ = read_checkpoint(str(tmp_path / 'epoch_1.pth'))
    assert info['trained_on']['novel_images'] == 'kept'


def test_a_held_out_class_in_an_image_that_is_kept_is_background(big_voc):
    data = build(big_voc, 'base', exclude_novel_images=False, num_episodes=200)
    novel = set(data.split.novel)
    shown = [i for i in range(200) if novel & set(data.index.areas[data.episode(i).query])]
    assert shown
    labels = data[shown[0]]['data_samples'].gt_sem_seg.data.unique().tolist()
    assert set(labels) <= {0, 1, 255}


def test_a_training_is_resumed_with_the_same_images_only():
    split = get_split('coco-20i', 1)
    meta = describe_run(split, 'base', 1, {}, set(), None, 'kept')
    loaders = dict(train=(split, 'base'))
    check_continuation(meta, loaders, 'checkpoint x.pth', 'kept')
    message = (
        'checkpoint x.pth cannot be resumed: its training images with a novel class were kept, and '
        'in this config they are left_out. Set NOVEL_IMAGES=kept'
    )
    with pytest.raises(ValueError, match=message):
        check_continuation(meta, loaders, 'checkpoint x.pth', 'left_out')
