"""An exported folder: graphs, ``manifest.json`` and ``runner.py``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

import mmfss
from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.nway import encode_classes, segment_classes
from mmfss.apis.prediction import check_threshold
from mmfss.arguments import integer
from mmfss.checkpoints.record import plain

from . import runner
from .formats import check_format, write_graph
from .graphs import Graph, parts_of, tensors_of_class, whole_of

CLOSE = 1e-3
"""By how much of the largest logit a written graph may differ from torch, on noise; rounding is
about 1e-5."""


def export(
    inferencer: FewShotInferencer,
    out: Path,
    form: str = 'openvino',
    shots: int = 1,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a method as graphs, with its support set in them where it was shown one.

    OUT is written whole or not at all, once a run of the written graphs on noise agrees with torch.

    Args:
        inferencer: of a model on the CPU; with :meth:`~FewShotInferencer.set_support` before for N
            classes in one graph.
        out: a folder that is not there, or empty.
        form: 'openvino' or 'onnx'.
        shots: K of the graph of the supports; not read with a support set.
        about: what the manifest says more, of JSON types.

    Returns:
        The manifest.

    Raises:
        ValueError: OUT is not empty, the method has no static graph, a package of the format is
            absent, the format lacks an operator, or what it computes is something else.
        OSError: OUT cannot be written.
    """
    versions = check_format(form)
    out = Path(out)
    check_free(out)
    model = inferencer.model
    states = inferencer.states
    out.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        # beside OUT, so that it is moved there and not copied
        part = Path(stack.enter_context(TemporaryDirectory(prefix=f'.{out.name}.', dir=out.parent)))
        files = part / 'whole'
        files.mkdir()
        stack.enter_context(model.encoding.in_torch())  # what is traced, and compared with
        with model.encoding.without_cache():
            if states is None:
                integer('--shots', shots, 1)
                made = parts_of(model, shots)
            else:
                made = iter([whole_of(model, states)])
            graphs = {graph.name: _written(graph, files, form) for graph in made}
        shutil.copyfile(runner.__file__, files / 'runner.py')
        manifest = dict(
            format=runner.FORMAT,
            format_version=runner.VERSION,
            runtime=form,
            method=type(model).__name__,
            title=model.title,
            arch=plain(model.arch),
            **_said(inferencer, shots),
            image_size=model.image_size,
            resize=model.resize,
            photo='float32 (1, 3, S, S) RGB 0..255; normalised in the graph',
            logits='of a class, >= 0 inside',
            graphs=graphs,
            why_no_support=model.not_static().get('encode_support'),
            versions=dict(mmfss=mmfss.__version__, torch=torch.__version__, **versions),
            **(about or {}),
            files={
                file.name: dict(sha256=runner.sha256_of(file), bytes=file.stat().st_size)
                for file in sorted(files.iterdir())
            },
        )
        manifest['sha256'] = runner.sha256_of_manifest(manifest)
        text = json.dumps(manifest, indent=1, ensure_ascii=False) + '\n'
        (files / runner.MANIFEST).write_text(text, encoding='utf-8')
        _check(inferencer, files, shots)
        if out.exists():
            out.rmdir()
        files.rename(out)
    return manifest


def check_free(out: Path) -> None:
    """Make sure that a folder can be written to.

    Raises:
        ValueError: there is something in it, or it is none.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f'{out} is not an empty folder; give one that is empty or not there')


def _written(graph: Graph, folder: Path, form: str) -> dict[str, Any]:
    return dict(
        file=write_graph(graph, folder, form).name,
        inputs=[
            dict(
                name=name, shape=list(tensor.shape), dtype=f'{tensor.dtype}'.removeprefix('torch.')
            )
            for name, tensor in graph.given.items()
        ],
        outputs=list(graph.gives),
    )


def _said(inferencer: FewShotInferencer, shots: int) -> dict[str, Any]:
    """Classes, thresholds and K."""
    default = inferencer.threshold
    if inferencer.has_support:
        names = inferencer.classes
        limits = [float(value) for value in check_threshold(default, names)]
        count = {name: len(some) for name, some in inferencer.support.shots.items()}
        return dict(classes=list(names), thresholds=limits, shots=count)
    if isinstance(default, Mapping):
        raise ValueError('thresholds of single classes need a support set; give one for all')
    return dict(classes=None, thresholds=None, threshold=float(default), shots=shots)


@torch.no_grad()
def _check(inferencer: FewShotInferencer, folder: Path, shots: int) -> None:
    """Compare what was written with torch on photos of noise, of which one must agree: two masks of
    a decoder may be so nearly alike that rounding chooses between them.

    Raises:
        ValueError: none does.
    """
    model, side = inferencer.model, inferencer.image_size
    labeller = runner.Labeller(folder)
    off = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        image = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        mask = np.zeros((side, side), np.uint8)
        mask[side // 4 : side * 3 // 4, side // 4 : side * 3 // 4] = 1
        states = inferencer.states
        if states is None:
            states = encode_classes(model, [[(image[..., ::-1], mask)] * shots])
            if 'support' in labeller.graphs:
                labeller.set_support({'noise': [(image, mask == 1)] * shots})
            else:
                labeller.set_states({'noise': [t.numpy() for t in tensors_of_class(states)]})
        pixels = torch.from_numpy(runner.as_input(image, side, model.resize))
        wanted = segment_classes(model, model.encode_image(pixels), states).logits[0].numpy()
        difference = np.abs(labeller.maps(image)[0] - wanted).max() / np.abs(wanted).max()
        if difference <= CLOSE:
            return
        off.append(f'{difference:.2g}')
    raise ValueError(
        f'the exported graphs differ from torch by {", ".join(off)} of the largest logit on three '
        f'photos of noise, and {CLOSE:g} is allowed; take another --format, or other versions of '
        'its packages'
    )
