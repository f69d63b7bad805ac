"""Imports every module that registers something; mmseg's registries do so at their first look-up.

See :func:`mmfss.compat.join_registries`.
"""

import mmfss.apis.segmentor
import mmfss.datasets.episodes
import mmfss.datasets.prepared_dataset
import mmfss.datasets.segmentation
import mmfss.datasets.transforms
import mmfss.encoders
import mmfss.engine
import mmfss.evaluation
import mmfss.features.cache
import mmfss.methods
import mmfss.visualization.hook
import mmfss.visualization.visualizer  # noqa: F401
