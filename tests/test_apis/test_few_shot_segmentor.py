"""FewShotSegmentor by itself: labels, windows, when supports are encoded, what is refused."""

from __future__ import annotations

import copy

import cv2
import numpy as np
import pytest
import segmentor_cases as cases
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from tiny_models import FULL, SIZE, randomised

from mmfss.apis import FewShotInferencer, SupportSet
from mmfss.apis.images import mask_to_model_size
from mmfss.apis.nway import ABSENT, class_logits, decide, encode_class
from mmfss.apis.prompts import Prompt, Proposer
from mmfss.encoders.sam2.prompts import PromptHeads

SIZES = ((64, 64), (37, 91), (130, 55))


@pytest.fixture(scope='module')
def shown(tmp_path_factory):
    return cases.support(tmp_path_factory.mktemp('support'))


@pytest.fixture
def model(shown):
    return cases.build(shown)


def _tensor(image):
    return torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float()


def _predict(model, image, size=None):
    """Labels uint8 (H, W) by mmseg's predict, from the image at the model's size."""
    height, width = size or image.shape[:2]
    small = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    sample = SegDataSample(metainfo=dict(ori_shape=(height, width)))
    return model.predict(_tensor(small), [sample])[0].pred_sem_seg.data[0].numpy()


@pytest.mark.parametrize('threshold', [0.0, 'between', 1.0])
def test_labels_are_those_of_the_inferencer(shown, threshold):
    images = [cases.scene(i, size)[0] for i, size in enumerate(SIZES)]
    plain = randomised(_built(FULL), cases.SEED).eval()
    inferencer = FewShotInferencer(plain, threshold=0.0)
    inferencer.set_support(shown)
    if threshold == 'between':  # one class there, the other not, in the first image
        threshold = float(inferencer(images[0]).scores.mean())
    inferencer.threshold = threshold
    model = cases.build(shown, threshold=threshold)
    seen = set()
    for image in images:
        expected = inferencer(image).labels
        np.testing.assert_array_equal(_predict(model, image), expected)
        seen |= set(np.unique(expected).tolist())
    assert seen == {0.0: {0, 1, 2}, 1.0: {0}}.get(threshold, seen) and 0 in seen


def _built(cfg):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MODELS.build(copy.deepcopy(cfg))


def test_support_as_dict_file_set_and_folder(shown, tmp_path):
    image = cases.scene(0, (50, 70))[0]
    expected = _predict(cases.build(shown), image)
    support = SupportSet.build(shown, SIZE)
    support.save(tmp_path / 'support.safetensors')
    for other in (support, str(tmp_path / 'support.safetensors'), tmp_path / 'support.safetensors'):
        np.testing.assert_array_equal(_predict(cases.build(other), image), expected)
    folder = tmp_path / 'folder'
    for name, pairs in shown.items():
        (folder / name).mkdir(parents=True)
        for i, (photo, mask) in enumerate(pairs):
            cv2.imwrite(str(folder / name / f'{i}.jpg'), cv2.imread(photo))
            cv2.imwrite(str(folder / name / f'{i}.png'), cv2.imread(mask, 0))
    model = cases.build(str(folder))
    assert model._support is None  # prompts in a folder would need the weights
    assert model.dataset_meta['classes'] == ('background', 'bar', 'disc')
    assert _predict(model, image).shape == (50, 70)


def test_prompts_in_a_folder(tmp_path):
    """By the model's own heads, or by those of a file: each time the masks of a Proposer."""
    photo = tmp_path / 'support/disc/0.jpg'
    (tmp_path / 'support/disc').mkdir(parents=True)
    cv2.imwrite(str(photo), cases.scene(100, (70, 80), ('disc',))[0])
    (tmp_path / 'support/disc/0.json').write_text('{"points": [[40, 35, 1]]}')
    model = cases.build(str(tmp_path / 'support'))
    heads = PromptHeads(model.model.sam2).state_dict()
    key = 'sam_prompt_encoder.point_embeddings.1.weight'  # of points of label 1
    torch.save({**heads, key: -5 * heads[key]}, tmp_path / 'prompts.pth')
    other = cases.build(str(tmp_path / 'support'), prompt_checkpoint=str(tmp_path / 'prompts.pth'))
    masks = []
    for built, checkpoint in ((model, None), (other, tmp_path / 'prompts.pth')):
        prompt = Prompt(points=((40, 35),), labels=(1,))
        proposal = Proposer(built.model, checkpoint).propose(photo, prompt)
        (shot,) = built.support.shots['disc']
        np.testing.assert_array_equal(
            shot.mask, mask_to_model_size(proposal.mask.astype(np.uint8), SIZE)
        )
        masks.append(shot.mask)
    assert (masks[0] != masks[1]).any()


def test_weights_are_those_of_fssam_key_by_key(model):
    plain = _built(FULL)
    assert list(model.state_dict()) == list(plain.state_dict())
    model.load_state_dict(plain.state_dict())


def test_batch_equals_singles(model):
    batch = torch.cat([_tensor(cases.scene(i, (48, 80))[0]) for i in range(2)])
    both = model.encode_decode(batch)
    assert both.shape == (2, 3, 48, 80) and both.dtype == torch.float32
    for one, image in zip(both, batch):
        assert torch.equal(model.encode_decode(image[None])[0], one)
    assert torch.equal(model(batch), both)  # mode 'tensor'


def test_window_that_covers_the_image_is_the_whole(shown, model):
    image = _tensor(cases.scene(0, (90, 75))[0])
    sliding = cases.build(shown, test_cfg=dict(mode='slide', crop_size=(128, 128), stride=(64, 64)))
    metas = [dict(ori_shape=(90, 75))]
    assert torch.equal(sliding.inference(image, metas), model.inference(image, metas))


def test_windows_by_a_plain_loop(shown, model):
    image = _tensor(cases.scene(1, (100, 84))[0])
    sliding = cases.build(shown, test_cfg=dict(mode='slide', crop_size=(64, 48), stride=(40, 30)))
    total, count = np.zeros((3, 100, 84)), np.zeros((100, 84))
    for top in (0, 36):  # 40 would leave the image
        for left in (0, 30, 36):
            window = image[:, :, top : top + 64, left : left + 48]
            resized = F.interpolate(window, (SIZE, SIZE), mode='bilinear', align_corners=False)
            logits = model.encode_decode(resized)
            logits = F.interpolate(logits, (64, 48), mode='bilinear', align_corners=True)[0]
            total[:, top : top + 64, left : left + 48] += logits.numpy()
            count[top : top + 64, left : left + 48] += 1
    found = sliding.inference(image, [dict(ori_shape=(100, 84))])[0].numpy()
    np.testing.assert_allclose(found, total / count, atol=1e-5)
    assert count.min() == 1 and count.max() > 2
    assert len(np.unique(found.argmax(0))) > 1


def test_a_window_without_the_class_does_not_veto_one_that_is_sure_of_it():
    sure = class_logits(torch.full((1, 2, 2), 4.0), torch.tensor([0.8]), 0.7)
    without = class_logits(torch.full((1, 2, 2), 4.0), torch.tensor([0.6]), 0.7)
    assert without[1].unique().item() == ABSENT
    assert (((sure + without) / 2).argmax(0) == 1).all()
    unsure = class_logits(torch.full((1, 2, 2), 0.5), torch.tensor([0.8]), 0.7)
    assert (((unsure + without) / 2).argmax(0) == 0).all()


def test_class_of_score_0_is_where_its_mask_is_even_if_all_count():
    logits = torch.tensor([[[-3.0, 2.0]]])
    scores = torch.zeros(1)
    assert decide(logits, scores, 0.0, (1, 2)).tolist() == [[0, 1]]
    assert class_logits(logits, scores, 0.0).argmax(0).tolist() == [[0, 1]]
    zero = torch.zeros(1, 1, 1)  # a logit of 0 is foreground, as sigmoid >= 0.5
    assert decide(zero, scores + 1, 0.0, (1, 1)).item() == 1
    assert class_logits(zero, scores + 1, 0.0).argmax(0).item() == 1


# ---------------------------------------------------------------------- when supports are encoded


@pytest.fixture
def encoded(monkeypatch):
    """Number of classes encoded so far."""
    calls = []

    def counted(*args):
        calls.append(1)
        return encode_class(*args)

    monkeypatch.setattr('mmfss.apis.nway.encode_class', counted)
    return calls


def test_supports_are_encoded_once_and_after_new_weights(model, encoded):
    image = cases.scene(0, (64, 64))[0]
    before = _predict(model, image)
    _predict(model, image)
    assert len(encoded) == 2  # two classes, once
    other = randomised(_built(FULL), 1)
    model.load_state_dict(other.state_dict())
    after = _predict(model, image)
    assert len(encoded) == 4
    inferencer = FewShotInferencer(other.eval(), threshold=0.0)
    inferencer.set_support(model.support)
    np.testing.assert_array_equal(after, inferencer(image).labels)
    assert (before != after).any()


def test_supports_follow_moves_autocast_and_training(model, encoded):
    image = _tensor(cases.scene(0, (64, 64))[0])
    full = model.encode_decode(image)
    model.float()
    assert torch.equal(model.encode_decode(image), full) and len(encoded) == 4
    with torch.autocast('cpu', torch.bfloat16):
        model.encode_decode(image)
    assert len(encoded) == 6
    assert torch.equal(model.encode_decode(image), full) and len(encoded) == 8
    model.train().eval()
    model.encode_decode(image)
    assert len(encoded) == 10
    model.eval()
    model.encode_decode(image)
    assert len(encoded) == 10


# ---------------------------------------------------------------------- what mmseg asks and sets


def test_classes_of_a_checkpoint_are_not_taken(model):
    wanted = dict(classes=cases.META, palette=[[0, 0, 0], [128, 0, 0], [0, 128, 0]])
    assert model.dataset_meta == wanted
    model.dataset_meta = dict(classes=('cat', 'dog'), palette=[[1, 2, 3], [4, 5, 6]])
    assert model.dataset_meta == wanted
    assert (model.num_classes, model.out_channels, model.with_decode_head) == (3, 3, True)
    head = model.decode_head
    assert (head.num_classes, head.out_channels, head.align_corners) == (3, 3, True)
    assert not model.with_auxiliary_head and not model.with_neck


def test_there_is_no_loss(model):
    with pytest.raises(ValueError, match="not trained.*that it holds on episodes.*tools/train"):
        model(torch.zeros(1, 3, SIZE, SIZE), [SegDataSample()], mode='loss')


def test_weights_that_do_not_fit(model):
    state = model.state_dict()
    key = next(iter(state))
    for wrong, message in (
        ({k: v for k, v in state.items() if k != key}, f'1 missing keys: {key}'),
        (dict(state, decode_head=torch.zeros(1)), '1 unexpected keys: decode_head'),
        (dict(state, **{key: torch.zeros(3, 7)}), r'1 shapes differ: .* \(3, 7\)'),
        (dict(state, **{key: torch.full_like(state[key], torch.nan)}), '1 tensors hold NaN'),
    ):
        for strict in (True, False):
            with pytest.raises(ValueError, match=f'FewShotSegmentor: .*{message}'):
                model.load_state_dict(wrong, strict=strict)


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(threshold=1.5), 'threshold of the object score must be a number in 0..1, got 1.5'),
        (dict(threshold=dict(disc=0.5)), r"must name every class, disc, bar; got \['disc'\]"),
        (
            dict(test_cfg=dict(mode='sliding')),
            r"test_cfg must be dict\(mode='whole'\) or .*sliding",
        ),
        (dict(test_cfg=dict(mode='slide')), r"test_cfg must be .* got \{'mode': 'slide'\}"),
        (
            dict(test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(64, 65))),
            'stride no larger than the window',
        ),
        (
            dict(data_preprocessor=dict(type='EpisodeDataPreprocessor')),
            'must hand on RGB images in 0..255.*got.*Episode.*add _delete_=True',
        ),
        (
            dict(
                data_preprocessor=dict(
                    type='SegDataPreProcessor', bgr_to_rgb=True, mean=[123.7] * 3, std=[58.4] * 3
                )
            ),
            'without mean, std and test_cfg .*got .*123.7',
        ),
        (
            dict(
                data_preprocessor=dict(
                    type='SegDataPreProcessor', bgr_to_rgb=True, test_cfg=dict(size_divisor=32)
                )
            ),
            r"\(it pads, and images of any size are taken as they are.*got .*'size_divisor': 32",
        ),
        (dict(pretrained='a.pth'), "model.pretrained must be None for FewShotSegmentor, got 'a.p"),
    ],
)
def test_mistakes_in_the_config(shown, changes, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(cases.model_config(shown, **changes))


def test_a_class_may_not_be_called_background():
    with pytest.raises(ValueError, match="not be 'background'"):
        MODELS.build(cases.model_config(dict(background=[])))


def test_support_that_is_not_there_or_of_another_size(shown, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'support file .*nowhere.safetensors not found'):
        MODELS.build(cases.model_config(str(tmp_path / 'nowhere.safetensors')))
    SupportSet.build(shown, 32).save(tmp_path / 'small.safetensors')
    with pytest.raises(ValueError, match=r'for models of 32 x 32 pixels, this one takes 64'):
        MODELS.build(cases.model_config(str(tmp_path / 'small.safetensors')))


def test_misspelt_argument(shown):
    with pytest.raises(TypeError, match='memory_atention'):
        MODELS.build(cases.model_config(shown, memory_atention=None))
