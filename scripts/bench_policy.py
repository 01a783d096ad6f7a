"""How fast reading a mesh and answering about it is, as ratios of one run: machines differ, ratios hardly do.

    scripts/bench-policy [--pods 10000] [--large] [--dir DIR] [--json]

A dump of injected pods (46 MB for 10,000) is made and read by Python's json.load, by `meshtls modes`, `meshtls audit` and
`meshtls predict --strict`, each as a whole process. Then 100,000 workloads are asked for their modes, 5,000 clients for their
calls to 5,000 Services, and YAML is read, in this process. `--large` audits ten times as many pods as well: ten times the time
is linear. Seconds are of the processor (user and system), the best of three; memory is the most that was resident.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

NAMESPACES, SERVICES, POLICIES, RULES = 200, 2000, 500, 500


def pod(number: int) -> dict:
    """An injected pod as the API shows it, about 4.4 kB."""
    app, namespace = f"app-{number % SERVICES}", f"ns-{number % NAMESPACES}"
    env = [{"name": f"ISTIO_META_{i}", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['x{i}']"}}} for i in range(12)]
    mounts = [{"mountPath": f"/var/run/secrets/volume-{i}", "name": f"volume-{i}", "readOnly": True} for i in range(8)]
    proxy = {
        "name": "istio-proxy", "image": "docker.io/istio/proxyv2:1.29.0", "restartPolicy": "Always", "env": env,
        "args": ["proxy", "sidecar", "--domain", "$(POD_NAMESPACE).svc.cluster.local", "--proxyLogLevel=warning"],
        "ports": [{"containerPort": 15090, "name": "http-envoy-prom", "protocol": "TCP"}], "volumeMounts": mounts,
        "readinessProbe": {"httpGet": {"path": "/healthz/ready", "port": 15021, "scheme": "HTTP"}, "periodSeconds": 15},
        "resources": {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
        "securityContext": {"runAsUser": 1337, "runAsGroup": 1337, "readOnlyRootFilesystem": True},
    }  # fmt: skip
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": f"{app}-7d9f-{number}", "namespace": namespace, "uid": f"uid-{number}", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": app, "version": "v1", "pod-template-hash": "7d9f", "security.istio.io/tlsMode": "istio"},
            "annotations": {"sidecar.istio.io/status": '{"initContainers":["istio-init","istio-proxy"],"containers":null,"revision":"default"}'},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{app}-7d9f", "uid": "r", "controller": True}],
        },
        "spec": {
            "containers": [{"name": "app", "image": "example/app:1", "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}], "volumeMounts": mounts}],
            "initContainers": [proxy], "serviceAccountName": app, "volumes": [{"name": f"volume-{i}", "emptyDir": {}} for i in range(8)],
        },
        "status": {"phase": "Running", "podIP": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", "hostIP": "192.0.2.1",
                   "conditions": [{"type": t, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"} for t in ("Ready", "Initialized", "PodScheduled")]},
    }  # fmt: skip


def objects(pods: int):
    """The dump's objects."""
    yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"}, "data": {"mesh": "rootNamespace: istio-system\n"}}
    for i in range(NAMESPACES):
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"ns-{i}", "labels": {"istio-injection": "enabled"}}}
    for i in range(pods):
        yield pod(i)
    for i in range(SERVICES):
        meta = {"name": f"app-{i}", "namespace": f"ns-{i % NAMESPACES}"}
        yield {"apiVersion": "v1", "kind": "Service", "metadata": meta,
               "spec": {"clusterIP": f"10.96.{i >> 8}.{i & 255}", "selector": {"app": f"app-{i}"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}  # fmt: skip
        members = range(i, pods, SERVICES)
        yield {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {**meta, "labels": {"kubernetes.io/service-name": meta["name"]}},
               "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}],
               "endpoints": [{"addresses": [f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"], "conditions": {"ready": True},
                              "targetRef": {"kind": "Pod", "name": f"app-{i}-7d9f-{n}", "namespace": meta["namespace"]}} for n in members]}  # fmt: skip
    for i in range(POLICIES):
        spec = {"mtls": {"mode": ("STRICT", "PERMISSIVE")[i % 2]}}
        if i >= NAMESPACES:
            spec["selector"] = {"matchLabels": {"app": f"app-{i}"}}
        yield {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": f"p-{i}", "namespace": f"ns-{i % NAMESPACES}"}, "spec": spec}
    for i in range(RULES):
        yield {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": f"d-{i}", "namespace": f"ns-{i % NAMESPACES}"},
               "spec": {"host": f"app-{i}.ns-{i % NAMESPACES}.svc.cluster.local", "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": 10}}}}}  # fmt: skip


def run(*command: str) -> tuple[float, float]:
    """Processor seconds of a process, and its memory in MB: the best of three."""
    best = (1e9, 0.0)
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)})
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 1):
            raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
        best = min(best, (used.ru_utime + used.ru_stime, used.ru_maxrss / 1024))
    return best


def timed(work) -> tuple[float, object]:
    """Processor seconds in this process, the best of three, and what `work` returns."""
    best, result = 1e9, None
    for _ in range(3):
        began = time.process_time()
        result = work()
        best = min(best, time.process_time() - began)
    return best, result


def dump(path: pathlib.Path, pods: int) -> pathlib.Path:
    """The dump in a file, as the API server writes it: without blanks. One by one: a child's memory counts this process's at its start."""
    with path.open("w") as file:
        file.write('{"apiVersion":"v1","kind":"List","items":[')
        for number, each in enumerate(objects(pods)):
            file.write("," * bool(number) + json.dumps(each, separators=(",", ":")))
        file.write("]}")
    return path


def fresh(mesh, work):
    """`work` on a copy of the mesh that has found out nothing yet."""
    from msgspec.structs import replace

    return lambda: work(replace(mesh))


def many_workloads(count: int):
    """A mesh of workloads that are only templates."""
    from meshtls.model import objects as o
    from meshtls.model.mesh import Mesh

    spaces = [o.Namespace(metadata=o.Metadata(name=f"ns-{i}", labels={"istio-injection": "enabled"})) for i in range(NAMESPACES)]
    ports = o.PodSpec(containers=(o.Container(name="app", ports=(o.ContainerPort(container_port=8080),)),))
    made = [
        o.Deployment(metadata=o.Metadata(name=f"w-{i}", namespace=f"ns-{i % NAMESPACES}"),
                     spec=o.WorkloadSpec(template=o.PodTemplate(metadata=o.Metadata(labels={"app": f"w-{i}"}), spec=ports)))
        for i in range(count)
    ]  # fmt: skip
    policies = [
        o.PeerAuthentication(metadata=o.Metadata(name="p", namespace=f"ns-{i}"), spec=o.PeerAuthenticationSpec(mtls=o.MutualTls(mode="STRICT")))
        for i in range(NAMESPACES)
    ]
    services = [
        o.Service(metadata=o.Metadata(name=f"w-{i}", namespace=f"ns-{i % NAMESPACES}"),
                  spec=o.ServiceSpec(cluster_ip=f"10.{96 + (i >> 16)}.{i >> 8 & 255}.{i & 255}", selector={"app": f"w-{i}"}, ports=(o.ServicePort(name="http", port=80, target_port=8080),)))
        for i in range(min(count, 5000))
    ]  # fmt: skip
    return Mesh(namespaces=tuple(spaces), deployments=tuple(made), peer_authentications=tuple(policies), services=tuple(services))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pods", type=int, default=10_000)
    arguments.add_argument("--large", action="store_true", help="also audit ten times as many pods")
    arguments.add_argument("--dir", default="")
    arguments.add_argument("--json", action="store_true", help="print the numbers as JSON")
    chosen = arguments.parse_args()

    from meshtls.policy.change import strict
    from meshtls.policy.predict import groups
    from meshtls.policy.server import modes
    from meshtls.sources.build import build
    from meshtls.sources.document import parse

    numbers: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=chosen.dir or None) as folder:
        path = dump(pathlib.Path(folder, "dump.json"), chosen.pods)
        numbers["dump_mb"] = path.stat().st_size / 1e6
        numbers["json_load_s"], numbers["json_load_mb"] = run(sys.executable, "-c", f"import json; json.load(open({str(path)!r}))")
        meshtls = [sys.executable, "-m", "meshtls.cli.main"]
        for verb, more in {"modes": ["-o", "json"], "audit": ["-o", "json"], "predict": ["--strict", "ns-1"]}.items():
            numbers[f"{verb}_s"], numbers[f"{verb}_mb"] = run(*meshtls, verb, str(path), *more)
            numbers[f"{verb}_ratio"] = numbers[f"{verb}_s"] / numbers["json_load_s"]
        numbers["help_s"], _ = run(*meshtls, "--help")
        if chosen.large:
            large = dump(path, 10 * chosen.pods)
            numbers["large_dump_mb"] = large.stat().st_size / 1e6
            numbers["large_audit_s"], numbers["large_audit_mb"] = run(*meshtls, "audit", str(large), "-o", "json")
            numbers["large_audit_times"] = numbers["large_audit_s"] / numbers["audit_s"]

    # an engine keeps what it found out with its mesh: each time begins with a mesh that nobody asked anything
    numbers["modes_100000_s"] = timed(fresh(many_workloads(100_000), modes))[0]
    small = many_workloads(5000)
    numbers["predict_5000x5000_s"], found = timed(fresh(small, lambda mesh: sum(1 for _ in groups(mesh))))
    numbers["predict_groups"] = float(str(found))
    numbers["break_list_5000x5000_s"] = timed(fresh(small, lambda mesh: sum(1 for _ in groups(strict(mesh, ["ns-1"]), mesh))))[0]

    text = "---\n".join(yaml_of(pod(i)) for i in range(2000)).encode()
    taken, _ = timed(lambda: build(parse(text, "bench.yaml")))
    numbers["yaml_mb_s"] = len(text) / 1e6 / taken

    if chosen.json:
        print(json.dumps(numbers))
        return
    for name, value in numbers.items():
        print(f"{name:24} {value:10.3f}")


def yaml_of(value: dict) -> str:
    import yaml

    return yaml.dump(json.loads(json.dumps(value)), Dumper=yaml.CSafeDumper, sort_keys=False)


main()
