"""The service: its doors behind one guard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import mmfss
from mmfss.hosts import HostNames
from mmfss.serve.guard import ServiceGuard
from mmfss.serve.label_studio import LabelStudio
from mmfss.serve.projects import Projects
from mmfss.serve.sources import LabelStudioPhotos
from mmfss.serve.xanylabeling import Folder, XAnyLabeling

MAX_REQUEST_BYTES = 64 * 2**20
"""Of tasks with what is marked in them, for services whose photos may be smaller."""


@dataclass(frozen=True)
class Service:
    """What the service is made of.

    Attributes:
        projects: where supports are.
        photos: those of Label Studio's tasks.
        folders: of X-AnyLabeling, by name.
        names: that are answered to.
        token: see :class:`mmfss.serve.guard.ServiceGuard`.
    """

    projects: Projects
    photos: LabelStudioPhotos
    folders: Sequence[Folder]
    names: HostNames
    token: str | None = None

    def app(self) -> Starlette:
        """The ASGI application."""
        projects = self.projects

        async def health(request: Request) -> JSONResponse:
            about = dict(model_class=projects.worker.name, version=mmfss.__version__)
            return JSONResponse(dict(status='UP', **about))

        async def home(request: Request) -> JSONResponse:
            summary = await run_in_threadpool(projects.summary)
            about = dict(mmfss=mmfss.__version__, method=projects.worker.name)
            return JSONResponse(dict(**about, projects=summary))

        routes = [Route('/health', health), Route('/', home)]
        routes += LabelStudio(projects, self.photos).routes()
        routes += XAnyLabeling(projects, self.folders).routes()
        # a photo in base64, and what goes with it
        most = max(projects.limits.max_upload_bytes * 4 // 3 + 2**20, MAX_REQUEST_BYTES)
        guard = Middleware(ServiceGuard, names=self.names, token=self.token, max_bytes=most)
        return Starlette(routes=routes, middleware=[guard])
