"""Published FSSAM checkpoints become ours with every bit kept, or are refused by name."""

from __future__ import annotations

import pytest
import torch
from tiny_models import SIZE, TINY_DINO, build, config, episodes, inputs_of, tiny_arch
from torch import nn

from mmfss.checkpoints import conversion
from mmfss.encoders.dinov2 import ARCHS as DINOV2_ARCHS
from mmfss.encoders.dinov2 import DINOv2ViT
from mmfss.encoders.sam2.model import build_sam2
from mmfss.files import digest_of

SOURCE = 'checkpoint best.pth'


def published(model: nn.Module) -> dict:
    """The weights of an FSSAM under official names, written out apart from the converter."""
    named = {f'sam2.{k}': v for k, v in model.sam2.state_dict().items()}
    named.update({f'dino.{k}': v for k, v in model.prior_encoder.vit.state_dict().items()})
    return named


@pytest.fixture(scope='module')
def model():
    return build()


@pytest.fixture
def theirs(model):
    return published(model)


def converted(theirs, model, **options) -> dict:
    return conversion.convert_state(theirs, model.state_dict(), SOURCE, **options)


def same(a: dict, b: dict) -> bool:
    return list(a) == list(b) and all(torch.equal(v, b[k]) for k, v in a.items())


# ---------------------------------------------------------------------------------- good files
@pytest.mark.parametrize('module', [False, True])
@pytest.mark.parametrize('key', [None, *conversion.NESTED])
def test_every_form_of_the_file_becomes_the_same_weights(tmp_path, model, theirs, key, module):
    content = {f'module.{k}': v for k, v in theirs.items()} if module else theirs
    if key is not None:
        content = {'epoch': 3, 'best': 0.5, key: content, 'optimizer': {'state': {}}}
    torch.save(content, tmp_path / 'best.pth')
    ours = converted(conversion.read_state(tmp_path / 'best.pth'), model)
    assert same(ours, model.state_dict())


def test_the_converted_weights_segment_as_the_source_does(model, theirs):
    target = build(seed=1)
    inputs = inputs_of(episodes())
    with torch.no_grad():
        expected = model(inputs)
        assert not torch.allclose(target(inputs), expected)
        target.load_state_dict(converted(theirs, model))
        assert torch.equal(target(inputs), expected)


def test_names_go_both_ways(model, theirs):
    back = conversion.published_names(converted(theirs, model))
    assert set(back) == set(theirs) and same({k: back[k] for k in theirs}, theirs)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(theirs, dtype):
    state = {**theirs, 'sam2.no_mem_embed': theirs['sam2.no_mem_embed'].to(dtype)}
    full, other = conversion.as_float32(state)
    assert other == {str(dtype).removeprefix('torch.'): 1}
    assert {value.dtype for value in full.values()} == {torch.float32}
    assert torch.equal(full['sam2.no_mem_embed'], state['sam2.no_mem_embed'].float())
    assert conversion.as_float32(full)[1] == {}


def test_tensors_do_not_carry_more_than_their_own_values():
    table = torch.arange(1000.0).reshape(100, 10)
    parameter = nn.Parameter(table[3:5].t())
    full, _ = conversion.as_float32({'a': parameter, 'n': torch.tensor(3)})
    assert full['a'].untyped_storage().nbytes() == 4 * 20 and full['a'].is_contiguous()
    assert type(full['a']) is torch.Tensor and not full['a'].requires_grad
    assert torch.equal(full['a'], table[3:5].t()) and full['n'].dtype == torch.int64


def test_the_prior_encoder_from_its_own_file(tmp_path, model, theirs):
    torch.save(model.prior_encoder.vit.state_dict(), tmp_path / 'dino.pth')
    alone = {k: v for k, v in theirs.items() if not k.startswith('dino.')}
    joined = conversion.add_prior_encoder(alone, tmp_path / 'dino.pth', SOURCE)
    assert same(converted(joined, model), model.state_dict())
    message = r'best\.pth has dino\.\* keys.*leave out --prior-encoder .*dino\.pth'
    with pytest.raises(ValueError, match=message):
        conversion.add_prior_encoder(theirs, tmp_path / 'dino.pth', SOURCE)


# ----------------------------------------------------------------------------------- refusals
def changed(state: dict, **entries) -> dict:
    """A copy with entries set (None: removed)."""
    state = dict(state)
    for key, value in entries.items():
        state.pop(key) if value is None else state.update({key: value})
    return state


@pytest.mark.parametrize(
    ('entries', 'message'),
    [
        ({'sam2.no_mem_embed': None}, r'1 missing keys: sam2\.no_mem_embed\. Use the checkpoint'),
        ({'dino.norm.bias': None}, r'1 missing keys: dino\.norm\.bias'),
        ({'sam2.more': torch.ones(1)}, r'1 unexpected keys: sam2\.more'),
        ({'head.weight': torch.ones(1)}, r'1 unexpected keys: head\.weight'),
        (
            {'dino.norm.bias': torch.ones(5)},
            r'shapes differ: dino\.norm\.bias \(5,\) instead of \(16,\)',
        ),
        (
            {'dino.norm.bias': torch.full((16,), float('nan'))},
            r'NaN or infinity: dino\.norm\.bias',
        ),
        (
            {'dino.norm.bias': torch.ones(16, dtype=torch.int64)},
            r'other kinds of numbers: dino\.norm\.bias torch\.int64 instead of torch\.float32',
        ),
    ],
)
def test_what_does_not_fit_is_named_as_in_the_file(model, theirs, entries, message):
    with pytest.raises(ValueError, match=rf'{SOURCE}.*{message}'):
        converted(changed(theirs, **entries), model)


def test_a_checkpoint_without_its_prior_encoder(model, theirs):
    alone = {k: v for k, v in theirs.items() if not k.startswith('dino.')}
    message = r'has no dino\.\* keys.*--prior-encoder PATH; download it from https://x/vitb14\.pth'
    with pytest.raises(ValueError, match=message):
        converted(alone, model, official='https://x/vitb14.pth')
    with pytest.raises(ValueError, match='--prior-encoder PATH$'):
        converted(alone, model)


def test_other_checkpoints_are_told_apart(model):
    with pytest.raises(ValueError, match=r'begins with .sam2\..*looks like official SAM 2 weights'):
        converted(model.sam2.state_dict(), model)
    with pytest.raises(ValueError, match=r"'cls_token'.*looks like something else"):
        converted(model.prior_encoder.vit.state_dict(), model)
    message = r'has prior_encoder\.vit\.\* keys: it is a checkpoint of mmfss already'
    with pytest.raises(ValueError, match=message):
        converted(model.state_dict(), model)


def test_a_model_with_weights_that_no_published_checkpoint_has(theirs):
    backbone = dict(
        type='ResNet', depth=18, num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,)
    )
    prior = dict(type='BackboneEncoder', backbone=backbone, image_size=SIZE)
    other = build(prior_encoder=prior)
    with pytest.raises(
        ValueError, match=r"checkpoint has: 'prior_encoder\.backbone.*type='DINOv2'"
    ):
        converted(theirs, other)


@pytest.mark.parametrize(
    ('content', 'got'),
    [
        ([1, 2], 'list'),
        ({}, 'a dict of nothing'),
        ({'net': {'sam2.a': torch.ones(1)}, 'epoch': 1}, "a dict of 'net', 'epoch'"),
        ({'state_dict': {'sam2.a': 1}}, "a dict of 'state_dict'"),
        ({'model': {}}, "a dict of 'model'"),
        ({'a': torch.ones(2).to_sparse()}, "a dict of 'a'"),
        ({'a': torch.ones(2, device='meta')}, "a dict of 'a'"),
        ({str(i): i for i in range(9)}, r"a dict of '0', .*'5', \.\.\. \(9 keys\)"),
    ],
)
def test_a_file_without_a_state_dict(tmp_path, content, got):
    torch.save(content, tmp_path / 'odd.pth')
    with pytest.raises(ValueError, match=rf"odd\.pth holds no state dict.*'model'\], got {got}"):
        conversion.read_state(tmp_path / 'odd.pth')


class Malicious:
    """Would write a file when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), 'w'))


def test_a_file_that_wants_to_run_code_is_refused_and_does_not_run(tmp_path, theirs):
    trace = tmp_path / 'trace'
    torch.save({**theirs, 'args': Malicious(trace)}, tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match=r'evil\.pth was refused: .*nothing of it was run'):
        conversion.read_state(tmp_path / 'evil.pth')
    assert not trace.exists()
    torch.load(tmp_path / 'evil.pth', weights_only=False)
    assert trace.exists()  # the file does what it threatens


@pytest.mark.parametrize('part', [0.0, 0.3, 0.99])
def test_a_truncated_file(tmp_path, theirs, part):
    path = tmp_path / 'cut.pth'
    torch.save(theirs, path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(ValueError, match=r'cut\.pth.*cannot be read.*truncated'):
        conversion.read_state(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.pth does not exist'):
        conversion.read_state(tmp_path / 'none.pth')


# --------------------------------------------------------------------------------------- archs
def test_models_without_weights_have_the_names_and_shapes_of_real_ones(model):
    light = conversion.without_weights(lambda: build_sam2(tiny_arch(), SIZE)).state_dict()
    real = model.sam2.state_dict()
    assert {k: (v.shape, v.dtype) for k, v in light.items()} == {
        k: (v.shape, v.dtype) for k, v in real.items()
    }
    heavy = [k for k, v in light.items() if k.endswith('proj.weight')]
    assert heavy and all(light[k].device.type == 'meta' for k in heavy)
    assert torch.empty(1).device.type == 'cpu'  # no longer in force


def test_weights_of_another_known_arch_name_the_option(model):
    large = conversion.without_weights(lambda: build_sam2('sam2.1_large'))
    vit = conversion.without_weights(lambda: DINOv2ViT(**DINOV2_ARCHS['large']))
    theirs = {f'sam2.{k}': v for k, v in large.state_dict().items()}
    theirs.update({f'dino.{k}': v for k, v in vit.state_dict().items()})
    theirs = {k: torch.zeros(1).expand(v.shape) for k, v in theirs.items()}
    message = (
        r"has the size of 'sam2\.1_large': add --cfg-options model\.sam2\.arch=sam2\.1_large\. "
        r"Its DINOv2 has the size of 'large': add --cfg-options model\.prior_encoder\.arch=large\."
    )
    with pytest.raises(ValueError, match=rf'the weights do not fit.*{message}'):
        converted(theirs, model)


def test_weights_of_an_unknown_size_name_no_option(theirs):
    deeper = dict(type='DINOv2', arch=dict(TINY_DINO, depth=2), image_size=70, checkpoint=None)
    with pytest.raises(ValueError, match=r'missing keys: dino\.blocks\.1\.') as error:
        converted(theirs, build(prior_encoder=deeper))
    assert '--cfg-options' not in str(error.value)
    assert config()['prior_encoder']['arch'] == TINY_DINO


# --------------------------------------------------------------------------------------- files
def test_saving_is_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'new/folder/x.pth'
    conversion.save_whole(dict(a=1), path)
    with pytest.raises(ValueError, match=r'x\.pth exists; give another path, or --overwrite'):
        conversion.save_whole(dict(a=2), path)
    assert torch.load(path) == dict(a=1)
    conversion.save_whole(dict(a=2), path, overwrite=True)
    assert torch.load(path) == dict(a=2)
    with pytest.raises(ValueError, match='folder is a folder; give the path of the file'):
        conversion.save_whole(dict(a=2), path.parent, overwrite=True)

    resource = pytest.importorskip('resource')
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, limits[1]))  # as a full disk does
    try:
        with pytest.raises(OSError, match=r'x\.pth could not be written .* room on the disk'):
            conversion.save_whole(dict(a=torch.ones(10**6)), path, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.load(path) == dict(a=2)
    assert [p.name for p in path.parent.iterdir()] == ['x.pth']


def test_hash_of_a_file(tmp_path):
    (tmp_path / 'abc').write_bytes(b'abc')
    known = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
    assert digest_of(tmp_path / 'abc') == known
