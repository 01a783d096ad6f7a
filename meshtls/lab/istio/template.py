"""What the injector writes into a pod: istio-init, istio-proxy, volumes, labels, annotations (injection-template.yaml,
pkg/kube/inject webhook.go).

The values are the chart's defaults where the lab has no use for others. A container of the pod with the name of one of
the template's is laid over it, field by field; its image `auto` stands for the template's.
"""

import json
import re
from typing import Any

from meshtls.lab.istio import installation, meshconfig, probers, refusals
from meshtls.lab.istio.objects import DOMAIN, ROOT, Obj, annotations, at, labels, overlaid
from meshtls.lab.istio.probers import compact
from meshtls.lab.istio.world import World

PROXY, INIT = "istio-proxy", "istio-init"
MERGE_KEYS = {"env": "name", "ports": "containerPort", "volumeMounts": "mountPath"}
HASHES = ("pod-template-hash", "rollouts-pod-template-hash")
PROBE: Obj = {"httpGet": {"path": "/healthz/ready", "port": 15021}, "timeoutSeconds": 3}
READINESS = {"initialDelaySeconds": 0, "periodSeconds": 15, "failureThreshold": 4}
STARTUP = {"initialDelaySeconds": 0, "periodSeconds": 1, "failureThreshold": 600}
TRAFFIC = refusals.TRAFFIC
EXCLUDED = TRAFFIC + "excludeInboundPorts"
# Flags of istio-iptables, what they are without annotation (None: left out), and the annotations that say otherwise.
FLAGS: list[tuple[str, str | None, list[str]]] = [
    ("-i", "*", [TRAFFIC + "includeOutboundIPRanges"]),
    ("-x", "", [TRAFFIC + "excludeOutboundIPRanges"]),
    ("-b", "*", [TRAFFIC + "includeInboundPorts"]),
    ("-d", None, [EXCLUDED]),
    ("-q", None, [TRAFFIC + "includeOutboundPorts"]),
    ("-o", None, [TRAFFIC + "excludeOutboundPorts"]),
    ("-k", None, ["istio.io/reroute-virtual-interfaces", TRAFFIC + "kubevirtInterfaces"]),
    ("-c", None, [TRAFFIC + "excludeInterfaces"]),
]
RESOURCES: Obj = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}


def _field(path: str) -> Obj:
    return {"fieldRef": {"fieldPath": path}}


def _limit(resource: str) -> Obj:
    return {"resourceFieldRef": {"resource": f"limits.{resource}", "divisor": "1"}}


def _security(user: int, group: int, added: list[str], read_only: bool) -> Obj:
    return {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": read_only,
        "runAsGroup": group,
        "runAsNonRoot": user != 0,
        "runAsUser": user,
        "capabilities": {**({"add": added} if added else {}), "drop": ["ALL"]},
    }


class Injection:
    """One pod on its way through the template; `pod` is the result, with parts that all pods share. Raises InputError
    for a pod that the injector refuses."""

    def __init__(self, pod: Obj, world: World, values: Obj, rev: str) -> None:
        self.pod, self.world, self.values, self.rev = pod, world, values, rev
        self.notes: dict[str, str] = dict(annotations(pod))
        refusals.check(self.notes)
        self.config = meshconfig.proxy(self.notes.get("proxy.istio.io/config", "{}"), world.mesh)
        self.mode = self._note("interceptionMode", "") or self.config.get("interceptionMode") or "REDIRECT"
        env = at(values, "pilot", "env") or {}
        native = self._note("nativeSidecar", "") or str(env.get("ENABLE_NATIVE_SIDECARS", "true"))
        self.native = native.lower() != "false"
        hold = "holdApplicationUntilProxyStarts"
        self.hold = bool(self.config.get(hold) or at(values, "global", "proxy", hold))
        self.status_port = int(self.notes.get("status.sidecar.istio.io/port") or probers.STATUS_PORT)
        self.metadata_env: dict[str, str] = self.config.get("proxyMetadata") or {}
        self.name, self.owner = self._owner()
        self._containers()

    def _note(self, name: str, default: str) -> str:
        return self.notes.get(f"sidecar.istio.io/{name}", default)

    def _containers(self) -> None:
        body = self.pod["spec"]
        given = {c["name"]: c for c in [*(body.get("initContainers") or []), *body["containers"]]}
        apps = [c for c in body["containers"] if c["name"] != PROXY]
        ours = (PROXY, INIT) if self.mode != "NONE" else (PROXY,)
        inits = [c for c in body.get("initContainers") or [] if c["name"] not in ours]

        def own(template: Obj) -> Obj:
            over = given.get(template["name"], {})
            laid: Obj = overlaid(template, {k: v for k, v in over.items() if (k, v) != ("image", "auto")}, MERGE_KEYS)
            return laid

        proxy = own(self._proxy(apps, [p for c in body["containers"] for p in c.get("ports") or []]))
        self._network(proxy)
        init = [own(self._init(given.get(PROXY, {})))] if self.mode != "NONE" else []
        if self.mode == "TPROXY" and at(given.get(PROXY), "securityContext", "runAsUser") is not None:
            proxy["securityContext"]["runAsUser"] = 0
        told = probers.scraped(self.notes, bool(self.world.mesh.get("enablePrometheusMerge", True)))
        rewrites = bool((self.values.get("sidecarInjectorWebhook") or {}).get("rewriteAppHTTPProbe", True))
        if refusals.BOOLEANS.get(self._note("rewriteAppHTTPProbers", ""), rewrites):
            told |= probers.taken_over([*inits, *apps], self.status_port)
        proxy["env"] += _env(told)
        if self.native:
            body["containers"], body["initContainers"] = apps, [*init, {**proxy, "restartPolicy": "Always"}, *inits]
        else:
            body["containers"] = [proxy, *apps] if self.hold else [*apps, proxy]
            body["initContainers"] = [*inits, *init]
        kept: Obj = {}
        for name in (n for n in ours if n in given):
            place = "containers" if name == PROXY and not self.native else "initContainers"
            kept.setdefault(place, []).append(given[name])
        if kept:
            self.notes["proxy.istio.io/overrides"] = compact(kept)
        volumes = [{"name": n, **v} for n, v in (VOLUMES | self._user("userVolume")).items()]
        theirs = {v["name"]: v for v in body.get("volumes") or []}
        body["volumes"] = [{**v, **theirs.pop(v["name"], {})} for v in volumes] + list(theirs.values())
        self._metadata(apps, init, volumes)

    def _container(self, name: str, *args: str) -> Obj:
        level = f"--log_output_level={self._note('agentLogLevel', 'default:info')}"
        return {"name": name, "image": self._image(), "args": [*args, level], "resources": self._resources()}

    def _proxy(self, apps: list[Obj], ports: list[Obj]) -> Obj:
        domain = self.world.mesh["trustDomain"]
        suffix = "" if self.rev == "default" else f"-{self.rev}"
        env = {
            "PILOT_CERT_PROVIDER": "istiod",
            "CA_ADDR": f"istiod{suffix}.{ROOT}.svc:15012",
            "POD_NAME": _field("metadata.name"),
            "POD_NAMESPACE": _field("metadata.namespace"),
            "INSTANCE_IP": _field("status.podIP"),
            "SERVICE_ACCOUNT": _field("spec.serviceAccountName"),
            "HOST_IP": _field("status.hostIP"),
            "ISTIO_CPU_LIMIT": _limit("cpu"),
            "PROXY_CONFIG": compact(self.config) + "\n",
            "ISTIO_META_POD_PORTS": compact(ports),
            "ISTIO_META_APP_CONTAINERS": ",".join(c["name"] for c in apps),
            "GOMEMLIMIT": _limit("memory"),
            "ISTIO_META_CLUSTER_ID": "Kubernetes",
            "ISTIO_META_NODE_NAME": _field("spec.nodeName"),
            "ISTIO_META_INTERCEPTION_MODE": self.mode,
            "ISTIO_META_WORKLOAD_NAME": labels(self.pod).get("service.istio.io/workload-name") or self.name,
            **({"ISTIO_META_OWNER": self.owner} if self.owner else {}),
            "ISTIO_META_MESH_ID": domain,
            "TRUST_DOMAIN": domain,
        }
        added = ["NET_ADMIN"] * (self.mode == "TPROXY")
        added += ["NET_BIND_SERVICE"] * (self._note("capNetBindService", "") == "true")
        out = self._container(
            PROXY,
            "proxy",
            "sidecar",
            "--domain",
            f"$(POD_NAMESPACE).svc.{DOMAIN}",
            f"--proxyLogLevel={self._note('logLevel', 'warning')}",
            f"--proxyComponentLogLevel={self._note('componentLogLevel', 'misc:error')}",
        ) | {
            "env": _env(env) + _env(self.metadata_env),
            "ports": [{"containerPort": 15090, "name": "http-envoy-prom", "protocol": "TCP"}],
            "securityContext": _security(0 if added else 1337, 1337, added, read_only=True),
            "volumeMounts": [{"name": n, "mountPath": p} for n, p in MOUNTS]
            + [{"name": n, **v} for n, v in self._user("userVolumeMount").items()],
        }
        if self.status_port:
            asked = {k: self.notes.get(f"readiness.status.sidecar.istio.io/{k}") for k in READINESS}
            out["startupProbe"] = PROBE | STARTUP
            out["readinessProbe"] = PROBE | READINESS | {k: int(v) for k, v in asked.items() if v}
        if self.native:
            command = ["pilot-agent", "request", f"--debug-port={self.status_port}", "POST", "drain"]
            out["lifecycle"] = {"preStop": {"exec": {"command": command}}}
        elif self.hold:
            out["lifecycle"] = {"postStart": {"exec": {"command": ["pilot-agent", "wait"]}}}
        return out

    def _network(self, proxy: Obj) -> None:
        """The pod's network by its label, told last (updateClusterEnvs)."""
        network = labels(self.pod).get("topology.istio.io/network")
        if network is not None:
            proxy["env"] = [e for e in proxy["env"] if e["name"] != "ISTIO_META_NETWORK"]
            proxy["env"] += _env({"ISTIO_META_NETWORK": network})

    def _init(self, user: Obj) -> Obj:
        told = dict(self.notes)
        ports = told.get(EXCLUDED, "").split(",")
        if self.status_port and str(self.status_port) not in ports:
            ports = [*(p.strip() for p in ports), str(self.status_port)]
        told[EXCLUDED] = ",".join(filter(None, ["15090", "15021", *ports]))
        uid = at(user, "securityContext", "runAsUser") or 1337
        args = ["istio-iptables", "-p", "15001", "-z", "15006", "-u", str(uid), "-m", self.mode]
        for flag, default, names in FLAGS:
            value = next((told[n] for n in names if n in told), default)
            args += [flag, value] if value is not None else []
        return self._container(INIT, *args) | {
            **({"env": _env(self.metadata_env)} if self.metadata_env else {}),
            "securityContext": _security(0, 0, ["NET_ADMIN", "NET_RAW"], read_only=False),
        }

    def _image(self) -> str:
        image = self._note("proxyImage", "")
        if "/" in image:
            return image
        kind = self._note("proxyImageType", "")
        return f"{HUB}/proxyv2:{installation.VERSION}" + (f"-{kind}" if kind else "")

    def _resources(self) -> Obj:
        out: Obj = {}
        for kind, suffix in (("requests", ""), ("limits", "Limit")):
            for resource, name in (("cpu", "proxyCPU"), ("memory", "proxyMemory")):
                if f"sidecar.istio.io/{name}{suffix}" in self.notes:
                    out.setdefault(kind, {})[resource] = self._note(name + suffix, "")
        return out or RESOURCES

    def _owner(self) -> tuple[str, str]:
        """The workload's name, and its reference: the Deployment's where a ReplicaSet owns the pod, the CronJob's where
        a Job does that it named (GetDeployMetaFromPod)."""
        metadata, marks = self.pod["metadata"], labels(self.pod)
        name, kind, version = str(metadata.get("name") or ""), "Pod", "v1"
        owner = next((o for o in metadata.get("ownerReferences") or [] if o.get("controller")), None)
        if metadata.get("generateName") and owner:
            name, kind, version = owner["name"], owner["kind"], owner.get("apiVersion", "")
            ending = next((marks[h] for h in HASHES if marks.get(h) and name.endswith(marks[h])), "")
            cron = re.fullmatch(r"(.+)-\d{8,10}", name)
            if kind == "ReplicaSet" and ending:
                rollout = ending != marks.get(HASHES[0])
                name, kind = name.removesuffix(f"-{ending}"), "Rollout" if rollout else "Deployment"
                version = "v1alpha1" if rollout else version
            elif kind == "Job" and cron:
                name, kind, version = cron[1], "CronJob", "batch/v1"
        home = metadata.get("namespace") or "default"
        return name, f"kubernetes://apis/{version}/namespaces/{home}/{kind.lower()}s/{name}" if name else ""

    def _metadata(self, apps: list[Obj], init: list[Obj], volumes: list[Obj]) -> None:
        metadata = self.pod["metadata"]
        marks: dict[str, str] = dict(labels(self.pod))
        name = marks.get("app.kubernetes.io/name") or marks.get("app") or self.name
        version = marks.get("app.kubernetes.io/version") or marks.get("version") or "latest"
        added = {
            "security.istio.io/tlsMode": "istio",
            "service.istio.io/canonical-name": name[:63].strip("-_."),
            "service.istio.io/canonical-revision": version,
        }
        if self.metadata_env.get("ISTIO_META_ENABLE_HBONE") == "true":
            added["networking.istio.io/tunnel"] = "http"
        marks |= {key: marks.get(key) or value for key, value in added.items()}
        names = [c["name"] for c in init]
        status = {
            "initContainers": [*names, PROXY] if self.native else names or None,
            "containers": None if self.native else [PROXY],
            "volumes": [v["name"] for v in volumes],
            "imagePullSecrets": None,
            "revision": self.rev,
        }
        self.notes["istio.io/rev"] = self.rev
        self.notes["sidecar.istio.io/status"] = compact(status)
        for note in ("default-logs-container", "default-container") if apps else ():
            self.notes.setdefault(f"kubectl.kubernetes.io/{note}", apps[0]["name"])
        metadata["labels"], metadata["annotations"] = marks, self.notes

    def _user(self, note: str) -> Obj:
        """Volumes or mounts that an annotation adds, by name."""
        return dict(json.loads(self._note(note, "{}")))


def _env(variables: dict[str, Any]) -> list[Obj]:
    """Variables with their text, or where it is to be taken from."""
    return [{"name": k, "valueFrom" if isinstance(v, dict) else "value": v} for k, v in variables.items()]


HUB = "registry.istio.io/testing"
MOUNTS = (
    ("workload-socket", "/var/run/secrets/workload-spiffe-uds"),
    ("credential-socket", "/var/run/secrets/credential-uds"),
    ("workload-certs", "/var/run/secrets/workload-spiffe-credentials"),
    ("istiod-ca-cert", "/var/run/secrets/istio"),
    ("istio-ca-crl", "/var/run/secrets/istio/crl"),
    ("istio-data", "/var/lib/istio/data"),
    ("istio-envoy", "/etc/istio/proxy"),
    ("istio-token", "/var/run/secrets/tokens"),
    ("istio-podinfo", "/etc/istio/pod"),
)
TOKEN = {"path": "istio-token", "expirationSeconds": 43200, "audience": "istio-ca"}
VOLUMES: Obj = {
    "workload-socket": {"emptyDir": {}},
    "credential-socket": {"emptyDir": {}},
    "workload-certs": {"emptyDir": {}},
    "istio-envoy": {"emptyDir": {"medium": "Memory"}},
    "istio-data": {"emptyDir": {}},
    "istio-podinfo": {
        "downwardAPI": {"items": [{"path": f, **_field(f"metadata.{f}")} for f in ("labels", "annotations")]}
    },
    "istio-token": {"projected": {"sources": [{"serviceAccountToken": TOKEN}]}},
    "istiod-ca-cert": {"configMap": {"name": "istio-ca-root-cert"}},
    "istio-ca-crl": {"configMap": {"name": "istio-ca-crl", "optional": True}},
}
