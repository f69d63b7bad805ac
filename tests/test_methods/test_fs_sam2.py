"""FS-SAM2 against sam2's own modules, its training, its weights."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from mmseg.registry import MODELS
from tiny_models import METHODS, SIZE, episodes, inputs_of, randomised, samples_of, tiny_arch
from tiny_runs import write_config, write_shapes
from torch.nn.parallel import DistributedDataParallel
from two_processes import in_two_processes

from mmfss.apis.loading import load_model
from mmfss.checkpoints.record import describe_run
from mmfss.commands.train import train
from mmfss.datasets.folds import get_split
from mmfss.encoders.lora import fold_lora, without_lora
from mmfss.methods.fs_sam2 import FSSAM2, LORA

NO_DROPOUT = {part: dict(options, dropout=0.0) for part, options in LORA.items()}


def make(seed: int = 0, **changes) -> FSSAM2:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MODELS.build(copy.deepcopy({**METHODS['FSSAM2'], **changes}))
    return randomised(model, seed).eval()


@pytest.fixture(scope='module')
def model():
    return make()


def by_upstream(model: FSSAM2, data: dict, training: bool) -> torch.Tensor:
    """Logits (B, 1, S/4, S/4) by sam2's modules alone, episode by episode, LoRA folded."""
    sam2 = copy.deepcopy(model.sam2)
    fold_lora(sam2)
    decoder = sam2.sam_mask_decoder
    decoder.dynamic_multimask_via_stability = True
    decoder.train(training)
    logits = []
    for query, supports, masks in zip(data['query'], data['support'], data['support_mask']):
        memories, positions = [], []
        for image, mask in zip(supports, masks):
            top = sam2.forward_image(sam2.normalise(image[None]))['backbone_fpn'][-1]
            out = sam2.memory_encoder(
                top, (mask == 1)[None, None].float() * 20 - 10, skip_mask_sigmoid=True
            )
            memories.append(out['vision_features'].flatten(2).permute(2, 0, 1))
            positions.append(out['vision_pos_enc'][-1].flatten(2).permute(2, 0, 1))
        found = sam2.forward_image(sam2.normalise(query[None]))
        low, mid, top = found['backbone_fpn']
        tokens = [x.flatten(2).permute(2, 0, 1) for x in (top, found['vision_pos_enc'][-1])]
        attended = super(type(sam2.memory_attention).__mro__[1], sam2.memory_attention).forward(
            tokens[0], torch.cat(memories), tokens[1], torch.cat(positions), 0
        )
        sparse, dense = sam2.sam_prompt_encoder(
            (torch.zeros(1, 1, 2), -torch.ones(1, 1).int()), None, None
        )
        logits.append(
            decoder(
                image_embeddings=attended.permute(1, 2, 0).reshape(top.shape),
                image_pe=sam2.sam_prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=False,
                repeat_image=False,
                high_res_features=[low, mid],
            )[0]
        )
    return torch.cat(logits)


@torch.no_grad()
@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('shots', [1, 3])
def test_logits_are_those_of_sam2s_modules(shots, training):
    """Also which mask is taken: of these episodes some are stable, some are not."""
    model = make(lora=NO_DROPOUT)
    data = episodes(6, shots)
    last = model.sam2.sam_mask_decoder.output_hypernetworks_mlps[0].layers[-1]
    last.weight *= 3000  # so that the single mask of some falls off within a cell
    last.bias *= 3000
    model.train(training)
    found = model.run(inputs_of(data))
    expected = by_upstream(model, data, training)
    scale = expected.abs().max().item()
    torch.testing.assert_close(found.trace.low_res, expected, rtol=1e-4, atol=1e-5 * scale)
    up = F.interpolate(expected, (SIZE, SIZE), mode='bilinear', align_corners=False)
    torch.testing.assert_close(found.logits, up, rtol=1e-4, atol=1e-5 * scale)
    stable = found.trace.stable
    assert stable.any() and not stable.all()
    taken = (found.trace.low_res == found.trace.masks[:, :1]).flatten(1).all(1)
    assert torch.equal(taken, torch.ones_like(taken) if training else stable[:, 0])


def test_an_empty_mask_is_one_as_any_other(model):
    """Unlike in SAM 2.1 as it stands, which adds an embedding to memories of absent objects."""
    data = episodes(1, 1)
    data['support_mask'][:] = 0
    with torch.no_grad():
        features = model.encode_image(data['support'].flatten(0, 1), 'support')
        before = model.encode_support(features, data['support_mask']).spatial
        changed = copy.deepcopy(model)
        changed.sam2.no_obj_embed_spatial.add_(5.0)
        changed.sam2.maskmem_tpos_enc.add_(5.0)
        state = changed.encode_support(features, data['support_mask'])
    assert torch.equal(state.spatial, before) and state.pointers.numel() == 0
    bare = model.sam2.memory_encoder.position_encoding(torch.zeros(1, 8, 4, 4))
    assert torch.equal(state.spatial_pos[0, 0], bare[0].flatten(1).T)


def test_dropout_of_lora_and_of_memory_attention_in_training():
    arch = tiny_arch('sam2.1_small')
    layer = arch['memory_attention']['layer']
    for part in (layer, layer['self_attention'], layer['cross_attention']):
        part['dropout'] = 0.1
    model = make(sam2=dict(arch=arch, checkpoint=None)).train()
    layer = model.sam2.memory_attention.layers[0]
    assert layer.dropout1.training and layer.self_attn.training and layer.cross_attn_image.training
    assert layer.self_attn.q_proj.lora.training and not layer.linear1.training
    assert not model.sam2.sam_mask_decoder.training
    assert not any(m.training for m in model.eval().modules())
    frozen = make(sam2=dict(arch=arch, checkpoint=None), trainable=['sam2.memory_encoder.*.lora'])
    assert not frozen.train().sam2.memory_attention.layers[0].dropout1.training


@pytest.mark.parametrize('half', [False, True])
def test_both_terms_of_the_loss_are_told(half):
    model, data = make().train(), episodes(2, 1)
    with torch.autocast('cpu', torch.bfloat16, enabled=half):
        losses = model.loss(inputs_of(data), samples_of(data))
    assert set(losses) == {'loss_bce', 'loss_dice'}
    sum(losses.values()).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(grad.dtype == torch.float32 for grad in gradients)
    assert all(grad.isfinite().all() for grad in gradients)


def test_official_weights_go_below_lora(tmp_path):
    plain = make().sam2
    fold_lora(plain)
    torch.save({'model': plain.state_dict()}, tmp_path / 'sam2.pth')
    sam2 = dict(METHODS['FSSAM2']['sam2'], checkpoint=str(tmp_path / 'sam2.pth'))
    model = make(seed=1, sam2=sam2)
    kept = {k: v.clone() for k, v in model.state_dict().items() if '.lora.' in k}
    model.init_weights()
    state = model.state_dict()
    assert kept and all(torch.equal(state[key], value) for key, value in kept.items())
    assert all(torch.equal(state[f'sam2.{k}'], v) for k, v in plain.state_dict().items())
    # prompts are answered by SAM 2 as it was
    image = episodes(1, 1)['query']
    prompter = model.prompter()
    assert torch.equal(prompter.encode(image).top, plain.features(*plain(image)).top)
    assert not torch.equal(prompter.encode(image).top, model.encode_image(image).top)
    with without_lora(model.sam2):
        assert set(model.state_dict()) == {f'sam2.{k}' for k in plain.state_dict()}


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            dict(lora=dict(neck=dict(targets=['conv'], rank=2))),
            "model.lora must name parts out of .*'image_encoder', .*got 'neck'",
        ),
        (
            dict(lora=dict(memory_encoder=dict(targets=['out_proj']))),
            r"model.lora.memory_encoder takes targets and rank.*missing: \['rank'\]",
        ),
        (
            dict(lora=dict(memory_encoder=dict(targets=['out_proj'], rank=2, bias=True))),
            r"model.lora.memory_encoder takes .*unknown: \['bias'\]",
        ),
        (
            dict(lora=dict(image_encoder=dict(targets=['query'], rank=4))),
            "lora.image_encoder.targets has 'query', and no linear layer or convolution",
        ),
        (dict(trainable=['sam2.neck.*.lora']), 'trainable names .sam2.neck.*has no parameter'),
        (
            dict(sam2=dict(METHODS['FSSAM2']['sam2'], image_size=64)),
            'model.sam2.image_size is not taken by FSSAM2',
        ),
    ],
)
def test_wrong_options(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_checkpoints_of_another_rank_or_target_list_are_refused(model, tmp_path):
    """By the record, and without one by the weights."""
    config = tmp_path / 'model.py'
    config.write_text(f'model = {METHODS["FSSAM2"]!r}')
    for part, changes, said in (
        ('memory_encoder', dict(rank=8), "'targets': \\['out_proj'\\], 'rank': 8"),
        ('image_encoder', dict(targets=['qkv']), "'targets': \\['qkv'\\], 'rank': 4"),
    ):
        other = make(lora={**LORA, part: dict(LORA[part], **changes)})
        meta = describe_run(get_split('shapes-5i', 0), 'base', 1, other.arch, set())
        for recorded in (True, False):
            path = tmp_path / f'{part}_{recorded}.pth'
            content = dict(state_dict=other.state_dict(), meta=dict(mmfss=meta) if recorded else {})
            torch.save(content, path)
            message = f'is of another arch: it has .*{said}.*the configured model has'
            if not recorded:
                message = rf'sam2\.{part}\..*\.lora\.down'
            with pytest.raises(ValueError, match=message):
                load_model(Config.fromfile(config), path, 'cpu')


def test_features_that_are_kept_are_of_lora_as_it_is():
    model = make(feature_cache=dict(type='FeatureCache', memory_bytes=2**28))
    data, plain = inputs_of(episodes(1, 2)), make()
    assert torch.equal(model.run(data).logits, plain.run(data).logits)
    stats = model.encoding.cache.stats
    assert (stats.misses, stats.memory_hits) == (3, 0)
    assert torch.equal(model.run(data).logits, plain.run(data).logits)
    assert (stats.misses, stats.memory_hits) == (3, 3)
    for one in (model, plain):
        with torch.no_grad():
            one.sam2.image_encoder.trunk.blocks[1].attn.qkv.lora.up.add_(0.5)
    assert torch.equal(model.run(data).logits, plain.run(data).logits)
    assert stats.misses == 6
    fold_lora(model.sam2), fold_lora(plain.sam2)
    assert torch.equal(model.run(data).logits, plain.run(data).logits)
    assert stats.misses == 9


def test_lora_that_was_folded_is_tested_and_not_trained():
    model, data = make(), episodes(2, 2)
    expected = model.run(inputs_of(data)).logits
    folded = make(seed=1, lora=None)
    fold_lora(model.sam2)
    folded.load_state_dict(model.state_dict())
    torch.testing.assert_close(folded.run(inputs_of(data)).logits, expected, rtol=1e-3, atol=1e-4)
    assert folded.title == 'FSSAM2, LoRA folded' and folded.arch['lora'] == {}
    with pytest.raises(ValueError, match='FSSAM2 is not trained'):
        folded.train().loss(inputs_of(data), samples_of(data))


@pytest.mark.parametrize(
    ('trainable', 'pixels'),
    [
        (None, True),
        (['sam2.*.lora'], True),
        (['sam2.image_encoder.trunk.blocks.3.*'], True),
        (['sam2.image_encoder.neck.*.lora', 'sam2.memory_*.lora'], False),
    ],
)
def test_what_is_trained_decides_what_is_kept(trainable, pixels):
    assert FSSAM2.trains_from_pixels(trainable) == pixels


# ---------------------------------------------------------------------------------------- runs
def _gradients(rank_data: list[dict]) -> dict:
    import torch.distributed as dist

    torch.set_num_threads(1)
    model = make(lora=NO_DROPOUT).train()
    wrapped = DistributedDataParallel(_Loss(model), find_unused_parameters=True)
    wrapped(rank_data[dist.get_rank()]).backward()
    return {k: p.grad.tolist() for k, p in model.named_parameters() if p.grad is not None}


class _Loss(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, data):
        return sum(self.model.loss(inputs_of(data), samples_of(data)).values())


def test_two_processes_have_the_gradients_of_one():
    whole = episodes(2, 1)
    parts = [{key: value[i : i + 1] for key, value in whole.items()} for i in range(2)]
    first, second = in_two_processes(_gradients, parts)
    assert isinstance(first, dict) and first == second, first
    model = make(lora=NO_DROPOUT).train()
    _Loss(model)(whole).backward()
    for key, parameter in model.named_parameters():
        if parameter.grad is not None:
            scale = parameter.grad.abs().max().item()
            got = torch.tensor(first[key])
            torch.testing.assert_close(got, parameter.grad, rtol=1e-3, atol=1e-4 * scale + 1e-8)


def test_training_resumed_is_training_at_once(tmp_path):
    """With LoRA in the image encoder and dropout on; a checkpoint of LoRA alone is some kB."""
    root = write_shapes(tmp_path / 'shapes', train=30, val=12)
    plain = make().sam2
    fold_lora(plain)
    torch.save({'model': plain.state_dict()}, tmp_path / 'sam2.pth')
    base = write_config(tmp_path / 'base_fs_sam2.py', root)
    config = tmp_path / 'run_fs_sam2.py'
    model = dict(METHODS['FSSAM2'], data_preprocessor=dict(type='EpisodeDataPreprocessor'))
    model['sam2'] = dict(model['sam2'], checkpoint=str(tmp_path / 'sam2.pth'))
    config.write_text(
        f'_base_ = {base!r}\nmodel = {dict(model, _delete_=True)!r}\n'
        'val_dataloader = val_evaluator = val_cfg = None\ncustom_hooks = []\n'
        'default_hooks = dict(checkpoint=dict(trained_only=True, max_keep_ckpts=2))\n'
    )

    def run(folder, *more):
        train([str(config), '--work-dir', str(tmp_path / folder), *more, '--cfg-options',
               'train_cfg.max_epochs=2'])  # fmt: skip
        path = str(tmp_path / folder / 'epoch_2.pth')
        return CheckpointLoader.load_checkpoint(path, 'cpu')['state_dict']

    once = run('once')
    names = {name for name, _ in make().named_parameters() if '.lora.' in name}
    assert names < set(once) and len(once) == len(names) + 1  # and the digest of the others
    again = run('again', '--resume', str(tmp_path / 'once/epoch_1.pth'))
    assert all(torch.equal(once[key], again[key]) for key in once)
    loaded = load_model(Config.fromfile(config), tmp_path / 'once/epoch_2.pth', 'cpu')
    assert torch.equal(loaded.state_dict()['sam2.no_mem_embed'], plain.no_mem_embed)
