"""The segmentation datasets that episodes are drawn from: ordinary mmseg datasets.

Labels are 0 background, 1..C classes, 255 ignored; nothing is remapped.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from mmfss.datasets.classes import (
    COCO_CLASSES,
    PASCAL_CLASSES,
    SHAPES_CLASSES,
    label_palette,
)
from mmfss.datasets.folds import Benchmark, read_description
from mmfss.datasets.prepared import FORMAT, KINDS, mask_path, read_entries
from mmfss.words import listed, repeated


def _metainfo(classes: tuple[str, ...]) -> dict:
    return dict(classes=('background', *classes), palette=label_palette(len(classes)))


class FewShotSegDataset(BaseSegDataset):
    """A segmentation dataset whose directory is checked before anything is read from it.

    Takes the arguments of :class:`mmseg.datasets.BaseSegDataset`. ``ann_file`` lists image
    names without suffix, one a line; without it every image of ``data_prefix['img_path']`` is
    taken.

    Raises:
        FileNotFoundError: A directory, the list, or a listed image or mask is not there; the
            message says what was expected.
        ValueError: The list is empty, names an image twice, or a line is not a plain name.
    """

    LAYOUT = '<img_path>/*<img_suffix>, <seg_map_path>/*<seg_map_suffix>'
    MAKE_MASKS = ''  # the command that makes missing masks, where there is one

    def load_data_list(self) -> list[dict]:
        """Image and mask paths in the order of the list (or of the names)."""
        img_dir, ann_dir = (self._directory(key) for key in ('img_path', 'seg_map_path'))
        names = (
            self._listed_names()
            if self.ann_file
            else sorted(
                entry.name[: -len(self.img_suffix)]
                for entry in os.scandir(img_dir)
                if entry.name.endswith(self.img_suffix)
            )
        )
        if not names:
            source = self.ann_file or os.path.join(img_dir, f'*{self.img_suffix}')
            raise ValueError(f'no image is listed in {source}; expected {self.LAYOUT}')
        self._check_files(img_dir, names, self.img_suffix, 'img_path')
        self._check_files(ann_dir, names, self.seg_map_suffix, 'seg_map_path')
        return [
            dict(
                img_path=os.path.join(img_dir, name + self.img_suffix),
                seg_map_path=os.path.join(ann_dir, name + self.seg_map_suffix),
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
            )
            for name in names
        ]

    def _directory(self, key: str) -> str:
        root, path = self.data_root, self.data_prefix.get(key) or ''
        if root and not os.path.isdir(root):
            raise FileNotFoundError(
                f'dataset directory not found: {root}; expected there: {self.LAYOUT}. Set data_root'
            )
        if not os.path.isdir(path):
            raise FileNotFoundError(
                f'{key} directory not found: {path!r}; expected under '
                f'{root}: {self.LAYOUT}. Set data_root or data_prefix{self._remedy(key)}'
            )
        return path

    def _remedy(self, key: str) -> str:
        wanted = self.MAKE_MASKS and key == 'seg_map_path'
        return f', or make the masks: {self.MAKE_MASKS} {self.data_root}' if wanted else ''

    def _listed_names(self) -> list[str]:
        if not os.path.isfile(self.ann_file):
            raise FileNotFoundError(
                f'image list not found: {self.ann_file}; expected under '
                f'{self.data_root}: {self.LAYOUT}. Set ann_file'
            )
        with open(self.ann_file, encoding='utf-8') as file:
            names = [line.strip() for line in file if line.strip()]
        for name in names:
            if len(name.split()) > 1 or name.startswith('/') or name.endswith(self.img_suffix):
                raise ValueError(
                    f'image list {self.ann_file} has the line {name!r}; expected '
                    'one image name a line, without directory and suffix'
                )
        twice = repeated(names)
        if twice:
            raise ValueError(
                f'image list {self.ann_file} names images more than once: '
                f'{listed(twice, 5)}; remove the repeats'
            )
        return names

    def _check_files(self, folder: str, names: list[str], suffix: str, key: str) -> None:
        present = {entry.name for entry in os.scandir(folder)}
        missing = [
            name + suffix
            for name in names
            if name + suffix not in present
            and not os.path.isfile(os.path.join(folder, name + suffix))
        ]
        if missing:
            kind = 'images' if key == 'img_path' else 'masks'
            raise FileNotFoundError(
                f'{len(missing)} of {len(names)} {kind} not found in '
                f'{folder}: {listed(missing, 5)}; restore the files or take '
                f'them out of the list{self._remedy(key)}'
            )


@DATASETS.register_module()
class PascalVOCFewShot(FewShotSegDataset):
    """PASCAL VOC 2012 with SBD's masks, in the VOC layout: 20 classes.

    Args:
        ann_file: List relative to ``data_root``, e.g.
            ``'ImageSets/Segmentation/train_aug_fss.txt'``.
        data_root: The ``VOC2012`` directory.
        data_prefix: Image and mask folders relative to ``data_root``.
        img_suffix: Suffix of images; None takes that of the class.
        lazy_init: Read no list yet.
        serialize_data: Keep the list as bytes shared among data workers.
    """

    METAINFO = _metainfo(PASCAL_CLASSES)
    IMG_SUFFIX = '.jpg'
    LAYOUT = (
        'JPEGImages/*.jpg, SegmentationClassAug/*.png and '
        'ImageSets/Segmentation/{train_aug_fss,val}.txt'
    )

    def __init__(
        self,
        ann_file: str,
        data_root: str,
        data_prefix: dict | None = None,
        img_suffix: str | None = None,
        lazy_init: bool = False,
        serialize_data: bool = True,
    ) -> None:
        prefix = dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug')
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            img_suffix=self.IMG_SUFFIX if img_suffix is None else img_suffix,
            data_prefix=prefix if data_prefix is None else data_prefix,
            lazy_init=lazy_init,
            serialize_data=serialize_data,
        )


@DATASETS.register_module()
class ShapesDataset(PascalVOCFewShot):
    """The generated benchmark in the VOC layout: 20 classes.

    Args as :class:`PascalVOCFewShot`; lists are ``ImageSets/Segmentation/{train,val}.txt``.
    """

    METAINFO = _metainfo(SHAPES_CLASSES)
    IMG_SUFFIX = '.png'
    LAYOUT = (
        'JPEGImages/*.png, SegmentationClassAug/*.png and ImageSets/Segmentation/{train,val}.txt'
    )


@DATASETS.register_module()
class CocoFewShot(FewShotSegDataset):
    """COCO 2014 with masks painted from its instances: 80 classes in category order.

    Args:
        split: ``'train2014'`` or ``'val2014'``: images in ``<split>/*.jpg``, masks in
            ``annotations/<split>/*.png`` with label values 0..80 and 255 (crowd), as
            ``tools/prepare.py coco`` makes them.
        data_root: The directory that holds both.
        ann_file: Optional list of image names relative to ``data_root``.
        data_prefix: Other image and mask folders.
        lazy_init: Read no list yet.
        serialize_data: Keep the list as bytes shared among data workers.
    """

    METAINFO = _metainfo(COCO_CLASSES)
    MAKE_MASKS = 'python tools/prepare.py coco'
    LAYOUT = '{train2014,val2014}/*.jpg and annotations/{train2014,val2014}/*.png'

    def __init__(
        self,
        split: str,
        data_root: str,
        ann_file: str = '',
        data_prefix: dict | None = None,
        lazy_init: bool = False,
        serialize_data: bool = True,
    ) -> None:
        prefix = dict(img_path=split, seg_map_path=f'annotations/{split}')
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=prefix if data_prefix is None else data_prefix,
            lazy_init=lazy_init,
            serialize_data=serialize_data,
        )


@DATASETS.register_module()
class PreparedDataset(BaseSegDataset):
    """A dataset made by ``tools/prepare.py``: your own folder, or a further benchmark.

    With label maps it is an ordinary mmseg dataset; with class masks its items have
    ``class_mask_paths`` ``{class id: file}`` in place of ``seg_map_path``, and episodes are drawn
    from it. Classes and palette come from its ``dataset.json``.

    Attributes:
        grey_values: How its photos of more than 8 bits are read, see
            :meth:`mmfss.datasets.grey_values.GreyValues.of`.

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
        self.grey_values = content.get('source', {}).get('grey_values')
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
        for entry in read_entries(self.ann_file, self._expected):
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


@dataclass(frozen=True)
class AnnotatedImage:
    """Files of an image.

    Args:
        image: Path of the image.
        masks: Path of its label map, or ``{class id: path}`` of masks of {0, 1, 255}.
    """

    image: str
    masks: str | dict[int, str]

    def mask_of(self, class_id: int) -> tuple[str, int]:
        """File in which a class is marked, and the value that it has there."""
        if isinstance(self.masks, str):
            return self.masks, class_id
        return self.masks[class_id], 1


def image_files(dataset: BaseSegDataset) -> dict[str, AnnotatedImage]:
    """``{image id: its files}`` of an mmseg dataset, in its order.

    The id is the image's path under its folder, without suffix, however the folder is spelt.
    Items have ``seg_map_path``, or ``class_mask_paths`` as
    :class:`PreparedDataset` gives them.

    Raises:
        ValueError: Two images have one id.
    """
    folder = os.path.normpath(dataset.data_prefix.get('img_path') or '')
    root = '' if folder == os.curdir else os.path.join(folder, '')  # with '/' at its end
    files: dict[str, AnnotatedImage] = {}
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        path = info['img_path']
        image = os.path.splitext(os.path.normpath(path).removeprefix(root))[0]
        if image in files:
            raise ValueError(
                f'two images have the id {image!r}: {files[image].image} and {path}; '
                'image names must differ by more than their suffix'
            )
        masks = info.get('class_mask_paths')  # empty for an image without a class
        files[image] = AnnotatedImage(path, info['seg_map_path'] if masks is None else masks)
    return files
