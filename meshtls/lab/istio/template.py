"""What the injector writes into a pod: istio-init, istio-proxy, volumes, labels, annotations, rewritten probes
(injection-template.yaml, pkg/kube/inject webhook.go and app_probe.go).

The values are the chart's defaults. Probes and scraping go to the proxy's agent on 15020, which is told the real ones.
"""

import copy
import json
from typing import Any

import yaml

from meshtls.lab.istio import installation
from meshtls.lab.istio.objects import DOMAIN, ROOT, Obj, annotations, labels
from meshtls.lab.istio.world import World

PROXY, INIT = "istio-proxy", "istio-init"
STATUS_PORT = 15020
PROBES = (("readinessProbe", "readyz"), ("livenessProbe", "livez"), ("startupProbe", "startupz"))
HOOKS = (("preStop", "prestopz"), ("postStart", "poststartz"))
DROP_ALL: Obj = {"drop": ["ALL"]}


class Injection:
    """One pod on its way through the template; `pod` is the result."""

    def __init__(self, pod: Obj, world: World, values: Obj, rev: str) -> None:
        self.pod, self.world, self.values = pod, world, values
        self.notes: dict[str, str] = dict(annotations(pod))
        self.config = {
            **(world.mesh.get("defaultConfig") or {}),
            **(yaml.safe_load(self.notes.get("proxy.istio.io/config", "{}")) or {}),
        }
        self.mode = (
            self.notes.get("sidecar.istio.io/interceptionMode") or self.config.get("interceptionMode") or "REDIRECT"
        )
        env = ((values.get("pilot") or {}).get("env") or {}).get("ENABLE_NATIVE_SIDECARS", "true")
        self.native = (self.notes.get("sidecar.istio.io/nativeSidecar") or str(env)).lower() != "false"
        proxy_values = (values.get("global") or {}).get("proxy") or {}
        self.hold = bool(
            self.config.get("holdApplicationUntilProxyStarts") or proxy_values.get("holdApplicationUntilProxyStarts")
        )
        self.status_port = int(self.notes.get("status.sidecar.istio.io/port") or STATUS_PORT)
        self._containers(rev)

    def _containers(self, rev: str) -> None:
        body = self.pod["spec"]
        apps = [c for c in body["containers"] if c["name"] != PROXY]
        inits = [c for c in body.get("initContainers") or [] if c["name"] not in (PROXY, INIT)]
        given: Obj = next(
            (c for c in [*body["containers"], *(body.get("initContainers") or [])] if c["name"] == PROXY), {}
        )
        template = self._proxy(apps)
        proxy = {**template, **{k: v for k, v in given.items() if not (k == "image" and v == "auto")}}
        proxy["env"] = [
            *template["env"],
            *(e for e in given.get("env") or [] if e["name"] not in {t["name"] for t in template["env"]}),
        ]
        init = [self._init()] if self.mode != "NONE" else []
        rewrite = self.notes.get("sidecar.istio.io/rewriteAppHTTPProbers")
        default = (self.values.get("sidecarInjectorWebhook") or {}).get("rewriteAppHTTPProbe", True)
        if rewrite == "true" or (rewrite != "false" and default):
            probers = self._probers([*inits, *apps])
            if probers:
                proxy["env"].append(
                    {"name": "ISTIO_KUBE_APP_PROBERS", "value": json.dumps(probers, separators=(",", ":"))}
                )
            for container in [*inits, *apps]:
                self._rewrite(container)
        self._prometheus(proxy)
        if self.native:
            body["containers"], body["initContainers"] = apps, [*init, {**proxy, "restartPolicy": "Always"}, *inits]
        else:
            body["containers"] = [proxy, *apps] if self.hold else [*apps, proxy]
            body["initContainers"] = [*inits, *init]
        body["volumes"] = [*(body.get("volumes") or []), *self._volumes(body.get("volumes") or [])]
        self._metadata(rev, apps, init)

    def _proxy(self, apps: list[Obj]) -> Obj:
        owner = self._owner()
        ports = [p for c in apps for p in c.get("ports") or []]
        env: list[Obj] = [
            {"name": "PILOT_CERT_PROVIDER", "value": "istiod"},
            {"name": "CA_ADDR", "value": f"istiod.{ROOT}.svc:15012"},
        ]
        fields = (
            ("POD_NAME", "metadata.name"),
            ("POD_NAMESPACE", "metadata.namespace"),
            ("INSTANCE_IP", "status.podIP"),
            ("SERVICE_ACCOUNT", "spec.serviceAccountName"),
            ("HOST_IP", "status.hostIP"),
        )
        env += [{"name": n, "valueFrom": {"fieldRef": {"fieldPath": p}}} for n, p in fields]
        env += [
            {"name": "PROXY_CONFIG", "value": json.dumps(self.config, separators=(",", ":")) + "\n"},
            {"name": "ISTIO_META_POD_PORTS", "value": json.dumps(ports, separators=(",", ":"))},
            {"name": "ISTIO_META_APP_CONTAINERS", "value": ",".join(c["name"] for c in apps)},
            {"name": "ISTIO_META_CLUSTER_ID", "value": "Kubernetes"},
            {"name": "ISTIO_META_NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "ISTIO_META_INTERCEPTION_MODE", "value": self.mode},
            {"name": "ISTIO_META_WORKLOAD_NAME", "value": owner},
            {"name": "ISTIO_META_MESH_ID", "value": self.world.mesh["trustDomain"]},
            {"name": "TRUST_DOMAIN", "value": self.world.mesh["trustDomain"]},
        ]
        env += [{"name": k, "value": str(v)} for k, v in (self.config.get("proxyMetadata") or {}).items()]
        probe: Obj = {"httpGet": {"path": "/healthz/ready", "port": 15021}, "timeoutSeconds": 3}
        out: Obj = {
            "name": PROXY,
            "image": self._image(),
            "args": [
                "proxy",
                "sidecar",
                "--domain",
                f"$(POD_NAMESPACE).svc.{DOMAIN}",
                "--proxyLogLevel=warning",
                "--proxyComponentLogLevel=misc:error",
                "--log_output_level=default:info",
            ],
            "env": env,
            "ports": [{"containerPort": 15090, "name": "http-envoy-prom", "protocol": "TCP"}],
            "resources": self._resources(),
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "privileged": False,
                "readOnlyRootFilesystem": True,
                **(
                    {"capabilities": {"add": ["NET_ADMIN"], **DROP_ALL}, "runAsNonRoot": False, "runAsUser": 0}
                    if self.mode == "TPROXY"
                    else {"capabilities": DROP_ALL, "runAsNonRoot": True, "runAsUser": 1337}
                ),
                "runAsGroup": 1337,
            },
            "volumeMounts": [{"name": n, "mountPath": p} for n, p in MOUNTS],
        }
        if self.status_port:
            delay, period, failures = (
                int(self.notes.get(f"readiness.status.sidecar.istio.io/{n}") or d)
                for n, d in (("initialDelaySeconds", 0), ("periodSeconds", 15), ("failureThreshold", 4))
            )
            out["startupProbe"] = {**probe, "initialDelaySeconds": 0, "periodSeconds": 1, "failureThreshold": 600}
            out["readinessProbe"] = {
                **probe,
                "initialDelaySeconds": delay,
                "periodSeconds": period,
                "failureThreshold": failures,
            }
        if self.native:
            command = ["pilot-agent", "request", f"--debug-port={self.status_port}", "POST", "drain"]
            out["lifecycle"] = {"preStop": {"exec": {"command": command}}}
        elif self.hold:
            out["lifecycle"] = {"postStart": {"exec": {"command": ["pilot-agent", "wait"]}}}
        return out

    def _init(self) -> Obj:
        def note(name: str, default: str) -> str:
            return self.notes.get(f"traffic.sidecar.istio.io/{name}", default)

        excluded = [p for p in note("excludeInboundPorts", "").split(",") if p]
        excluded += [str(self.status_port)] if self.status_port and str(self.status_port) not in excluded else []
        args = [
            "istio-iptables",
            "-p",
            "15001",
            "-z",
            "15006",
            "-u",
            "1337",
            "-m",
            self.mode,
            "-i",
            note("includeOutboundIPRanges", "*"),
            "-x",
            note("excludeOutboundIPRanges", ""),
            "-b",
            note("includeInboundPorts", "*"),
            "-d",
            ",".join(["15090", "15021", *excluded]),
        ]
        for flag, name in (
            ("-q", "includeOutboundPorts"),
            ("-o", "excludeOutboundPorts"),
            ("-k", "kubevirtInterfaces"),
            ("-c", "excludeInterfaces"),
        ):
            if f"traffic.sidecar.istio.io/{name}" in self.notes:
                args += [flag, note(name, "")]
        return {
            "name": INIT,
            "image": self._image(),
            "args": [*args, "--log_output_level=default:info"],
            "resources": self._resources(),
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "privileged": False,
                "readOnlyRootFilesystem": False,
                "runAsGroup": 0,
                "runAsNonRoot": False,
                "runAsUser": 0,
                "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], **DROP_ALL},
            },
        }

    def _image(self) -> str:
        return (
            self.notes.get("sidecar.istio.io/proxyImage") or f"registry.istio.io/testing/proxyv2:{installation.VERSION}"
        )

    def _resources(self) -> Obj:
        asked = {
            "requests": {"cpu": "proxyCPU", "memory": "proxyMemory"},
            "limits": {"cpu": "proxyCPULimit", "memory": "proxyMemoryLimit"},
        }
        out = {
            kind: {
                r: self.notes[f"sidecar.istio.io/{n}"]
                for r, n in names.items()
                if f"sidecar.istio.io/{n}" in self.notes
            }
            for kind, names in asked.items()
        }
        found = {kind: values for kind, values in out.items() if values}
        return found or {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}

    def _owner(self) -> str:
        """The workload's name: the Deployment's where a ReplicaSet owns the pod."""
        metadata = self.pod["metadata"]
        for owner in metadata.get("ownerReferences") or []:
            if owner.get("controller"):
                suffix = "-" + labels(self.pod).get("pod-template-hash", "")
                return str(owner["name"]).removesuffix(suffix if owner["kind"] == "ReplicaSet" else "-")
        return str(metadata.get("name") or str(metadata.get("generateName", "")).rstrip("-"))

    def _metadata(self, rev: str, apps: list[Obj], init: list[Obj]) -> None:
        metadata = self.pod["metadata"]
        marks: dict[str, str] = dict(labels(self.pod))
        name = marks.get("app.kubernetes.io/name") or marks.get("app") or self._owner()
        version = marks.get("app.kubernetes.io/version") or marks.get("version") or "latest"
        for key, value in (
            ("security.istio.io/tlsMode", "istio"),
            ("service.istio.io/canonical-name", name[:63].strip("-_.")),
            ("service.istio.io/canonical-revision", version),
        ):
            marks[key] = marks.get(key) or value
        names = [c["name"] for c in init]
        status = {
            "initContainers": [*names, PROXY] if self.native else names or None,
            "containers": None if self.native else [PROXY],
            "volumes": [v["name"] for v in VOLUMES],
            "imagePullSecrets": None,
            "revision": rev,
        }
        self.notes["istio.io/rev"] = rev
        self.notes["sidecar.istio.io/status"] = json.dumps(status, separators=(",", ":"))
        if apps:
            self.notes.setdefault("kubectl.kubernetes.io/default-logs-container", apps[0]["name"])
            self.notes.setdefault("kubectl.kubernetes.io/default-container", apps[0]["name"])
        metadata["labels"], metadata["annotations"] = marks, self.notes

    def _volumes(self, given: list[Obj]) -> list[Obj]:
        known = {v["name"] for v in given}
        return [v for v in copy.deepcopy(VOLUMES) if v["name"] not in known]

    def _prometheus(self, proxy: Obj) -> None:
        """Points scraping at the agent, which merges the application's metrics (applyPrometheusMerge)."""
        merge = self.notes.get(
            "prometheus.istio.io/merge-metrics", str(self.world.mesh.get("enablePrometheusMerge", True))
        ).lower()
        fields = {k: self.notes.get(f"prometheus.io/{k}") for k in ("scrape", "path", "port")}
        if merge == "false" or fields["scrape"] in ("false", "0", "f") or fields["port"] == str(STATUS_PORT):
            return
        if any(fields.values()):
            given = {k: v or "" for k, v in fields.items()}
            proxy["env"].append(
                {"name": "ISTIO_PROMETHEUS_ANNOTATIONS", "value": json.dumps(given, separators=(",", ":"))}
            )
        self.notes |= {
            "prometheus.io/port": str(STATUS_PORT),
            "prometheus.io/path": "/stats/prometheus",
            "prometheus.io/scrape": "true",
        }

    def _probers(self, containers: list[Obj]) -> Obj:
        """The probes as they were, by the agent's path for them; named ports become numbers (DumpAppProbers)."""
        out: Obj = {}
        for container in containers:
            numbers = {p.get("name"): p["containerPort"] for p in container.get("ports") or []}
            handlers = [(container.get(field), path) for field, path in PROBES]
            handlers += [((container.get("lifecycle") or {}).get(field), path) for field, path in HOOKS]
            for probe, path in handlers:
                kind = next((k for k in ("httpGet", "tcpSocket", "grpc") if k in (probe or {})), None)
                if probe is None or kind is None:
                    continue
                action = dict(probe[kind])
                action["port"] = numbers.get(action["port"], action["port"])
                if isinstance(action["port"], int) and action["port"] != STATUS_PORT:
                    limit = {"timeoutSeconds": probe["timeoutSeconds"]} if probe.get("timeoutSeconds") else {}
                    out[f"/app-health/{container['name']}/{path}"] = {kind: action, **limit}
        return out

    def _rewrite(self, container: Obj) -> None:
        lifecycle = container.get("lifecycle") or {}
        targets: list[tuple[Any, str]] = [(container.get(field), path) for field, path in PROBES]
        targets += [(lifecycle.get(field), path) for field, path in HOOKS]
        for probe, path in targets:
            kind = next((k for k in ("httpGet", "tcpSocket", "grpc") if k in (probe or {})), None)
            if probe is None or kind is None:
                continue
            action = probe.pop(kind) if kind == "httpGet" else {}
            probe.pop(kind, None)
            action |= {"path": f"/app-health/{container['name']}/{path}", "port": self.status_port}
            if action.get("scheme") == "HTTPS":
                action["scheme"] = "HTTP"
            probe["httpGet"] = action


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
VOLUMES: list[Obj] = [
    {"name": "workload-socket", "emptyDir": {}},
    {"name": "credential-socket", "emptyDir": {}},
    {"name": "workload-certs", "emptyDir": {}},
    {"name": "istio-envoy", "emptyDir": {"medium": "Memory"}},
    {"name": "istio-data", "emptyDir": {}},
    {
        "name": "istio-podinfo",
        "downwardAPI": {
            "items": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}},
            ]
        },
    },
    {
        "name": "istio-token",
        "projected": {
            "sources": [
                {"serviceAccountToken": {"path": "istio-token", "expirationSeconds": 43200, "audience": "istio-ca"}}
            ]
        },
    },
    {"name": "istiod-ca-cert", "configMap": {"name": "istio-ca-root-cert"}},
    {"name": "istio-ca-crl", "configMap": {"name": "istio-ca-crl", "optional": True}},
]
