"""What ``mmfss webui`` does: it starts the page."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfss.apis.method_choice import methods_at_hand
from mmfss.commands.command_lines import WebuiArguments, parse
from mmfss.hosts import LOOPBACKS, HostNames
from mmfss.webui.limits import Limits
from mmfss.webui.uploads import page_folder
from mmfss.webui.worker import ModelChoice, Models, ModelWorker

if TYPE_CHECKING:
    from mmfss.webui.page import Page

MAX_SESSIONS = 64
"""Visitors whose data is kept; the one who was idle longest goes first."""


def require_gradio() -> None:
    """Make sure that Gradio is installed.

    Raises:
        ModuleNotFoundError: It is not; the message has the command.
    """
    if find_spec('gradio') is None:
        raise ModuleNotFoundError(
            'the web page needs Gradio, which is optional: pip install -r requirements/webui.txt, '
            'or without a checkout pip install "gradio>=6.31,<7"',
            name='gradio',
        )


def make_page(
    worker: ModelWorker, limits: Limits, root: Path, models: Models | None = None
) -> Page:
    """The page, its files below ``root``; nothing of it is sent elsewhere.

    Raises:
        ModuleNotFoundError: Gradio is not installed.
    """
    require_gradio()
    # Gradio reads both when it is imported or a component is made
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
    root = root.resolve()
    os.environ['GRADIO_TEMP_DIR'] = str(root / 'gradio')
    from mmfss.webui.page import Page

    return Page(worker, limits, root, models)


def launch(page: Page, host: str, port: int, names: Sequence[str] = (), block: bool = True) -> str:
    """Serve the page; returns its address, unless it blocks until interrupted.

    Args:
        page: of :func:`make_page`.
        host, port: to listen on.
        names: further host names that it answers to, see :class:`mmfss.hosts.HostNames`.
        block: until interrupted.

    Raises:
        ValueError: See :func:`free_port`.
    """
    from starlette.middleware import Middleware

    from mmfss.webui.guard import Guard
    from mmfss.webui.layout import CSS, theme

    guard = Middleware(Guard, names=HostNames.of(host, names), root=page.root)
    options: dict[str, Any] = dict(
        server_name=host,
        server_port=free_port(host, port),
        share=False,
        inbrowser=False,
        show_error=False,
        max_file_size=page.limits.max_upload_bytes,
        state_session_capacity=MAX_SESSIONS,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        footer_links=[],
        theme=theme(),
        css=CSS,
        quiet=True,
        app_kwargs=dict(middleware=[guard]),
    )
    page.blocks.queue(default_concurrency_limit=16)
    _, url, _ = page.blocks.launch(prevent_thread_lock=True, **options)
    print(f'The page is at {url}  (ctrl-C ends it)', flush=True)
    if block:
        page.blocks.block_thread()
    return str(url)


def free_port(host: str, port: int) -> int:
    """The port, or any free one for 0, after a try whether it can be listened on.

    Raises:
        ValueError: It is taken, not allowed, not in 0..65535, or the host is not this machine's.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f'--port must be in 0..65535, got {port}')
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise ValueError(
            f'cannot listen on {host}:{port} ({error}); is a page open there already? Give another '
            'port with --port, or an address of this machine with --host'
        ) from error


@contextmanager
def terminable() -> Iterator[None]:
    """Within, SIGTERM ends a server as ctrl-C does, so that it clears up behind it."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """:func:`run` with a command line, by default the process's."""
    return run(parse(WebuiArguments, arguments))


def run(args: WebuiArguments) -> int:
    """Serve the page; returns the exit status: 0 when it was stopped while it served, 1 for wrong
    arguments, 130 when it was stopped before."""
    try:
        with terminable():
            _serve(args)
    except (ValueError, OSError, ImportError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _serve(args: WebuiArguments) -> None:
    require_gradio()
    free_port(args.host, args.port)  # before the model is loaded, which takes a while
    limits = Limits(
        max_pixels=args.max_pixels,
        max_upload_mb=args.max_upload_mb,
        grey_values=args.grey_values().record(),
    )
    choice = ModelChoice(args.config, args.weights, args.method)
    worker = ModelWorker.load(choice, args.device, args.prompt_weights)
    models = Models(worker, methods_at_hand(), args.device)
    with page_folder() as root:
        page = make_page(worker, limits, root, models)
        if args.host not in LOOPBACKS:
            print(
                f'Warning: the page listens on {args.host}. Whoever reaches that address can use '
                'it: there is no password and no encryption. Put it behind a server that has both.',
                file=sys.stderr,
            )
        try:
            launch(page, args.host, args.port, args.allowed_host)
        finally:
            models.close()  # nothing writes any more
