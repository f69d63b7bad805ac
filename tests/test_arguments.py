"""Checks of arguments: what passes, and what the message says."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mmfss.arguments import integer, one_of, optional


def test_integers_pass_as_int():
    for value in (1, 7, np.int64(3), np.uint8(9)):
        assert integer('shots', value, 1) == value and type(integer('shots', value, 1)) is int
    assert (integer('seed', 0, 0, 5), integer('seed', 5, 0, 5)) == (0, 5)
    assert optional('shots', None) is None and optional('shots', 2) == 2


@pytest.mark.parametrize('value', [0, -1, 1.0, '1', True, None, np.float32(2)])
def test_others_are_named(value):
    said = f'shots must be an integer >= 1, got {value!r}'
    with pytest.raises(ValueError, match=f'^{re.escape(said)}$'):
        integer('shots', value, 1)
    if value is not None:
        with pytest.raises(ValueError, match=f'^{re.escape(said)}$'):
            optional('shots', value)


@pytest.mark.parametrize('value', [-1, 6, 2.0, False])
def test_a_range(value):
    with pytest.raises(ValueError, match=f'^seed must be an integer from 0 to 5, got {value}$'):
        integer('seed', value, 0, 5)


def test_one_of():
    one_of('split', 'novel', ('base', 'novel'))
    with pytest.raises(ValueError, match=r"^split must be one of \['base', 'novel'\], got 'x'$"):
        one_of('split', 'x', ('base', 'novel'))
