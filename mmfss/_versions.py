"""Which versions of the stack mmfss works on, and the check made at import.

The same import names come from two stacks: OpenMMLab's own packages (``mmengine``, ``mmcv``
or ``mmcv-lite``, ``mmsegmentation``) and the maintained fork (``onedl-*``). They overwrite each
other's files, so exactly one of them may be installed.
"""

from __future__ import annotations

import importlib.metadata as metadata
from collections.abc import Callable

from packaging.version import Version

Lookup = Callable[[str], str | None]
#: what may provide a package: {distribution name: (lowest allowed, first not allowed or None)}
Providers = dict[str, tuple[str, str | None]]

STACKS: dict[str, tuple[Providers, ...]] = {
    'OpenMMLab': (
        {'mmengine': ('0.10.7', '1')},
        {'mmcv-lite': ('2.1.0', '2.2'), 'mmcv': ('2.1.0', '2.2')},
        {'mmsegmentation': ('1.2.2', '1.3')},
    ),
    'fork (onedl)': (
        {'onedl-mmengine': ('0.10.12', '1')},
        {'onedl-mmcv': ('2.3.6', '2.4')},
        {'onedl-mmsegmentation': ('1.4.2', '1.5')},
    ),
}
COMMON: tuple[Providers, ...] = (
    {'torch': ('2.5.1', None)},
    {'sam2': ('1.1', '1.2')},
)
#: without what it asks for, which would bring torchvision, and another torch to match it
INSTALL_SAM2 = (
    'SAM2_BUILD_CUDA=0 pip install --no-deps --no-build-isolation "sam2>=1.1,<1.2" (needs torch, '
    'setuptools and wheel)'
)


def installed_version(name: str) -> str | None:
    """Version of an installed distribution, ``None`` where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def installed_stack(lookup: Lookup = installed_version) -> str:
    """Name of the one installed stack, a key of :data:`STACKS`.

    Raises:
        ImportError: packages of both stacks, or of neither, are installed.
    """
    found = {
        stack: [name for slot in slots for name in slot if lookup(name) is not None]
        for stack, slots in STACKS.items()
    }
    present = [stack for stack, names in found.items() if names]
    if len(present) > 1:
        raise ImportError(
            'mmfss works on the OpenMMLab packages or on the onedl fork, never on both at once: '
            'they overwrite each other. Installed: '
            f'{", ".join(name for names in found.values() for name in names)}. '
            'Remedy: make a fresh virtual environment with one of them (make setup, or '
            'make setup-fork).'
        )
    if not present:
        raise ImportError(
            'mmfss needs mmengine, mmcv-lite (or mmcv) and mmsegmentation; none of them is '
            'installed. Remedy: pip install "mmengine>=0.10.7,<1" "mmcv-lite>=2.1,<2.2" '
            '"mmsegmentation>=1.2.2,<1.3"'
        )
    return present[0]


def check_versions(lookup: Lookup = installed_version) -> str:
    """Check all versions; returns the name of the installed stack.

    Args:
        lookup: distribution name -> version or ``None``; given by tests.

    Raises:
        ImportError: something is missing or outside the allowed versions; the message lists
            every such package with what is allowed, what was found and the remedy.
    """
    stack = installed_stack(lookup)
    problems = [
        problem for slot in STACKS[stack] + COMMON for problem in _slot_problems(slot, lookup)
    ]
    if problems:
        wanted = '; '.join(problem for problem, _ in problems)
        others = [spec for _, spec in problems if not spec.startswith('sam2')]
        commands = ['pip install ' + ' '.join(f'"{spec}"' for spec in others)] if others else []
        if any(spec.startswith('torch') for spec in others):
            commands[0] += ' (of torch the build that fits this machine, see pytorch.org)'
        if len(others) < len(problems):
            commands.append(INSTALL_SAM2)
        remedy = ', then '.join(commands)
        raise ImportError(f'mmfss cannot run here: {wanted}. Remedy: {remedy}')
    return stack


def _slot_problems(slot: Providers, lookup: Lookup) -> list[tuple[str, str]]:
    """[(what is wrong, requirement that mends it)] for one package of the stack."""
    present = {name: lookup(name) for name in slot}
    if not any(present.values()):
        name = next(iter(slot))
        spec = _specifier(name, *slot[name])
        return [(f'{" or ".join(slot)} allowed {spec}, got none', spec)]
    problems = []
    for name, version in present.items():
        if version is not None and not _in_bounds(version, *slot[name]):
            spec = _specifier(name, *slot[name])
            problems.append((f'{name} allowed {spec}, got {version}', spec))
    return problems


def _specifier(name: str, low: str, high: str | None) -> str:
    return f'{name}>={low}' + (f',<{high}' if high else '')


def _in_bounds(version: str, low: str, high: str | None) -> bool:
    """Bounds on the release number: local labels (2.13.0+cpu) and .dev builds count as it."""
    release = Version(Version(version).base_version)
    return release >= Version(low) and (high is None or release < Version(high))
