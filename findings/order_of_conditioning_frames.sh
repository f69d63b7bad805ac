#!/usr/bin/env bash
# SAM 2.1 weighs conditioning frames by where they stand in the video; SAM 2.0 does not.
#
# Library    sam2 1.1.0 (torch 2.13.0), SAM2VideoPredictor with configs of both versions.
# One would guess that frames with a mask given by the user are equals, as both versions give their
#            spatial memories one and the same entry of maskmem_tpos_enc, and sort nothing: so that two
#            such frames may stand in either order before the frame that is asked for.
# Behaviour  2.1 adds a sine of the distance in frames, divided by the number of frames less one, to the
#            position of the object pointers, also of conditioning frames. Who uses them as references
#            from other photos gets a mask that depends on their order, and on how many there are.
# Seen       random weights, two noise frames with a square mask each, swapped: largest difference of
#            the logits on the third frame relative to their largest value, printed below; 2.0 stays at
#            rounding.
#
# Ends with status 1 when this is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
# sam2 itself without its torchvision, which this does not need
"$work/venv/bin/pip" install -q torch==2.13.0 numpy pillow hydra-core==1.3.2 iopath==0.1.10 tqdm \
    "setuptools>=64" wheel
SAM2_BUILD_CUDA=0 "$work/venv/bin/pip" install -q --no-deps --no-build-isolation sam2==1.1.0
"$work/venv/bin/python" - "$work" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sam2.build_sam import build_sam2_video_predictor

rng = np.random.default_rng(0)
photos = [rng.integers(0, 256, (256, 256, 3), dtype=np.uint8) for _ in range(3)]
masks = [np.zeros((256, 256), bool) for _ in range(2)]
masks[0][40:120, 40:120] = True
masks[1][120:220, 100:200] = True


def logits(predictor, order):
    folder = Path(sys.argv[1], f'frames{order[0]}')
    folder.mkdir(exist_ok=True)
    for place, which in enumerate((*order, 2)):
        Image.fromarray(photos[which]).save(folder / f'{place}.jpg', quality=95)
    state = predictor.init_state(str(folder), async_loading_frames=False)
    for place, which in enumerate(order):
        predictor.add_new_mask(state, place, 1, masks[which])
    return [found for _, _, found in predictor.propagate_in_video(state)][-1]


moved = {}
for config in ('sam2/sam2_hiera_t', 'sam2.1/sam2.1_hiera_t'):
    torch.manual_seed(0)
    overrides = ['++model.image_size=256']
    for layer in ('self_attention', 'cross_attention'):
        overrides.append(f'++model.memory_attention.layer.{layer}.feat_sizes=[16,16]')
    predictor = build_sam2_video_predictor(
        f'configs/{config}.yaml', None, device='cpu', hydra_overrides_extra=overrides
    )
    with torch.inference_mode():
        # random weights would say that there is no object
        predictor.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(20.0)
        one, other = logits(predictor, (0, 1)), logits(predictor, (1, 0))
    moved[config] = ((one - other).abs().max() / one.abs().max()).item()
    print(f'{config}: swapped references move the logits by {moved[config]:.1e} of the largest')
same = moved['sam2/sam2_hiera_t'] < 1e-5 < 1e-4 < moved['sam2.1/sam2.1_hiera_t']
raise SystemExit(0 if same else 'this is no longer so')
PYTHON
