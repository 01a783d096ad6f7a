"""What meshtls asks of Kubernetes, in kubectl's words: get, list, create, patch, delete, watch, logs.

    with Client.connect() as client:
        for pod in client.list("Pod", "shop", labels="app=cart"):
            print(pod["metadata"]["name"])

Kinds are named as in cluster.kinds. Lists come in gzipped pages of 500. Every failure is a class of meshtls.errors.
A client may be used from several threads.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import httpx
import msgspec

from meshtls.cluster import auth, streams
from meshtls.cluster.auth import Access
from meshtls.cluster.kinds import KINDS, Kind, find
from meshtls.cluster.transport import Call, Transport, decoded
from meshtls.errors import InputError

PAGE = 500
_PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}

# inside the class, `list` is a method
Items = list[dict[str, Any]]


class _ListMeta(msgspec.Struct, frozen=True):
    resourceVersion: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _ListHead(msgspec.Struct, frozen=True):
    metadata: _ListMeta = _ListMeta()


_AS_OBJECT = msgspec.json.Decoder(dict[str, Any])
_AS_HEAD = msgspec.json.Decoder(_ListHead)


class Client:
    """A connection to one API server. `namespace` is the context's, `server` its URL, `who` names the user in messages."""

    def __init__(self, transport: Transport, *, owner: bool = True) -> None:
        self._transport, self._owner = transport, owner
        self.server, self.namespace, self.who = (
            transport.access.server, transport.access.namespace, transport.access.who
        )
        self._streams: set[streams.Stream] = set()
        self._closed = False
        self._lock = threading.Lock()

    @classmethod
    def connect(
        cls, kubeconfig: str | None = None, context: str | None = None, timeout_s: float = 30.0,
        say: Callable[[str], None] | None = None, as_user: str = "", as_groups: tuple[str, ...] = (),
    ) -> Self:
        """A client for the cluster that flags, environment and files name; nothing is sent yet. Raises InputError.

        `say` hears when an answer is awaited for long. `as_user` and `as_groups` are asked as, in place of the kubeconfig's.
        """

        def load() -> Access:
            access = auth.load(kubeconfig, context)
            return msgspec.structs.replace(access, as_user=as_user, as_groups=as_groups) if as_user else access

        return cls(Transport(load(), timeout_s, reload=load, say=say))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End followed logs and watches, in whatever thread they are read, and drop the connections."""
        with self._lock:
            opened, self._streams, self._closed = self._streams, set(), True
        for stream in opened:
            stream.stop()
        if self._owner:
            self._transport.close()

    def branch(self) -> "Client":
        """The same connection; closing the branch ends only the logs and watches that were opened through it."""
        return Client(self._transport, owner=False)

    def get(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
        """One object. Raises NotFound."""
        return self._object("GET", self._kind(kind), namespace, name, doing="get")

    def list(self, kind: str, namespace: str | None = None, labels: str = "", fields: str = "") -> Items:
        """All objects of a kind in a namespace (None: in all), each with its apiVersion and kind."""
        return self._items(self._kind(kind), namespace, labels, fields)[0]

    def list_pages(
        self, kind: str | Kind, namespace: str | None = None, labels: str = "", fields: str = ""
    ) -> Iterator[bytes]:
        """The same as raw `List` documents of at most 500 items, for typed decoding. A Kind may name another version."""
        return self._pages(self._kind(kind), namespace, labels, fields)

    def create(self, obj: dict[str, Any], namespace: str | None = None, dry_run: bool = False) -> dict[str, Any]:
        """Create `obj` in its own namespace, else in `namespace`. Raises Conflict where it exists."""
        kind = find(str(obj.get("apiVersion")), str(obj.get("kind")))
        meta = obj.get("metadata") or {}
        return self._object(
            "POST", kind, meta.get("namespace") or namespace, None, doing="create", body=obj,
            label=str(meta.get("name") or ""), params=_change(dry_run),
        )

    def replace(self, obj: dict[str, Any], dry_run: bool = False) -> dict[str, Any]:
        """Put `obj` in place of what is there; with a resourceVersion in it, only in place of that version (Conflict)."""
        kind, meta = find(str(obj.get("apiVersion")), str(obj.get("kind"))), obj["metadata"]
        return self._object(
            "PUT", kind, meta.get("namespace"), meta["name"], doing="replace", body=obj, params=_change(dry_run)
        )

    def patch(
        self, kind: str, name: str, namespace: str | None, body: Any, type: str = "merge", dry_run: bool = False,
        field_manager: str = "meshtls",
    ) -> dict[str, Any]:
        """Change a part of an object. A resourceVersion in a merge patch is a precondition (Conflict)."""
        params = _change(dry_run, field_manager)
        if type == "apply":
            params["force"] = "true"
        return self._object(
            "PATCH", self._kind(kind), namespace, name, doing="patch", body=body, params=params,
            content_type=_PATCH_TYPES[type],
        )

    def delete(
        self, kind: str, name: str, namespace: str | None = None, uid: str | None = None,
        resource_version: str | None = None, grace_s: int | None = None, dry_run: bool = False,
    ) -> None:
        """Delete an object; with `uid` or `resource_version` only if it is still that one (Conflict)."""
        conditions = {"uid": uid, "resourceVersion": resource_version}
        options = {
            "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background",
            "preconditions": {key: value for key, value in conditions.items() if value} or None,
            "gracePeriodSeconds": grace_s,
            "dryRun": ["All"] if dry_run else None,
        }
        body = {key: value for key, value in options.items() if value is not None}
        self._object("DELETE", self._kind(kind), namespace, name, doing="delete", body=body)

    def watch(
        self, kind: str, namespace: str | None = None, labels: str = "", resource_version: str = "",
        timeout_s: float | None = None,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """(ADDED | MODIFIED | DELETED, object) until `timeout_s`; without `resource_version` what exists comes first.

        Resumes where a connection ends. Where the server has forgotten that point (410), it lists again and gives
        the differences, so nothing is missed; a DELETED object found that way holds its metadata only.
        """
        which = self._kind(kind)
        return streams.watch(
            lambda: self._items(which, namespace, labels, ""),
            lambda version, left: self._stream(
                Call(
                    method="GET", path=which.path(namespace), doing=_doing("watch", which, namespace, None),
                    params=_set(
                        watch="true", labelSelector=labels, resourceVersion=version, allowWatchBookmarks="true",
                        timeoutSeconds=str(max(1, round(min(left, 300.0)))),
                    ),
                ),
                left,
            ),
            resource_version, timeout_s,
        )

    def logs(
        self, namespace: str, pod: str, container: str = "", follow: bool = False, since_time: str = "",
        tail: int | None = None, timestamps: bool = False, timeout_s: float | None = None,
        opened: Callable[[], None] | None = None,
    ) -> Iterator[str]:
        """The lines of a container's log, each cut at 64 KiB. Following ends with the container or after `timeout_s`.

        `since_time` is RFC 3339; `timestamps` puts the time of writing before each line. `opened` is called once the
        server has begun to answer, so that a follower knows that it misses nothing from then on. Closing the client
        ends it too.
        """
        params = _set(container=container, sinceTime=since_time, follow="true" if follow else "",
                      tailLines="" if tail is None else str(tail), timestamps="true" if timestamps else "")
        path = KINDS["Pod"].path(namespace, pod, "log")
        call = Call(method="GET", path=path, doing=f"read the log of {namespace}/{pod}", params=params)
        with self._stream(call, timeout_s if follow else (timeout_s or self._transport.timeout_s)) as stream:
            if opened is not None:
                opened()
            yield from stream.lines()

    def allowed(self, verb: str, resource: str, group: str = "", namespace: str | None = None) -> bool:
        """Whether the API server would let us. `resource` may have a subresource: "pods/log"."""
        plural, _, sub = resource.partition("/")
        attributes = _set(verb=verb, resource=plural, subresource=sub, group=group, namespace=namespace or "")
        review = self.create({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        })
        return bool((review.get("status") or {}).get("allowed"))

    def raw(
        self, method: str, path: str, params: dict[str, str] | None = None, body: bytes | None = None,
        content_type: str = "application/json", timeout_s: float | None = None,
    ) -> httpx.Response:
        """Any request, such as `/version` or a path through the API server's proxy."""
        call = Call(method=method, path=path, doing=f"{method} {path}", params=params, body=body, content_type=content_type)
        return self._transport.request(call, timeout_s)

    def _kind(self, name: str | Kind) -> Kind:
        if isinstance(name, Kind):
            return name
        try:
            return KINDS[name]
        except KeyError:
            raise InputError(f"{name}: meshtls does not work with objects of this kind") from None

    def _object(
        self, method: str, kind: Kind, namespace: str | None, name: str | None, *, doing: str, body: Any = None,
        label: str = "", params: dict[str, str] | None = None, content_type: str = "application/json",
    ) -> dict[str, Any]:
        what = _doing(doing, kind, namespace, name or label)
        answer = self._transport.request(Call(
            method=method, path=kind.path(namespace, name), doing=what, params=params,
            body=None if body is None else msgspec.json.encode(body), content_type=content_type,
        ))
        obj: dict[str, Any] = decoded(answer.content, what, _AS_OBJECT.decode)
        return obj

    def _pages(self, kind: Kind, namespace: str | None, labels: str, fields: str) -> Iterator[bytes]:
        what, token = _doing("list", kind, namespace, None), ""
        while True:
            params = _set(limit=str(PAGE), labelSelector=labels, fieldSelector=fields)
            if token:
                params["continue"] = token
            call = Call(method="GET", path=kind.path(namespace), doing=what, params=params)
            body = self._transport.request(call).content
            token = decoded(body, what, _AS_HEAD.decode).metadata.continue_
            yield body
            if not token:
                return

    def _items(self, kind: Kind, namespace: str | None, labels: str, fields: str) -> tuple[Items, str]:
        """All items, and the version of the list."""
        what = _doing("list", kind, namespace, None)
        items: Items = []
        version = ""
        for page in self._pages(kind, namespace, labels, fields):
            document = decoded(page, what, _AS_OBJECT.decode)
            for item in document.get("items") or []:
                items.append({"apiVersion": kind.api_version, "kind": kind.kind, **item})
            version = str((document.get("metadata") or {}).get("resourceVersion") or "")
        return items, version

    @contextmanager
    def _stream(self, call: Call, left_s: float | None) -> Iterator[streams.Stream]:
        """An open answer that ends by itself after `left_s`, and when the client is closed."""
        with self._transport.stream(call, read_s=None) as response, streams.Stream(response, left_s) as stream:
            with self._lock:
                self._streams.add(stream)
                late = self._closed
            if late:
                stream.stop()
            try:
                yield stream
            finally:
                with self._lock:
                    self._streams.discard(stream)


def _doing(verb: str, kind: Kind, namespace: str | None, name: str | None) -> str:
    if name:
        return f"{verb} {kind.kind} {f'{namespace}/' if namespace and kind.namespaced else ''}{name}"
    return f"{verb} {kind.plural} in {namespace}" if namespace and kind.namespaced else f"{verb} {kind.plural}"


def _set(**params: str) -> dict[str, str]:
    """The parameters that are not empty."""
    return {key: value for key, value in params.items() if value}


def _change(dry_run: bool, field_manager: str = "meshtls") -> dict[str, str]:
    return _set(fieldManager=field_manager, dryRun="All" if dry_run else "")
