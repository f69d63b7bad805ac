"""Hook of tests of a FewShotSegmentor: the dataset's classes must be those of its support set."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from mmfss.apis.segmentor import FewShotSegmentor
from mmfss.engine.guards import bare_model, built_datasets


@HOOKS.register_module()
class SupportClassesHook(Hook):
    """Refuses a test on a dataset whose labels mean something else than those of the model, and
    lets the visualizer use the model's colours.

    Raises:
        ValueError: before the first image, with both lists of classes; also for a model that is
            no :class:`~mmfss.apis.FewShotSegmentor`.
    """

    def before_test(self, runner: Runner) -> None:
        """Compare; the weights are loaded by now."""
        self._check(runner, 'test')

    def before_val(self, runner: Runner) -> None:
        """Compare, likewise."""
        self._check(runner, 'val')

    @staticmethod
    def _check(runner: Runner, name: str) -> None:
        model = bare_model(runner)
        model = model.module if isinstance(model, BaseTTAModel) else model
        if not isinstance(model, FewShotSegmentor):
            raise ValueError(
                'SupportClassesHook is for a model of type FewShotSegmentor, got '
                f'{type(model).__name__}; take the hook out of the config'
            )
        meta = model.dataset_meta
        wanted = list(meta['classes'])
        info = getattr(built_datasets(runner)[name], 'metainfo', None) or {}
        got = list(info.get('classes') or ())
        if got != wanted:
            raise ValueError(
                f'the classes of {name}_dataloader.dataset are not those of the support set, and '
                f'the IoU of other classes would be computed: the dataset has {got}, the support '
                f'set, after background, {wanted}. Give the dataset these names in this order '
                f'(metainfo=dict(classes=...), with label maps of the values 0..{len(wanted) - 1} '
                'and 255 for ignored), or a support set of its classes in its order'
            )
        runner.visualizer.dataset_meta = meta
