"""OpenVINO: from a module of torch to what it runs, and that.

Nothing of OpenVINO is imported before it is needed.
"""

from __future__ import annotations

import functools
import importlib.metadata
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from packaging.version import Version
from torch import Tensor, nn

from .machine import cpu

if TYPE_CHECKING:
    import openvino

PACKAGE, EXTRA = 'openvino', 'pip install mmfss[openvino]'
MINIMUM = '2026.4'
"""The version that this was written and measured with."""
_INPUT = 'given_'
_BF16 = frozenset({'avx512_bf16', 'amx_bf16'})


class NotConverted(Exception):
    """A model that OpenVINO cannot run, or runs to other numbers; with the reason."""


def version() -> str | None:
    """Of the installed OpenVINO; None without one."""
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None


def missing() -> str | None:
    """Why OpenVINO cannot be used here, with what to do; None where it can."""
    found = version()
    if found is None:
        return f'OpenVINO is not installed ({EXTRA})'
    if Version(found) < Version(MINIMUM):
        return f'OpenVINO {found} is too old, {MINIMUM} or newer is needed ({EXTRA})'
    try:
        _core()
    except (ImportError, OSError, RuntimeError) as error:
        return f'OpenVINO {found} cannot be imported: {first_line(error)}'
    return None


def has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware."""
    # OpenVINO says so of every CPU with AVX-512, and emulates it on those without the instructions
    capable = 'BF16' in _core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
    flags = cpu().flags
    return capable and (not flags or not _BF16.isdisjoint(flags))


@functools.cache
def _core() -> openvino.Core:
    with no_reports():
        import openvino

        return openvino.Core()


# ------------------------------------------------------------------------------ to a model
def converted(module: nn.Module, given: Sequence[Tensor]) -> openvino.Model:
    """A module as a model of OpenVINO.

    It must have seen tensors of these shapes before: tables that it keeps would be made of torch's
    stand-ins for tensors otherwise.

    Args:
        module: takes tensors and returns a tuple of them; in eval mode, in float32 on the CPU.
        given: what it takes; the model takes these shapes alone, and of these tensors those that
            are read, each under a name with its place.

    Raises:
        NotConverted: torch cannot export it, or OpenVINO not read that.
    """
    _core()
    try:
        # both libraries warn of their own insides
        with no_reports(), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter('ignore')
            import openvino

            program = torch.export.export(module, tuple(given), strict=False)
            model = openvino.convert_model(program, example_input=None)
            name_inputs(model, program, {f'{_INPUT}{i}': one for i, one in enumerate(given)})
            return model
    except Exception as error:  # each of the two raises whatever it likes
        # OpenVINO lists what it lacks below lines of its own files
        lacks = [line[3:] for line in f'{error}'.splitlines() if line.startswith('-- ')]
        said = '; '.join(lacks)[:300] or first_line(error)
        raise NotConverted(f'{type(error).__name__}: {said}') from error


def name_inputs(
    model: openvino.Model, program: torch.export.ExportedProgram, given: Mapping[str, Tensor]
) -> None:
    """Give the inputs of a model names and fixed shapes; those that nothing reads are removed.

    Args:
        model: made of the program.
        program: of a module that takes tensors.
        given: what it was made with, by name, in order.
    """
    names, places, shapes = list(given), program.graph_signature.user_inputs, {}
    for port in model.inputs:
        # it has the names of what is the same tensor later on, too
        name = next(names[i] for i, place in enumerate(places) if place in port.names)
        port.get_tensor().set_names({name})
        if port.get_target_inputs():
            shapes[name] = list(given[name].shape)
        else:  # openvino 2026.4.1 leaves some of these out itself, not all
            model.remove_parameter(port.get_node())
    if model.is_dynamic():
        model.reshape(shapes)


def save(model: openvino.Model, path: Path) -> None:
    """Write a model, its weights as they are, to PATH.xml and PATH.bin."""
    _core()
    import openvino

    openvino.save_model(model, path, compress_to_fp16=False)


@contextmanager
def no_reports() -> Iterator[None]:
    """OpenVINO's converter and NNCF report their use over the network where nobody has declined,
    but not from CI, which this says: whoever marks photos was not asked."""
    before = os.environ.get('CI')
    os.environ['CI'] = 'true'
    try:
        yield
    finally:
        if before is None:
            del os.environ['CI']
        else:
            os.environ['CI'] = before


# ------------------------------------------------------------------------------ to run it
class Converted:
    """A model that is compiled for this CPU, with as many threads as torch has.

    Args:
        model: its .xml.
        precision: 'fp32', 'bf16', or 'int8' of a quantised one.

    Attributes:
        settings: what keys of features say of it.

    Raises:
        NotConverted: it cannot be compiled.
    """

    def __init__(self, model: Path, precision: str) -> None:
        fast = precision != 'fp32' and has_bf16()
        config = {
            'PERFORMANCE_HINT': 'LATENCY',
            'EXECUTION_MODE_HINT': 'PERFORMANCE' if fast else 'ACCURACY',
            'INFERENCE_PRECISION_HINT': 'bf16' if fast else 'f32',
            'INFERENCE_NUM_THREADS': torch.get_num_threads(),
            # or two processes that share the CPUs would both sit on the first ones
            'ENABLE_CPU_PINNING': False,
        }
        self.settings: dict[str, Any] = {}
        try:
            compiled = _core().compile_model(model, 'CPU', config)
            self._request = compiled.create_infer_request()
            # a compiled input has the names of what was left out behind it, too
            names = [name for port in compiled.inputs for name in port.names]
            ours = [name for name in names if name.startswith(_INPUT)]
            self._reads = [int(name.removeprefix(_INPUT)) for name in ours]
        except RuntimeError as error:
            raise NotConverted(first_line(error)) from error
        self._lock = threading.Lock()  # a request is of one thread at a time

    @classmethod
    def by_file(cls, write: Callable[[Path], None], precision: str) -> Converted:
        """A model that is kept nowhere, by way of a file that is gone again. Compiled from memory,
        a light pass gave torch's numbers at its first call and others from the second on
        (openvino 2026.4.1).

        Args:
            write: writes it to the path of an .xml file that it is given.
            precision: see the class.

        Raises:
            NotConverted: it cannot be compiled, or the folder for temporary files takes nothing.
        """
        try:
            with TemporaryDirectory(prefix='mmfss-', ignore_cleanup_errors=True) as folder:
                path = Path(folder) / 'model.xml'
                write(path)
                return cls(path, precision)
        except (RuntimeError, OSError) as error:  # OpenVINO's errors of the disk have no number
            raise NotConverted(f'no temporary file of it: {first_line(error)}') from error

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        """What the module gives for tensors of the shapes and dtypes that it was converted with:
        tensors of their own."""
        # read where they are; what comes out is copied, as the next call writes there
        arrays = [given[i].detach().contiguous().numpy() for i in self._reads]
        with self._lock:
            found = self._request.infer(arrays, share_inputs=True)
        return tuple(torch.from_numpy(found[i]) for i in range(len(found)))

    def of_images(self, images: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, S, S) -> what the steps of an encoder give, float32 (N, ...) each, contiguous.
        Images are run one by one, so that what one gives does not depend on its batch."""
        found = zip(*[self(image) for image in images.detach().float().split(1)])
        return tuple(level[0] if len(level) == 1 else torch.cat(level) for level in found)


def far_from(found: Sequence[Tensor], truth: Sequence[Tensor]) -> float:
    """The largest relative L2 of any level; infinite where shapes differ or a value is NaN."""
    return _furthest(found, truth, 2)


def largest_gap(found: Sequence[Tensor], truth: Sequence[Tensor]) -> float:
    """The largest difference of any value, relative to the largest value of its tensor; infinite
    where shapes differ or a value is NaN."""
    return _furthest(found, truth, math.inf)


def _furthest(found: Sequence[Tensor], truth: Sequence[Tensor], norm: float) -> float:
    """The largest ``|a - b| / |b|`` of any pair that holds values, in a norm."""
    if [tuple(t.shape) for t in found] != [tuple(t.shape) for t in truth]:
        return math.inf
    size = partial(torch.linalg.vector_norm, ord=norm)
    pairs = [(a.double(), b.double()) for a, b in zip(found, truth) if b.numel()]
    far = [float(size(a - b) / size(b).clamp_min(1e-30)) for a, b in pairs]
    return math.inf if any(math.isnan(x) for x in far) else max(far, default=0.0)


def first_line(error: BaseException) -> str:
    """The first line of a message that has something to say."""
    lines: list[Any] = [line.strip() for line in f'{error}'.splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]
