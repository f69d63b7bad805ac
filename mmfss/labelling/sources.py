"""Which images are to be labelled, and what each is called: a folder, or a list of paths."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mmfss.apis.images import files_below, other_files_below


@dataclass(frozen=True)
class Sources:
    """Images below one folder.

    Attributes:
        root: the folder, absolute.
        names: paths of the images relative to it, with '/', sorted, each once.
        repeated: how many lines of a list named an image again.
        others: how many files of the folder are not read, for the first 20 endings.
    """

    root: Path
    names: tuple[str, ...]
    repeated: int = 0
    others: str = ''


def find_images(images: str | os.PathLike, out: str | os.PathLike) -> Sources:
    """Find the images.

    Args:
        images: a folder, searched with the folders below it; or a text file (UTF-8) with the path
            of an image on each line, relative ones to the folder of that file. The root of a list
            is the deepest folder that holds all its images.
        out: where results go, for the check that they are not labelled themselves.

    Raises:
        FileNotFoundError: No such folder or list, or none of the listed images is there.
        ValueError: No image; a list that is no text; two images whose results would have one name;
            ``out`` in the folder of images, or images in ``out``.
    """
    path, others = Path(os.path.abspath(images)), Counter[str]()
    if path.is_dir():
        _check_apart(path, Path(out))
        found, root, listed = files_below(path), path, []
        _check_none_in(found, Path(out))  # links may lead there
        others = Counter(file.suffix or 'none' for file in other_files_below(path))
    elif path.is_file():
        listed = _listed(path)
        found = sorted(set(listed))
        root = Path(os.path.commonpath([file.parent for file in found]))
        _check_none_in(found, Path(out))
    else:
        raise FileNotFoundError(
            f'images {images} not found; give a folder, or a text file with a path on each line'
        )
    names = tuple(file.relative_to(root).as_posix() for file in found)
    check_distinct(names)
    left_out = ', '.join(f'{count} {suffix}' for suffix, count in sorted(others.items())[:20])
    return Sources(root, names, max(0, len(listed) - len(found)), left_out)


def label_name(name: str) -> str:
    """Where the label of an image goes, relative to ann_dir: its path with the ending '.png'."""
    return stem_of(name) + '.png'


def stem_of(name: str) -> str:
    """The relative path of an image without its ending, as lists of mmseg have it."""
    return name.removesuffix(PurePosixPath(name).suffix)


def check_name(name: str) -> None:
    """Make sure that files and lists can carry the name of an image.

    Raises:
        ValueError: It is not of UTF-8, has a line break, or begins or ends with a blank where
            mmseg's reader of lists would take it away.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f'the name {ascii(name)} is not of UTF-8; rename the file') from error
    stem = stem_of(name)
    if stem != stem.strip() or '\n' in name or '\r' in name:
        raise ValueError(
            f'the name {name!r} has a line break, or a blank at its begin or before its ending, '
            'which lists of images cannot hold; rename the file'
        )


def check_distinct(names: Iterable[str]) -> None:
    """Make sure that no two images have one label file.

    Raises:
        ValueError: Two do (a.jpg and a.png), or one's label is where another needs a folder.
    """
    owners: dict[str, str] = {}
    for name in names:
        label = label_name(name)
        if label in owners:
            raise ValueError(
                f'{owners[label]} and {name} would both be labelled as ann_dir/{label}; rename or '
                'move one of them (names of images must differ in more than the ending)'
            )
        owners[label] = name
    for label, name in owners.items():
        for folder in PurePosixPath(label).parents:
            if str(folder) in owners:
                raise ValueError(
                    f'the label of {owners[str(folder)]}, ann_dir/{folder}, is where the folder of '
                    f'the label of {name} must be; rename one of them'
                )


def _listed(file: Path) -> list[Path]:
    try:
        lines = file.read_text(encoding='utf-8-sig').splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f'{file} is neither a folder nor a text file of UTF-8 with the path of an image on '
            'each line'
        ) from error
    listed = [Path(os.path.abspath(file.parent / line.strip())) for line in lines if line.strip()]
    if not listed:
        raise ValueError(f'{file} lists no image; put the path of one on each line')
    if not any(path.is_file() for path in listed):
        raise FileNotFoundError(
            f'none of the {len(listed)} images in {file} is there, e.g. {listed[0]}; relative '
            f'paths are taken from the folder of the list, {file.parent}'
        )
    return listed


def _check_apart(images: Path, out: Path) -> None:
    one, other = images.resolve(), out.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise ValueError(
            f'the folder of images {images} and the output {out} lie in each other; then results '
            'would be labelled as images. Give an output folder beside the images'
        )


def _check_none_in(found: Iterable[Path], out: Path) -> None:
    folder = out.resolve()
    for file in found:
        if folder in file.resolve().parents:
            raise ValueError(f'image {file} lies in the output {out}; give another output folder')
