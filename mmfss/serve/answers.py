"""JSON in, JSON out: how the doors answer, and say what is wrong."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mmengine.logging import print_log
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

Work = Callable[[Mapping[str, Any]], Any]


def plain(text: str) -> dict[str, Any]:
    """An error as Label Studio's backends have it."""
    return dict(error=text)


def answered(
    work: Work, form: Callable[[str], dict[str, Any]] = plain
) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that does some work in a thread with the JSON object that it is sent.

    Args:
        work: what gives the answer. ValueError becomes status 400, FileNotFoundError 404,
            PermissionError 403, ConnectionError 502, any other error 500; one that is not meant
            for a user is on the terminal with its traceback.
        form: an error in the form of the program that asks.
    """

    async def endpoint(request: Request) -> Response:
        try:
            body = await request.body()
        except ClientDisconnect:  # nobody is there to be answered
            return Response(status_code=400)
        try:
            return JSONResponse(await run_in_threadpool(work, _object(body)))
        except (ValueError, OSError) as error:
            print_log(f'{request.url.path}: {error}', 'current', logging.WARNING)
            return JSONResponse(form(f'{error}'), _status(error))
        except Exception as error:  # a fault of ours, still said in the form of the program
            text = f'{request.url.path}: {traceback.format_exc()}'
            print_log(text, 'current', logging.ERROR)
            return JSONResponse(form(f'{type(error).__name__}: {error}'), 500)

    return endpoint


def _object(body: bytes) -> Mapping[str, Any]:
    if not body:
        return {}
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'the request is no JSON, or cut off ({error})') from error
    if not isinstance(content, dict):
        raise ValueError(f'the request must be a JSON object, got {type(content).__name__}')
    return content


def _status(error: Exception) -> int:
    kinds = ((FileNotFoundError, 404), (PermissionError, 403), (ConnectionError, 502))
    for kind, status in kinds:
        if isinstance(error, kind):
            return status
    return 500 if isinstance(error, OSError) else 400
