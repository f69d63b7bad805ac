"""What ``prepare.py folder`` says at its end: images of splits, classes and folds, and what is
missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from mmfss.datasets.folds import Benchmark
from mmfss.datasets.preparation.folder_layouts import Source
from mmfss.datasets.preparation.recipe import Areas, fold_lines
from mmfss.words import listed


def counts_of(areas: Iterable[Areas], benchmark: Benchmark) -> Counter[int]:
    """Images in which a class qualifies."""
    return Counter(c for a in areas for c, pixels in a.items() if pixels >= benchmark.min_area)


def summary(
    source: Source,
    benchmark: Benchmark,
    areas: Mapping[str, Areas],
    splits: Mapping[str, list[str]],
) -> list[str]:
    """Images of splits, classes and folds, and what is to be known of them."""
    parts = {name: [areas[image] for image in images] for name, images in splits.items()}
    tested = next((name for name in ('test', 'val') if name in parts), 'all')
    counts, tests = counts_of(parts['all'], benchmark), counts_of(parts[tested], benchmark)
    per_class = [f'{name} {counts[c]}' for c, name in enumerate(source.classes, 1)]
    few = [name for c, name in enumerate(source.classes, 1) if tests[c] < 2]
    without = sum(not found for found in areas.values())
    remarks = [
        (
            few,
            f'warning: {len(few)} classes have no two images in {tested!r}, so no episode there: '
            f"{listed(few)}; add images, or leave them out with scarce_classes='drop'",
        ),
        (without, f'{without} images show no class'),
        *((remark, remark) for remark in source.remarks),
        (
            source.negatives,
            f"{len(source.negatives)} images in folders 'not' left out: an episode knows none; "
            'mmfss label takes them as what is not the class',
        ),
    ]
    return [
        f'  splits: {", ".join(f"{name} {len(part)}" for name, part in parts.items())}',
        f'  images of each class (from {benchmark.min_area} pixels on): {listed(per_class)}',
        *fold_lines(
            benchmark,
            parts.get('train', parts['all']) if benchmark.num_folds > 1 else None,
            parts[tested],
        ),
        *_training_lines(benchmark, parts),
        *(f'  {text}' for there, text in remarks if there),
    ]


def _training_lines(benchmark: Benchmark, parts: Mapping[str, list[Areas]]) -> list[str]:
    """What is missing to train on the folds, and how to get it."""
    if benchmark.num_folds == 1:
        more = (
            f'--folds (2 to {len(benchmark.classes)}) and --test-fraction'
            if len(benchmark.classes) > 1
            else 'further classes: training needs other classes than those that are tested'
        )
        said = [f'  one fold: all classes are novel, to test a trained model; to train, add {more}']
        if 'train' in parts and len(benchmark.classes) > 1:
            said.append('  FOLD=all trains on all of them, for a model to label with')
        return said
    lines = []
    if 'train' not in parts:
        lines.append(
            "  no splits 'train' and 'test': to train and to test on other images, add "
            '--test-fraction, e.g. 0.3'
        )
    together = []
    for split in map(benchmark.split, range(benchmark.num_folds)):
        base, novel = set(split.base), set(split.novel)
        enough = [
            areas
            for areas in parts.get('train', parts['all'])
            if any(areas.get(c, 0) >= benchmark.min_area for c in base)
        ]
        if enough and not any(novel.isdisjoint(areas) for areas in enough):
            together.append(str(split.fold))
    if together:
        lines.append(
            f'  warning: no training image in fold {listed(together)}: all images of its base '
            'classes show a novel class, too, which training must not see. Give classes that '
            'occur together fewer --folds, add images that show base classes alone, or train with '
            'train_dataloader.dataset.exclude_novel_images=False, where novel objects count as '
            'background'
        )
    return lines


def lost_values(checked: Sequence) -> list[str]:
    """What photos of more than 8 bits lose, if any does."""
    lost = [text for found in checked for text in found.lost]
    also = f' (and so are {len(lost) - 1} images more)' if len(lost) > 1 else ''
    return [f'  warning: {text}{also}' for text in lost[:1]]
