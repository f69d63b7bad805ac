"""How good the masks are that boxes give: IoU of the box itself, of GrabCut, of heads for prompts
and of what ``mmfss label`` takes of them, with the outlines of a COCO file.

    python tools/analysis_tools/box_masks.py data/coco/annotations/instances_val2014.json \\
        data/coco/val2014 --config fss_sam2_shapes_1shot
    python tools/analysis_tools/box_masks.py FILE IMAGES --method density_lite --checkpoint official

Boxes are those around the true masks; crowds and objects below ``--min-area`` pixels are left out.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from mmfss.apis.box_masks import BoxMasks, box_mask, grab_cut
from mmfss.apis.images import as_bgr
from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.marks import Prompt
from mmfss.datasets.preparation.instances import decode, read_instances
from mmfss.evaluation.report_text import table_lines
from mmfss.regions import cropped


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('file', type=Path, help='instances in COCO format')
    parser.add_argument('images', type=Path, help='folder of its photos')
    parser.add_argument('--method', help='whose heads are measured')
    parser.add_argument('--config', help='in the place of the method')
    parser.add_argument('--weights')
    parser.add_argument('--checkpoint', help='as --prompt-weights of mmfss label')
    parser.add_argument('--objects', type=int, default=100, help='at most')
    parser.add_argument('--min-area', type=int, default=1024)
    args = parser.parse_args()
    inferencer = FewShotInferencer(args.config, args.weights, method=args.method)
    masks = BoxMasks(inferencer, args.checkpoint)
    known = read_instances(args.file, 'give another file')
    rows = [
        (known.images[image], row)
        for image in sorted(known.annotations)
        for row in sorted(known.annotations[image], key=lambda row: row['id'])
        if not row.get('iscrowd') and row.get('area', args.min_area) >= args.min_area
    ]
    found: dict[str, list[float]] = {'box': [], 'GrabCut': [], 'heads': [], 'taken': []}
    how = Counter[str]()
    for record, row in rows[: args.objects]:
        shape = record['height'], record['width']
        truth = decode(row, *shape)
        part, left, top = cropped(truth)
        prompt = Prompt(box=(left, top, left + part.shape[1], top + part.shape[0]))
        pixels = as_bgr(args.images / record['file_name'])
        found['box'].append(iou(box_mask(prompt.box, *shape), truth))
        found['GrabCut'].append(iou(grab_cut(pixels, prompt), truth))
        if masks.heads is not None:
            some = masks.heads.candidates(pixels, prompt)
            found['heads'].append(iou(some[0].mask, truth) if some else 0.0)
        taken = masks.propose(pixels, prompt)
        found['taken'].append(iou(taken.mask, truth))
        how[taken.how or 'heads'] += 1
    lines = [['mask', 'mean IoU', 'median', 'worst tenth']]
    for name, values in found.items():
        if values:
            figures = np.mean(values), np.median(values), np.percentile(values, 10)
            lines.append([name, *(f'{figure:.3f}' for figure in figures)])
    print(f'{len(found["box"])} objects; taken: {", ".join(f"{k} {n}" for k, n in how.items())}\n')
    print('\n'.join(table_lines(lines, True)))


if __name__ == '__main__':
    main()
