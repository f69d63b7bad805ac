"""What people call on their own images."""

from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.loading import load_model
from mmfss.apis.prediction import Prediction, TiledPrediction
from mmfss.apis.segmentor import FewShotSegmentor
from mmfss.apis.support import Shot, SupportSet

__all__ = [
    'FewShotInferencer',
    'FewShotSegmentor',
    'Prediction',
    'Shot',
    'SupportSet',
    'TiledPrediction',
    'load_model',
]
