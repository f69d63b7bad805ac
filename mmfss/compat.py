"""What today's OpenMMLab stack breaks, and the mends; how mmfss joins it. Nothing else is here.

=========================  ===============================================================
mend                       what is broken, and when the mend can be deleted
=========================  ===============================================================
`hide_broken_torchvision`  A torchvision that does not match torch raises RuntimeError at
                           import (pytorch issue 122494); mmengine's environment report
                           expects ModuleNotFoundError alone. Until it takes any error.
`stand_in_for_mmcv_ops`    mmseg 1.2.2 imports ``mmcv.ops`` unguarded (mmseg issue 871;
                           mmseg/utils/mask_classification.py), which mmcv-lite lacks. Until
                           mmseg guards that import, as the fork does.
`register_safe_loaders`    torch >= 2.6 refuses mmengine's own checkpoints (mmengine issue
                           1655). The fork answers with ``weights_only=False``, and mmengine
                           loads URLs that way on any torch; both run any code that a file
                           carries. Until both load with ``weights_only=True`` alone.
`name_own_configs`         mmengine finds configs of other packages (``PACKAGE::NAME``) only for
                           those in its own table, only as ``_base_``, only in folders, and not
                           of editable installs. Until it asks the package.
`init_dist`                ``mmengine.dist.init_dist`` sets a CUDA device even where there is
                           none (no upstream issue known). Until it asks first.
`let_groups_end`           ``torch.distributed.nn.functional`` has the default group of the
                           moment of its import as default argument, and ``torch._dynamo``
                           imports it for the first DistributedDataParallel: the group then
                           outlives ``destroy_process_group``, its threads outlive Python, and
                           now and then they end the finished process with SIGABRT (torch 2.13;
                           pytorch pull request 179291 tells of the abort). Until its
                           functions look the group up when they are called.
`set_cpu_model_wrapper`    ``Runner.wrap_model`` passes ``device_ids`` for a model on the CPU,
                           which DistributedDataParallel refuses (mmengine pull request 351
                           set them). Until it asks first.
=========================  ===============================================================

:func:`apply` sees to the first four and to :func:`join_registries`, each stepping aside where it
finds nothing to do: at once for the modules that are there, for others when they are imported
(:class:`_Watch`), so that mmfss itself imports none of them. The three mends for distributed runs
are called by the tools.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from mmfss._versions import installed_version
from mmfss.configs import PREFIX, find_config

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')


def apply() -> None:
    """Make what importing, loading and looking up need. Safe to call more than once."""
    stand_in_for_mmcv_ops()
    for name, action in _WHEN_IMPORTED.items():
        if name in sys.modules:
            action()
        else:
            _watch.actions[name] = action
    if _watch.actions and _watch not in sys.meta_path:
        sys.meta_path.insert(0, _watch)


class _Watch:
    """A finder that finds nothing of its own: it calls an action as soon as a module is imported.

    Attributes:
        actions: by name of the module; each is called once, and after the last one the finder is
            gone from ``sys.meta_path``.
    """

    def __init__(self) -> None:
        self.actions: dict[str, Callable[[], None]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the finders after this one find, with the action behind its execution."""
        if name not in self.actions:
            return None
        others = (f for f in sys.meta_path if f is not self and hasattr(f, 'find_spec'))
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            execute(module)
            action = self.actions.pop(name, None)
            if not self.actions and self in sys.meta_path:
                sys.meta_path.remove(self)
            if action is not None:
                action()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


_watch = _Watch()


# -------------------------------------------------------------------------------- registries
def join_registries() -> None:
    """Let each of mmseg's registries import :mod:`mmfss.registered` at its next look-up.

    That is how mmseg's own parts come (``locations``), and never in the middle of an import of
    mmseg, which would find its modules half made.
    """
    from mmengine.registry import Registry

    registries = vars(sys.modules['mmseg.registry.registry']).values()
    for registry in (r for r in registries if isinstance(r, Registry) and r.scope == 'mmseg'):
        if 'mmfss.registered' not in registry._locations:
            # a new list: registries without locations share one
            registry._locations = [*registry._locations, 'mmfss.registered']
            registry._imported = False


# ------------------------------------------------------------------------------ torchvision
def hide_broken_torchvision() -> None:
    """Make a torchvision that does not match torch look like one that is not installed.

    Such a torchvision raises RuntimeError or AttributeError at import. Whether it would is
    told from its operator library, which a good one loads anyway, without importing it.
    """
    if 'torchvision' in sys.modules:
        return
    spec = importlib.util.find_spec('torchvision')
    if spec is None or spec.origin is None:
        return
    reason = _torchvision_fault(Path(spec.origin).parent)
    if reason is not None:
        import torch

        sys.modules['torchvision'] = None  # type: ignore[assignment]
        warnings.warn(
            f'torchvision {installed_version("torchvision")} does not work with torch '
            f'{torch.__version__} and is treated as absent; mmfss does not need it ({reason})',
            stacklevel=3,
        )


def _torchvision_fault(package: Path) -> str | None:
    import torch

    fault = 'its operator library is missing'
    for path in sorted(package.glob('_C*')):  # _C.so, or _C_stable.so in newer ones
        if path.suffix in ('.so', '.pyd'):
            try:
                torch.ops.load_library(str(path))
                return None
            except (OSError, RuntimeError) as error:
                fault = str(error.__cause__ or error).splitlines()[0]
    return fault


# ----------------------------------------------------------------------------- mmcv's operators
class _MissingOps(types.ModuleType):
    """Stand-in for the compiled ``mmcv._ext``: every function is there, none can be called."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith('__'):
            raise AttributeError(name)
        if name in ('get_compiler_version', 'get_compiling_cuda_version'):
            return lambda: 'n/a'  # mmcv's environment report asks these

        def missing(*args: object, **kwargs: object) -> None:
            raise ImportError(
                f'mmcv.ops: {name} needs full mmcv, but mmcv-lite is installed. Remedy: '
                'pip uninstall mmcv-lite, then pip install "mmcv>=2.1,<2.2" '
                '--no-build-isolation (builds from source).'
            )

        return missing


def stand_in_for_mmcv_ops() -> None:
    """Let ``import mmcv.ops`` work where mmcv has no compiled operators."""
    if 'mmcv._ext' in sys.modules or installed_version('mmsegmentation') is None:
        return  # done already, or the fork, whose mmseg needs none
    mmcv = importlib.util.find_spec('mmcv')
    if mmcv is not None and PathFinder.find_spec('mmcv._ext', mmcv.submodule_search_locations):
        return  # full mmcv
    module = _MissingOps('mmcv._ext', 'Stand-in by mmfss: needs full mmcv when called.')
    module.__spec__ = ModuleSpec('mmcv._ext', None)
    sys.modules['mmcv._ext'] = module


# ------------------------------------------------------------------------------- checkpoints
def register_safe_loaders() -> None:
    """Put safe loading into mmengine's seam, for local files and for every other scheme.

    Schemes other than local paths (``https://``, ``open-mmlab://``, ``s3://``, ...) keep
    mmengine's loader, run with ``weights_only=True`` forced.
    """
    from mmengine.runner.checkpoint import CheckpointLoader

    from mmfss.safe_load import load_checkpoint, made_safe

    def load_from_local(filename: str, map_location: Any = None) -> Any:
        return load_checkpoint(filename, map_location)

    CheckpointLoader.register_scheme('', load_from_local, force=True)
    for prefix, loader in list(CheckpointLoader._schemes.items()):
        if prefix and not hasattr(loader, '__wrapped__'):
            CheckpointLoader.register_scheme(prefix, made_safe(loader), force=True)


# ----------------------------------------------------------------------------------- configs
def name_own_configs() -> None:
    """Let ``Config.fromfile('mmfss::NAME')`` and ``_base_ = 'mmfss::NAME'`` find mmfss's configs.

    See :func:`mmfss.configs.find_config`. Other names are left to mmengine.
    """
    from mmengine.config.config import Config

    fromfile, base_path = Config.fromfile, Config._get_cfg_path
    if hasattr(fromfile, '__wrapped__'):
        return

    def found(name: Any) -> Any:
        return str(find_config(name)) if str(name).startswith(PREFIX) else name

    @wraps(fromfile)
    def fromfile_or_name(filename: Any, *args: Any, **kwargs: Any) -> Any:
        return fromfile(found(filename), *args, **kwargs)

    @wraps(base_path)
    def base_path_or_name(cfg_path: str, filename: str) -> Any:
        return base_path(found(cfg_path), filename)

    Config.fromfile = staticmethod(fromfile_or_name)
    Config._get_cfg_path = staticmethod(base_path_or_name)


#: module -> what is to be done once it is imported
_WHEN_IMPORTED = {
    'mmengine': hide_broken_torchvision,
    'mmengine.config.config': name_own_configs,
    'mmengine.runner.checkpoint': register_safe_loaders,
    'mmseg.registry.registry': join_registries,
}


# ----------------------------------------------------------------------------- distributed runs
def let_groups_end() -> None:
    """Import ``torch.distributed.nn.functional`` while there is no process group.

    To be called before a group is made, by whomever; then ``destroy_process_group`` and the end
    of what was wrapped for it (DistributedDataParallel) end the threads of gloo too.
    """
    import torch.distributed as dist

    if dist.is_available() and not dist.is_initialized():
        import torch.distributed.nn.functional  # noqa: F401


def init_dist(launcher: str) -> None:
    """Initialise the process group with gloo where there is no accelerator.

    To be called before the Runner is built, which then skips its own ``init_dist``. Does
    nothing for launcher ``'none'``, on a machine with an accelerator (mmengine sees to it), or
    where the group is there already.

    Args:
        launcher: one of :data:`LAUNCHERS`.

    Raises:
        ValueError: another launcher, or the environment lacks what it should have set.
    """
    if launcher not in LAUNCHERS:
        raise ValueError(f'launcher: allowed {", ".join(LAUNCHERS)}; got {launcher!r}.')
    import torch.distributed as dist

    if launcher == 'none' or not _cpu_only() or dist.is_initialized():
        return
    os.environ.setdefault('MASTER_PORT', '29500')
    if launcher == 'slurm':
        _set_rank('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID')
        os.environ.setdefault('MASTER_ADDR', _first_slurm_node())
    elif launcher == 'mpi':
        _set_rank(*(f'OMPI_COMM_WORLD_{key}' for key in ('RANK', 'SIZE', 'LOCAL_RANK')))
    _need('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR')
    dist.init_process_group('gloo')


def set_cpu_model_wrapper(cfg: Any) -> None:
    """Set ``cfg.model_wrapper_cfg`` for a distributed run on the CPU, unless it is set.

    To be called after :func:`init_dist` with the config that goes to ``Runner.from_cfg``.
    """
    import torch.distributed as dist

    if not dist.is_initialized() or not _cpu_only():
        return
    if cfg.get('model_wrapper_cfg') is None:
        cfg['model_wrapper_cfg'] = dict(
            type='MMDistributedDataParallel',
            device_ids=None,  # said aloud: the Runner fills in what is left out
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )


def _cpu_only() -> bool:
    from mmengine.device import get_device

    return get_device() in ('cpu', 'mps')


def _need(*keys: str) -> None:
    missing = [key for key in keys if key not in os.environ]
    if missing:
        raise ValueError(
            f'a distributed run needs the environment variables {", ".join(keys)}; '
            f'{", ".join(missing)} not set. Remedy: start with torchrun (launcher pytorch), '
            'srun (slurm) or mpirun and MASTER_ADDR (mpi).'
        )


def _set_rank(rank: str, world_size: str, local_rank: str) -> None:
    _need(rank, world_size)
    os.environ['RANK'] = os.environ[rank]
    os.environ['WORLD_SIZE'] = os.environ[world_size]
    os.environ['LOCAL_RANK'] = os.environ.get(local_rank, os.environ[rank])


def _first_slurm_node() -> str:
    if 'MASTER_ADDR' in os.environ:
        return os.environ['MASTER_ADDR']
    _need('SLURM_NODELIST')
    command = ['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise ValueError(
            f'the first node of SLURM_NODELIST={os.environ["SLURM_NODELIST"]} cannot be found '
            f'({error}). Remedy: set MASTER_ADDR.'
        ) from error
