"""An image to label and what the model said of it, kept small: a visitor may have many.

What needs room is on disk: the image, its preview, the logits. The labels that the page shows are
those of the preview; :meth:`Query.whole` decides them at the image's own size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from mmfss.apis.prediction import Prediction
from mmfss.webui.marking import preview

RESULT_SIDE = 768


@dataclass(frozen=True)
class Query:
    """An image to label.

    Attributes:
        name: what the visitor calls it.
        path: of the server's copy.
        shape: (height, width).
        prediction: at the preview's size, with its logits on disk; None until it is labelled.
    """

    name: str
    path: Path
    shape: tuple[int, int]
    prediction: Prediction | None = None

    @classmethod
    def keep(cls, name: str, path: Path, image: np.ndarray) -> Query:
        """Write the preview of an image, uint8 (H, W, 3) BGR, that is at ``path``."""
        query = cls(name, path, image.shape[:2])
        done, data = cv2.imencode('.png', preview(image, RESULT_SIDE))
        if not done:
            raise ValueError(f'the preview of {name} cannot be written')
        query._beside('.preview').write_bytes(data.tobytes())
        return query

    def _beside(self, ending: str) -> Path:
        return self.path.with_name(self.path.name + ending)

    def preview(self) -> np.ndarray:
        """The image with its long side at most ``RESULT_SIDE``: uint8 (h, w, 3) BGR."""
        data = np.frombuffer(self._beside('.preview').read_bytes(), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f'the preview of {self.name} is damaged; remove the image')
        return image

    def labelled(self, prediction: Prediction) -> Query:
        """With a result for the whole image; its logits go to disk."""
        file = self._beside('.npy')
        file.unlink(missing_ok=True)  # an older result may still be mapped
        np.save(file, prediction.logits)
        made = Prediction.make(
            prediction.classes,
            prediction.scores,
            prediction.thresholds,
            np.load(file, mmap_mode='c'),
            self.preview().shape[:2],
            self.name,
        )
        return replace(self, prediction=made)

    def with_threshold(self, threshold: float) -> Query:
        """Decided anew, where there is a result."""
        if self.prediction is None:
            return self
        return replace(self, prediction=self.prediction.with_threshold(threshold))

    def whole(self) -> Prediction:
        """The result at the image's own size.

        Raises:
            ValueError: The image is not labelled.
        """
        if self.prediction is None:
            raise ValueError(f'{self.name} is not labelled yet')
        made = self.prediction
        return Prediction.make(
            made.classes, made.scores, made.thresholds, made.logits, self.shape, self.name
        )

    def drawn(self) -> np.ndarray:
        """The preview with its classes, or as it is before it is labelled: uint8 (h, w, 3) BGR."""
        image = self.preview()
        return image if self.prediction is None else self.prediction.draw(image)

    def forget(self) -> None:
        """Remove its files."""
        for file in (self.path, self._beside('.preview'), self._beside('.npy')):
            file.unlink(missing_ok=True)
