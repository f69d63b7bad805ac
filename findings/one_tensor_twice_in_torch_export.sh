#!/usr/bin/env bash
# torch.export makes one input of two where a module was traced with the same tensor for both, and the
# program then computes other numbers without a word.
#
# Library    torch 2.13.0 (torch.export), and openvino 2026.4.1 (convert_model) on what it gives.
# One would guess that arguments give a program shapes and types, not which of them are equal: a model of
#            a query and a support traced with one picture for both, torch.export.export(m, (x, x)), would
#            be that of (x, x.clone()).
# Behaviour  in the program both inputs are read from the second argument. It takes two tensors and says
#            nothing of it; OpenVINO's model of it has a single input.
# Seen       x - 2 y of 1 and 5: -9 by the module and by the program traced with a copy, -5 = 5 - 2 * 5 by
#            the program traced with (x, x), strict or not. convert_model: 2 inputs and 1.
#            Two parts of one tensor (x[:1], x[1:]) are kept apart.
#
# Ends with status 1 when this is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 numpy==2.3.5 openvino==2026.4.1 packaging==26.0
CI=true "$work/venv/bin/python" - <<'PYTHON'
import warnings

import openvino
import torch

warnings.simplefilter('ignore')


class Difference(torch.nn.Module):
    def forward(self, query, support):
        return query - 2 * support


one, five, x = torch.ones(1), torch.full((1,), 5.0), torch.zeros(1)
found = []
for strict in (False, True):
    for given in ((x, x), (x, x.clone())):
        program = torch.export.export(Difference(), given, strict=strict)
        inputs = len(openvino.convert_model(program).inputs)
        found.append((program.module()(one, five).item(), inputs))
        print(f'strict={strict}, one tensor twice: {given[0] is given[1]}: {found[-1]}')
same = found == [(-5.0, 1), (-9.0, 2)] * 2
raise SystemExit(0 if same else 'this is no longer so')
PYTHON
