"""The dataset that reads what ``tools/prepare.py`` made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from mmfss.datasets.folds import DATASET_FILE, Benchmark, read_description
from mmfss.datasets.palette import label_palette
from mmfss.datasets.prepared import FORMAT, KINDS, Entry, mask_path


@DATASETS.register_module()
class PreparedDataset(BaseSegDataset):
    """A dataset made by ``tools/prepare.py``: your own folder, or a further benchmark.

    With label maps it is an ordinary mmseg dataset; with class masks its items have
    ``class_mask_paths`` ``{class id: file}`` in place of ``seg_map_path``, and episodes are drawn
    from it. Classes and palette come from its ``dataset.json``.

    Args:
        data_root: The prepared folder.
        split: Name of a list in ``splits/``, or several, of which the first that is there is
            taken.
        lazy_init: Read no list yet.
        serialize_data: Keep the list as bytes shared among data workers.

    Raises:
        FileNotFoundError: No finished prepared dataset, or images or masks are gone.
        ValueError: No such split; a list or ``dataset.json`` is damaged.
    """

    def __init__(
        self,
        data_root: str,
        split: str | Sequence[str],
        lazy_init: bool = False,
        serialize_data: bool = True,
    ) -> None:
        content = read_description(data_root)
        if content.get('format') != FORMAT or content.get('kind') not in KINDS:
            raise ValueError(
                f'{data_root} was prepared in format {content.get("format")} '
                f'({content.get("kind")}), expected {FORMAT}; run tools/prepare.py again'
            )
        names = [split] if isinstance(split, str) else list(split)
        found = [name for name in names if name in content['splits']]
        if not found:
            raise ValueError(
                f'split of {data_root} must be one of {sorted(content["splits"])}, got {split!r}'
            )
        self.kind = content['kind']
        self._expected = int(content['splits'][found[0]])
        classes = ('background', *Benchmark.from_dict(content['benchmark']).classes)
        super().__init__(
            ann_file=f'splits/{found[0]}.txt',
            metainfo=dict(classes=classes, palette=label_palette(len(classes) - 1)),
            data_root=data_root,
            data_prefix=dict(img_path=content['images'], seg_map_path='masks'),
            lazy_init=lazy_init,
            serialize_data=serialize_data,
        )

    def load_data_list(self) -> list[dict]:
        """Image and mask paths in the order of the list."""
        root, images = Path(self.data_root), Path(self.data_prefix['img_path'])
        rows = []
        for entry in self._entries():
            row = dict(
                img_path=str(images / entry.image),
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
            )
            if self.kind == 'label_maps':
                row['seg_map_path'] = str(mask_path(root, entry.image))
            else:
                row['class_mask_paths'] = {
                    c: str(mask_path(root, entry.image, c)) for c in entry.classes
                }
            rows.append(row)
        missing = [row['img_path'] for row in rows if not os.path.isfile(row['img_path'])]
        if missing:
            raise FileNotFoundError(
                f'{len(missing)} of {len(rows)} images not found in {images}: '
                f'{", ".join(missing[:3])}; restore them, or run tools/prepare.py again'
            )
        return rows

    def _entries(self) -> list[Entry]:
        try:
            text = Path(self.ann_file).read_text(encoding='utf-8')
            entries = [Entry.parse(line) for line in text.splitlines() if line]
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(
                f'list {self.ann_file} is missing or damaged ({error}); run tools/prepare.py again'
            ) from error
        if len(entries) != self._expected:
            raise ValueError(
                f'list {self.ann_file} has {len(entries)} images, {DATASET_FILE} says '
                f'{self._expected}; run tools/prepare.py again'
            )
        return entries
