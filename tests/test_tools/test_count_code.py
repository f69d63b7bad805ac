"""The counts of tools/analysis_tools/count_code.py on a package whose numbers are known."""

from __future__ import annotations

import runpy
import shutil
import threading

import pytest
from analysis_tools import count_code

FIRST = '''"""What it is.

Two more lines.
"""

import os  # a comment beside code

__all__ = ['Thing', 'both']


# ------------------------------------------------------------------------- a rule is no comment
def both(x):  # noqa: E501
    """One line."""
    # a comment of its own
    return _once(x) + _twice(x) + _twice(
        x
    )


def _once(x):
    return x


def _twice(x):
    text = """no docstring,
    but code"""
    return _twice(text) if x == 1 else x


class Thing:
    """A class."""

    kind = 1
    """Said of the attribute."""

    def __len__(self):
        return self._size()

    def _size(self):
        return len([os for _ in range(2)])

    def _unused(self):
        def _inner():
            return 1

        return _inner()
'''
SECOND = '''from first import _shared


def _shared():
    return 1


def other():
    return _shared()
'''


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / 'checkout/mmfss'
    (folder / 'methods').mkdir(parents=True)
    (folder / 'methods/first.py').write_text(FIRST)
    (folder / 'second.py').write_text(SECOND)
    (folder / 'empty.py').write_text('')
    return folder


def test_numbers_of_a_small_package(package):
    numbers = count_code.count(package, ['methods', 'encoders'])
    code = 22  # of FIRST, counted by hand: 2 + 4 + 2 + 4 + 2 + 2 + 2 + 4
    assert numbers == {
        'files': 3,
        'lines': FIRST.count('\n') + SECOND.count('\n'),
        'code lines': code + 5,
        'median file length': SECOND.count('\n'),
        'files over 400 lines': 0,
        'private helpers': 5,  # _once, _twice, _size, _unused, _shared; not what is inside another
        'private helpers per 1,000 lines': round(5000 / (FIRST + SECOND).count('\n'), 1),
        'private helpers used once, %': 60.0,  # _once, _size, _shared
        'methods: code lines': code,
        'methods: code lines per comment': code // 2,
        'encoders: code lines': None,
        'encoders: code lines per comment': None,
    }


def test_a_use_in_another_file_counts_where_there_is_none_in_its_own(package):
    (package / 'third.py').write_text('import second\n\nsecond._alone()\n')
    (package / 'second.py').write_text('def _alone():\n    return 1\n')
    assert dict(count_code.read(package / 'second.py').helpers) == {'_alone': 0}
    assert count_code.count(package)['private helpers used once, %'] == 60.0


def test_functions_and_files_that_are_entered(package):
    first = runpy.run_path(str(package / 'methods/first.py'))

    def call():
        thread = threading.Thread(target=lambda: len(first['Thing']()))
        thread.start()
        thread.join()
        first['both'](2)
        first['both'](3)

    assert count_code.entered(package, call) == (1, 5)  # both, _once, _twice, __len__, _size
    assert count_code.entered(package / 'elsewhere', call) == (0, 0)


def test_table(package, tmp_path, capsys):
    after = tmp_path / 'after'
    shutil.copytree(package.parent, after)
    (after / 'mmfss/empty.py').unlink()
    count_code.main([str(package.parent), str(after), '--folders'])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [str(package.parent), str(after)]
    assert lines[1].split() == ['files', '3', '2'] and len({len(line) for line in lines}) == 1


def test_no_package(tmp_path):
    with pytest.raises(FileNotFoundError, match='has no Python files; give the folder of a check'):
        count_code.main([str(tmp_path)])
