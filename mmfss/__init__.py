"""mmfss: few-shot segmentation with SAM 2 (FSSAM) as a plugin of MMSegmentation.

Importing the package checks which versions of the stack are installed and gets ready for them
(:mod:`mmfss.compat`), in a moment and without importing any of them: what today's packages break is
mended when they are imported, before or after mmfss, and mmseg's registries get all parts of mmfss
(:mod:`mmfss.registered`) at their first look-up. A config needs only::

    custom_imports = dict(imports=['mmfss'], allow_failed_imports=False)
    default_scope = 'mmseg'
"""

from importlib import import_module
from types import ModuleType

from mmfss._versions import check_versions

__version__ = '0.1.0'

check_versions()

from mmfss import compat  # noqa: E402

compat.apply()

#: subpackages, imported when they are first asked for
_PARTS = (
    'apis',
    'checkpoints',
    'commands',
    'datasets',
    'encoders',
    'engine',
    'evaluation',
    'features',
    'labelling',
    'methods',
    'visualization',
    'webui',
)
__all__ = ['__version__', 'compat']


def __getattr__(name: str) -> ModuleType:
    if name in _PARTS:
        return import_module(f'{__name__}.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *_PARTS})
