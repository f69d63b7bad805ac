"""A directory of reference tensors at other sizes, written by our own model.

It has the form of the real one (see the docstring of ``check_parity.py``), so it shows that the
tool reads whatever architecture an index names and that it compares every stage; it proves no
number of the model right. Those of the metric are counted here.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

SIDE, GRID = 128, 8
SLICES = {
    5: '[..., ::4, ::4]',
    4: '[:, ::3, ::2, ::2]',
    3: '[..., ::2]',
    2: '[...]',
    1: '[...]',
    0: '[...]',
}
#: tiny, and nothing of it the sizes of the real directory
OVERRIDES = {
    'image_encoder.trunk.embed_dim': 8,
    'image_encoder.trunk.stages': [1, 1, 3, 1],
    'image_encoder.trunk.global_att_blocks': [3],
    'image_encoder.trunk.window_spec': [8, 4, 8, 4],
    'image_encoder.neck.d_model': 64,
    'image_encoder.neck.position_encoding.num_pos_feats': 64,
    'image_encoder.neck.backbone_channel_list': [64, 32, 16, 8],
    'memory_attention.d_model': 64,
    'memory_attention.num_layers': 3,
    'memory_attention.layer.d_model': 64,
    'memory_attention.layer.dim_feedforward': 96,
    'memory_attention.layer.self_attention.embedding_dim': 64,
    'memory_attention.layer.cross_attention.embedding_dim': 64,
    'memory_attention.layer.cross_attention.kv_in_dim': 16,
    'memory_attention.layer.cross_attention.num_heads': 2,
    'memory_encoder.in_dim': 64,
    'memory_encoder.out_dim': 16,
    'memory_encoder.position_encoding.num_pos_feats': 16,
    'memory_encoder.mask_downsampler.embed_dim': 64,
    'memory_encoder.fuser.layer.dim': 64,
}
DINO = dict(embed_dim=24, depth=2, num_heads=2, img_size=98, num_register_tokens=2)
TOLERANCE = dict(atol=1e-5, rl2=1e-5)


def index_of(base: str, cases: dict[str, dict]) -> dict:
    """The head of an index for a SAM 2 YAML and cases ``name -> dict(shot, batch, ...)``."""
    found = {}
    for first, (name, case) in enumerate(cases.items()):
        query = [(first + b) % 5 for b in range(case['batch'])]
        support = [[(q + 1 + k) % 5 for k in range(case['shot'])] for q in query]
        indices = dict(query_index=query, support_index=support)
        common = dict(file=f'{name}.npz', support_mask_override=None, mode='eval', stages={})
        common.update(ver_refine='v1', num_refine=2)
        # read before any case has run: the grid of the prior encoder
        common['stages'] = {'dino.query_last': dict(full_shape=[case['batch'], 24, 9, 9])}
        found[name] = {**common, **indices, **case}
    return dict(
        sam2_base_config=f'{base} (image_size {SIDE})',
        sam2_hydra_overrides=[
            *(f'model.{key}={json.dumps(value)}' for key, value in OVERRIDES.items()),
            f'++model.image_size={SIDE}',
            '++model._target_=sam2.sam2_video_predictor.SAM2VideoPredictor',
            '++model.fill_hole_area=8',
        ],
        dino=dict(DINO, patch_size=14, mlp_ratio=4, ffn_layer='swiglufused'),
        weights={'sam2_random.pt': '', 'dino_random.pth': ''},
        inputs=dict(file='inputs.npz'),
        cases=found,
        tolerances={},
    )


def fssam(tool, root: Path):
    """The comparer of a directory that ``tool`` (the module ``check_parity``) would take."""
    return tool.METHODS['FSSAM'](tool.Reference(root))


def write(tool, root: Path, base: str, cases: dict[str, dict]) -> Path:
    """Write a directory with ``tool``."""
    root.mkdir()
    torch.manual_seed(7)
    index = index_of(base, cases)
    save_index(root, index)
    write_inputs(root)
    write_weights(tool, root)
    for name, case in index['cases'].items():
        if case['support_mask_override']:
            bits = np.zeros((case['batch'], case['shot'], SIDE, SIDE), np.uint8)
            bits[..., 40:70, 30:55] = case['support_mask_override'] == 'some'
            np.savez(root / f'{name}.npz', **{'in.support_mask': np.packbits(bits, axis=-1)})
        else:
            np.savez(root / f'{name}.npz')
        write_case(tool, root, index, name)
    save_index(root, index)
    write_constants(tool, root)
    write_metric(root)
    return root


def save_index(root: Path, index: dict) -> None:
    (root / 'index.json').write_text(json.dumps(index))


def write_inputs(root: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (5, 3, SIDE, SIDE), np.uint8)
    masks = np.zeros((5, SIDE, SIDE), np.uint8)
    for i in range(5):
        masks[i, 10 * i : 10 * i + 50, 30:90] = 1
        images[i, :, masks[i] == 1] += 50
        masks[i, -5:] = 255
    np.savez(root / 'inputs.npz', images=images, masks=masks)


def write_weights(tool, root: Path) -> None:
    """Random weights, SAM 2's stored in half precision as the real ones are."""
    comparer = fssam(tool, root)
    model = comparer.build(next(iter(comparer.ref.index['cases'].values())), load=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    sam2 = {k: v.half() if v.is_floating_point() else v for k, v in model.sam2.state_dict().items()}
    torch.save({'model': sam2}, root / 'sam2_random.pt')
    torch.save(model.prior_encoder.vit.state_dict(), root / 'dino_random.pth')


@torch.no_grad()
def write_constants(tool, root: Path) -> None:
    """Position tables, some of them in part as their names say."""
    comparer = fssam(tool, root)
    model = comparer.build(next(iter(comparer.ref.index['cases'].values())))
    sam2, quarter = model.sam2, SIDE // 4
    encoded = sam2.image_encoder(torch.zeros(1, 3, SIDE, SIDE))['vision_pos_enc']
    rope = sam2.memory_attention.layers[0].cross_attn_image.freqs_cis.cpu()
    hiera = sam2.image_encoder.trunk._get_pos_embed((quarter, quarter))[0]
    arrays = {
        'sam2.pos1[::1, ::8, ::8]': encoded[1][0][:, ::8, ::8],
        'mem.pos': sam2.memory_encoder.position_encoding(torch.zeros(1, 16, GRID, GRID))[0],
        'sam.dense_pe[::1, ::3, ::3]': sam2.sam_prompt_encoder.get_dense_pe()[0][:, ::3, ::3],
        'rope.freqs_sin[::3]': rope.imag[::3],
        'dino.pos_embed_9x9': model.prior_encoder.vit.resized_pos_embed(9, 9)[0],
        f'hiera.pos_embed_{quarter}': hiera[::4, ::4],  # stored so, without saying it
    }
    np.savez(root / 'constants.npz', **{key: value.numpy() for key, value in arrays.items()})


def write_case(tool, root: Path, index: dict, name: str) -> None:
    """Stages of a case: sliced, or for every fourth their statistics alone."""
    from parity_fssam_stages import run_case
    from parity_reference import slice_of

    comparer = fssam(tool, root)
    case = index['cases'][name]
    model = comparer.build(case)
    stages = run_case(model, *comparer.batch(name))
    # each stage under one name: the reference's, which carries the side
    stages = {
        k: v for k, v in stages.items() if not (k.startswith('prior.') and k.endswith('_512'))
    }
    arrays = {k: v for k, v in comparer.ref.arrays(name).items() if k.startswith('in.')}
    case['stages'] = {}
    for i, (stage, value) in enumerate(stages.items()):
        full = value.double().numpy()
        entry = dict(full_shape=list(full.shape), stored=i % 4 != 3)
        if entry['stored']:
            entry['slice'] = SLICES[full.ndim]
            arrays[stage] = value.numpy()[slice_of(entry['slice'])]
        entry['stats'] = {
            k: float(f'{getattr(full, k)():.7g}') for k in ('mean', 'std', 'min', 'max')
        }
        entry['stats']['l2'] = float(f'{np.linalg.norm(full):.7g}')
        case['stages'][stage] = entry
        index['tolerances'].setdefault(stage, TOLERANCE)
    if case['mode'] == 'train':
        arrays.update(gradients(model, case))
    np.savez(root / f'{name}.npz', **arrays)


#: of the metric; nothing of it as in the real directory
EPISODES, CLASSES, WITHOUT_EPISODE = 103, 7, 4


def write_metric(root: Path) -> None:
    """Episodes of 7 classes, of which one has none, counted pixel by pixel as published code does.

    More than a hundred of them, so that their order by name is another than by number.
    """
    rng = np.random.default_rng(3)
    of = [c for c in range(CLASSES) if c != WITHOUT_EPISODE]
    classes = rng.permutation(np.arange(EPISODES) % len(of))
    arrays = dict(subcls=np.array([of[c] for c in classes]))
    totals = np.zeros(
        (2, CLASSES, 2)
    )  # intersection and union, per class, of background and object
    rows = np.zeros((3, EPISODES, 2))
    for episode, class_id in enumerate(arrays['subcls']):
        side = int(rng.integers(3, 7))
        logits = rng.normal(size=(1, side, side)).astype(np.float32)
        label = rng.choice(np.array([0, 1, 255], np.uint8), (side, side), p=[0.5, 0.4, 0.1])
        pred = (logits[0] > 0).astype(np.uint8)
        for p, t in zip(pred.ravel(), label.ravel()):
            if t != 255:
                for value in (0, 1):
                    rows[:, episode, value] += (p == t == value, value in (p, t), t == value)
        totals[:, class_id] += rows[:2, episode]
        names = (f'{episode:02d}.{kind}' for kind in ('logits', 'label', 'pred'))
        arrays.update(zip(names, (logits, label, pred)))
    class_iou = totals[0, :, 1] / (totals[1, :, 1] + 1e-10)
    assert class_iou[WITHOUT_EPISODE] == 0 and class_iou.astype(bool).sum() == CLASSES - 1
    pooled = totals[0].sum(0) / totals[1].sum(0)
    arrays.update(zip(('intersection', 'union', 'target'), rows.astype(np.float32)))
    expected = dict(class_iou=class_iou, miou=class_iou.sum() / CLASSES, fg_bg_iou=pooled)
    expected.update(fbiou=pooled.mean(), piou=pooled[1])
    arrays.update({f'expected.{key}': np.asarray(value) for key, value in expected.items()})
    np.savez(root / 'metric.npz', **arrays)


def gradients(model, case: dict) -> dict[str, np.ndarray]:
    named = {k: p.grad for k, p in model.sam2.named_parameters() if p.grad is not None}
    samples = np.zeros((len(named), 8), np.float32)
    for i, grad in enumerate(named.values()):
        some = grad.flatten()[:: max(1, grad.numel() // 8)][:8].numpy()
        samples[i, : some.size] = some
    case['grads'] = dict(names=list(named))
    norms = np.array([grad.norm().item() for grad in named.values()], np.float32)
    return {'grad.norms': norms, 'grad.samples': samples}
