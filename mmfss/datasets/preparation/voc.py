"""PASCAL-5i: VOC 2012 with the masks of SBD.

Reads the VOC2012 folder and, for the masks, SegmentationClassAug where it is there and SBD
(benchmark_RELEASE) where --sbd is given; VOC's own masks go before SBD's. Writes, in the VOC2012
folder or in --out, SegmentationClassAug/*.png (palette, 255 = ignored) and
ImageSets/Segmentation/train_aug_fss.txt: VOC's `train` joined with SBD's `train_noval`, sorted.
See docs/datasets/voc.md.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from mmfss.datasets.class_index import class_areas, label_counts
from mmfss.datasets.classes import PASCAL_CLASSES, label_palette
from mmfss.datasets.folds import BENCHMARKS
from mmfss.datasets.io import read_mask, save_png
from mmfss.datasets.preparation.jobs import Done, run
from mmfss.datasets.preparation.recipe import fold_lines
from mmfss.datasets.preparation.sources import (
    check_size,
    find_folder,
    image_size,
    need_scipy,
    read_mat,
    read_names,
)
from mmfss.files import remove_parts, write_text

AUG = 'SegmentationClassAug'
LISTS = 'ImageSets/Segmentation'
TRAIN_LIST = 'train_aug_fss.txt'
#: of the lists that the field shares, ids sorted, one a line: number and SHA-256
PUBLISHED = {
    'train': (5953, 'a9bc0a1466deee7a9d4923ae677ec6098f090110a60cb769052a4abad586746c'),
    'val': (1449, 'cdc1326d12f69ce5153aa5da04a4d8783e146868d42d19f82f44e74b97ac907d'),
}
_VOC = 'unpack VOCtrainval_11-May-2012.tar and give its folder VOCdevkit/VOC2012'
_LABELS = len(PASCAL_CLASSES)
_COLOURS = label_palette(255)


@dataclass(frozen=True)
class Job:
    """A mask to make or to check.

    Args:
        image: Its image.
        out: The mask; it stays when it is complete and right.
        sources: Files to make it from, best first; the first that is there is taken.
    """

    image: Path
    out: Path
    sources: tuple[Path, ...]


@dataclass(frozen=True)
class Plan:
    """What to make.

    Args:
        train, val: Image ids of the lists, as they are written.
        jobs: One for each image that gets a mask, by id.
        origin: Where the training list is from, in words.
    """

    train: list[str]
    val: list[str]
    jobs: list[Job]
    origin: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Folders of VOC, SBD and the output."""
    parser.add_argument('src', type=Path, help='the VOC2012 folder')
    parser.add_argument(
        '--sbd', type=Path, metavar='DIR', help='benchmark_RELEASE of SBD, or its folder dataset'
    )
    parser.add_argument(
        '--out', type=Path, metavar='DIR', help='write there (links to the images) and not to SRC'
    )


def prepare(args: argparse.Namespace) -> str:
    """Make masks and lists that are not there; a summary in words.

    Raises:
        FileNotFoundError: A folder, list, image or mask is missing; the first ones are named.
        ValueError: Lists with repeated ids or that overlap, masks of wrong size, form or values.
    """
    src = find_folder(args.src, _VOC)
    find_folder(src / 'JPEGImages', _VOC)
    sbd = None
    if args.sbd is not None:
        places = (args.sbd, args.sbd / 'dataset', args.sbd / 'benchmark_RELEASE/dataset')
        sbd = next((place for place in places if (place / 'cls').is_dir()), None)
        if sbd is None:
            raise FileNotFoundError(
                f'{args.sbd} has no folder cls (nor dataset/cls) of .mat files; unpack '
                'benchmark.tgz of SBD and give --sbd benchmark_RELEASE'
            )
        need_scipy()
    out = src if args.out is None else args.out
    plan = make_plan(src, sbd, out)
    if out != src:
        _link_images(src, out)
        _write_list(out / LISTS / 'val.txt', plan.val)
    remove_parts(out / AUG)
    tally = run(make, plan.jobs, 'VOC masks', args.workers)
    list_file = out / LISTS / TRAIN_LIST
    _write_list(list_file, plan.train)
    areas = {job.out.stem: found for job, found in zip(plan.jobs, tally.results)}
    train, val = ([areas[name] for name in names] for names in (plan.train, plan.val))
    return '\n'.join(
        [
            f'PASCAL-5i: {len(areas)} masks in {out / AUG}: {tally}',
            f'  {len(train)} images in {list_file} ({plan.origin}), '
            f'{against_published("train", plan.train)}',
            f'  {len(val)} images in {out / LISTS}/val.txt, {against_published("val", plan.val)}',
            *fold_lines(BENCHMARKS['pascal-5i'], train, val),
        ]
    )


def _write_list(file: Path, names: list[str]) -> None:
    """Write a list unless it is there."""
    text = ''.join(f'{name}\n' for name in names)
    if not file.is_file() or file.read_text(encoding='utf-8') != text:
        write_text(file, text)


def make_plan(src: Path, sbd: Path | None, out: Path) -> Plan:
    """Lists and masks; the errors of :func:`prepare` that need no file to be decoded."""
    lists = src / LISTS
    val = read_names(lists / 'val.txt')
    voc_train = read_names(lists / 'train.txt') if (lists / 'train.txt').is_file() else []
    if sbd is not None and not voc_train:
        raise FileNotFoundError(f'list not found: {lists / "train.txt"}; {_VOC}')
    there = {*_stems(src / AUG, '.png'), *_stems(out / AUG, '.png')}
    if sbd is None and not there:
        raise FileNotFoundError(
            f'{src / AUG} has no masks; give --sbd benchmark_RELEASE to make them, or put the '
            '12,031 masks of SegmentationClassAug there'
        )
    in_sbd = set() if sbd is None else _stems(sbd / 'cls', '.mat')
    own = {*voc_train, *val}
    train, origin = _training_list(src, sbd, out, voc_train, val, there | in_sbd)
    both = sorted(set(train) & set(val))
    if both:
        raise ValueError(
            f'{len(both)} images are both in the training list ({origin}) and in '
            f'{lists / "val.txt"}: {both[:5]}; a list was changed: {_VOC}'
        )
    jobs = []
    for name in sorted(there | in_sbd | own | set(train)):
        sources = [] if out == src else [src / AUG / f'{name}.png']  # best first
        sources.append(src / 'SegmentationClass' / f'{name}.png')
        if sbd is not None and name not in own:
            sources.append(sbd / 'cls' / f'{name}.mat')
        image, mask = src / 'JPEGImages' / f'{name}.jpg', out / AUG / f'{name}.png'
        jobs.append(Job(image, mask, tuple(sources)))
    return Plan(train, val, jobs, origin)


def _training_list(
    src: Path, sbd: Path | None, out: Path, voc_train: list[str], val: list[str], masks: set[str]
) -> tuple[list[str], str]:
    """The training ids and where they are from; an existing list of the same ids stays."""
    files = (out / LISTS / TRAIN_LIST, src / LISTS / TRAIN_LIST)
    existing = next((file for file in files if file.is_file()), None)
    noval = None if sbd is None else sbd / 'train_noval.txt'
    main_val = src / 'ImageSets/Main/val.txt'
    if noval is not None and noval.is_file():
        names = sorted({*voc_train, *read_names(noval)})
        origin = "VOC's train joined with SBD's train_noval"
    elif main_val.is_file():
        left_out = {*read_names(main_val), *val}
        names = sorted({*voc_train, *(masks - left_out)})
        origin = f'all images with masks but those of {main_val.relative_to(src)}, and VOC train'
    elif existing is not None:
        return read_names(existing), 'the list that was there'
    else:
        raise FileNotFoundError(
            f'the training list needs train_noval.txt in the folder of SBD, or {main_val}; '
            f'download the list (see docs/datasets/voc.md), or {_VOC}'
        )
    if existing is None:
        return names, origin
    listed = read_names(existing)
    if set(listed) == set(names):
        return listed, 'the list that was there' + ('' if listed == names else ', in its order')
    more, fewer = sorted(set(listed) - set(names)), sorted(set(names) - set(listed))
    raise ValueError(
        f'{existing} has other images than {origin}: {len(more)} more ({", ".join(more[:3])}) and '
        f'{len(fewer)} fewer ({", ".join(fewer[:3])}); move it away, and it is made anew'
    )


def _stems(folder: Path, suffix: str) -> set[str]:
    if not folder.is_dir():
        return set()
    names = (entry.name for entry in os.scandir(folder))
    return {n[: -len(suffix)] for n in names if n.endswith(suffix) and not n.startswith('.')}


def _link_images(src: Path, out: Path) -> None:
    link, target = out / 'JPEGImages', Path(os.path.realpath(src / 'JPEGImages'))
    if link.exists() or link.is_symlink():
        if os.path.realpath(link) != str(target):
            raise ValueError(
                f'{link} is there and is no link to {target}; choose another --out, or remove it'
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target, target_is_directory=True)


def against_published(name: str, ids: list[str]) -> str:
    """Whether a list has the images of the published benchmark, in words."""
    number, digest = PUBLISHED[name]
    if sha256(''.join(f'{image}\n' for image in sorted(ids)).encode()).hexdigest() == digest:
        return 'the published list'
    return (
        f'WARNING: not the {number} images of the published list; results on it cannot be compared '
        'with others'
    )


def make(job: Job) -> Done:
    """Make a mask unless it is there, of the image's size and with VOC's labels.

    Returns:
        With ``{label: pixels}`` as its result.

    Raises:
        FileNotFoundError: No image, or no mask and nothing to make it from.
        ValueError: The image or mask is damaged, of another form, size or has other values.
    """
    shape = image_size(job.image)
    sources = [source for source in job.sources if source.is_file()]
    try:
        return Done(kept=1, result=class_areas(read_labels(job.out, shape)))
    except FileNotFoundError:
        if not sources:
            raise FileNotFoundError(
                f'no mask of image {job.image.stem}; looked for '
                f'{", ".join(map(str, (job.out, *job.sources)))}'
            ) from None
    except ValueError:
        if not sources:
            raise
    mask = read_labels(sources[0], shape)
    save_png(job.out, mask, _COLOURS)
    return Done(written=1, result=class_areas(mask))


def read_labels(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """The labels in a .png file or a .mat file of SBD, uint8 (height, width) of 0..20 and 255.

    Raises:
        FileNotFoundError: No such file. ValueError: As for :func:`make`.
    """
    try:
        mask = read_segmentation(path) if path.suffix == '.mat' else read_mask(path)
    except ValueError as error:
        raise ValueError(
            f'{error} (the masks of VOC are palette PNGs: one that was opened and saved as RGB '
            'must be unpacked from the download again)'
        ) from error
    check_size(mask, path, shape)
    wrong = [v for v in label_counts(mask) if v > _LABELS and v != 255]
    if wrong:
        raise ValueError(
            f'mask {path} has the values {wrong[:5]}, allowed are 0..{_LABELS} and 255; it is no '
            'class mask of VOC (SegmentationObject has numbers of objects): unpack it again'
        )
    return mask


def read_segmentation(path: Path) -> np.ndarray:
    """``GTcls.Segmentation`` of a file of SBD, uint8 (height, width); ValueError without it."""
    mask = read_mat(
        path,
        lambda content: np.asarray(content['GTcls'].Segmentation),
        'GTcls.Segmentation as the files in cls/ of SBD have',
        'benchmark.tgz',
        squeeze_me=True,
        struct_as_record=False,
    )
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise ValueError(
            f'GTcls.Segmentation of {path} must be 8-bit of two dimensions, got {mask.dtype} '
            f'{mask.shape}; unpack benchmark.tgz again'
        )
    return mask
