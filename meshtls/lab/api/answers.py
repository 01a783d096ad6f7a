"""HTTP answers: JSON or YAML, packed when large; refusals as Status objects."""
import asyncio
import gzip
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import msgspec
import yaml
from starlette.requests import Request
from starlette.responses import Response

from meshtls.lab.api import discovery, status

Object = dict[str, Any]
GZIP_FROM_BYTES = 128 * 1024


def plain(value: Object, request: Request, code: int = 200) -> Response:
    """A value as JSON (YAML when that is asked for first)."""
    accept = request.headers.get("accept", "")
    if accept.startswith("application/yaml"):
        response = Response(yaml.safe_dump(value), code, media_type="application/yaml")
    else:
        kind = "application/json"
        if discovery.AGGREGATED in accept and value.get("kind") == "APIGroupDiscoveryList":
            kind += ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        response = Response(msgspec.json.encode(value), code, media_type=kind)
    response.headers["Cache-Control"] = "no-cache, private"
    return response


async def compressed(value: Object, request: Request) -> Response:
    """The same, packed when it is large and the client takes gzip."""
    response = plain(value, request)
    body = bytes(response.body)
    if len(body) < GZIP_FROM_BYTES or "gzip" not in request.headers.get("accept-encoding", ""):
        return response
    packed = await asyncio.to_thread(gzip.compress, body, 1)
    headers = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding", "Cache-Control": "no-cache, private"}
    return Response(packed, response.status_code, headers, media_type=response.headers["content-type"])


def refused(error: status.ApiError, request: Request) -> Response:
    """An ApiError as its Status."""
    if error.text:
        return Response(error.text, error.code, {"X-Content-Type-Options": "nosniff"}, media_type="text/plain")
    response = plain(error.status(), request, error.code)
    seconds = error.details.get("retryAfterSeconds")
    if seconds:
        response.headers["Retry-After"] = str(seconds)
    return response


async def until(closing: asyncio.Event, chunks: AsyncIterator[bytes], first: bytes | None = b"") -> AsyncIterator[bytes]:
    """What is streamed, until it ends or the server stops. `first` was read of it already (None: it had ended)."""
    stopped = asyncio.ensure_future(closing.wait())
    following = None
    try:
        while first is not None:
            yield first
            following = asyncio.ensure_future(anext(chunks, None))
            await asyncio.wait((following, stopped), return_when=asyncio.FIRST_COMPLETED)
            first = following.result() if following.done() else None
    finally:
        stopped.cancel()
        if following is not None:
            following.cancel()
            await asyncio.wait((following,))
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()
