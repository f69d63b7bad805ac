"""tools/analysis_tools/shapes_results.py: figures by hand."""

from __future__ import annotations

import pytest
import torch
from analysis_tools.shapes_results import evaluate, markdown
from benchmarks.pictures import FoldSpec, episodes_of
from mmengine.dataset import pseudo_collate
from mmseg.registry import MODELS
from tiny_models import TINY_DINO

from mmfss.methods.base import Segmentation

ENCODER = dict(type='DINOv2', arch=TINY_DINO, image_size=70, checkpoint=None)
COMMON = dict(image_size=64, data_preprocessor=dict(type='EpisodeDataPreprocessor'))


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    spec = FoldSpec(images=24, kind='shapes', width=64, height=64, per_class=2)
    return episodes_of(tmp_path_factory.mktemp('data'), spec, 64, 2, 24)


def pseudo_mask():
    torch.manual_seed(0)
    generator = dict(type='PseudoPromptGenerator')
    cfg = dict(type='PseudoMask', encoder=ENCODER, prompt_generator=generator, **COMMON)
    return MODELS.build(cfg).eval()


def miou(dataset, masks):
    """Of boolean masks (64, 64): intersections and unions summed over the episodes of a class."""
    sums = {}
    for i, mask in enumerate(masks):
        sample = dataset[i]['data_samples']
        label = sample.gt_sem_seg.data[0]
        truth, valid = label == 1, label != 255
        both, any_ = sums.setdefault(dataset.episode(i).class_id, [0, 0])
        sums[dataset.episode(i).class_id] = [
            both + int((mask & truth).sum()),
            any_ + int(((mask | truth) & valid).sum()),
        ]
    assert len(sums) == 5
    return 100 * sum(both / any_ for both, any_ in sums.values()) / len(sums)


def test_each_model_gets_its_own_figure(dataset):
    pseudo = pseudo_mask()
    models = {'all': MODELS.build(dict(type='AllForeground', **COMMON)).eval(), 'pseudo': pseudo}
    found = evaluate(models, dataset, batch=7)
    assert found['all'][0] == pytest.approx(
        miou(dataset, [torch.ones(64, 64, dtype=torch.bool)] * len(dataset))
    )
    with torch.no_grad():
        masks = []
        for i in range(len(dataset)):
            inputs = pseudo.data_preprocessor(pseudo_collate([dataset[i]]))['inputs']
            masks.append(pseudo.run(inputs).maps['pseudo ae'][0, 0] >= 0.5)
    assert found['pseudo'][0] == pytest.approx(miou(dataset, masks))


def test_the_pseudo_mask_is_cut_at_one_half_itself(dataset, monkeypatch):
    """The float32 before 0.5 is background, though the sigmoid of its logit is 0.5."""
    model = pseudo_mask()
    below = torch.tensor(0.5).nextafter(torch.tensor(0.0)) - 0.5
    assert below < 0 and below.sigmoid() == 0.5

    def segment(query, state, truth=None):
        logits = below.expand(len(state.fg), 1, 64, 64).clone()
        logits[..., :8, :] = 0
        return Segmentation(logits)

    monkeypatch.setattr(model, 'segment', segment)
    top = torch.zeros(64, 64, dtype=torch.bool)
    top[:8] = True
    found, seconds = evaluate({'pseudo': model}, dataset)['pseudo']
    assert seconds > 0
    assert found == pytest.approx(miou(dataset, [top] * len(dataset)))


def test_table():
    table = {
        '0': {'a': {'1': [10.0, 20.0]}, 'b': {'1': [1.0, 1.0]}},
        '2': {'a': {'1': [30.0, 50.0]}, 'b': {'1': [3.0, 3.0]}},
    }
    for rows, times in zip(table.values(), ([0.01, 0.02], [0.03, 0.04])):
        for row in rows.values():
            row['1 seconds'] = times
    about = dict(episodes=5, seeds=[0, 1], command='python x', commit='c', machine='m')
    text = markdown(dict(about, shots=[1], folds=[0, 2], table=table))
    assert text.splitlines()[3:] == [
        '### 1-shot',
        '',
        '|  | fold 0 | fold 2 | mean +- std over seeds | ms of an episode |',
        '|---|---|---|---|---|',
        '| a | 15.0 | 40.0 | 27.5 +- 10.6 | 25.0 |',
        '| b | 1.0 | 3.0 | 2.0 +- 0.0 | 25.0 |',
    ]
