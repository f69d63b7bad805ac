"""mmfss: few-shot segmentation with SAM 2 (FSSAM) as a plugin of MMSegmentation.

Importing the package checks the versions of the stack, mends what today's packages break
(:mod:`mmfss.compat`) and registers all parts in ``mmseg.registry``. A config needs only::

    custom_imports = dict(imports=['mmfss'], allow_failed_imports=False)
    default_scope = 'mmseg'
"""

from ._versions import check_versions

__version__ = '0.1.0'

check_versions()

from . import compat  # noqa: E402

compat.apply()

# The order matters from here on: every part below imports mmseg, which needs the mends.
from . import (  # noqa: E402
    apis,
    datasets,
    encoders,
    engine,
    evaluation,
    features,
    methods,
    visualization,
)

__all__ = [
    '__version__',
    'apis',
    'compat',
    'datasets',
    'encoders',
    'engine',
    'evaluation',
    'features',
    'methods',
    'visualization',
]
