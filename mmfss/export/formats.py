"""Graphs as files of a runtime."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from warnings import catch_warnings, simplefilter

import torch

from mmfss.encoders.runtimes.converted import name_inputs, no_reports, save

from .graphs import Graph

NEEDS = dict(
    openvino=('openvino',),
    onnx=('onnx', 'onnxscript', 'onnxruntime'),
)
"""Format -> packages that write and run it."""


def check_format(name: str) -> dict[str, str]:
    """Make sure that a format can be written; versions of the packages that do so.

    Raises:
        ValueError: no such format, or a package of it is not installed.
    """
    if name not in NEEDS:
        raise ValueError(f'--format must be one of {list(NEEDS)}, got {name!r}')
    absent = [package for package in NEEDS[name] if find_spec(package) is None]
    if absent:
        raise ValueError(
            f'--format {name} needs {", ".join(absent)}, which is not installed: '
            f"pip install 'mmfss[export]', or {' '.join(absent)}"
        )
    return {package: version(package) for package in NEEDS[name]}


def write_graph(graph: Graph, folder: Path, form: str) -> Path:
    """Write a graph in float32 under its name; the file that a runtime is given, beside which there
    may be one of its weights.

    Args:
        graph: the graph.
        folder: where it is written.
        form: of :data:`NEEDS`, checked.

    Raises:
        ValueError: the format has no such operator; the message has what its own tool says.
    """
    writer = _write_openvino if form == 'openvino' else _write_onnx
    try:
        with _quiet(), no_reports():
            return writer(graph, folder)
    except OSError:
        raise
    except Exception as error:  # of their own kinds, which those who call this need not know
        said = ' '.join(f'{error}'.split())
        raise ValueError(f'{form} cannot take the graph {graph.name!r}: {said[:600]}') from error


def _write_openvino(graph: Graph, folder: Path) -> Path:
    import openvino

    made = openvino.convert_model(graph.program)
    if len(made.outputs) != len(graph.gives):
        raise ValueError(f'{len(made.outputs)} outputs came of {len(graph.gives)}')
    name_inputs(made, graph.program, graph.given)
    for port, name in zip(made.outputs, graph.gives):
        port.get_tensor().set_names({name})
    path = folder / f'{graph.name}.xml'
    save(made, path)
    return path


def _write_onnx(graph: Graph, folder: Path) -> Path:
    made = torch.onnx.export(
        graph.program,
        tuple(graph.given.values()),
        dynamo=True,
        input_names=list(graph.given),
        output_names=list(graph.gives),
        verbose=False,
    )
    path = folder / f'{graph.name}.onnx'
    assert made is not None
    made.save(path)
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """Within, the exporters keep to themselves that torchvision is absent, and what they will drop
    one day."""
    log = logging.getLogger('torch.onnx')
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with catch_warnings():
            simplefilter('ignore')
            yield
    finally:
        log.setLevel(level)
