"""The key of an encoder changes with all that changes its output, and with nothing else."""

from __future__ import annotations

import copy
import functools
import importlib
import json
import re
import sys
import time
from dataclasses import dataclass
from enum import Enum

import numpy as np
import pytest
import torch
from torch import nn

from mmfss.encoders import DINOv2
from mmfss.encoders.base import ImageNetNormalise
from mmfss.features import fingerprint as module
from mmfss.features import modules
from mmfss.features.fingerprint import fingerprint

SOURCE = '''
import torch
from torch import nn
from encoder_helpers import scale
class Encoder(nn.Module):
    def forward(self, x):
        return scale(x)
'''


@dataclass
class Config:
    depth: int


class Colour(Enum):
    RED = 1
    BLUE = 2


class Net(nn.Module):
    """Of all kinds of state."""

    def __init__(self, eps: float = 1e-6, act=nn.GELU, **attributes) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4, eps=eps)
        self.scalar = nn.Parameter(torch.tensor(2.0))
        self.register_buffer('table', torch.arange(12.0).reshape(3, 4), persistent=False)
        self.register_buffer('nothing', None)
        self.bf16 = nn.Linear(2, 2).to(torch.bfloat16)
        self.act, self._scale, self.plain = act(), 3, torch.ones(2)
        self.array, self.resize = np.zeros(3), functools.partial(torch.amax, dim=0)
        self.config, self.colour = Config(3), Colour.RED
        self.seen: dict = {}
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x):
        self.seen[tuple(x.shape)] = x  # as sam2's position encoding does
        return self.norm(self.conv(x))


def key(net: nn.Module, **settings) -> str:
    return fingerprint(dict(net=net), settings).key


def test_equal_modules_have_equal_keys():
    keys = {key(Net().eval()) for _ in range(3)}
    assert len(keys) == 1 and re.fullmatch('[0-9a-f]{64}', keys.pop())
    net = Net().eval()
    before = key(net)
    net(torch.ones(1, 3, 5, 5))
    assert key(net) == before == key(copy.deepcopy(net))
    net.load_state_dict(Net().state_dict())
    assert key(net.requires_grad_(False)) == before


def change_weight(net):
    net.conv.weight.data[1, 2, 0, 1] += 1e-6


def change_last_bit(net):
    net.bf16.weight.data.view(torch.int16)[0, 0] ^= 1


CHANGES = {
    'weight': change_weight,
    'last bit of bf16': change_last_bit,
    'scalar': lambda net: net.scalar.data.add_(1),
    'buffer': lambda net: net.norm.running_var.add_(1),
    'buffer that is not saved': lambda net: net.table.neg_(),
    'dtype': lambda net: net.conv.double(),
    'order in memory': lambda net: net.conv.to(memory_format=torch.channels_last),
    'shape': lambda net: setattr(net, 'table', net.table.reshape(4, 3)),
    'a module more': lambda net: net.add_module('more', nn.Identity()),
    'class': lambda net: setattr(net, 'act', nn.ReLU()),
    'hyper-parameter of torch': lambda net: setattr(net.norm, 'eps', 1e-5),
    'stride': lambda net: setattr(net.conv, 'stride', (2, 2)),
    'private attribute': lambda net: setattr(net, '_scale', 4),
    'plain tensor': lambda net: setattr(net, 'plain', torch.zeros(2)),
    'function': lambda net: setattr(net, 'pool', torch.amax),
    'options': lambda net: setattr(net, 'options', dict(a=[1, (2.5, None)])),
    'array': lambda net: setattr(net, 'array', np.ones(3)),
    'partial': lambda net: setattr(net, 'resize', functools.partial(torch.amax, dim=1)),
    'dataclass': lambda net: setattr(net, 'config', Config(4)),
    'enum': lambda net: setattr(net, 'colour', Colour.BLUE),
    'mode': lambda net: net.train(),
    'swapped weights': lambda net: net.bf16.weight.data.copy_(net.bf16.weight.data.flip(0)),
}


@pytest.mark.parametrize('kind', CHANGES)
def test_a_change_of_the_module_changes_the_key(kind):
    net = Net().eval()
    before = key(net)
    CHANGES[kind](net)
    assert key(net) != before


def test_names_and_settings_change_the_key():
    a, b = Net().eval(), nn.Linear(2, 2)
    maps = (dict(a=a), dict(b=a), dict(a=a, b=b), dict(a=b, b=a))
    settings = ({}, dict(autocast=None), dict(autocast='bfloat16'), dict(autocast=None, chunk=4))
    keys = {fingerprint(m, s).key for m in maps for s in settings}
    assert len(keys) == 16
    assert fingerprint(dict(b=b, a=a), {}).key == fingerprint(dict(a=a, b=b), {}).key


def test_where_weights_came_from_does_not_matter():
    arch = dict(embed_dim=8, depth=1, num_heads=1)
    first, second = (DINOv2(arch, 28, checkpoint=c) for c in (None, 'somewhere.pth'))
    second.load_state_dict(first.state_dict())
    second._is_init = True
    assert key(first) == key(second)
    assert key(DINOv2(arch, 42, checkpoint=None)) != key(first)


@pytest.mark.parametrize(
    'name, value',
    [
        ('torch.backends.cudnn.deterministic', True),
        ('torch.backends.cudnn.benchmark', True),
        ('torch.backends.mkldnn.enabled', False),
    ],
)
def test_arithmetic_of_torch_changes_the_key(monkeypatch, name, value):
    before = fingerprint(dict(net=nn.Linear(2, 2)), {}).about
    monkeypatch.setattr(name, value)
    after = fingerprint(dict(net=nn.Linear(2, 2)), {}).about
    short = name.removeprefix('torch.')
    assert (before['arithmetic'][short], after['arithmetic'][short]) == (not value, value)


def test_matmul_precision_and_mixed_use_of_old_and_new_switches():
    keys = set()
    try:
        for precision in ('highest', 'high', 'medium'):
            torch.set_float32_matmul_precision(precision)
            keys.add(key(ImageNetNormalise()))
        if hasattr(torch.backends.cuda.matmul, 'fp32_precision'):
            torch.backends.cuda.matmul.fp32_precision = 'tf32'
            keys.add(key(ImageNetNormalise()))  # torch refuses to tell the old ones now
            torch.backends.cuda.matmul.fp32_precision = 'none'
    finally:
        torch.set_float32_matmul_precision('highest')
    assert len(keys) >= 3


@pytest.mark.parametrize('changed', ['encoder_source', 'encoder_helpers', 'neither'])
def test_a_change_of_the_code_changes_the_key(tmp_path, monkeypatch, changed):
    """Of the class, and of a function in another file of the package that it uses."""
    package = tmp_path / 'encoder_package'
    package.mkdir()
    (package / '__init__.py').write_text('')
    (package / 'encoder_source.py').write_text(SOURCE.replace('encoder_h', 'encoder_package.h'))
    (package / 'helpers.py').write_text('def scale(x): return 2 * x\n')
    (package / 'others.py').write_text('')
    monkeypatch.syspath_prepend(tmp_path)

    def key_now() -> str:
        """Of what is imported now, as a new process does."""
        for name in [name for name in sys.modules if name.startswith('encoder_package')]:
            del sys.modules[name]
        return key(importlib.import_module('encoder_package.encoder_source').Encoder())

    before = key_now()
    file = {'encoder_source': 'encoder_source', 'encoder_helpers': 'helpers', 'neither': 'others'}
    with (package / f'{file[changed]}.py').open('a') as source:
        source.write('# changed\n')
    assert (key_now() == before) is (changed == 'neither')


def test_code_that_counts():
    names = set(
        modules.code_of(dict(net=DINOv2(dict(embed_dim=8, depth=1, num_heads=1), 28, None)))
    )
    wanted = {'encoders.dinov2', 'encoders.kept_tables', 'encoders.base', 'checkpoints.weights'}
    assert {f'mmfss.{name}' for name in wanted} <= names
    assert {'package mmfss', 'package mmengine'} <= names
    assert not any(name.split('.')[0] in ('torch', 'typing', 'mmfss.features') for name in names)


def test_packages_are_not_followed_wherever_they_lie(tmp_path, monkeypatch):
    """A person's own folder of them, the system's, one that an environment borrows: a version."""
    for place in ('site-packages', 'dist-packages'):
        folder = tmp_path / place
        folder.mkdir()
        (folder / f'{place[:4]}_lib.py').write_text(f'import {place[:4]}_inner\n')
        (folder / f'{place[:4]}_inner.py').write_text('')
        monkeypatch.syspath_prepend(folder)
    (tmp_path / 'my_part.py').write_text('import site_lib, dist_lib, my_helper\n')
    (tmp_path / 'my_helper.py').write_text('')
    monkeypatch.syspath_prepend(tmp_path)
    assert modules.code_behind(['my_part']).keys() == {
        'package my_part', 'my_part', 'package my_helper', 'my_helper'
    }  # fmt: skip


def test_a_class_without_a_file():
    scope: dict = {'__name__': 'typed_in'}
    exec('from torch import nn\nclass Typed(nn.Linear): pass', scope)
    about = modules.code_of(dict(net=scope['Typed'](1, 1)))
    assert about['package typed_in'] == 'None' and 'typed_in' not in about


def test_description_is_readable_json():
    found = fingerprint(dict(b=Net(), a=nn.Linear(2, 3)), dict(autocast='bfloat16'))
    about = json.loads(json.dumps(found.about))
    assert about == found.about
    assert about['what'] == ['a', 'b'] and about['settings'] == dict(autocast='bfloat16')
    assert about['torch'] == torch.__version__ and about['dtype'] == [
        'bfloat16',
        'float32',
        'int64',
    ]
    assert about['device'] == f'cpu: {torch.backends.cpu.get_cpu_capability()}'
    assert len(about['weights']) == 64 and about['parameters'] > 100


def test_wrong_arguments():
    with pytest.raises(ValueError, match='at least one module, got none'):
        fingerprint({}, {})
    with pytest.raises(ValueError, match=r'settings must be of JSON types \(None, bool'):
        fingerprint(dict(net=nn.Linear(1, 1)), dict(dtype=torch.float32))
    with pytest.raises(ValueError, match='net.weight is on the meta device and has no values'):
        fingerprint(dict(net=nn.Linear(1, 1, device='meta')), {})


def test_speed_of_hashing():
    net = nn.Linear(4000, 4000)  # 64 MB
    start = time.perf_counter()
    fingerprint(dict(net=net), {})
    assert time.perf_counter() - start < 3.0  # 0.13 s on a quiet machine
    assert module._raw(net.weight).ctypes.data == net.weight.data_ptr()
