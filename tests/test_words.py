"""Names in messages."""

from __future__ import annotations

import pytest

from mmfss.words import listed, repeated


@pytest.mark.parametrize(
    ('names', 'options', 'said'),
    [
        ([], {}, ''),
        (range(3), {}, '0, 1, 2'),
        ('abcdef', dict(limit=5), 'a, b, c, d, e and 1 more'),
        ('x' * 23, {}, ', '.join('x' * 20) + ' and 3 more'),
        (range(9), dict(limit=2), '0, 1 and 7 more'),
        ({'x': 1, 'y': 2}, dict(limit=1), 'x and 1 more'),
        (
            'abc',
            dict(limit=2, separator='\n  ', more='\n  and {rest} more'),
            'a\n  b\n  and 1 more',
        ),
        ('abc', dict(limit=1, more=', ... ({total} keys)'), 'a, ... (3 keys)'),
        ('abc', dict(limit=3, more=', ... ({total} keys)'), 'a, b, c'),
        (['{rest}', 'b'], dict(limit=1), '{rest} and 1 more'),
    ],
)
def test_the_first_and_how_many_more(names, options, said):
    assert listed(names, **options) == said


def test_names_that_occur_more_than_once():
    assert repeated('abcbaad') == ['a', 'b']
    assert repeated(iter(range(3))) == repeated([]) == []
