"""Compare mmfss with reference tensors, stage by stage.

    python tools/analysis_tools/check_parity.py DIR [--cases a_1shot_b1 ...] [--quiet]

DIR holds ``index.json`` (architecture, cases, tolerances), weights, inputs and one ``.npz`` per
case; ``metric.npz``, ``constants.npz`` and ``units.npz`` (single functions) are cases of their own
where they are there. Prints a row per case and stage (with ``--quiet`` only those that fail) and a
summary per case. Exit status: 0 when every stage of every case is within its tolerance, 1
otherwise, also where a stage of the reference was not compared; 2 where the directory cannot be
used. Cases marked ``released`` are left out by name: they record what published code does with
several supports, which is not what the method means.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import MMLogger
from mmseg.registry import METRICS, MODELS
from omegaconf import OmegaConf
from torch import Tensor

if importlib.util.find_spec('mmfss') is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from parity_units import check_units

import mmfss  # noqa: F401  (registers the models)
from mmfss.datasets.folds import FoldSplit
from mmfss.evaluation.metrics import count_episode
from mmfss.models.functional import logits_to_mask, resize_mask, up
from mmfss.models.memory_attention import MemoryFrames
from mmfss.models.weights import load_strict

# without effect on what is compared, or set from the size of the images
IGNORED_OVERRIDES = ('_target_', 'dynamic_multimask', 'binarize_mask', 'fill_hole_area')
IGNORED_OVERRIDES += ('image_size', 'feat_sizes')
YAML_NAMES = {'t': 'tiny', 's': 'small', 'b+': 'base_plus', 'l': 'large'}


@dataclass(frozen=True)
class Row:
    """One comparison: largest absolute error and relative L2 error against their bounds."""

    case: str
    stage: str
    error: float
    bound: float
    rl2: float
    rl2_bound: float
    note: str = ''

    @property
    def ok(self) -> bool:
        return not self.note and self.error <= self.bound and self.rl2 <= self.rl2_bound


class Reference:
    """A directory of reference tensors.

    Raises:
        FileNotFoundError: the directory or one of its files is not there.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not (self.root / 'index.json').is_file():
            raise FileNotFoundError(
                f'{self.root} has no index.json; give a directory of reference tensors'
            )
        self.index = json.loads((self.root / 'index.json').read_text())

    @cached_property
    def images(self) -> Tensor:
        return self._inputs('images')

    @cached_property
    def masks(self) -> Tensor:
        return self._inputs('masks')

    def _inputs(self, key: str) -> Tensor:
        return torch.from_numpy(np.load(self.root / self.index['inputs']['file'])[key])

    @cached_property
    def image_size(self) -> int:
        return self.images.shape[-1]

    def case(self, name: str) -> dict:
        return self.index['cases'][name]

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        return dict(np.load(self.root / self.case(name).get('file', f'{name}.npz')))

    def weights(self, kind: str) -> str:
        names = [n for n in self.index['weights'] if n.startswith(kind)]
        if len(names) != 1:
            raise ValueError(f'{self.root}: expected one weight file of {kind}, got {names}')
        return str(self.root / names[0])

    def sam2_arch(self) -> dict:
        found = re.search(r'(sam2(?:\.1)?)_hiera_(t|s|b\+|l)(?!\w)', self.index['sam2_base_config'])
        if found is None:
            raise ValueError(f'no SAM 2 config named in {self.index["sam2_base_config"]!r}')
        kept = [
            item.lstrip('+').removeprefix('model.')
            for item in self.index['sam2_hydra_overrides']
            if not any(word in item for word in IGNORED_OVERRIDES)
        ]
        arch = OmegaConf.to_container(OmegaConf.from_dotlist(kept))
        return dict(base=f'{found[1]}_{YAML_NAMES[found[2]]}', **arch)

    def prior_encoder(self) -> dict:
        names = ('embed_dim', 'depth', 'num_heads', 'img_size', 'patch_size', 'mlp_ratio')
        names += ('num_register_tokens', 'interpolate_antialias', 'interpolate_offset', 'qkv_bias')
        dino = self.index['dino']
        arch = {name: dino[name] for name in names if name in dino}
        arch['ffn_layer'] = 'swiglu' if 'swiglu' in dino.get('ffn_layer', 'mlp') else 'mlp'
        shape = next(
            case['stages']['dino.query_last']['full_shape']
            for case in self.index['cases'].values()
            if 'dino.query_last' in case['stages']
        )
        side = shape[-1] * dino.get('patch_size', 14)
        return dict(type='DINOv2', arch=arch, image_size=side, checkpoint=None)

    def build(self, case: dict):
        """Our model for a case, dropout off, weights loaded strictly."""
        arch = OmegaConf.create(self.sam2_arch())
        layer = 'memory_attention.layer'
        for name in ('dropout', 'self_attention.dropout', 'cross_attention.dropout'):
            OmegaConf.update(arch, f'{layer}.{name}', 0.0)
        model = MODELS.build(
            dict(
                type='FSSAM',
                sam2=dict(
                    arch=OmegaConf.to_container(arch), image_size=self.image_size, checkpoint=None
                ),
                prior_encoder=self.prior_encoder(),
                prompt_generator=dict(type='PseudoPromptGenerator'),
                memory_refinement=dict(
                    type='IterativeMemoryRefinement',
                    num_iters=case['num_refine'],
                    version=case['ver_refine'],
                ),
                memory_attention=dict(type='SupportCalibratedMemoryAttention'),
            )
        )
        load_strict(model.sam2, self.weights('sam2'), 'SAM 2', key='model')
        load_strict(model.prior_encoder.vit, self.weights('dino'), 'DINOv2')
        return model.train(case['mode'] == 'train')

    def batch(self, name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Query (B, 3, S, S), supports (B, K, 3, S, S), support masks and query labels."""
        case = self.case(name)
        query = torch.tensor(case['query_index'])
        support = torch.tensor(case['support_index'])
        masks = self.masks[support]
        if case.get('support_mask_override'):
            packed = self.arrays(name)['in.support_mask']
            bits = np.unpackbits(packed, axis=-1)[..., : self.image_size]
            masks = torch.from_numpy(bits).reshape(masks.shape)
        return self.images[query].float(), self.images[support].float(), masks, self.masks[query]


class Recorder:
    """Outputs of a model's modules in the order of calls, through forward hooks."""

    def __init__(self, model) -> None:
        self.calls: dict[str, list] = defaultdict(list)
        sam2 = model.sam2
        modules = {
            'encoder': sam2.image_encoder,
            'decoder': sam2.sam_mask_decoder,
            'memory': sam2.memory_encoder,
        }
        for i, layer in enumerate(sam2.memory_attention.layers):
            modules[f'attn.layer{i}'] = layer
            modules[f'attn.layer{i}.self_attn'] = layer.self_attn
            modules[f'attn.layer{i}.cross_attn'] = layer.cross_attn_image
        handles = [
            module.register_forward_hook(
                lambda _m, _i, out, name=name: self.calls[name].append(out)
            )
            for name, module in modules.items()
        ]
        handles.append(
            model.memory_refinement.register_forward_pre_hook(
                lambda _m, args: self.calls['refine'].append(args)
            )
        )
        self.handles = handles

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()


def run_case(model, ref: Reference, name: str) -> dict[str, Tensor]:
    """Every stage of a case as our model computes it, under the reference's names."""
    x, s_x, s_y, y = ref.batch(name)
    case = ref.case(name)
    recorder = Recorder(model)
    with torch.set_grad_enabled(case['mode'] == 'train'):
        query = model.encode_image(x)
        supports = model.encode_image(s_x.flatten(0, 1))
        support = model.encode_support(supports, s_y)
        result = model.segment(query, support)
    with torch.no_grad():
        fg_pointer = model.sam2.encode_pointer(query.sam2, result.pseudo_masks.fg)
    recorder.close()
    masks = (s_y == 1).float()
    stages = image_stages(query, supports, recorder)
    stages.update(memory_stages(result, support, masks, fg_pointer, recorder))
    stages.update(attention_stages(result, support, masks, recorder))
    stages.update(decoder_stages(result))
    if case['mode'] == 'train':
        loss = model.loss_decode(result.logits[:, 0], y)
        loss.backward()
        stages['loss'] = loss
    pseudo = result.pseudo_masks
    stages['priors_returned'] = (
        torch.cat([pseudo.fg, pseudo.ae], 1)
        if s_y.shape[1] == 1
        else torch.stack([pseudo.fg_per_shot, pseudo.ae_per_shot], 2)
    )
    return {key: value.detach() for key, value in stages.items()}


def image_stages(query, supports, recorder: Recorder) -> dict[str, Tensor]:
    stages = {'dino.query_last': query.prior, 'dino.support_last': supports.prior}
    for who, features in (('query', query), ('support', supports)):
        levels = (*features.sam2.high_res, features.sam2.top)
        stages.update({f'sam2.{who}.feat{i}': level for i, level in enumerate(levels)})
    positions = recorder.calls['encoder'][0]['vision_pos_enc']
    stages.update({f'sam2.pos{i}': pos for i, pos in enumerate(positions)})
    return stages


def memory_stages(
    result, support, masks: Tensor, fg_pointer: Tensor, recorder: Recorder
) -> dict[str, Tensor]:
    pseudo, grid = result.pseudo_masks, result.attended.shape[-2:]
    memory_fg, memory_ae = recorder.calls['refine'][0][:2]
    scores = [call[3] for call in recorder.calls['decoder']]  # support, ae, final, fg
    side = pseudo.fg.shape[-1]
    stages = {
        'mem.support.mask_in': masks.flatten(0, 1).unsqueeze(1),
        'mem.support.feat': from_tokens(support.frames.spatial.flatten(0, 1), grid),
        'mem.support.obj_ptr': support.frames.pointers.flatten(0, 1).flatten(1),
        'mem.pos': recorder.calls['memory'][0]['vision_pos_enc'][-1],
        'mem.query_fg.mask_in': pseudo.fg,
        'mem.query_fg.feat': memory_fg,
        'mem.query_fg.obj_ptr': fg_pointer,
        'mem.query_ae.mask_in': pseudo.ae,
        'mem.query_ae.feat': memory_ae,
        'mem.query_ae.obj_ptr': result.query_frames.pointers.flatten(1),
        'dec.support.object_score_logits': scores[0],
        'dec.query_ae.object_score_logits': scores[1],
        'dec.query_fg.object_score_logits': scores[3],
        'refine.in.sup_mask': resize_mask(masks, grid).flatten(0, 1).unsqueeze(1),
        'refine.in.prior_fg': up(pseudo.fg, grid),
        'refine.in.prior_ae': up(pseudo.ae, grid),
        'refine.prior_qry_sup': result.refined.support_relevance,
    }
    for kind in ('fg', 'bg', 'ae'):  # named by the side of the published models, or by their own
        prior = getattr(pseudo, f'{kind}_per_shot')
        stages.update({f'prior.{kind}_512': prior, f'prior.{kind}_{side}': prior})
    for i, step in enumerate(result.refined.steps, 1):
        stages[f'refine.{i}.prior_qry_qry'] = step.relevance
        stages[f'refine.{i}.mem'] = step.memory
        stages[f'refine.{i}.prior_ae'] = step.prior_ae
    return stages


def attention_stages(result, support, masks: Tensor, recorder: Recorder) -> dict[str, Tensor]:
    grid = result.attended.shape[-2:]
    frames = MemoryFrames.concat([support.frames, result.query_frames])
    tokens, pos, num_pointers = frames.tokens()
    stages = {
        'attn.memory': tokens.transpose(0, 1),
        'attn.memory_pos': pos.transpose(0, 1),
        'attn.ptr_tokens': tokens.transpose(0, 1)[-num_pointers:],
        'attn.memory_mask': resize_mask(masks, grid, mode='nearest').flatten(0, 1).unsqueeze(1),
        'attn.num_obj_ptr_tokens': torch.tensor(num_pointers),
        'attn.output': result.attended,
    }
    layers = {k: v[0] for k, v in recorder.calls.items() if k.startswith('attn.layer')}
    stages.update({name: from_tokens(out, grid) for name, out in layers.items()})
    return stages


def decoder_stages(result) -> dict[str, Tensor]:
    decoded = result.decoded
    return {
        'dec.final.object_score_logits': decoded.object_score,
        'dec.final.low_res_multimasks': decoded.candidates,
        'dec.final.ious': decoded.ious,
        'dec.final.tokens': decoded.tokens,
        'dec.final.low_res_masks': decoded.low_res,
        'dec.final.high_res_masks': decoded.logits,
        'dec.final.best_idx': decoded.best,
        'output': decoded.logits[:, 0],
    }


def from_tokens(tokens: Tensor, grid) -> Tensor:
    """(N, n, C) -> (N, C, h, w)."""
    return tokens.transpose(1, 2).unflatten(-1, tuple(grid))


def slice_of(text: str) -> tuple:
    """Python indexing written as text, e.g. ``[:, ::3, ...]``, without evaluating it."""

    def part(item: str):
        item = item.strip()
        if item == '...':
            return Ellipsis
        if ':' in item:
            return slice(*(int(p) if p.strip() else None for p in item.split(':')))
        return int(item)

    return tuple(part(item) for item in text.strip()[1:-1].split(','))


def compare_stage(case: str, stage: str, ours: Tensor, meta: dict, stored, tolerance) -> Row:
    """Compare one stage: the stored excerpt, or statistics of the whole where none is stored."""
    if list(ours.shape) != list(meta['full_shape']):
        note = f'shape {list(ours.shape)} instead of {meta["full_shape"]}'
        return Row(case, stage, float('nan'), 0, float('nan'), 0, note)
    ours = ours.double().numpy()
    if meta['stored']:
        got = ours[slice_of(meta['slice'])]
        if stored is None or np.shape(stored) != got.shape:
            note = 'absent from the file' if stored is None else f'stored as {stored.shape}'
            return Row(case, stage, float('nan'), 0, float('nan'), 0, note)
        got, want, slack = got.ravel(), np.asarray(stored, dtype=np.float64).ravel(), 0.0
    else:
        stats = meta['stats']
        l2 = np.linalg.norm(ours)
        got = np.array([ours.mean(), ours.std(), ours.min(), ours.max()])
        want = np.array([stats[k] for k in ('mean', 'std', 'min', 'max')])
        got, want = np.append(got, l2), np.append(want, stats['l2'])
        scale = want[-1]
        got[-1], want[-1] = got[-1] / max(scale, 1e-12), want[-1] / max(scale, 1e-12)
        slack = 1e-6 * max(1.0, np.abs(want).max())  # the index prints seven digits
    error = float(np.abs(got - want).max()) if got.size else 0.0
    rl2 = float(np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-12))
    if not np.isfinite(got).all():
        return Row(case, stage, float('nan'), 0, float('nan'), 0, 'not finite')
    return Row(case, stage, error, tolerance['atol'] + slack, rl2, tolerance['rl2'] + slack)


def check_case(ref: Reference, name: str) -> list[Row]:
    """All rows of a case, a failing one for each stage that was not compared."""
    case = ref.case(name)
    model = ref.build(case)
    stages = run_case(model, ref, name)
    arrays = ref.arrays(name)
    rows = []
    unlisted = [k for k in arrays if k not in case['stages'] and not k.startswith(('in.', 'grad.'))]
    for stage, meta in {**case['stages'], **dict.fromkeys(unlisted)}.items():
        tolerance = ref.index['tolerances'].get(stage)
        if stage not in stages or meta is None or tolerance is None:
            note = 'no shape or tolerance in the index' if stage in stages else 'not compared'
            rows.append(Row(name, stage, float('nan'), 0, float('nan'), 0, note))
            continue
        rows.append(compare_stage(name, stage, stages[stage], meta, arrays.get(stage), tolerance))
    if case['mode'] == 'train':
        rows += check_gradients(model, case, arrays, name)
    return rows


def check_gradients(model, case: dict, arrays: dict, name: str) -> list[Row]:
    """Norms and samples of the gradients, and which parameters have none."""
    params = dict(model.sam2.named_parameters())
    rows = []
    for key, norm, sample in zip(
        case['grads']['names'], arrays['grad.norms'], arrays['grad.samples']
    ):
        grad = params[key].grad
        if grad is None:
            rows.append(Row(name, f'grad {key}', float('nan'), 0, 0, 0, 'no gradient'))
            continue
        bound = 1e-3 * float(norm) + 1e-6
        ours = grad.norm().item()
        rows.append(Row(name, f'grad.norm {key}', abs(ours - float(norm)), bound, 0, 0))
        flat = grad.flatten()[:: max(1, grad.numel() // 8)][:8].numpy()
        error = float(np.abs(flat - sample[: flat.size]).max())
        rows.append(Row(name, f'grad.sample {key}', error, bound, 0, 0))
    with_grad = {key for key, p in params.items() if p.grad is not None}
    extra = sorted(with_grad - set(case['grads']['names']))
    note = f'gradient on {extra[:5]}' if extra else ''
    rows.append(Row(name, 'grad.none', float(len(extra)), 0, 0, 0, note))
    return rows


def check_metric(ref: Reference) -> list[Row]:
    """Predictions, counts, IoUs of the metric episodes."""
    data = dict(np.load(ref.root / 'metric.npz'))
    episodes = sorted(key.split('.')[0] for key in data if key.endswith('.logits'))
    num = int(len(data['expected.class_iou']))
    names = tuple(f'class{i}' for i in range(num))
    metric = METRICS.build(dict(type='FewShotIoUMetric'))
    split = FoldSplit('reference', 0, names, tuple(range(1, num + 1)), ())
    metric.dataset_meta = dict(split=split.to_dict(), role='novel')
    wrong, counts = 0, []
    for i, key in enumerate(episodes):
        label = torch.from_numpy(data[f'{key}.label'])
        logits = torch.from_numpy(data[f'{key}.logits'])[None]
        pred = logits_to_mask(logits, tuple(label.shape))[0]
        wrong += int((pred[0].numpy() != data[f'{key}.pred']).sum())
        inter, union = count_episode(pred[0].numpy(), label.numpy())
        counts.append((inter, union, [int((label == value).sum()) for value in (0, 1)]))
        sample = dict(
            pred_sem_seg=dict(data=pred),
            gt_sem_seg=dict(data=label[None]),
            class_id=int(data['subcls'][i]) + 1,
            episode=i,
        )
        metric.process({}, [sample])
    rows = [Row('metric', 'predictions that differ', wrong, 0, 0, 0)]
    counted = np.array(counts)  # (episodes, 3, 2)
    for j, kind in enumerate(('intersection', 'union', 'target')):
        error = np.abs(counted[:, j] - data[kind]).max()
        rows.append(Row('metric', f'{kind} of each episode', float(error), 0, 0, 0))
    pooled = counted[:, 0].sum(0) / counted[:, 1].sum(0)
    for key, value in (('fg_bg_iou', pooled), ('piou', pooled[1])):
        error = np.abs(value - data[f'expected.{key}']).max()
        rows.append(Row('metric', key, float(error), 1e-6, 0, 0))
    result = metric.evaluate(len(episodes))
    expected = {f'IoU/{n}': v for n, v in zip(names, data['expected.class_iou'])}
    expected['mIoU'] = data['expected.miou']
    expected['FB-IoU'] = data['expected.fbiou']
    for key, value in expected.items():
        error = abs(result[key] / 100 - float(value)) if key in result else float('nan')
        rows.append(Row('metric', key, error, 1e-6, 0, 0, '' if key in result else 'absent'))
    return rows


def check_constants(ref: Reference) -> list[Row]:
    """Position tables and other constants."""
    model = ref.build(next(iter(ref.index['cases'].values()))).eval()
    sam2, grid = model.sam2, ref.image_size // 16
    with torch.no_grad():
        out = sam2.image_encoder(torch.zeros(1, 3, ref.image_size, ref.image_size))
        empty = (torch.zeros(1, 1, 2), -torch.ones(1, 1, dtype=torch.int32))
        memory = torch.zeros(1, sam2.mem_dim, grid, grid)
        cis = sam2.memory_attention.layers[0].cross_attn_image.freqs_cis.cpu()
        side = model.prior_encoder.image_size // model.prior_encoder.vit.patch_size
        trunk = sam2.image_encoder.trunk
        ours = {f'sam2.pos{i}': pos[0] for i, pos in enumerate(out['vision_pos_enc'])}
        ours.update(
            {
                'mem.pos': sam2.memory_encoder.position_encoding(memory)[0],
                'sam.dense_pe': sam2.sam_prompt_encoder.get_dense_pe()[0],
                'rope.freqs_cos': cis.real,
                'rope.freqs_sin': cis.imag,
                f'dino.pos_embed_{side}x{side}': model.prior_encoder.vit.resized_pos_embed(
                    side, side
                )[0],
                f'hiera.pos_embed_{ref.image_size // 4}': trunk._get_pos_embed(
                    (ref.image_size // 4, ref.image_size // 4)
                )[0],
                'sam.no_point_sparse': sam2.sam_prompt_encoder(
                    points=empty, boxes=None, masks=None
                )[0],
            }
        )
    rows = []
    for key, value in np.load(ref.root / 'constants.npz').items():
        name, _, index = key.partition('[')
        if name not in ours:
            rows.append(Row('constants', key, float('nan'), 0, 0, 0, 'not compared'))
            continue
        got = ours[name].double().numpy()
        got = got[slice_of('[' + index)] if index else got
        if got.shape != value.shape:
            got = got[::4, ::4] if name.startswith('hiera') else got
        if got.shape != value.shape:
            note = f'shape {got.shape} instead of {value.shape}'
            rows.append(Row('constants', key, float('nan'), 0, 0, 0, note))
            continue
        rows.append(Row('constants', key, float(np.abs(got - value).max()), 2e-5, 0, 0))
    return rows


def unit_rows(ref: Reference) -> list[Row]:
    """Single functions, see ``parity_units.py``."""
    return [Row('units', *row) for row in check_units(np.load(ref.root / 'units.npz'))]


def check(root: str | Path, cases: list[str] | None = None) -> tuple[list[Row], list[str]]:
    """Compare everything in a directory.

    Args:
        root: directory of reference tensors.
        cases: names to restrict to; by default all cases, the metric, constants and units.

    Returns:
        All rows, and the names of the cases left out because they are marked ``released``.
    """
    ref = Reference(root)
    names = list(ref.index['cases'])
    released = [n for n in names if ref.case(n).get('five_shot_variant') == 'released']
    extra = {'metric': check_metric, 'constants': check_constants, 'units': unit_rows}
    extra = {k: f for k, f in extra.items() if (ref.root / f'{k}.npz').is_file()}
    wanted = cases or [n for n in names if n not in released] + list(extra)
    unknown = sorted(set(wanted) - set(names) - set(extra))
    if unknown:
        raise ValueError(f'unknown cases {unknown}; {root} has {names + list(extra)}')
    rows = []
    for name in wanted:
        rows += extra[name](ref) if name in extra else check_case(ref, name)
    return rows, [n for n in released if n not in wanted]


def report(rows: list[Row], left_out: list[str], every: bool) -> bool:
    """Print rows and summary; returns whether all is well."""
    print(f'{"case":24} {"stage":44} {"max error":>10} {"bound":>10} {"rel L2":>10} {"bound":>10}')
    for row in rows:
        if every or not row.ok:
            print(
                f'{row.case:24} {row.stage:44} {row.error:10.2e} {row.bound:10.2e} '
                f'{row.rl2:10.2e} {row.rl2_bound:10.2e} {"ok" if row.ok else "FAILED"} {row.note}'
            )
    for case in dict.fromkeys(row.case for row in rows):
        mine = [row for row in rows if row.case == case]
        bad = sum(not row.ok for row in mine)
        print(f'{case:24} {len(mine) - bad} of {len(mine)} stages within tolerance')
    for case in left_out:
        print(f'{case:24} left out: records published code, not the method')
    return bool(rows) and all(row.ok for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('root', metavar='DIR', help='directory with index.json')
    parser.add_argument('--cases', nargs='+', help='only these cases')
    parser.add_argument('--quiet', action='store_true', help='print only rows that fail')
    args = parser.parse_args()
    try:
        rows, left_out = check(args.root, args.cases)
    except (FileNotFoundError, ValueError) as error:
        print(f'check_parity: {error}', file=sys.stderr)
        return 2
    return 0 if report(rows, left_out, not args.quiet) else 1


if __name__ == '__main__':
    MMLogger.get_current_instance().setLevel('ERROR')  # a line for each file that is loaded
    sys.exit(main())
