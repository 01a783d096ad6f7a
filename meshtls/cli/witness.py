"""The evidence of a migration's gates, put together from observe (the proxies' logs) and probe (handshakes and calls).

A stage is watched from before its change: logs are followed first. While it soaks, an agent without sidecar takes the
fingerprint of every port of the stage's workloads, and after the namespace went STRICT, probe pods of ours prove that mTLS
works and plaintext does not. A probe that still sees the old mode is asked again, since istiod's push takes its time;
the soak begins anew when it sees the new one.
"""

import contextlib
import datetime
import secrets
import threading
import time
from collections.abc import Callable, Iterable

import msgspec

from meshtls import sources
from meshtls.cli import output
from meshtls.cluster.client import Client
from meshtls.cluster.owned import Run
from meshtls.errors import MeshtlsError, ServerFault, Throttled, Unreachable
from meshtls.migrate.baseline import accepted as is_accepted
from meshtls.migrate.gate import Evidence, Refused
from meshtls.migrate.plan import Stage
from meshtls.model.check import Check, Matrix, Status
from meshtls.model.mesh import Mesh
from meshtls.model.objects import Pod
from meshtls.observe import run as observing
from meshtls.observe.accesslog import Usage, Verdict
from meshtls.observe.ears import Ears, Proxy
from meshtls.observe.senders import Sender
from meshtls.observe.who import Directory

CONVERGE_S = 60.0
REFRESH_S = 15.0
PROBE_S = 90
# within the time that an interrupt leaves
SETTLE_S = 12.0
# the probe's finding that mTLS itself does not work: no proxy that is late explains that
MTLS_LOST = "MT502"
_REFUSED = (Verdict.REFUSED, Verdict.TLS_REFUSED)
# what STRICT refuses, or would
FOREIGN = (Verdict.PLAINTEXT, Verdict.APP_TLS, *_REFUSED)


class Probing(threading.Thread):
    """One round of probes of a stage in a thread; `checks` and `matrices` when it has ended, or `problem`, which may be
    only that the server was `lost` for a while.

    `stop` ends it early; what it created is removed all the same.
    """

    def __init__(self, client: Client, mesh: Mesh, stage: Stage, namespace: str, image: str) -> None:
        super().__init__(name=f"probe {namespace} {stage.id}", daemon=True)
        self._client, self._mesh, self._stage, self._namespace, self._image = client.branch(), mesh, stage, namespace, image
        self._stopped = threading.Event()
        self.started = time.monotonic()
        self.checks: tuple[Check, ...] = ()
        self.matrices: tuple[Matrix, ...] = ()
        self.problem, self.lost = "", False

    def run(self) -> None:
        try:
            self._probe()
        except MeshtlsError as error:
            self.problem, self.lost = error.message, isinstance(error, (Unreachable, ServerFault, Throttled))
        except Exception as error:
            # in a thread, it would end in a traceback and in silence that looks like an answer
            self.problem = f"a fault in meshtls: {type(error).__name__}: {error}"

    def stop(self) -> None:
        self._stopped.set()
        self._client.close()

    def _probe(self) -> None:
        from meshtls.probe import compare, deploy
        from meshtls.probe import run as hand
        from meshtls.probe.known import Known, with_ours
        from meshtls.probe.plan import Wanted, plan

        mesh, wide = self._mesh, self._stage.id == "namespace"
        of_pod = mesh.workload_of_pod
        narrowed = msgspec.structs.replace(mesh, pods=tuple(
            pod for pod in mesh.pods
            if (w := of_pod.get((pod.namespace, pod.name))) is not None and w.ref in self._stage.workloads
        ))  # fmt: skip
        wanted = Wanted(namespaces=(self._namespace,), offers=("plaintext", "mtls"), cells=wide)
        planned = plan(narrowed, wanted, Known(mesh).of_pod)
        run_id = secrets.token_hex(3)
        settings = deploy.Settings(run=run_id, image=self._image or deploy.IMAGE, deadline_s=PROBE_S * 2, agent_s=PROBE_S * 0.6)
        expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=PROBE_S * 3)
        collected = hand.Collected(planned)
        hand.collect(self._client, Run(run_id, "probe", expires), settings, hand.programs(), {}, collected, ready_s=PROBE_S * 0.6,
                     stop=self._stopped)  # fmt: skip
        known = Known(with_ours(mesh, collected.live), collected.names)
        seen = compare.Seen(collected.plan, collected.observations, collected.logged)
        verdicts = [compare.judge(case, known.expect(case), seen) for case in collected.plan.cases]
        found, matrices = compare.fingerprints(collected.plan, seen)
        self.checks = (*compare.checks(verdicts), *found, *collected.plan.skipped)
        self.matrices = (*compare.matrices(verdicts), *matrices)


class Eyes:
    """The witness of one namespace. `matrices` are those of the last round of probes of each stage."""

    def __init__(self, client: Client, namespace: str, *, image: str = "", say: Callable[[str], None] = lambda text: None) -> None:
        self._client, self._namespace, self._image, self._say = client, namespace, image, say
        self._ears: Ears | None = None
        self._heard: observing.Heard | None = None
        self._mesh: Mesh | None = None
        self._ready: frozenset[str] = frozenset()
        self._probing: Probing | None = None
        self.matrices: dict[str, tuple[Matrix, ...]] = {}

    def listen(self, stage: Stage) -> None:
        """Follow the logs of the stage's proxies from now on. What is followed already stays."""
        if self._ears is not None:
            return
        mesh = self._read()
        heard = observing.start(mesh, [self._namespace])
        self._heard = heard
        self._ready = _ready(mesh.pods, self._namespace)
        self._ears = Ears(self._client, output.now())
        self._ears.follow(self._proxies(stage))
        self._ears.ready(10.0)

    def gather(self, stage: Stage, soak_s: float, accepted: tuple[str, ...], tick: Callable[[], None]) -> Evidence:
        """Listen and probe until the soak is over and the probes have answered, or a real client is refused."""
        assert self._ears is not None and self._heard is not None
        began, since = time.monotonic(), time.monotonic()
        self._start_probe(stage)
        looked = began
        refused: dict[tuple[str, str, int], Refused] = {}
        tolerated: dict[tuple[str, str, int], Refused] = {}
        while True:
            for proxy, line in self._ears.heard(0.2):
                if (sender := self._heard.take(proxy, line, strict=True)) and sender.verdict in _REFUSED:
                    self._note(sender, accepted, refused, tolerated)
            tick()
            now = time.monotonic()
            if refused:
                break
            if now - looked > REFRESH_S:
                looked = now
                self._refresh(stage)
            probing = self._probing
            if probing is not None and probing.is_alive() and now - probing.started < PROBE_S * 3:
                continue
            failed = {f.code for c in probing.checks for f in c.findings if c.status is Status.FAIL} if probing else set()
            old = bool(failed)
            if old and MTLS_LOST not in failed and now - began < CONVERGE_S:
                self._say(f"stage {stage.id}: not every proxy has the new policy yet; probing again")
                self._start_probe(stage)
                since = time.monotonic()
            elif probing is not None and probing.lost and now - began < CONVERGE_S:
                self._say(f"stage {stage.id}: the probes lost the server; probing again")
                self._start_probe(stage)
            elif old or now - since >= soak_s:
                break
        return self._evidence(stage, time.monotonic() - since, soak_s, tuple(refused.values()), tuple(tolerated.values()),
                              accepted)  # fmt: skip

    def settle(self) -> None:
        """Stop listening; wait for a round of probes to remove what it created."""
        ears, self._ears = self._ears, None
        if ears is not None:
            ears.__exit__()
        probing, self._probing = self._probing, None
        if probing is not None and probing.is_alive():
            probing.stop()
            probing.join(SETTLE_S)

    def _evidence(
        self, stage: Stage, soaked_s: float, needed_s: float, refused: tuple[Refused, ...], tolerated: tuple[Refused, ...],
        accepted: tuple[str, ...],
    ) -> Evidence:
        assert self._ears is not None and self._heard is not None
        probing = self._probing
        done = probing is not None and not probing.is_alive()
        problem = (probing.problem if probing is not None and done else "") or ("" if done else "ended before it answered")
        if done and probing is not None:
            self.matrices[stage.id] = probing.matrices
        # a verdict that a refusal has decided is not delayed by one more reading of the cluster
        unready = () if refused else tuple(sorted(self._ready - _ready(self._read().pods, self._namespace, existing=self._ready)))
        outliving = () if refused or self._mesh is None else self._outliving(self._mesh, accepted)
        proxies = self._proxies(stage)
        mtls = sum(s.count for s in self._heard.group.senders if s.verdict is Verdict.MTLS and not s.client.own)
        return Evidence(
            soaked_s=soaked_s, needed_s=needed_s, proxies=len(proxies), lines=self._heard.lines, mtls=mtls,
            refused=refused, accepted=tolerated,
            deaf=tuple(f"{proxy}: {why}" for proxy, why in self._ears.deaf.items()),
            probes=probing.checks if probing is not None and done else (), no_probes=problem, unready=unready,
            outliving=outliving,
        )  # fmt: skip

    def _outliving(self, mesh: Mesh, accepted: tuple[str, ...]) -> tuple[str, ...]:
        """Plaintext connections that ztunnels hold open, of clients that nobody accepted; what cannot be asked is no answer."""
        found, _ = observing.open_plaintext(self._client, mesh, self._namespace)
        return tuple(f"{one.client} to {one.server}" for one in found if not is_accepted(f"Workload/{one.client}", accepted))

    def _note(
        self, sender: Sender, names: tuple[str, ...], refused: dict[tuple[str, str, int], Refused],
        tolerated: dict[tuple[str, str, int], Refused],
    ) -> None:
        if not sender.client.known and self._heard is not None:
            # perhaps a pod that is younger than our list
            sender = self._again(sender)
        if sender.client.own:
            return
        client = sender.client
        key = (client.ref or client.address, sender.server, sender.port)
        found = Refused(client=str(client), name=client.name if client.known else client.address, ref=client.ref,
                        server=sender.server or sender.address, port=sender.port, at=sender.first, count=sender.count)  # fmt: skip
        (tolerated if is_accepted(client.ref, names) else refused)[key] = found

    def _again(self, sender: Sender) -> Sender:
        directory = Directory(self._read())
        assert self._heard is not None
        self._heard.group.look_up_in(directory)
        usage = Usage(at=sender.last, client=sender.client.address, server=sender.address, port=sender.port,
                      verdict=sender.verdict, forwarded=sender.client.forwarded)  # fmt: skip
        return msgspec.structs.replace(sender, client=directory.client(usage), server=sender.server or directory.server(usage))

    def _refresh(self, stage: Stage) -> None:
        """Hear proxies that have come since."""
        assert self._ears is not None and self._heard is not None
        mesh = self._read()
        self._heard.group.look_up_in(Directory(mesh))
        self._ears.follow(self._proxies(stage))

    def _start_probe(self, stage: Stage) -> None:
        if self._probing is not None and self._probing.is_alive():
            self._probing.stop()
        self._probing = Probing(self._client, self._read(), stage, self._namespace, self._image)
        self._probing.start()

    def _read(self) -> Mesh:
        self._mesh = sources.load(client=self._client)
        return self._mesh

    def _proxies(self, stage: Stage) -> tuple[Proxy, ...]:
        assert self._mesh is not None
        of_pod = self._mesh.workload_of_pod
        own = observing.proxies_of(self._mesh.pods, [self._namespace])
        stage_proxies = tuple(
            p for p in own if (w := of_pod.get((p.namespace, p.pod))) is not None and w.ref in stage.workloads
        )
        others = tuple(p for p in (self._heard.proxies if self._heard else ()) if p.namespace != self._namespace)
        return stage_proxies + others


def _ready(pods: Iterable[Pod], namespace: str, existing: frozenset[str] | None = None) -> frozenset[str]:
    """The ready pods of a namespace; with `existing`, those of them that are gone count too: a rollout is no failure."""
    mine = [pod for pod in pods if pod.namespace == namespace and pod.labels.get("app.kubernetes.io/managed-by") != "meshtls"]
    ready = {pod.name for pod in mine if any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions)}
    return frozenset(ready | (existing - {pod.name for pod in mine} if existing is not None else set()))


def progress(text: str) -> None:
    """Say it, to whoever still listens: a terminal that is gone must not stop the way back."""
    with contextlib.suppress(OSError):
        output.say(text)
