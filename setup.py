"""Package metadata; the requirements live in requirements/*.txt.

torch and sam2 are not among those of the package: whoever installs mmfss has a torch that fits the
machine, and what sam2 asks for would replace it. ``import mmfss`` says how to install what is
missing.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent


class BuildWithConfigs(build_py):
    """Puts configs and tools into the wheel as mmfss/.mim, where OpenMMLab's packages have them;
    an editable install uses those of the checkout."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for name in ('configs', 'tools'):
            target = Path(self.build_lib) / 'mmfss' / '.mim' / name
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            shutil.copytree(HERE / name, target, ignore=shutil.ignore_patterns('__pycache__'))


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
    package_data={'mmfss.webui': ['static/*']},
    cmdclass={'build_py': BuildWithConfigs},
    entry_points={
        'console_scripts': [
            'mmfss = mmfss.commands.cli:main',
            'mmfss-label = mmfss.commands.cli:label',
        ]
    },
    install_requires=requirements('runtime'),
    extras_require={
        name: requirements(name)
        for name in ('tests', 'webui', 'serve', 'sam1', 'geo', 'openvino', 'export')
    },
)
