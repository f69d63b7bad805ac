"""Starts the page: ``python tools/webui.py``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfss.apis.loading import DEFAULT_CONFIG
from mmfss.webui.uploads import Limits
from mmfss.webui.worker import ModelChoice, ModelWorker

if TYPE_CHECKING:
    from mmfss.webui.page import Page

LOOPBACK = '127.0.0.1'
MAX_SESSIONS = 64
"""Visitors whose data is kept; the one who was idle longest goes first."""


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        prog='webui.py', description='A web page to mark objects, label images and take masks away.'
    )
    limits = Limits()
    add = parser.add_argument
    add('--config', default=DEFAULT_CONFIG, help='name or path (default: %(default)s)')
    add('--weights', help='checkpoint; may be left out for the default config')
    add('--prompt-weights', help="for masks from boxes and points: 'official' or a file")
    add('--device', help="e.g. cuda:1 (default: the first GPU, else 'cpu')")
    add('--host', default=LOOPBACK, help='address to listen on (default: this machine only)')
    add('--port', type=int, default=7860, help='0: any free one (default: %(default)s)')
    add('--max-upload-mb', type=int, default=limits.max_upload_mb, help='(default: %(default)s)')
    add(
        '--max-pixels',
        type=int,
        default=limits.max_pixels,
        help='width x height of an image (default: %(default)s)',
    )
    return parser


def require_gradio() -> None:
    """Make sure that Gradio is installed.

    Raises:
        ModuleNotFoundError: It is not; the message has the command.
    """
    if find_spec('gradio') is None:
        raise ModuleNotFoundError(
            'the web page needs Gradio, which is optional: pip install -r requirements/webui.txt',
            name='gradio',
        )


def make_page(worker: ModelWorker, limits: Limits, root: Path) -> Page:
    """The page, its files below ``root``; nothing of it is sent elsewhere.

    Raises:
        ModuleNotFoundError: Gradio is not installed.
    """
    require_gradio()
    # Gradio reads both when it is imported or a component is made
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
    os.environ['GRADIO_TEMP_DIR'] = str(root / 'gradio')
    from mmfss.webui.page import Page

    return Page(worker, limits, root)


def launch(page: Page, host: str, port: int, block: bool = True) -> str:
    """Serve the page; returns its address, unless it blocks until interrupted.

    Raises:
        ValueError: The port is taken.
    """
    from mmfss.webui import texts
    from mmfss.webui.layout import theme

    options: dict[str, Any] = dict(
        server_name=host,
        server_port=port or _free_port(host),
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
        css=texts.CSS,
        quiet=True,
    )
    page.blocks.queue(default_concurrency_limit=16)
    try:
        _, url, _ = page.blocks.launch(prevent_thread_lock=True, **options)
    except OSError as error:
        raise ValueError(
            f'cannot listen on {host}:{port} ({error}); is a page open there already? Give another '
            'port with --port'
        ) from error
    print(f'The page is at {url}  (ctrl-C ends it)', flush=True)
    if block:
        page.blocks.block_thread()
    return str(url)


def _free_port(host: str) -> int:
    import socket

    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = parser().parse_args(arguments)
    try:
        require_gradio()
        limits = Limits(max_pixels=args.max_pixels, max_upload_mb=args.max_upload_mb)
        worker = ModelWorker.load(
            ModelChoice(args.config, args.weights), args.device, args.prompt_weights
        )
        with tempfile.TemporaryDirectory(prefix='mmfss_webui_') as root:
            page = make_page(worker, limits, Path(root))
            if args.host != LOOPBACK:
                print(
                    f'Warning: the page listens on {args.host}. Whoever reaches that address can '
                    'use it: there is no password and no encryption. Put it behind a server that '
                    'has both.',
                    file=sys.stderr,
                )
            launch(page, args.host, args.port)
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0
