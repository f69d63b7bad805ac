"""Lists of names in messages."""

from __future__ import annotations

import pytest

from mmfss.words import listed


@pytest.mark.parametrize(
    ('names', 'options', 'said'),
    [
        ([], {}, ''),
        ('abcde', {}, 'a, b, c, d, e'),
        ('abcdef', {}, 'a, b, c, d, e and 1 more'),
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
