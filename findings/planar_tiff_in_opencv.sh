#!/usr/bin/env bash
# 16-bit TIFFs that are stored band after band: three libraries, three pictures.
#
# Library    Pillow 12.3.0, OpenCV 5.0.0.93; tifffile 2026.3.3 writes the file and is right (numpy 2.4.6).
# One would guess that a baseline form of TIFF 6.0 (PlanarConfiguration 2, what GDAL writes for
#            INTERLEAVE=BAND) is read to the same picture by all, or refused.
# Behaviour  Pillow gives 8-bit RGB of other values without a word; OpenCV's IMREAD_UNCHANGED gives
#            16 bits with the bands mixed up, without a word.
# Seen       off by 75.6 (Pillow) and 123.0 (OpenCV) of 255 levels on average, bands in their best order.
#
# Ends with status 1 when one of the two reads it right, or refuses it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q pillow==12.3.0 opencv-python-headless==5.0.0.93 tifffile==2026.3.3 \
    numpy==2.4.6
"$work/venv/bin/python" - "$work" <<'PYTHON'
import itertools
import sys

import cv2
import numpy as np
import tifffile
from PIL import Image

rows, columns = np.mgrid[:48, :64]
photo = np.stack([rows * 1365, columns * 1024, (rows + columns) * 585], -1).astype(np.uint16)
path = f'{sys.argv[1]}/a.tif'
tifffile.imwrite(path, np.moveaxis(photo, -1, 0), photometric='rgb', planarconfig='separate')
assert (np.moveaxis(tifffile.imread(path), 0, -1) == photo).all()
with Image.open(path) as image:
    pillow = np.asarray(image.convert('RGB')).astype(float)
opencv = cv2.imread(path, cv2.IMREAD_UNCHANGED) / 257
wanted = photo / 257
# in whatever order of the bands fits best
apart = {
    name: min(abs(seen[..., order] - wanted).mean() for order in itertools.permutations(range(3)))
    for name, seen in (('Pillow', pillow), ('OpenCV', opencv))
}
for name, levels in apart.items():
    print(f'{name}: {levels:.1f} levels off on average')
raise SystemExit(0 if min(apart.values()) > 2 else 'this is no longer so')
PYTHON
