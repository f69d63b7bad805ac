"""What a config names must be known once mmfss is imported, by nothing but that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mmfss

ROOT = Path(mmfss.__file__).parents[1]


def test_all_parts_are_registered_by_importing_mmfss():
    """In a process of its own: other tests import modules that users do not."""
    parts = {
        '.'.join(file.relative_to(ROOT).with_suffix('').parts)
        for file in (ROOT / 'mmfss').rglob('*.py')
        if '.register_module(' in file.read_text(encoding='utf-8')
    }
    assert len(parts) > 10
    script = 'import sys, mmfss; print(*(m for m in sys.modules if m.startswith("mmfss.")))'
    done = subprocess.run(
        [sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert sorted(parts - set(done.stdout.split())) == []
