#!/usr/bin/env bash
# What save_pretrained writes has other names than state_dict().
#
# Library    transformers 5.24.0 (torch 2.13.0, safetensors 0.8.0), DINOv3ViTModel and Dinov2Model.
# One would guess that model.safetensors of save_pretrained holds the names of model.state_dict(), so
#            that code which maps names for one maps them for the other.
# Behaviour  the classes were renamed inside, and files keep the names of before: on the way to a file
#            DINOv3 loses a prefix (model.layer.0... -> layer.0...), DINOv2's attention changes
#            (encoder.layer.0.attention.q_proj -> ...attention.attention.query). Whoever turns a copy of
#            the hub into another format has to know the file's names, not those of the model in memory.
# Seen       models of one layer: 17 of 24 names of DINOv3 differ, 8 of 25 of DINOv2.
#
# Ends with status 1 when this is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 transformers==5.24.0 safetensors==0.8.0 numpy
"$work/venv/bin/python" - "$work" <<'PYTHON'
import sys

from safetensors import safe_open
from transformers import Dinov2Config, Dinov2Model, DINOv3ViTConfig, DINOv3ViTModel

small = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
expected = {
    'DINOv3ViTModel': ('model.layer.0.norm1.weight', 'layer.0.norm1.weight'),
    'Dinov2Model': (
        'encoder.layer.0.attention.q_proj.weight',
        'encoder.layer.0.attention.attention.query.weight',
    ),
}
same = True
for model in (
    DINOv3ViTModel(DINOv3ViTConfig(**small, intermediate_size=64)),
    Dinov2Model(Dinov2Config(**small)),
):
    name = type(model).__name__
    model.save_pretrained(f'{sys.argv[1]}/{name}')
    with safe_open(f'{sys.argv[1]}/{name}/model.safetensors', 'pt') as file:
        written = set(file.keys())
    held = set(model.state_dict())
    print(f'{name}: {len(held - written)} of {len(held)} names are others in the file')
    in_memory, in_file = expected[name]
    print(f'    {in_memory} -> {in_file}')
    same &= in_memory in held - written and in_file in written - held
raise SystemExit(0 if same else 'this is no longer so')
PYTHON
