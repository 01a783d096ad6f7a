"""Admission webhooks, really called: AdmissionReview v1 over HTTPS with the webhook's own CA bundle and timeout.

Services are reached through `dial`, which the lab supplies: a coroutine (namespace, service, port) -> a connected
socket, raising LookupError (no such service, no endpoints) or OSError. A hook of Istio's injector is answered in
process by `inject`.
"""
import asyncio
import base64
import json
import socket
import ssl
import uuid
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import h11
from cryptography import x509

from meshtls.errors import InputError
from meshtls.lab.api import cel, matching, status
from meshtls.lab.api.field import quote
from meshtls.lab.api.matching import Request
from meshtls.lab.api.store import Store, clone

Object = dict[str, Any]
Dial = Callable[[str, str, int], Awaitable[socket.socket]]
Inject = Callable[[Object, Object], Object | None]
GROUP = "admissionregistration.k8s.io"
INJECTOR = "sidecar-injector.istio.io"
_ANSWER_LIMIT = 3 * 1024 * 1024
_NAMES_S = 5


class CallFailed(Exception):
    """The webhook gave no usable answer; the text is Go's."""


class Webhooks:
    def __init__(self, store: Store, *, inject: Inject | None = None, dial: Dial | None = None) -> None:
        self._store, self._inject, self._dial = store, inject, dial

    async def mutate(self, request: Request) -> bool:
        """Let every matching mutating webhook change request.object; True if one did. Raises ApiError for a refusal."""
        changed, injected = False, False
        for hook in self._hooks("mutatingwebhookconfigurations", request):
            if not _asked(hook, request):
                continue
            if self._inject is not None and hook["name"].endswith(INJECTOR):
                try:
                    made = None if injected else self._inject(clone(request.object), request.namespace_object or {})
                except InputError as error:
                    raise _denied(hook["name"], {"message": error.message}) from error
                injected = True
            else:
                made = await self._review(hook, request, mutating=True)
            if made is not None and made != request.object:
                request.object, changed = made, True
        return changed

    async def validate(self, request: Request) -> None:
        """Ask every matching validating webhook at once; the first refusal (in their order) counts."""
        hooks = [hook for hook in self._hooks("validatingwebhookconfigurations", request) if _asked(hook, request)]
        answers = await asyncio.gather(*(self._review(hook, request, mutating=False) for hook in hooks),
                                       return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    def _hooks(self, plural: str, request: Request) -> list[Object]:
        if request.resource.group == GROUP:
            return []
        return [hook for config in self._store.list(f"{plural}.{GROUP}") for hook in config.get("webhooks") or ()]

    async def _review(self, hook: Object, request: Request, *, mutating: bool) -> Object | None:
        """The object that a mutating hook made of the request's, or None. Raises ApiError."""
        name = hook["name"]
        if request.dry_run and hook.get("sideEffects") not in ("None", "NoneOnDryRun"):
            raise status.bad_request(f"admission webhook {quote(name)} does not support dry run")
        uid = str(uuid.uuid4())
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                  "request": {"uid": uid, **request.facts(), "object": request.object, "oldObject": request.old}}
        try:
            answer = await self._call(hook, review)
            response = _checked(answer, uid)
        except CallFailed as error:
            if hook.get("failurePolicy") == "Ignore":
                return None
            raise status.internal(f"failed calling webhook {quote(name)}: failed to call webhook: {error}") from error
        request.warnings.extend(str(text)[:256] for text in response.get("warnings") or ())
        if not response.get("allowed"):
            raise _denied(name, response.get("status") or {})
        return _patched(name, request.object, response) if mutating and response.get("patch") else None

    async def _call(self, hook: Object, review: Object) -> Any:
        """The webhook's answer as JSON. Raises CallFailed with what Go's HTTP client would say."""
        config, timeout = hook["clientConfig"], hook.get("timeoutSeconds", 10)
        service = config.get("service")
        base = config.get("url") if service is None else (
            f"https://{service['name']}.{service['namespace']}.svc:{service.get('port', 443)}/"
            + (service.get("path") or "").lstrip("/"))
        parts = urlsplit(base)
        host, port, target = parts.hostname or "", parts.port or 443, f"{parts.path or '/'}?timeout={timeout}s"
        bundle = base64.b64decode(config.get("caBundle") or "").decode(errors="replace")
        try:
            async with asyncio.timeout(timeout):
                context = ssl.create_default_context(cadata=bundle or None)
                connected = await self._connect(service, host, port)
                return await _post(connected, context, host, port, target, review)
        except (LookupError, OSError, h11.RemoteProtocolError) as error:
            unfit = service is not None and isinstance(error, ssl.SSLCertVerificationError)
            why = await self._misnamed(service, host, port) if unfit else ""
            raise CallFailed(f'Post "https://{parts.netloc}{target}": {_said(error, f"{host}:{port}", why)}') from error

    async def _misnamed(self, service: Object, host: str, port: int) -> str:
        """What Go says of a certificate for others, before it asks who signed it; "" for one that is for `host`, or not to be had."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            async with asyncio.timeout(_NAMES_S):
                _, writer = await asyncio.open_connection(sock=await self._connect(service, host, port), ssl=context, server_hostname=host)
            shown = x509.load_der_x509_certificate(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
            writer.close()
            names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
        except x509.ExtensionNotFound:
            names = []
        except (OSError, LookupError, ValueError):
            return ""
        if not names:
            return f"certificate is not valid for any names, but wanted to match {host}"
        fits = host in names or f"*.{host.partition('.')[2]}" in names
        return "" if fits else f"certificate is valid for {', '.join(names)}, not {host}"

    async def _connect(self, service: Object | None, host: str, port: int) -> socket.socket | None:
        if service is None:
            return None
        if self._dial is None:
            raise LookupError(f'service "{service["name"]}" not found')
        return await self._dial(service["namespace"], service["name"], port)


def _asked(hook: Object, request: Request) -> bool:
    if not hook.get("rules") or not matching.matches(hook, request, "rules"):
        return False
    try:
        return matching.conditions(hook, request)
    except cel.CelError as error:
        if hook.get("failurePolicy") == "Ignore":
            return False
        raise status.forbidden(request.resource.name, request.name, str(error)) from error


async def _post(connected: socket.socket | None, context: ssl.SSLContext, host: str, port: int, target: str,
                body: Object) -> Any:
    """One POST over a fresh TLS connection; the parsed JSON body of a 200."""
    if connected is not None:
        reader, writer = await asyncio.open_connection(sock=connected, ssl=context, server_hostname=host)
    else:
        reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    try:
        http, data = h11.Connection(h11.CLIENT), json.dumps(body).encode()
        headers = [("Host", f"{host}:{port}"), ("Content-Type", "application/json"), ("Accept", "application/json"),
                   ("Content-Length", str(len(data))), ("Connection", "close"),
                   ("User-Agent", "kube-apiserver-admission")]
        for part in (h11.Request(method="POST", target=target, headers=headers), h11.Data(data=data), h11.EndOfMessage()):
            writer.write(http.send(part) or b"")
        await writer.drain()
        code, found = 0, b""
        while not isinstance(event := http.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                http.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Response):
                code = event.status_code
            elif isinstance(event, h11.Data):
                found += event.data
                if len(found) > _ANSWER_LIMIT:
                    raise CallFailed("the answer is larger than 3 MiB")
            elif isinstance(event, h11.ConnectionClosed):
                raise CallFailed("EOF")
    finally:
        writer.close()
    if code != 200:
        raise CallFailed({404: "the server could not find the requested resource", 401: "Unauthorized", 403: "unknown",
                          400: "the server rejected our request for an unknown reason"}.get(
            code, f'an error on the server ("{found[:100].decode(errors="replace")}") has prevented the request from '
            'succeeding'))
    try:
        return json.loads(found)
    except ValueError as error:
        raise CallFailed(f"couldn't get version/kind; json parse error: {error}") from error


def _said(error: Exception, address: str, misnamed: str) -> str:
    """What Go's HTTP client would say; of a certificate for others, that first."""
    match error:
        case TimeoutError():
            return "context deadline exceeded"
        case ConnectionRefusedError():
            return f"dial tcp {address}: connect: connection refused"
        case ssl.SSLCertVerificationError():
            unknown = dict.fromkeys((18, 19, 20, 21), "certificate signed by unknown authority")
            told = {**unknown, 10: "certificate has expired or is not yet valid"}.get(
                error.verify_code, f"certificate is not valid: {error.verify_message}")
            return f"tls: failed to verify certificate: x509: {misnamed or told}"
    return str(error)


def _checked(answer: Any, uid: str) -> Object:
    response = answer.get("response") if isinstance(answer, dict) else None
    if not isinstance(response, dict):
        raise CallFailed("received invalid webhook response: webhook response was absent")
    if answer.get("apiVersion") != "admission.k8s.io/v1" or answer.get("kind") != "AdmissionReview":
        raise CallFailed("received invalid webhook response: expected webhook response of admission.k8s.io/v1, "
                         "Kind=AdmissionReview, got "
                         f"{answer.get('apiVersion', '/')}, Kind={answer.get('kind', '')}")
    if response.get("uid") != uid:
        raise CallFailed(f"received invalid webhook response: expected response.uid={quote(uid)}, got "
                         f"{quote(str(response.get('uid') or ''))}")
    return response


def _denied(name: str, result: Object) -> status.ApiError:
    told = f"admission webhook {quote(name)} denied the request"
    said = result.get("message") or result.get("reason")
    code = result.get("code") or 0
    return status.ApiError(code if code >= 400 else 400, result.get("reason", ""), f"{told}: {said}" if said
                           else f"{told} without explanation",
                           details=result.get("details") or {})


def _patched(name: str, obj: Object | None, response: Object) -> Object:
    import jsonpatch
    import jsonpointer
    try:
        operations = json.loads(base64.b64decode(response["patch"]))
        return dict(jsonpatch.apply_patch(obj, operations))
    except (ValueError, TypeError, jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as error:
        raise status.internal(f"failed calling webhook {quote(name)}: received undecodable patch in webhook response: "
                              f"{error}") from error
