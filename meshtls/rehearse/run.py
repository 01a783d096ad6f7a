"""The hand of rehearsing: bring the stand-ins up in a lab, let them call, run the real verb against it, take it back, and look.

The verb is the one that production will meet, as a process of its own; it is given (`Verb`), for the command line is not known here. The
lab ends with this process, whatever ends it. Only the lab is ever written to.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from meshtls.cluster.client import Client
from meshtls.cluster.pool import gather
from meshtls.errors import ClusterError, MeshtlsError
from meshtls.lab import Lab, launch, manifests, state
from meshtls.model.check import Check, Matrix, Report, Status
from meshtls.model.mesh import Mesh
from meshtls.rehearse import judge, limits, stand
from meshtls.rehearse.calls import Known
from meshtls.rehearse.fault import Fault, withstood
from meshtls.rehearse.judge import Attempt, Times
from meshtls.rehearse.scope import Left, Scope

NO_ANSWER, GATE = 3, 4
SETTLE_S, ASKED_S = 25.0, 30.0
_PAUSE_S = 0.3
_HOME = "istio-system"


class Done(msgspec.Struct, frozen=True):
    """What a verb left: its exit code, and its report (None where it wrote none)."""

    code: int
    report: Report | None


class Verb(Protocol):
    def __call__(self, arguments: Sequence[str], kubeconfig: str, hear: Callable[[str], None]) -> Done:
        """Run `meshtls ARGUMENTS` against a cluster; `hear` gets each line that it says meanwhile."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What is rehearsed: `arguments` go to `migrate apply` as they are."""

    namespace: str
    arguments: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    mode: str = ""
    name: str = ""


class Rehearsal:
    """One rehearsal. What is known so far is in `checks`, `matrices` and `facts`, also when it ends early; `own` are the checks that decide
    about the exit code where the migration itself does not."""

    def __init__(self, mesh: Mesh, wish: Wish, known: Known, scope: Scope, programs: stand.Programs, verb: Verb, say: Callable[[str], None]) -> None:
        self._mesh, self._wish, self._known, self._scope, self._programs, self._verb, self._say = mesh, wish, known, scope, programs, verb, say
        self._renamed = stand.deployed(scope.stands)
        self.calls = {stand.call_id(number, each): call for number, call in enumerate(scope.calls) for each in scope.stands
                      if each.workload.ref == call.client}  # fmt: skip
        self.own: list[Check] = list(limits.checks(mesh, wish.namespace, known, scope))
        self.told: list[Check] = []
        self.matrices: list[Matrix] = []
        self.facts: list[tuple[str, str]] = []

    @property
    def checks(self) -> list[Check]:
        return [*self.told, *self.own]

    def run(self) -> int | None:
        """Rehearse; the exit code where the migration decides it, None where `own` does. Raises LabError, ClusterError."""
        mesh, values = stand.settings(self._mesh)
        began = time.monotonic()
        self._say(f"bringing up {self._scope.pods} stand-ins in a lab of this machine")
        with Lab(self._wish.name, mode=self._wish.mode, mesh=mesh, values=values, timeout_s=60.0 + self._scope.pods) as lab, lab.client() as client:
            self._fill(client)
            lab.wait()
            self._mode(lab)
            self.facts.append(("lab", f"{self._scope.pods} pods ready after {time.monotonic() - began:.1f} s"))
            self._say(f"{self._scope.pods} pods are ready after {time.monotonic() - began:.1f} s; the calls begin")
            return self._rehearse(lab, client)

    def _fill(self, client: Client) -> None:
        """Apply everything. What the lab's API does not take is left out, and named."""
        for number, batch in enumerate(stand.objects(self._mesh, self._scope, self._programs)):
            if number:
                _next_second()
            for obj in batch:
                try:
                    manifests.apply(client, [obj])
                except ClusterError as error:
                    if not error.status:
                        raise
                    meta = obj["metadata"]
                    self._left(Left(f"{obj['kind']}/{meta.get('namespace', '')}/{meta['name']}", f"the lab's API does not take it: {error.message}", False))

    def _left(self, left: Left) -> None:
        self._scope = msgspec.structs.replace(self._scope, left=(*self._scope.left, left))
        self.own = list(limits.checks(self._mesh, self._wish.namespace, self._known, self._scope))

    def _mode(self, lab: Lab) -> None:
        found = state.load(lab.name)
        if found is not None and found.mode == state.LOOPBACK:
            self._say("the lab runs in loopback mode, with less fidelity; the report says what that loses")
            self.own.append(Check(id="rehearse/limit/loopback", title="pods have networks of their own", status=Status.SKIP, group=limits.GROUP,
                                  reason=f"loopback mode: {'; '.join(launch.LOST)}"))  # fmt: skip

    def _rehearse(self, lab: Lab, client: Client) -> int | None:
        ids = list(self.calls)
        self._until(client, lambda made: judge.settled(made, ids) or judge.asked(made, ids, 0.0, 6), SETTLE_S)
        before = client.list("PeerAuthentication")
        faults = _Faults(client, self._wish, self._scope, self._say)
        faults.begin()
        times = Times(changed=time.time(), ended=0.0, back=0.0)
        done = self._migrate(lab, ["apply", "--yes", *self._wish.arguments], faults.hear)
        stayed = done.code == 0 and bool(done.report and any(check.id == "migrate/outcome" for check in done.report.checks))
        if stayed:
            since = time.time()
            self._until(client, lambda made: judge.asked(made, ids, since), ASKED_S)
        times = msgspec.structs.replace(times, ended=time.time())
        faults.end()
        changed = stayed or bool(done.report and any(check.id.startswith("gate/") for check in done.report.checks))
        code = done.code or (NO_ANSWER if done.report is None else None)
        if stayed:
            self._say("and back: meshtls migrate rollback")
            back = self._migrate(lab, ["rollback", "--yes"], faults.hear, "rollback/")
            code = code or (GATE if back.code else None)
        lab.wait()
        times = msgspec.structs.replace(times, back=time.time())
        made = self._until(client, lambda found: judge.asked(found, ids, times.back), ASKED_S)
        exact = judge.exactly(self._wish.namespace, before, client.list("PeerAuthentication"), _ours(client))
        self.own += [exact, *(withstood(fault, done.code, exact.status is Status.PASS) for fault in self._wish.faults)]
        if changed:
            self.own += judge.checks(self.calls, made, times, stayed=stayed, accepted=self._wish.accepted)
            self.matrices.append(judge.matrix(self.calls, made, times, stayed))
        # what a fault of ours kept from an answer was turned back for it
        code = GATE if code == NO_ANSWER and self._wish.faults and exact.status is Status.PASS else code
        verdict = judge.verdict(self._wish.namespace, code, stayed, done.report.checks if done.report else (), self.own)
        self.facts.insert(0, ("verdict", verdict))
        self._say(verdict)
        return code

    def _migrate(self, lab: Lab, arguments: Sequence[str], hear: Callable[[str], None], prefix: str = "") -> Done:
        def heard(line: str) -> None:
            self._say(f"  {judge.named(line, self._renamed)}")
            hear(line)

        began = time.monotonic()
        done = self._verb(["migrate", *arguments, "-n", self._wish.namespace], lab.kubeconfig, heard)
        if done.report is not None:
            self.told += [judge.as_told(check, self._renamed, self._mesh.origins, prefix) for check in done.report.checks]
            self.matrices += done.report.matrices
            known = {name for name, _ in self.facts}
            self.facts += [
                (name, judge.named(text, self._renamed))
                for name, value in done.report.facts if name not in {*known, "namespace"} or name == "note"
                for text in (value.split("\n") if name == "note" else [value])  # JSON has one fact of a name
            ]  # fmt: skip
        self.facts.append((f"migrate {arguments[0]}", f"exit code {done.code} after {time.monotonic() - began:.1f} s"))
        return done

    def _until(self, client: Client, enough: Callable[[list[Attempt]], bool], patience_s: float) -> list[Attempt]:
        """All attempts so far, once they are enough or patience is over."""
        until = time.monotonic() + patience_s
        while True:
            made = self._attempts(client)
            if enough(made) or time.monotonic() > until:
                return made
            time.sleep(_PAUSE_S)

    def _attempts(self, client: Client) -> list[Attempt]:
        """What the stand-ins that call have written. Pods of one workload make the same calls."""
        callers = {call.home for call in self.calls.values()}
        pods = [pod for home in sorted(callers) for pod in client.list("Pod", home) if any(v["name"] == stand.VOLUME for v in pod["spec"].get("volumes") or ())]

        def one(pod: dict[str, Any]) -> list[Attempt]:
            return judge.read(client.logs(pod["metadata"]["namespace"], pod["metadata"]["name"], stand.CONTAINER))

        found: list[Attempt] = []
        for answer in gather(one, pods):
            found += [] if isinstance(answer, MeshtlsError) else answer
        return found


class _Faults:
    """Faults in a lab: each is an annotation of the lab's, set before the migration or with its first change."""

    def __init__(self, client: Client, wish: Wish, scope: Scope, say: Callable[[str], None]) -> None:
        self._client, self._wish, self._scope, self._say = client, wish, scope, say
        self._stuck: list[tuple[str, str]] = []
        self._failing = False

    def begin(self) -> None:
        for fault in self._wish.faults:
            if fault.kind == "slow-control-plane":
                self._mesh({"lab.meshtls.dev/push-delay": f"{fault.seconds:g}s"})
                self._say(f"fault: every proxy hears of a change {fault.seconds:g} s later")
            elif fault.kind == "stuck-proxy":
                for home, name in self._pods():
                    self._client.patch("Pod", name, home, {"metadata": {"annotations": {"lab.meshtls.dev/frozen": "true"}}}, type="merge")
                    self._stuck.append((home, name))
                    self._say(f"fault: the proxy of pod {home}/{name} stays on the configuration that it has")

    def hear(self, line: str) -> None:
        """The API begins to fail with the first change."""
        if self._failing or " to STRICT" not in line or ": stage " not in line:
            return
        self._failing = True
        for fault in self._wish.faults:
            if fault.status:
                self._mesh({"lab.meshtls.dev/api-answers": f"{fault.status} {fault.seconds:g}s"})
                self._say(f"fault: the API answers {fault.status} for {fault.seconds:g} s")

    def end(self) -> None:
        if any(fault.kind == "slow-control-plane" for fault in self._wish.faults):
            self._mesh({"lab.meshtls.dev/push-delay": None})
        for home, name in self._stuck:
            with contextlib.suppress(ClusterError):
                self._client.patch("Pod", name, home, {"metadata": {"annotations": {"lab.meshtls.dev/frozen": None}}}, type="merge")

    def _pods(self) -> list[tuple[str, str]]:
        """A pod with a sidecar of the namespace's first workload: those that are called come first."""
        mine = [stand.plan_file(each) for each in self._scope.stands if each.namespace == self._wish.namespace and each.sidecar][:1]
        found = [pod["metadata"] for pod in self._client.list("Pod", self._wish.namespace) for volume in pod["spec"].get("volumes") or ()
                 for item in (volume.get("configMap") or {}).get("items") or () if item["key"] in mine]  # fmt: skip
        return [(meta["namespace"], meta["name"]) for meta in found][:1]

    def _mesh(self, annotations: dict[str, str | None]) -> None:
        self._client.patch("ConfigMap", "istio", _HOME, {"metadata": {"annotations": annotations}}, type="merge")


def _next_second() -> None:
    """The API gives ages in whole seconds."""
    time.sleep(1.02 - time.time() % 1)


def _ours(client: Client) -> list[str]:
    """What the migration made and did not remove, but for its journal."""
    found = [obj for kind in ("Pod", "ConfigMap", "Service", "Telemetry") for obj in client.list(kind, labels="app.kubernetes.io/managed-by=meshtls")]
    return sorted(f"{obj['kind']} {obj['metadata']['name']}" for obj in found if not obj["metadata"]["name"].startswith("meshtls-journal"))


