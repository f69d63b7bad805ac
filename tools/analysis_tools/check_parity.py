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
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import MMLogger
from mmseg.registry import METRICS
from torch import Tensor

if importlib.util.find_spec('mmfss') is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from parity_reference import Reference
from parity_stages import run_case
from parity_units import check_units

import mmfss  # noqa: F401  (registers the models)
from mmfss.datasets.folds import FoldSplit
from mmfss.evaluation.metrics import count_episode
from mmfss.functional import logits_to_mask


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
