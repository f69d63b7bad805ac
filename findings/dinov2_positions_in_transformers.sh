#!/usr/bin/env bash
# DINOv2 in transformers gives other features than DINOv2's own code at every side but 518 px.
#
# Library    transformers 5.24.0 (torch 2.13.0), Dinov2Embeddings.interpolate_pos_encoding.
# One would guess that the same weights give the same features in both. DINOv2's own code resizes its
#            37 x 37 table of positions with scale_factor = (n + 0.1) / 37 for n patches a side (its
#            argument interpolate_offset, 0.1 in the models without registers).
# Behaviour  transformers resizes with size = n, whose sampling step is 37 / n: at 518 px the tables are
#            equal, at 560 px (n = 40) every patch gets another position. There is no option for the
#            other way in Dinov2Config.
# Seen       with a random table of deviation 1 and n = 40: equal to size=(40, 40) to the last bit, and
#            up to 0.57 from the table of the other way (relative L2 0.12). The table of the released
#            weights is smoother, so features differ by less.
#
# Ends with status 1 when this is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 transformers==5.24.0 numpy
"$work/venv/bin/python" - <<'PYTHON'
import torch
import torch.nn.functional as F
from transformers import Dinov2Config, Dinov2Model

torch.manual_seed(0)
config = Dinov2Config(
    hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=518, patch_size=14
)
embeddings = Dinov2Model(config).eval().embeddings
with torch.no_grad():
    embeddings.position_embeddings.normal_()
    table = embeddings.position_embeddings[:, 1:].reshape(1, 37, 37, 32).permute(0, 3, 1, 2)

    def theirs(n):
        found = embeddings.interpolate_pos_encoding(torch.zeros(1, 1 + n * n, 32), 14 * n, 14 * n)
        return found[:, 1:].reshape(1, n, n, 32).permute(0, 3, 1, 2)

    def own(n):
        return F.interpolate(table, scale_factor=((n + 0.1) / 37,) * 2, mode='bicubic')

    plain = F.interpolate(table, size=(40, 40), mode='bicubic')
    away = (theirs(40) - own(40)).abs().max().item()
    relative = ((theirs(40) - own(40)).norm() / own(40).norm()).item()
print(f'518 px: the table itself: {torch.equal(theirs(37), table)}')
print(f'560 px: resized by size: {torch.equal(theirs(40), plain)}')
print(f'560 px: from the way of scale_factor: {away:.2f}, relative {relative:.2f}')
same = torch.equal(theirs(37), table) and torch.equal(theirs(40), plain) and away > 0.3
raise SystemExit(0 if same else 'this is no longer so')
PYTHON
