"""Parts that are left out, replaced or do not fit together."""

from __future__ import annotations

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from tiny_models import SIZE, TINY_DINO, build, config, episodes, inputs_of, samples_of

from mmfss.methods.fssam.model import FSSAM

PSEUDO, ORACLE = dict(type='PseudoPromptGenerator'), dict(type='OraclePromptGenerator')
REFINE = dict(type='IterativeMemoryRefinement')
CALIBRATED = dict(type='SupportCalibratedMemoryAttention')


def parts(prompts, refinement=None, attention=None, **others) -> dict:
    return dict(
        prompt_generator=prompts,
        memory_refinement=refinement,
        memory_attention=attention,
        **others,
    )


ABLATIONS = {
    'support memory': parts(None),
    'support memory, no prior encoder': parts(None, prior_encoder=None),
    'pseudo prompts': parts(PSEUDO),
    'pseudo prompts + calibration': parts(PSEUDO, None, CALIBRATED),
    'pseudo prompts + refinement': parts(PSEUDO, REFINE),
    'fssam': parts(PSEUDO, REFINE, CALIBRATED),
    'fssam, v2 once': parts(PSEUDO, dict(REFINE, version='v2', num_iters=1), CALIBRATED),
    'fssam, no iteration': parts(PSEUDO, dict(REFINE, num_iters=0), CALIBRATED),
    'fssam, SAM 2 as prior encoder': parts(
        PSEUDO, REFINE, CALIBRATED, prior_encoder=dict(type='SAM2PriorEncoder')
    ),
    'oracle': parts(ORACLE, None, None, prior_encoder=None),
    'oracle + refinement + calibration': parts(ORACLE, REFINE, CALIBRATED, prior_encoder=None),
}


@pytest.fixture(scope='module')
def results():
    """Logits of every ablation, by name."""
    data = episodes(2, 2)
    found = {}
    for name, changes in ABLATIONS.items():
        with torch.no_grad():
            found[name] = build(**changes).run(inputs_of(data), samples_of(data))
    return found


@pytest.mark.parametrize('name', sorted(ABLATIONS))
def test_every_ablation_runs(results, name):
    result, changes = results[name], ABLATIONS[name]
    assert result.logits.shape == (2, 1, SIZE, SIZE) and torch.isfinite(result.logits).all()
    assert (result.trace.pseudo_masks is None) == (changes['prompt_generator'] is None)
    assert (result.trace.query_frames is None) == (changes['prompt_generator'] is None)
    assert (result.trace.refined is None) == (changes['memory_refinement'] is None)


def test_every_part_changes_the_result(results):
    """All ablations share their SAM 2 weights; those with another prior encoder apart."""
    chain = [
        'support memory',
        'pseudo prompts',
        'pseudo prompts + calibration',
        'pseudo prompts + refinement',
        'fssam',
        'fssam, v2 once',
    ]
    for i, one in enumerate(chain):
        for other in chain[:i]:
            gap = (results[one].logits - results[other].logits).abs().max()
            assert gap > 1e-2, (one, other)


def test_no_iteration_is_no_refinement(results):
    one, other = results['fssam, no iteration'], results['pseudo prompts + calibration']
    assert torch.equal(one.logits, other.logits)


def test_oracle_masks_are_the_truth(results):
    truth = (episodes(2, 2)['truth'] == 1).float().unsqueeze(1)
    masks = results['oracle'].trace.pseudo_masks
    assert torch.equal(masks.fg, truth) and torch.equal(masks.ae, truth)


@torch.no_grad()
def test_oracle_resizes_a_label_of_another_size_to_the_nearest():
    model = build(**ABLATIONS['oracle'])
    sample = SegDataSample(metainfo=dict(ori_shape=(40, 90)))
    label = torch.zeros(1, 40, 90, dtype=torch.uint8)
    label[:, :20, 45:], label[:, 30:] = 1, 255
    sample.gt_sem_seg = PixelData(data=label)
    masks = model.run(inputs_of(episodes()), [sample]).trace.pseudo_masks
    want = torch.zeros(1, 1, SIZE, SIZE)
    want[..., : SIZE // 2, SIZE // 2 :] = 1
    assert torch.equal(masks.fg, want)
    (out,) = model.predict(inputs_of(episodes()), [sample])
    assert out.pred_sem_seg.data.shape == (1, 40, 90)


@pytest.mark.parametrize('samples', [None, [SegDataSample(metainfo=dict(ori_shape=(9, 9)))]])
def test_oracle_without_truth(samples):
    with pytest.raises(ValueError, match=r'needs the true mask of the query \(gt_sem_seg'):
        build(**ABLATIONS['oracle']).run(inputs_of(episodes()), samples)


@torch.no_grad()
def test_no_pseudo_masks_in_the_prediction_without_a_generator():
    data = episodes()
    (out,) = build(**ABLATIONS['support memory']).predict(inputs_of(data), samples_of(data))
    assert out.maps == {} and 'pred_sem_seg' in out
    (out,) = build(**ABLATIONS['pseudo prompts']).predict(inputs_of(data), samples_of(data))
    assert list(out.maps) == ['pseudo fg', 'pseudo ae']


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (parts(None, REFINE), 'none without a prompt_generator. Set memory_refinement=None'),
        (
            parts(None, None, CALIBRATED),
            'none without a prompt_generator. Set memory_attention=None',
        ),
        (parts(PSEUDO, prior_encoder=None), "needs a prior_encoder.*'DINOv2'.*'SAM2PriorEncoder'"),
        (dict(prior_encoder=dict(type='ResNet', depth=18)), "got 'ResNet'.*BackboneEncoder'"),
        (dict(prior_encoder=dict(type='DINOv4')), r"one of \['BackboneEncoder', 'DINOv2', .*"),
        (dict(sam2=dict(image_size=64)), r"must be one of \['sam2.1_base_plus', .*got None"),
        (dict(memory_refinement=dict(REFINE, version='v3')), r"one of \['v1', 'v2'\], got 'v3'"),
        (
            dict(memory_attention=dict(CALIBRATED, strength='1')),
            "strength must be >= 0 .*, got '1'",
        ),
        (
            dict(memory_attention=dict(CALIBRATED, strength=-2)),
            r'strength must be >= 0 \(paper: 10\), got -2',
        ),
    ],
)
def test_error_says_what_is_allowed(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


@pytest.mark.parametrize(
    'changes',
    [
        dict(sam2=dict(arch='sam2_small', image_sise=64)),
        dict(calibrated=True),
        dict(prior_encoder=dict(type='DINOv2', arch=TINY_DINO, img_size=70)),
    ],
)
def test_options_that_nothing_reads_are_refused(changes):
    with pytest.raises(TypeError, match='unexpected keyword'):
        build(**changes)


def test_a_class_may_stand_for_its_name():
    cfg = config()
    cfg.pop('type')
    model = FSSAM(**cfg)
    assert type(model.sam2.memory_attention).__name__ == 'SupportCalibratedMemoryAttention'
    assert model.sam2.arch['base'] == 'sam2_small' and model.sam2.checkpoint is None


@pytest.mark.parametrize(
    ('part', 'allowed'),
    [
        ('prompt_generator', "'OraclePromptGenerator', 'PseudoPromptGenerator'"),
        ('memory_refinement', "'IterativeMemoryRefinement'"),
    ],
)
def test_a_part_of_another_kind_prints_the_allowed_ones(part, allowed):
    with pytest.raises(ValueError, match=rf'model.{part} must be .*\[{allowed}\].*got .ResNet.'):
        build(**{part: dict(type='ResNet')})
