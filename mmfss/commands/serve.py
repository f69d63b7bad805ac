"""What ``mmfss serve`` does: it starts the service behind labelling programs."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mmfss.apis.prediction import check_threshold
from mmfss.commands.command_lines import ServeArguments
from mmfss.commands.webui import ended, free_port
from mmfss.files import locked
from mmfss.hosts import LOOPBACKS, HostNames
from mmfss.webui.limits import Limits
from mmfss.webui.worker import ModelChoice, ModelWorker

if TYPE_CHECKING:
    from mmfss.serve.app import Service
    from mmfss.serve.xanylabeling import Folder

NEEDED = 'starlette', 'uvicorn', 'httpx'
MEMORY_BYTES = 2**30
"""Of features of images, those that were used last."""


def run(args: ServeArguments) -> int:
    """Serve until interrupted; returns the exit status, see :func:`mmfss.commands.webui.ended`."""
    return ended(partial(_serve, args))


def _serve(args: ServeArguments) -> None:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f'the service needs {", ".join(missing)}, which is optional: pip install -r '
            'requirements/serve.txt, or without a checkout pip install "mmfss[serve]"'
        )
    from mmfss.serve.app import Service
    from mmfss.serve.projects import Projects
    from mmfss.serve.sources import LabelStudioPhotos

    free_port(args.host, args.port)  # before the model is loaded, which takes a while
    folders = folders_of(args.folder)
    limits = Limits(
        max_pixels=args.max_pixels,
        max_upload_mb=args.max_upload_mb,
        max_shots=args.max_shots,
        grey_values=args.grey_values().record(),
    )
    if args.local_files is not None and not args.local_files.is_dir():
        raise FileNotFoundError(f'--local-files {args.local_files} is no folder')
    if not args.label_studio.startswith(('http://', 'https://')):
        raise ValueError(f'--label-studio must be http://HOST:PORT, got {args.label_studio!r}')
    data = (args.data or _default_data()).expanduser().resolve()
    token = args.token or os.environ.get('MMFSS_TOKEN') or None
    key = os.environ.get('LABEL_STUDIO_API_KEY') or None
    with locked(data / 'lock', f'serves {data}'), closing(_worker(args, data)) as worker:
        service = Service(
            Projects(data, worker, limits),
            LabelStudioPhotos(args.label_studio, args.local_files, key, args.image_host, limits),
            folders,
            HostNames.of(args.host, args.allowed_host, 'service'),
            token,
        )
        listen(service, args.host, args.port, data)


def _default_data() -> Path:
    root = os.environ.get('XDG_DATA_HOME') or '~/.local/share'
    return Path(root) / 'mmfss' / 'serve'


def _worker(args: ServeArguments, data: Path) -> ModelWorker:
    """The model, with a cache of features in memory and on the disk."""
    if not 0 <= args.features_gb < 2**20:
        raise ValueError(f'--features-gb must be 0 or more, got {args.features_gb}')
    if args.threshold is not None:
        check_threshold(args.threshold, ('all',))
    cache = dict(
        directory=str(data / 'features'),
        memory_bytes=MEMORY_BYTES,
        disk_bytes=int(args.features_gb * 2**30),
    )
    choice = ModelChoice(args.config, args.weights, args.method)
    runtime = args.encoder_runtime()
    return ModelWorker.load(
        choice, args.device, args.prompt_weights, args.threshold, args.amp, cache, runtime
    )


def folders_of(given: Sequence[str]) -> list[Folder]:
    """The folders of ``--folder NAME=DIR``.

    Raises:
        ValueError: Another form, or a name twice.
        FileNotFoundError: No such folder.
    """
    from mmfss.serve.xanylabeling import Folder

    found: dict[str, Folder] = {}
    for text in given:
        name, equals, path = text.partition('=')
        if not equals or not name or name in found:
            raise ValueError(f'--folder must be NAME=DIR, each name once, got {text!r}')
        if not Path(path).expanduser().is_dir():
            raise FileNotFoundError(f'--folder {text}: there is no folder {path}')
        found[name] = Folder(name, Path(path).expanduser().resolve())
    return list(found.values())


def listen(service: Service, host: str, port: int, data: Path) -> None:
    """Serve until interrupted; the lines at the start say where, and what."""
    import uvicorn

    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listening:
        shown = f'[{host}]' if ':' in host else host
        address = f'http://{shown}:{listening.getsockname()[1]}'
        print(f'The service is at {address}  (ctrl-C ends it)')
        print(f'  method           {service.projects.worker.name}')
        print(f'  kept in          {data}')
        print(f'  Label Studio     at {service.photos.url}: connect the model {address}')
        for folder in service.folders:
            print(f'  X-AnyLabeling    model {folder.name!r}: {folder.path}')
        print(f'  token            {"needed" if service.token else "none"}', flush=True)
        if host not in LOOPBACKS and service.token is None:
            print(
                f'Warning: the service listens on {host} without a token. Whoever reaches that '
                'address can use it; set MMFSS_TOKEN. There is no encryption either way.',
                file=sys.stderr,
            )
        config = uvicorn.Config(
            service.app(),
            log_level='warning',
            access_log=False,
            server_header=False,
            lifespan='off',
            timeout_graceful_shutdown=30,
        )
        with suppress(KeyboardInterrupt):  # uvicorn has let requests end, and raises it again
            uvicorn.Server(config).run(sockets=[listening])
