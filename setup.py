"""Package metadata; the requirements live in requirements/*.txt."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def requirements(name: str) -> list[str]:
    """Lines of requirements/NAME.txt, with the files it includes."""
    found = []
    for line in (HERE / 'requirements' / f'{name}.txt').read_text().splitlines():
        line = line.split('#')[0].strip()
        if line.startswith('-r '):
            found += requirements(line[3:].strip().removesuffix('.txt'))
        elif line:
            found.append(line)
    return found


def version() -> str:
    """``__version__`` of the package, read without importing it."""
    text = (HERE / 'mmfss' / '__init__.py').read_text()
    match = re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE)
    if match is None:
        raise ValueError("mmfss/__init__.py has no line __version__ = '...'")
    return match[1]


def readme() -> str:
    path = HERE / 'README.md'
    return path.read_text(encoding='utf-8') if path.is_file() else ''


setup(
    name='mmfss',
    version=version(),
    description='Few-shot segmentation with SAM 2 (FSSAM) as a plugin of MMSegmentation',
    long_description=readme(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['mmfss', 'mmfss.*']),
    entry_points={'console_scripts': ['mmfss-label = mmfss.commands.label:main']},
    install_requires=requirements('runtime') + requirements('sam2'),
    extras_require={name: requirements(name) for name in ('tests', 'tools', 'demo', 'webui')},
)
