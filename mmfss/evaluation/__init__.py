"""Metrics."""

from mmfss.evaluation.metrics import FewShotIoUMetric

__all__ = ['FewShotIoUMetric']
