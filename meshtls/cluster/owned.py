"""What we create is ours to remove.

Every object carries the label `app.kubernetes.io/managed-by: meshtls`, the labels `meshtls.dev/part` and `meshtls.dev/run`,
and, if it must not outlive its run, the annotation `meshtls.dev/expires` (RFC 3339).  Removal is arranged before the object
is created, so that a lost answer leaves nothing; it goes last in, first out, and an interrupt during it is kept for later:

    with Owned(client, run) as owned:
        owned.create(pod)
        ...

Objects without the annotation (a migration's journal) are kept: `find` does not return them.
"""

import datetime
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

import msgspec

from meshtls.cluster.client import Client
from meshtls.errors import ClusterError, Conflict, DeadlineError, Forbidden, NotFound

MANAGED_BY, MANAGER = "app.kubernetes.io/managed-by", "meshtls"
PART, RUN, EXPIRES = "meshtls.dev/part", "meshtls.dev/run", "meshtls.dev/expires"
# What runs create and remove, in the order of removal.
TEMPORARY = ("Pod", "Service", "ConfigMap", "AuthorizationPolicy", "PeerAuthentication")


class Run(msgspec.Struct, frozen=True):
    """One run of one part: `id` is short, and part of the names of what it creates. `where` are flags of meshtls that name
    the cluster and the namespaces in which it creates."""

    id: str
    part: str
    expires: datetime.datetime
    where: str = "-A"

    @property
    def selector(self) -> str:
        return f"{MANAGED_BY}={MANAGER},{RUN}={self.id}"

    @property
    def cleanup_command(self) -> str:
        return f"meshtls cleanup {self.where} --run {self.id}"


class Leftover(msgspec.Struct, frozen=True):
    """An object that some run created. `expired`: its time is over, so that no run still needs it."""

    kind: str
    namespace: str
    name: str
    uid: str
    run: str
    part: str
    expires: str
    expired: bool

    @property
    def ref(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


def labels(part: str, run: str) -> dict[str, str]:
    """The labels of everything that a run of a part creates."""
    return {MANAGED_BY: MANAGER, PART: part, RUN: run}


def stamp(obj: dict[str, Any], run: Run) -> dict[str, Any]:
    """`obj` with our labels and its expiry."""
    meta = obj.get("metadata") or {}
    annotations = {**(meta.get("annotations") or {}), EXPIRES: timestamp(run.expires)}
    owned = {**(meta.get("labels") or {}), **labels(run.part, run.id)}
    return {**obj, "metadata": {**meta, "labels": owned, "annotations": annotations}}


def timestamp(when: datetime.datetime) -> str:
    """RFC 3339 in UTC, to the second."""
    return when.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Owned:
    """The objects of one run; leaving the `with` block removes them. `left` are those that could not be, with the reason."""

    def __init__(self, client: Client, run: Run, keep: bool = False, gone_s: float = 15.0) -> None:
        self._client, self._run, self._keep, self._gone_s = client, run, keep, gone_s
        self._made: list[tuple[str, str, str]] = []
        self._changed = threading.Condition()
        self._over, self._under_way = False, 0
        self.left: list[str] = []

    def create(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Create a stamped object that names its namespace; may be called from several threads."""
        obj = stamp(obj, self._run)
        meta = obj["metadata"]
        with self._changed:
            if self._over:
                raise ClusterError(f"create {obj['kind']} {meta['namespace']}/{meta['name']}: the run is over")
            self._made.append((obj["kind"], meta["namespace"], meta["name"]))
            self._under_way += 1
        try:
            return self._client.create(obj)
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keep:
            return
        later: BaseException | None = None
        while True:
            try:
                self._remove()
                break
            except (KeyboardInterrupt, DeadlineError) as interrupt:
                later = interrupt
        if later is not None and error is None:
            raise later

    def _remove(self) -> None:
        with self._changed:  # what another thread is just creating would come after its deletion, and stay
            self._over = True
            self._changed.wait_for(lambda: not self._under_way, self._gone_s)
        pending: dict[tuple[str, str, str], str] = {}
        while self._made:
            item = self._made[-1]
            problem = _delete(self._client, *item)
            if problem:
                self.left.append(f"{'/'.join(item)}: {problem}")
            else:
                pending[item] = ""
            self._made.pop()
        self._await_gone(list(pending))

    def _await_gone(self, items: list[tuple[str, str, str]]) -> None:
        """A pod is gone when its processes are; that is what "nothing is left" means."""
        places = {(kind, namespace) for kind, namespace, _ in items if kind == "Pod"}
        until = time.monotonic() + self._gone_s
        while places:
            for kind, namespace in sorted(places):
                try:
                    alive = self._client.list(kind, namespace, labels=self._run.selector)
                except ClusterError as error:
                    self.left.append(f"{kind}s of {namespace}: cannot say whether they are gone: {error}")
                    alive = []
                if not alive:
                    places.discard((kind, namespace))
                elif time.monotonic() > until:
                    self.left += [
                        f"{kind}/{namespace}/{item['metadata']['name']}: still being deleted" for item in alive
                    ]
                    places.discard((kind, namespace))
            if places:
                time.sleep(0.1)


def _delete(client: Client, kind: str, namespace: str, name: str, uid: str | None = None) -> str:
    """Why an object could not be deleted, or "". What is gone already, or replaced by another's, is no problem."""
    for attempt in (1, 2, 3):
        try:
            client.delete(kind, name, namespace, uid=uid, grace_s=1 if kind == "Pod" else None)
            return ""
        except (NotFound, Conflict):
            return ""
        except Forbidden as error:
            return str(error)
        except ClusterError as error:
            if attempt == 3:
                return str(error)
            time.sleep(0.2 * attempt)
    return ""


def find(client: Client, namespaces: Iterable[str | None], now: datetime.datetime, run: str = "") -> list[Leftover]:
    """What runs left in `namespaces` (None: in all), in the order of removal. `run`: of that run only."""
    selector = f"{MANAGED_BY}={MANAGER},{RUN}={run}" if run else f"{MANAGED_BY}={MANAGER},{RUN}"
    found = []
    for kind in TEMPORARY:
        for namespace in namespaces:
            for obj in _listed(client, kind, namespace, selector):
                meta = obj["metadata"]
                expires = (meta.get("annotations") or {}).get(EXPIRES, "")
                if expires and not meta.get("deletionTimestamp"):
                    own = meta.get("labels") or {}
                    found.append(
                        Leftover(
                            kind,
                            meta.get("namespace", ""),
                            meta["name"],
                            meta.get("uid", ""),
                            own.get(RUN, ""),
                            own.get(PART, ""),
                            expires,
                            _over(expires, now),
                        )
                    )
    return found


def _listed(client: Client, kind: str, namespace: str | None, selector: str) -> list[dict[str, Any]]:
    """The objects of a kind; none where the cluster does not know the kind."""
    try:
        return client.list(kind, namespace, labels=selector)
    except NotFound:
        return []


def _over(expires: str, now: datetime.datetime) -> bool:
    """Whether the time is over. One that cannot be read counts as over: no run of ours writes such."""
    try:
        return datetime.datetime.fromisoformat(expires.replace("Z", "+00:00")) <= now
    except (ValueError, TypeError):
        return True


def remove(client: Client, items: Iterable[Leftover], done: Callable[[Leftover, str], None]) -> None:
    """Delete each, if it is still the same object; `done` hears of each, with what went wrong or ""."""
    for item in items:
        done(item, _delete(client, item.kind, item.namespace, item.name, item.uid))
