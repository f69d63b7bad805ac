#!/usr/bin/env bash
# Gather wheels of what mmfss asks for beside torch, for a machine without network:
#   tools/benchmarks/gpu_wheels.sh FOLDER [PYTHON [NAME ...]]
# PYTHON: version there (default 3.12), on x86-64 Linux. NAME: packages that are there already and
# are left out. Building sam2 needs torch and setuptools here (PYTHON_HERE, default .venv's or python3).
set -euo pipefail
folder=${1:?FOLDER [PYTHON [NAME ...]]}
version=${2:-3.12}
shift $(($# < 2 ? $# : 2))
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=${PYTHON_HERE:-$root/.venv/bin/python}
[ -x "$here" ] || here=python3
mkdir -p "$folder"

# what the requirements ask for in turn: --no-deps, as one of them asks for torch
others=(
    addict matplotlib pyyaml rich termcolor yapf platformdirs          # mmengine, mmcv-lite
    contourpy cycler fonttools kiwisolver pyparsing python-dateutil six # matplotlib
    markdown-it-py mdurl pygments                                      # rich
    prettytable wcwidth                                                # mmsegmentation, ftfy
    portalocker docstring-parser typeguard typing-extensions           # iopath, tyro
)
# these have no wheel on the registry; pure Python
SAM2_BUILD_CUDA=0 "$here" -m pip wheel -q --no-deps --no-build-isolation -w "$folder" \
    -r "$root/requirements/sam2.txt" 'antlr4-python3-runtime==4.9.*' 'iopath>=0.1.10'
platforms=()
for glibc in 28 27 17 12 5; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
grep -v '^iopath' "$root/requirements/common.txt" >"$folder/requirements.txt"
grep -v '^-r' "$root/requirements/runtime.txt" >>"$folder/requirements.txt"
"$here" -m pip download -q --no-deps --only-binary=:all: -d "$folder" \
    --python-version "$version" --implementation cp "${platforms[@]}" --platform manylinux2014_x86_64 \
    -r "$folder/requirements.txt" "${others[@]}"
rm "$folder/requirements.txt"
shopt -s nocaseglob nullglob
for name in "$@"; do rm -f "$folder/${name//[-.]/_}"-[0-9]*.whl; done
du -sh "$folder"
