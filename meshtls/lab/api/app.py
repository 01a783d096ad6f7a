"""The API over HTTP: every request is met by the same steps, in this order.

    who (token, impersonation) -> what (path to resource, verb) -> may they (RBAC) -> do it -> the asked form

The object `Api` is an ASGI application; `serve` runs it on TLS. It lives in the event loop of the lab's process, as the
store does.
"""
import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from meshtls.lab.api import answers, authz, discovery, istio, logs, patch, protobuf, reads, select, status, strategy, subresources, trouble, warn, watch
from meshtls.lab.api.admission import Admission
from meshtls.lab.api.authz import Attributes, Rbac
from meshtls.lab.api.bootstrap import fill
from meshtls.lab.api.field import forbidden, invalid, quote, required, too_long, unsupported
from meshtls.lab.api.identity import ANONYMOUS, Tokens, User, impersonated
from meshtls.lab.api.reads import Form
from meshtls.lab.api.resources import Registry, from_definition
from meshtls.lab.api.store import Event, Store
from meshtls.lab.api.target import Options, Target
from meshtls.lab.api.webhooks import Dial, Inject, Webhooks
from meshtls.lab.api.writes import Writes

Object = dict[str, Any]
CRDS = "customresourcedefinitions.apiextensions.k8s.io"
_ENDPOINTS = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
_PUBLIC = ("/healthz", "/livez", "/readyz", "/version")
_log = logging.getLogger(__name__)


class Api:
    """The API server. `tokens` says who is who; `inject` is Istio's injector in process; `log_source` has the
    containers' output; `dial` reaches services of the lab for webhooks."""

    def __init__(self, store: Store, *, tokens: Tokens | None = None, inject: Inject | None = None,
                 log_source: logs.LogSource | None = None, dial: Dial | None = None, istio_kinds: bool = True) -> None:
        self.store, self.tokens = store, tokens or Tokens(store)
        self.registry, self.rbac = Registry(), Rbac(store)
        self.closing = asyncio.Event()
        self._trouble = trouble.Trouble(store)
        self.address = ""
        self._server: Any = None
        self._open: list[Any] = []
        self._logs = log_source
        admission = Admission(store, self.registry, Webhooks(store, inject=inject, dial=dial))
        self.writes = Writes(store, self.registry, admission, self.rbac)
        self._subresources = subresources.Subresources(store, self.tokens, self.rbac, self.writes)
        if istio_kinds and (kind := self.registry.named(CRDS)):
            for resource in istio.resources():
                self.registry.add(resource)
                definition = istio.definition(resource)
                strategy.created(kind, definition, store)
                if store.get(CRDS, "", resource.name) is None:
                    store.create(CRDS, definition)
        if store.get(f"clusterroles.{authz.RBAC}", "", "cluster-admin") is None:
            fill(store)
        store.compact()  # what was before the server began is not told
        store.admitter = self.writes.submit
        store.subscribe(self._definitions)

    def _definitions(self, event: Event) -> None:
        """Custom kinds come and go with their definitions; what is no change of the spec changes no kind."""
        if event.resource != CRDS or event.type == "MODIFIED" and event.old and event.old["spec"] == event.object["spec"]:
            return
        name = event.object["metadata"]["name"]
        if event.type != "DELETED":
            self.registry.add(from_definition(event.object))
            return
        for obj in self.store.list(name):
            self.store.remove(name, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        self.registry.remove(name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = HttpRequest(scope, receive)
        request.state.warnings = []
        try:
            response = await self._answer(request)
        except status.ApiError as error:
            response = answers.refused(error, request)
        except ClientDisconnect:
            return
        except Exception:
            _log.exception("%s %s", request.method, request.url.path)
            response = answers.refused(status.internal("the lab's API failed on this request; its log says how"), request)
        for text in dict.fromkeys(request.state.warnings):
            response.headers.append("Warning", f"299 - {quote(text)}")
        await response(scope, receive, send)

    async def _answer(self, request: HttpRequest) -> Response:
        path, user = request.url.path, self._who(request)
        if path.rstrip("/").removesuffix("/ping") in _PUBLIC:
            if not path.startswith("/version"):
                return Response("ok", media_type="text/plain")
            if request.method != "GET":
                raise status.not_allowed()
            Form.of(request.headers.get("accept", ""), {})
            return answers.plain(discovery.VERSION, request)
        self._trouble.permit()
        parts = [unquote(part) for part in path.split("/") if part]
        if len(parts) >= 3 and parts[0] == "api" or len(parts) >= 4 and parts[0] == "apis":
            return await self._resource(request, user, parts)
        self.rbac.permit(user, Attributes(request.method.lower(), path=path))
        document = discovery.document(self.registry, parts, discovery.AGGREGATED in request.headers.get("accept", ""),
                                      self.address)
        if document is None:
            known = parts[0] == "apis" and len(parts) == 3 and parts[1] in self.registry.groups()
            if parts[0] == "api" or known and not self.registry.is_custom(parts[1]):
                raise status.unknown_resource()
            raise status.no_such_path()
        if request.method not in ("GET", "HEAD"):
            raise status.not_allowed()
        accept = request.headers.get("accept", "")
        if discovery.OPENAPI_PROTOBUF in accept:
            return Response(b"", media_type=f"{discovery.OPENAPI_PROTOBUF}.v1.0+protobuf")  # the empty document
        if discovery.AGGREGATED not in accept:
            Form.of(accept, {})
        return answers.plain(document, request)

    def _who(self, request: HttpRequest) -> User:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return ANONYMOUS
        user = self.tokens.user(token.strip())
        if user is None:
            raise status.ApiError(401, "Unauthorized", "Unauthorized")
        acted = impersonated(request.headers)
        if acted is None:
            return user
        asked = Attributes("impersonate", resource="users", name=acted.name)
        if acted.name.startswith("system:serviceaccount:") and acted.name.count(":") == 3:
            _, _, namespace, name = acted.name.split(":")
            asked = Attributes("impersonate", resource="serviceaccounts", namespace=namespace, name=name)
        self.rbac.permit(user, asked)
        for group in request.headers.getlist("impersonate-group"):
            self.rbac.permit(user, Attributes("impersonate", resource="groups", name=group))
        return acted

    async def _resource(self, request: HttpRequest, user: User, parts: list[str]) -> Response:
        core = parts[0] == "api"
        group, version, rest = ("", parts[1], parts[2:]) if core else (parts[1], parts[2], parts[3:])
        known, custom = ["v1"] if core else self.registry.groups().get(group, []), self.registry.is_custom(group)
        namespace = ""
        if rest[0] == "namespaces" and len(rest) >= 3 and not (core and rest[2] in ("status", "finalize")):
            namespace, rest = rest[1], rest[2:]
        plural, name, subresource = (*rest, "", "")[:3]
        resource, query = self.registry.at(group, version, plural), request.query_params
        verb = _verb(request.method, name, query)
        named = name or (select.named(query.get("fieldSelector", "")) if verb in ("list", "watch") else "")
        self.rbac.permit(user, Attributes(verb, group, plural, subresource,
                                          name if core and plural == "namespaces" else namespace, named))
        if version not in known:
            raise status.unknown_resource() if known and not custom else status.no_such_path()
        if custom and (resource is None or resource.namespaced and not namespace and (name or verb not in ("list", "watch"))):
            raise status.no_such_path()
        if custom and resource is not None and subresource and subresource not in resource.subresources:
            raise status.not_found(resource.name, name)
        if custom and not name and verb in ("update", "patch"):
            raise status.bad_request("name must be provided")
        if resource is None or len(rest) > 3 or (subresource and subresource not in resource.subresources) or (
                namespace and not resource.namespaced):
            raise status.unknown_resource()
        if resource.namespaced and not namespace and (name or verb in ("create", "deletecollection")):
            raise status.unknown_resource() if name else status.not_allowed()
        if verb == "deletecollection" and resource.kind == "Namespace":
            raise status.not_allowed()
        if resource.name == "endpoints":
            request.state.warnings.append(_ENDPOINTS)
        return await self._do(verb, Target(resource, version, namespace, name, subresource), user, request)

    async def _do(self, verb: str, target: Target, user: User, request: HttpRequest) -> Response:
        query, form = request.query_params, Form.of(request.headers.get("accept", ""), request.query_params)
        if target.resource.virtual:
            if verb != "create":
                raise status.unknown_resource() if target.name else status.not_allowed()
            options = _options(request, user, "CreateOptions")
            obj = self.writes.read(await request.body(), target, options)
            self.writes.own(target, obj, options)
            return answers.plain(self._subresources.review(target, obj, user), request, 201)
        if target.subresource not in ("", "status", "finalize", "ephemeralcontainers"):
            if target.subresource == "log" and verb == "get":
                return await self._log(target, query)
            options = Options(user) if verb not in ("create", "update", "patch") else _options(
                request, user, f"{verb.title()}Options")
            value, code = await self._subresources.answer(verb, target, await request.body(), options)
            return answers.plain(value, request, code)
        match verb:
            case "get":
                watch.version_of(query.get("resourceVersion") or "0")
                return answers.plain(reads.single(self.writes.held(target), target, form), request)
            case "list":
                return await answers.compressed(reads.listed(self.store, target, query, form), request)
            case "watch":
                wishes = reads.watched(target, query, form)
                return StreamingResponse(answers.until(self.closing, watch.lines(self.store, wishes)),
                                         media_type="application/json", headers={"Cache-Control": "no-cache, private"})
            case "create" | "update" | "patch" if bool(target.name) == (verb != "create"):
                options = _options(request, user, f"{verb.title()}Options")
                obj, made = await self.writes.write(verb, target, await request.body(), options)
                return answers.plain(reads.single(obj, target, form), request, 201 if made else 200)
            case "delete" | "deletecollection" if not target.subresource:
                return await self._delete(verb, target, user, request, form)
        raise status.not_allowed()

    async def _delete(self, verb: str, target: Target, user: User, request: HttpRequest, form: Form) -> Response:
        options = _options(request, user, "DeleteOptions")
        wishes = subresources.delete_options(await request.body(), request.query_params, options)
        options.warnings += warn.of_deletion(target.resource, wishes)
        if verb == "deletecollection":
            gone, metadata = reads.chosen(self.store, target, request.query_params)
            await self.writes.delete_all(target, gone, wishes, options)
            return answers.plain(reads.as_list(
                gone, {**metadata, "resourceVersion": str(self.store.version)}, target=target, form=form), request)
        obj, removed = await self.writes.delete(target, wishes, options)
        if removed and "d" not in target.resource.traits:
            return answers.plain(status.success(target.resource.name, target.name, obj["metadata"]["uid"]), request)
        return answers.plain(reads.single(obj, target, form), request)

    async def _log(self, target: Target, query: Mapping[str, str]) -> Response:
        pod, wishes = self.writes.held(target), logs.options(query, target.name)
        container = logs.container(self.store, pod, query.get("container", ""), wishes["previous"])
        if not container or self._logs is None:
            return Response(b"", 204)
        lines = self._logs.lines(target.namespace, target.name, container, **wishes)
        try:
            first = await anext(lines, None)
        except LookupError as error:
            raise status.bad_request(str(error.args[0]) if error.args else "no log") from error
        return StreamingResponse(answers.until(self.closing, lines, first), media_type="text/plain")

    async def serve(self, host: str, port: int, certfile: str, keyfile: str, *, sockets: list[Any] | None = None,
                    started: Callable[[int], None] = lambda port: None) -> None:
        """Serve until `stop`. `started` hears the port (0 asks for a free one). Raises OSError when the port is in
        use."""
        import uvicorn
        config = uvicorn.Config(self, host=host, port=port, ssl_certfile=certfile, ssl_keyfile=keyfile, log_config=None,
                                access_log=False,
                                lifespan="off", ws="none", server_header=False, log_level="critical",
                                timeout_keep_alive=90, timeout_graceful_shutdown=1, loop="asyncio")
        self._server = uvicorn.Server(config)
        self._server.capture_signals = contextlib.nullcontext  # signals are the owner's
        self.address = f"{host}:{port}"
        running = asyncio.ensure_future(self._server.serve(sockets=sockets))
        while not self._server.started and not running.done():
            await asyncio.sleep(0.002)
        if not running.done():
            port = self._server.servers[0].sockets[0].getsockname()[1]
            self.address = f"{host}:{port}"
            started(port)
        await running
        for connection in self._open:
            connection.transport.abort()
        await asyncio.sleep(0)

    def stop(self) -> None:
        """End all watches and followed logs, then the server."""
        self.closing.set()
        if self._server is not None:
            self._open = list(self._server.server_state.connections)
            self._server.should_exit = True


def _verb(method: str, name: str, query: Mapping[str, str]) -> str:
    if method == "GET":
        watching = query.get("watch") in ("true", "1")
        return "get" if name else "watch" if watching else "list"
    if method == "DELETE":
        return "delete" if name else "deletecollection"
    return {"POST": "create", "PUT": "update", "PATCH": "patch"}.get(method, method.lower())


def _options(request: HttpRequest, user: User, kind: str) -> Options:
    """The query's options. Raises ApiError 422 for values that are none."""
    query, errors = request.query_params, []
    content = request.headers.get("content-type", "application/json").partition(";")[0].strip() or "application/json"
    manager, dry, level = query.get("fieldManager", ""), query.getlist("dryRun"), query.get("fieldValidation", "")
    if kind == "PatchOptions":
        if content == patch.APPLY and not manager:
            errors.append(required("fieldManager", "is required for apply patch"))
        if content != patch.APPLY and "force" in query:
            errors.append(forbidden("force", "may not be specified for non-apply patch"))
    if kind == "DeleteOptions":
        manager = ""
    if len(manager) > 128:
        errors.append(too_long("fieldManager", 128))
    for place, char in enumerate(manager):
        if not char.isprintable():
            errors.append(invalid("fieldManager", manager,
                                  f"invalid character U+{ord(char):04X} (at position {place})"))
    if any(value != "All" for value in dry):
        errors.append(unsupported("dryRun", dry, ("All",)))
    if kind != "DeleteOptions" and level not in ("", "Ignore", "Warn", "Strict"):
        errors.append(unsupported("fieldValidation", level, ("", "Ignore", "Strict", "Warn")))
    if errors:
        raise status.invalid(kind, "meta.k8s.io", "", errors)
    if kind in ("CreateOptions", "UpdateOptions") and content not in ("application/json", "application/yaml", protobuf.MEDIA):
        raise status.unknown_format("application/json", "application/yaml", protobuf.MEDIA)
    agent = request.headers.get("user-agent", "unknown").partition("/")[0][:128]
    return Options(user, manager or agent, bool(dry), level or "Warn", query.get("force") in ("true", "1"), content,
                   request.state.warnings)
