#!/usr/bin/env bash
# OpenVINO's model of an exported program lacks the first argument where nothing reads it, and has every
# other one that nothing reads; and an input's any_name need not be that of the argument.
#
# Library    openvino 2026.4.1 (convert_model) on torch.export of torch 2.13.0.
# One would guess that the inputs of the model are the arguments of the program, all of them or those that
#            are read, so that arrays in the order of the arguments, or of those that count, fit; and that
#            port.any_name is the argument's name.
# Behaviour  of f(a, b, c, d) the model has a, b, c, d where a is read, and b, c, d where it is not,
#            whatever else is read or not. An input has the names of what is the same tensor further on,
#            too, and any_name is one of them; it looks dynamic, though the program is of fixed sizes.
# Seen       reads d alone: inputs b, c, d, of which two lead nowhere; reads a alone: a, b, c, d. Four arrays
#            by place for the former: RuntimeError. x.repeat(1, 1, 1, 1): any_name '2' or 'repeat:0' of x.
#
# Ends with status 1 when this is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 numpy==2.3.5 openvino==2026.4.1 packaging==26.0
CI=true "$work/venv/bin/python" - <<'PYTHON'
import itertools
import warnings

import numpy as np
import openvino
import torch

warnings.simplefilter('ignore')


class Read(torch.nn.Module):
    def __init__(self, places):
        super().__init__()
        self.places = places

    def forward(self, a, b, c, d):
        return sum((i + 2) * (a, b, c, d)[i] for i in self.places)


class Twice(torch.nn.Module):
    def forward(self, x):
        return 2 * x.repeat(1, 1, 1, 1)


def model(module, *given):
    return openvino.convert_model(torch.export.export(module.eval(), given, strict=False))


same = True
for count in (1, 2, 3):
    for places in itertools.combinations(range(4), count):
        made = model(Read(places), *(torch.rand(2, 3) for _ in range(4)))
        names = ''.join(port.any_name for port in made.inputs)
        print('reads', ''.join('abcd'[i] for i in places), 'has', names)
        same = same and names == ('abcd' if 0 in places else 'bcd')
compiled = openvino.Core().compile_model(model(Read((3,)), *(torch.rand(2, 3) for _ in range(4))), 'CPU')
try:
    compiled([np.ones((2, 3), np.float32)] * 4)
    same = False
except RuntimeError as error:
    print('four arrays by place:', type(error).__name__)
(port,) = model(Twice(), torch.rand(1, 3, 4, 4)).inputs
print('names of x:', sorted(port.get_names()), 'any_name:', port.any_name, 'shape:', port.get_partial_shape())
same = same and len(port.get_names()) > 1 and 'x' in port.get_names() and port.any_name != 'x'
same = same and port.get_partial_shape().is_dynamic
raise SystemExit(0 if same else 'this is no longer so')
PYTHON
