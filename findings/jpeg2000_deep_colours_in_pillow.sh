#!/usr/bin/env bash
# Colours of 16-bit JPEG 2000 files: the brightest become black.
#
# Library    Pillow 12.3.0 (OpenCV 5.0.0.93 writes the file and reads it for comparison, numpy 2.4.6).
# One would guess that a 16-bit RGB JPEG 2000, which Pillow opens as 8-bit RGB, is scaled to 8 bits so
#            that brighter stays brighter and white is 255.
# Behaviour  values are rounded to the next of 256 steps without a limit at the top, so that the upper
#            half of the last step wraps: white is 0. Grey files of 16 bits keep all their values.
# Seen       65407 -> 255, 65408 and 65535 -> 0.
#
# Ends with status 1 when this is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q pillow==12.3.0 opencv-python-headless==5.0.0.93 numpy==2.4.6
"$work/venv/bin/python" - "$work" <<'PYTHON'
import sys

import cv2
import numpy as np
from PIL import Image

values = np.array([0, 128, 32768, 65279, 65407, 65408, 65535], np.uint16)
photo = np.repeat(np.repeat(values, 16)[None, :, None], 64, 0).repeat(3, 2)
path = f'{sys.argv[1]}/a.jp2'
assert cv2.imwrite(path, photo, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])  # lossless
assert (cv2.imread(path, cv2.IMREAD_UNCHANGED) == photo).all()
with Image.open(path) as image:
    seen = np.asarray(image)
    print(image.mode, seen.dtype)
found = [int(seen[32, 16 * i + 8, 0]) for i in range(len(values))]
for value, got in zip(values, found):
    print(f'{value:6d} -> {got}')
raise SystemExit(0 if found[-3:] == [255, 0, 0] else 'this is no longer so')
PYTHON
