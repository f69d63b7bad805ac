"""The configs that come with mmfss, and how one is named."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = _PACKAGE / '.mim' / 'configs'
CONFIGS = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / 'configs'
"""Inside the package where it was installed from a wheel, beside it in a checkout."""
DEMO_CONFIG = 'fss_sam2_shapes_1shot'
"""Of the model that ``make demo`` trains."""
DEFAULT_METHOD, EMBEDDED_METHOD = 'density', 'density_lite'
"""What marks photos where nobody says which method: the first on official weights, the second where
these are not there, on a network that is installed with mmfss. See docs/weights.md."""
PREFIX = 'mmfss::'
"""Of names, as mmengine names configs of a package."""
NAMED = {'METHOD': '_base_/methods', 'BENCHMARK': '_base_/benchmarks'}
"""Variables of the environment that name a file -> its folder in that of the configs."""


def find_config(config: str | os.PathLike) -> Path:
    """The file of a config.

    Args:
        config: Its path, or its name among those that come with mmfss, with or without '.py':
            'swap/sam2_prior_pascal_1shot', 'configs/swap/sam2_prior_pascal_1shot.py' or
            'mmfss::swap/sam2_prior_pascal_1shot.py', of which the last is never a file of the
            working directory.

    Raises:
        FileNotFoundError: There is none; the message says where it was looked for and lists names.
    """
    name = os.fspath(config)
    own = Path(name.removeprefix(PREFIX))
    inside = own.relative_to('configs') if own.parts[:1] == ('configs',) else own
    candidates = [CONFIGS / inside, CONFIGS / f'{inside}.py']
    if not name.startswith(PREFIX):
        candidates.insert(0, own)
    elif inside.is_absolute() or '..' in inside.parts:
        candidates = []  # of mmfss alone
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    names = sorted(file.stem for file in CONFIGS.glob('*.py'))
    looked = [CONFIGS] if name.startswith(PREFIX) else [Path.cwd(), CONFIGS]
    raise FileNotFoundError(
        f'config {name} not found in {" or ".join(map(str, looked))}; give the path of one, or one '
        f'of these names: {", ".join(names) or "(none: that folder is missing)"}'
    )


def method_names() -> list[str]:
    """Names of the methods that come with mmfss, sorted."""
    return sorted(path.stem for path in (CONFIGS / NAMED['METHOD']).glob('*.py'))


def find_method(name: str) -> Path:
    """The file of a method, which is a config of nothing but its model.

    Args:
        name: of a file in ``_base_/methods``; - is taken for _.

    Raises:
        ValueError: there is none of that name; the message lists them.
    """
    known, file = method_names(), name.replace('-', '_')
    if file not in known:
        raise ValueError(
            f'method must be one of {known} (- is taken for _), got {name!r}; a method of your own '
            'is given by its config'
        )
    return CONFIGS / NAMED['METHOD'] / f'{file}.py'


def check_names(config: str | os.PathLike) -> None:
    """Check METHOD and BENCHMARK, where they are set, before a config is read under them: mmengine
    would name a file that nobody asked for.

    Args:
        config: path of the config. The names are those of the nearest folder ``_base_`` in its
            folder and above, or of the configs that come with mmfss.

    Raises:
        ValueError: one has a value that is not allowed.
    """
    for name, folder in NAMED.items():
        value = os.environ.get(name)
        if value is None:
            continue
        places = [*Path(config).resolve().parents, CONFIGS]
        found = next(place / folder for place in places if (place / folder).is_dir())
        allowed = sorted(path.stem for path in found.glob('*.py'))
        if value.replace('-', '_') not in allowed:
            raise ValueError(f'{name} must be one of {allowed} (- is taken for _), got {value!r}')
