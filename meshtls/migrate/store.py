"""Where the journal lives: one ConfigMap a namespace, and a Lease so that two runs do not meet.

Every write of the journal has the version that was read as its precondition: a second run that slipped past the Lease
cannot write, and stops before it changes anything. A write whose answer was lost is looked up before it is tried again.
The Lease is renewed while a run soaks; one that has not been renewed for LEASE_S seconds may be taken over, so that a
killed run is continued without anybody's help. One whose process died on this machine may be taken over at once.
"""

import datetime
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from meshtls.cluster.client import Client
from meshtls.errors import Conflict, MeshtlsError, NotFound, ServerFault, Throttled, Unreachable
from meshtls.migrate.journal import Journal, decode, encode

KEY, PREFIX = "journal.json", "meshtls-journal-"
LEASE_S = 30
PART, REHEARSAL = "meshtls.dev/part", "rehearsal"
_LABELS = {"app.kubernetes.io/managed-by": "meshtls", PART: "migrate"}
_LOST = (Unreachable, ServerFault, Throttled)
_TRIES = 6


class Taken(Conflict):
    """Another run has written: whoever meets this must not touch anything any more."""


def journals(client: Client) -> Iterator[tuple[str, str, str]]:
    """(namespace that it is kept in, namespace that it is about, text) of every journal in the cluster."""
    for obj in client.list("ConfigMap", labels=f"{PART}=migrate"):
        meta = obj["metadata"]
        if meta["name"].startswith(PREFIX):
            yield meta["namespace"], meta["name"].removeprefix(PREFIX), str((obj.get("data") or {}).get(KEY, ""))


class Store:
    """The journal of one namespace. `place` is the namespace in which its ConfigMap is."""

    def __init__(self, client: Client, namespace: str, place: str = "", pause: Callable[[float], None] = time.sleep) -> None:
        self._client, self._pause = client, pause
        self.namespace, self.place, self.name = namespace, place or namespace, f"{PREFIX}{namespace}"
        self._version: str | None = None
        self._unsure = ""

    def elsewhere(self) -> tuple[str, ...]:
        """The other namespaces that hold a journal of this one; () too where they may not be looked through."""
        try:
            found = self._client.list("ConfigMap", labels=f"{PART}=migrate", fields=f"metadata.name={self.name}")
        except MeshtlsError:
            return ()
        return tuple(sorted(obj["metadata"]["namespace"] for obj in found if obj["metadata"]["namespace"] != self.place))

    def load(self) -> Journal | None:
        """The journal, None where there is none. Raises MeshtlsError where it cannot be read."""
        held = self._get()
        self._version = held["metadata"]["resourceVersion"] if held else None
        return decode(str((held.get("data") or {}).get(KEY, ""))) if held else None

    def save(self, journal: Journal) -> None:
        """Write the journal over what was last read or written. Raises Taken where somebody else has written."""
        text = encode(journal)
        if self._unsure:
            # an earlier write of ours never got its answer: if it is there, it is no stranger's
            held = self._get()
            if held and (held.get("data") or {}).get(KEY) == self._unsure:
                self._version = held["metadata"]["resourceVersion"]
            self._unsure = ""
        for attempt in range(_TRIES):
            try:
                self._version = self._write(text)
                return
            except _LOST as error:
                # whether it was written is not known: look, and try again only where it was not
                if attempt == _TRIES - 1:
                    self._unsure = text
                    raise
                self._pause(0.2 * 2**attempt)
                try:
                    held = self._get()
                except _LOST:
                    continue
                version = held["metadata"]["resourceVersion"] if held else None
                if held and (held.get("data") or {}).get(KEY) == text:
                    self._version = version
                    return
                if version != self._version:
                    raise self._raced() from error
            except Conflict as error:
                raise self._raced() from error

    def _write(self, text: str) -> str:
        meta: dict[str, Any] = {"name": self.name, "namespace": self.place, "labels": _LABELS}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {KEY: text}}
        if self._version is None:
            return str(self._client.create(body)["metadata"]["resourceVersion"])
        meta["resourceVersion"] = self._version
        return str(self._client.replace(body)["metadata"]["resourceVersion"])

    def _get(self) -> dict[str, Any] | None:
        try:
            return self._client.get("ConfigMap", self.name, self.place)
        except NotFound:
            return None

    def _raced(self) -> Taken:
        return Taken(
            f"somebody else writes the journal {self.place}/{self.name}: another run of meshtls migrate",
            "look with meshtls migrate status, then run again",
        )


class Lock:
    """The Lease of one namespace; a context manager. `holder` is what holder() says of this process."""

    def __init__(
        self, client: Client, namespace: str, place: str, holder: str, now: Callable[[], datetime.datetime], take: bool = False
    ) -> None:
        self._client, self._place, self._holder, self._now, self._take = client, place or namespace, holder, now, take
        self._name = f"meshtls-migrate-{namespace}"
        self._lease: dict[str, Any] | None = None
        self._renewed = 0.0

    def __enter__(self) -> "Lock":
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": self._spec(),
                "metadata": {"name": self._name, "namespace": self._place, "labels": _LABELS}}  # fmt: skip
        try:
            self._lease = self._client.create(body)
        except Conflict:
            try:
                held = self._client.get("Lease", self._name, self._place)
                if not self._take and self._alive(held):
                    raise self._held(held) from None
                self._lease = self._client.replace({**held, "spec": self._spec()})
            except (Conflict, NotFound) as error:
                if isinstance(error, Taken):
                    raise
                raise Taken("another run began or ended at this moment", "run again") from error
        self._renewed = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        if self._lease is None:
            return
        meta = self._lease["metadata"]
        try:
            self._client.delete("Lease", self._name, self._place, uid=meta["uid"], resource_version=meta["resourceVersion"])
        except MeshtlsError:
            # it runs out by itself, or is another's by now
            pass

    def renew(self) -> None:
        """Keep it, at most every third of its time. Raises Taken where somebody took it."""
        if self._lease is None or time.monotonic() - self._renewed < LEASE_S / 3:
            return
        try:
            self._lease = self._client.replace({**self._lease, "spec": self._spec()})
        except (Conflict, NotFound) as error:
            self._lease = None
            raise Taken("somebody else has taken over this migration", "look with meshtls migrate status") from error
        except _LOST:
            # the next call tries again; the journal's own precondition protects what matters
            return
        self._renewed = time.monotonic()

    def _spec(self) -> dict[str, Any]:
        return {"holderIdentity": self._holder, "leaseDurationSeconds": LEASE_S, "renewTime": self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")}

    def _alive(self, held: dict[str, Any]) -> bool:
        spec = held.get("spec") or {}
        holder = str(spec.get("holderIdentity") or "")
        if not holder or holder == self._holder or _dead_here(holder):
            return False
        try:
            renewed = datetime.datetime.fromisoformat(str(spec.get("renewTime")).replace("Z", "+00:00"))
        except ValueError:
            return False
        return (self._now() - renewed).total_seconds() < float(spec.get("leaseDurationSeconds") or LEASE_S)

    def _held(self, held: dict[str, Any]) -> Taken:
        spec = held["spec"]
        return Taken(
            f"{spec['holderIdentity']} is migrating this namespace (last sign of life {spec.get('renewTime')})",
            f"wait for it; if it is dead, its lock ends after {LEASE_S} s, or give --break-lock",
        )


def holder() -> str:
    """This process, as `host/namespace of its process id/pid`: containers that share a host's name do not share its pids."""
    try:
        space = str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        space = "-"
    return f"{socket.gethostname()}/{space}/{os.getpid()}"


def _dead_here(name: str) -> bool:
    """Whether the holder was a process of this machine that is no more."""
    place, _, pid = name.rpartition("/")
    if place != holder().rpartition("/")[0] or not pid.isdecimal() or len(pid) > 9:
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
