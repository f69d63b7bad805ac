#!/usr/bin/env bash
# Gather wheels of what mmfss asks for beside torch, for a machine without network:
#   tools/benchmarks/gpu_wheels.sh FOLDER [PYTHON [NAME ...]]
# PYTHON: version there (default 3.12), on x86-64 Linux. NAME: packages that are there already and
# are left out. Versions are those of the environment here: .venv of make setup, or PYTHON_HERE.
set -euo pipefail
folder=${1:?usage: gpu_wheels.sh FOLDER [PYTHON [NAME ...]]}
version=${2:-3.12}
shift $(($# < 2 ? $# : 2))
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=${PYTHON_HERE:-$root/.venv/bin/python}
[ -x "$here" ] || { echo "gpu_wheels.sh: no $here: make setup first, or set PYTHON_HERE" >&2; exit 2; }
pip=("$here" -m pip --disable-pip-version-check)

# what the requirements ask for in turn; --no-deps, as some of them ask for torch and torchvision
others=(
    addict matplotlib pyyaml rich termcolor yapf platformdirs          # mmengine, mmcv-lite
    contourpy cycler fonttools kiwisolver pyparsing python-dateutil six # matplotlib
    markdown-it-py mdurl pygments                                      # rich
    prettytable wcwidth                                                # mmsegmentation, ftfy
    portalocker docstring-parser typeguard typing-extensions           # iopath, tyro
)
# no wheels on the registry: pure Python, built here
sources='^(sam2|antlr4-python3-runtime|iopath)=='
platforms=()
for glibc in 28 27 17 12 5; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
mkdir -p "$folder"
lists=$(mktemp -d)
trap 'rm -rf "$lists"' EXIT
"${pip[@]}" list --format=freeze --exclude-editable >"$lists/here.txt"
grep -E "$sources" "$lists/here.txt" >"$lists/build.txt"
cat "$root"/requirements/{common,runtime}.txt | grep -Ev '^(-r|iopath)' >"$lists/wanted.txt"
SAM2_BUILD_CUDA=0 "${pip[@]}" wheel -q --no-deps --no-build-isolation -w "$folder" -r "$lists/build.txt"
"${pip[@]}" download -q --no-deps --only-binary=:all: -d "$folder" -c "$lists/here.txt" \
    --python-version "$version" --implementation cp "${platforms[@]}" \
    --platform manylinux2014_x86_64 -r "$lists/wanted.txt" "${others[@]}"
shopt -s nocaseglob nullglob
for name in "$@"; do rm -f "$folder/${name//[-.]/_}"-[0-9]*.whl; done
du -sh "$folder"
