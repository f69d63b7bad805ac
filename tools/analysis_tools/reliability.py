"""Do to mmfss what docs/reliability.md promises to survive, and print tried / bad:
``python tools/analysis_tools/reliability.py``; ``--help`` lists the options. Half an hour on two
cores."""

import importlib.util
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[1]
sys.path[:] = [path for path in sys.path if Path(path or '.').resolve() != TOOLS / 'analysis_tools']
sys.path.append(str(TOOLS))
if importlib.util.find_spec('mmfss') is None:  # a checkout that is not installed
    sys.path.insert(0, str(TOOLS.parent))

from reliability.cli import main  # noqa: E402

if __name__ == '__main__':
    main()
