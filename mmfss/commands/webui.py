"""What ``mmfss webui`` does: it starts the page."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfss.apis.method_choice import methods_at_hand
from mmfss.commands.command_lines import WebuiArguments, parse
from mmfss.hosts import LOOPBACKS, HostNames
from mmfss.webui.folders import (
    KEPT_DAYS,
    default_sessions,
    kept_folder,
    page_folder,
    signing_key,
)
from mmfss.webui.limits import Limits
from mmfss.webui.memory import MAX_SESSIONS
from mmfss.webui.visitors import Visitors
from mmfss.webui.worker import ModelChoice, Models, ModelWorker

if TYPE_CHECKING:
    from mmfss.webui.page import Page


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


def make_page(models: Models, limits: Limits, root: Path, kept: Path | None = None) -> Page:
    """The page; nothing of it is sent elsewhere.

    Args:
        models: to pick from.
        limits: of each visitor.
        root: folder of files that go with the page.
        kept: folder of sessions that stay, of :func:`mmfss.webui.folders.kept_folder`; None for
            none.

    Raises:
        ModuleNotFoundError: Gradio is not installed.
    """
    require_gradio()
    # Gradio reads both when it is imported or a component is made
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
    root = root.resolve()
    os.environ['GRADIO_TEMP_DIR'] = str(root / 'gradio')
    from mmfss.webui.page import Page

    return Page(Visitors(models, limits, root, kept))


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
    from mmfss.webui.layout import css, theme

    visitors = page.visitors
    kept = visitors.kept
    guard = Middleware(
        Guard,
        names=HostNames.of(host, names),
        roots=[visitors.root, *([] if kept is None else [kept])],
        key=signing_key(kept),
        days=None if kept is None else KEPT_DAYS,
    )
    options: dict[str, Any] = dict(
        server_name=host,
        server_port=free_port(host, port),
        share=False,
        inbrowser=False,
        show_error=False,
        max_file_size=visitors.limits.max_upload_bytes,
        state_session_capacity=MAX_SESSIONS,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        footer_links=[],
        theme=theme(),
        css=css(),
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


def ended(serve: Callable[[], None]) -> int:
    """Run a server until it is stopped, by ctrl-C or SIGTERM; it clears up behind it either way.

    Returns:
        The exit status: 0 when it was stopped while it served, 1 for wrong arguments, 130 when it
        was stopped before.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        serve()
    except (ValueError, OSError, ImportError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """:func:`run` with a command line, by default the process's."""
    return run(parse(WebuiArguments, arguments))


def run(args: WebuiArguments) -> int:
    """Serve the page; returns the exit status, see :func:`ended`."""
    return ended(partial(_serve, args))


def _serve(args: WebuiArguments) -> None:
    require_gradio()
    free_port(args.host, args.port)  # before the model is loaded, which takes a while
    limits = Limits(
        max_pixels=args.max_pixels,
        max_upload_mb=args.max_upload_mb,
        grey_values=args.grey_values().record(),
    )
    choice = ModelChoice(args.config, args.weights, args.method)
    runtime = args.encoder_runtime()
    worker = ModelWorker.load(choice, args.device, args.prompt_weights, runtime=runtime)
    models = Models(worker, methods_at_hand(), args.device, runtime)
    with page_folder() as root, _sessions(args) as kept:
        page = make_page(models, limits, root, kept)
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


@contextmanager
def _sessions(args: WebuiArguments) -> Iterator[Path | None]:
    """The folder in which sessions stay; None where they do not."""
    with ExitStack() as stack:
        kept = None
        if args.sessions is not None and args.forget:
            raise ValueError('--sessions keeps what --forget does not; leave one of them out')
        if args.sessions is not None:
            kept = stack.enter_context(kept_folder(args.sessions))
        elif not args.forget and args.port:  # a browser would not know a page at another port
            try:
                kept = stack.enter_context(kept_folder(default_sessions(args.port)))
            except OSError as error:
                print(f'Warning: sessions are not kept: {error}', file=sys.stderr)
        if kept is not None:
            print(f'Sessions are kept in {kept} (--forget keeps nothing)')
        yield kept
