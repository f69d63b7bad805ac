"""What labelling a large photo in tiles costs beside its tiles, in time and memory.

    python tools/prepare.py example                     # supports and pictures, or give your own
    python tools/analysis_tools/tiled_labelling.py data/example/support data/example/images \\
        --method density_lite --side 11000 --out tiled

Photos are laid side by side, at their own size, into one of SIDE x SIDE pixels. It is labelled with
``mmfss label --tiles`` in one process, with all that belongs to it: decoding, blending, the mask,
COCO's record, the overlay; seconds are those that the command says, those of the CPUs have what a
run does once (the supports' file), too. In another one each of its windows is labelled as a photo
of its own, from memory, and nothing is written: the tiles' own time. They take turns, ``--rounds``
times.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import re
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmfss.apis.photos import large_photos, open_photo
from mmfss.apis.windows import Tiles

OWN, TILED = 'tiles as photos', 'photo in tiles'


def mosaic(photos: Path, side: int) -> np.ndarray:
    """Photos side by side, row by row and again from the first on: uint8 (side, side, 3) RGB."""
    from mmfss.apis.images import as_bgr, files_below

    files = files_below(photos)
    canvas = np.zeros((side, side, 3), np.uint8)
    top, number = 0, 0
    while top < side:
        row: list[np.ndarray] = []
        while sum(photo.shape[1] for photo in row) < side:
            row.append(as_bgr(files[number % len(files)])[..., ::-1])
            number += 1
        height = min(side - top, *(len(photo) for photo in row))  # no gap below any of them
        strip = np.concatenate([photo[:height] for photo in row], axis=1)
        canvas[top : top + height] = strip[:, :side]
        top += height
    return canvas


def save(canvas: np.ndarray, path: Path) -> None:
    """Write it; a TIFF with a georeference, in tiles, where rasterio is installed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != '.tif':
        Image.fromarray(canvas).save(path, **(dict(quality=95) if path.suffix == '.jpg' else {}))
        return
    import rasterio
    from rasterio.transform import from_origin

    kind = dict(driver='GTiff', count=3, dtype='uint8', photometric='RGB', compress='deflate')
    place = dict(crs='EPSG:32633', transform=from_origin(500000, 5300000, 0.05, 0.05))
    size = dict(height=canvas.shape[0], width=canvas.shape[1], tiled=True)
    with rasterio.open(path, 'w', **kind, **place, **size) as file:
        for top in range(0, len(canvas), 1024):
            band = canvas[top : top + 1024].transpose(2, 0, 1)
            file.write(band, window=((top, top + band.shape[1]), (0, len(canvas))))


def peak_memory() -> float:
    """Of this process so far, in GiB. That of getrusage begins with what its parent had."""
    line = re.search(r'VmHWM:\s+(\d+) kB', Path('/proc/self/status').read_text())
    return int(line[1]) / 2**20 if line else math.nan


def measure(what: str, args: argparse.Namespace, photo: Path, pipe: Any) -> None:
    """In a process of its own: seconds, seconds of the CPU, and the peak of memory."""
    import torch

    from mmfss.apis import FewShotInferencer
    from mmfss.apis.support_folder import read_support
    from mmfss.labelling import label_folder

    torch.set_num_threads(args.threads)
    inferencer = FewShotInferencer(method=args.method, device=args.device)
    inferencer.set_support(read_support(args.support, inferencer, None)[0])
    tiles = Tiles(args.tiles, args.overlap)
    before = peak_memory()
    seconds, cpu, count = 0.0, 0.0, 1
    if what == TILED:
        start = time.process_time()
        summary = label_folder(
            inferencer, photo.parent, args.out / 'labelled', tiles=tiles, overwrite=True
        )
        seconds, cpu = summary.seconds, time.process_time() - start
        if summary.failed or summary.labelled != 1:
            raise SystemExit(f'{photo} was not labelled: {summary}')
    else:
        with open_photo(photo) as opened:
            windows = tiles.over(*opened.shape).windows
            count = len(windows)
            for window in windows:
                pixels = opened.window(window)
                start = time.perf_counter(), time.process_time()
                made = inferencer(pixels)
                _ = made.certainty, [made.confidence(name) for name in made.classes]
                seconds += time.perf_counter() - start[0]
                cpu += time.process_time() - start[1]
    pipe.send(dict(seconds=seconds, cpu=cpu, count=count, peak=peak_memory(), before=before))


def run(what: str, args: argparse.Namespace, photo: Path) -> dict[str, float]:
    """:func:`measure` in a new process."""
    context = multiprocessing.get_context('spawn')
    mine, its = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(what, args, photo, its))
    process.start()
    its.close()
    try:
        found = mine.recv()
    except EOFError as error:
        process.join()
        raise SystemExit(f'{what}: the process ended with {process.exitcode}') from error
    process.join()
    print(
        f'{what}: {found["seconds"]:.1f} s, {found["cpu"]:.1f} s of CPUs, peak '
        f'{found["peak"]:.2f} GiB ({found["before"]:.2f} before the photo)',
        flush=True,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('support', type=Path)
    parser.add_argument('photos', type=Path)
    parser.add_argument('--out', type=Path, default=Path('tiled'))
    parser.add_argument('--method', default=None)
    parser.add_argument('--device', default=None)
    parser.add_argument('--side', type=int, default=11000)
    parser.add_argument('--tiles', type=int, default=1024)
    parser.add_argument('--overlap', type=int, default=128)
    parser.add_argument('--ending', choices=('jpg', 'png', 'tif'), default='jpg')
    parser.add_argument('--rounds', type=int, default=1)
    parser.add_argument('--threads', type=int, default=1)
    args = parser.parse_args()
    photo = args.out / 'photo' / f'mosaic.{args.ending}'
    if photo.parent.exists():
        shutil.rmtree(photo.parent)
    with large_photos():
        save(mosaic(args.photos, args.side), photo)
    rounds = [{what: run(what, args, photo) for what in (OWN, TILED)} for _ in range(args.rounds)]
    windows = int(rounds[0][OWN]['count'])
    ratios = {
        key: statistics.median(one[TILED][key] / one[OWN][key] for one in rounds)
        for key in ('seconds', 'cpu')
    }
    peak = max(one[TILED]['peak'] for one in rounds)
    print(
        f'{args.side} x {args.side} pixels ({args.side**2 / 1e6:.0f} megapixels, {args.ending}), '
        f'{windows} windows of {args.tiles}: {ratios["seconds"]:.3f} times its tiles (CPUs '
        f'{ratios["cpu"]:.3f}), peak {peak:.2f} GiB'
    )
    report = dict(side=args.side, windows=windows, rounds=rounds, ratios=ratios, peak_gib=peak)
    (args.out / 'tiled_labelling.json').write_text(json.dumps(report, indent=1) + '\n')


if __name__ == '__main__':
    main()
