"""What the injector writes into a pod: istio-init, istio-proxy, volumes, labels, annotations (injection-template.yaml,
pkg/kube/inject webhook.go).

The values are the chart's defaults where the lab has no use for others. A container of the pod with the name of one of
the template's is laid over it, field by field; its image `auto` stands for the template's.
"""

import copy
import json
import re
from typing import Any

import yaml

from meshtls.lab.istio import installation, probers, refusals
from meshtls.lab.istio.objects import DOMAIN, ROOT, Obj, annotations, labels
from meshtls.lab.istio.world import World

PROXY, INIT = "istio-proxy", "istio-init"
DROP_ALL: Obj = {"drop": ["ALL"]}
MERGE_KEYS = {"env": "name", "ports": "containerPort", "volumeMounts": "mountPath"}
HASHES = ("pod-template-hash", "rollouts-pod-template-hash")


def overlaid(base: Any, over: Any, key: str = "") -> Any:
    """One container laid over another, as a strategic merge patch does it."""
    if isinstance(base, dict) and isinstance(over, dict):
        return base | {k: overlaid(base[k], v, MERGE_KEYS.get(k, "")) if k in base else v for k, v in over.items()}
    if key and isinstance(base, list) and isinstance(over, list):
        theirs = {item.get(key): item for item in over}
        mine = {item.get(key) for item in base}
        merged = [{**item, **theirs.get(item.get(key), {})} for item in base]
        return merged + [item for item in over if item.get(key) not in mine]
    return over


class Injection:
    """One pod on its way through the template; `pod` is the result. Raises InputError for a pod that the injector
    refuses."""

    def __init__(self, pod: Obj, world: World, values: Obj, rev: str) -> None:
        self.pod, self.world, self.values, self.rev = pod, world, values, rev
        self.notes: dict[str, str] = dict(annotations(pod))
        refusals.check(self.notes)
        self.config = {
            **(world.mesh.get("defaultConfig") or {}),
            **(yaml.safe_load(self.notes.get("proxy.istio.io/config", "{}")) or {}),
        }
        self.mode = (
            self.notes.get("sidecar.istio.io/interceptionMode") or self.config.get("interceptionMode") or "REDIRECT"
        )
        env = ((values.get("pilot") or {}).get("env") or {}).get("ENABLE_NATIVE_SIDECARS", "true")
        self.native = (self.notes.get("sidecar.istio.io/nativeSidecar") or str(env)).lower() != "false"
        self.hold = bool(
            self.config.get("holdApplicationUntilProxyStarts") or self._global("holdApplicationUntilProxyStarts")
        )
        self.status_port = int(self.notes.get("status.sidecar.istio.io/port") or probers.STATUS_PORT)
        self.metadata_env = [
            {"name": k, "value": str(v)} for k, v in (self.config.get("proxyMetadata") or {}).items()
        ]
        self._containers()

    def _global(self, field: str) -> Any:
        return ((self.values.get("global") or {}).get("proxy") or {}).get(field)

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
            return overlaid(template, {k: v for k, v in over.items() if not (k == "image" and v == "auto")})

        proxy = own(self._proxy(apps, [p for c in body["containers"] for p in c.get("ports") or []]))
        self._network(proxy)
        init = [own(self._init(given.get(PROXY, {})))] if self.mode != "NONE" else []
        overridden = [n for n in ours if n in given]
        if self.mode == "TPROXY" and (given.get(PROXY, {}).get("securityContext") or {}).get("runAsUser") is not None:
            proxy["securityContext"]["runAsUser"] = 0
        proxy["env"] += probers.scraped(self.notes, bool(self.world.mesh.get("enablePrometheusMerge", True)))
        default = bool((self.values.get("sidecarInjectorWebhook") or {}).get("rewriteAppHTTPProbe", True))
        if refusals.BOOLEANS.get(self._note("rewriteAppHTTPProbers", ""), default):
            real = probers.told([*inits, *apps])
            if real:
                text = json.dumps(real, separators=(",", ":"))
                proxy["env"].append({"name": "ISTIO_KUBE_APP_PROBERS", "value": text})
            probers.rewrite([*inits, *apps], self.status_port)
        if self.native:
            body["containers"], body["initContainers"] = apps, [*init, {**proxy, "restartPolicy": "Always"}, *inits]
        else:
            body["containers"] = [proxy, *apps] if self.hold else [*apps, proxy]
            body["initContainers"] = [*inits, *init]
        if overridden:
            places = {n: "containers" if n == PROXY and not self.native else "initContainers" for n in overridden}
            kept: Obj = {p: [given[n] for n in overridden if places[n] == p] for p in places.values()}
            self.notes["proxy.istio.io/overrides"] = json.dumps(kept, separators=(",", ":"))
        volumes = copy.deepcopy(VOLUMES) + self._user("userVolume")
        theirs = {v["name"]: v for v in body.get("volumes") or []}
        body["volumes"] = [{**v, **theirs.pop(v["name"], {})} for v in volumes] + list(theirs.values())
        self._metadata(apps, init, volumes)

    def _proxy(self, apps: list[Obj], ports: list[Obj]) -> Obj:
        name, owner = self._owner()
        domain = self.world.mesh["trustDomain"]
        suffix = "" if self.rev == "default" else f"-{self.rev}"

        def field(name: str, path: str) -> Obj:
            return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}

        def limit(name: str, resource: str) -> Obj:
            return {"name": name, "valueFrom": {"resourceFieldRef": {"resource": f"limits.{resource}", "divisor": "1"}}}

        def says(name: str, value: str) -> Obj:
            return {"name": name, "value": value}

        env = [
            says("PILOT_CERT_PROVIDER", "istiod"),
            says("CA_ADDR", f"istiod{suffix}.{ROOT}.svc:15012"),
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("INSTANCE_IP", "status.podIP"),
            field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
            field("HOST_IP", "status.hostIP"),
            limit("ISTIO_CPU_LIMIT", "cpu"),
            says("PROXY_CONFIG", json.dumps(self.config, separators=(",", ":")) + "\n"),
            says("ISTIO_META_POD_PORTS", json.dumps(ports, separators=(",", ":"))),
            says("ISTIO_META_APP_CONTAINERS", ",".join(c["name"] for c in apps)),
            limit("GOMEMLIMIT", "memory"),
            says("ISTIO_META_CLUSTER_ID", "Kubernetes"),
            field("ISTIO_META_NODE_NAME", "spec.nodeName"),
            says("ISTIO_META_INTERCEPTION_MODE", self.mode),
            says("ISTIO_META_WORKLOAD_NAME", labels(self.pod).get("service.istio.io/workload-name") or name),
            *([says("ISTIO_META_OWNER", owner)] if owner else []),
            says("ISTIO_META_MESH_ID", domain),
            says("TRUST_DOMAIN", domain),
            *self.metadata_env,
        ]
        probe: Obj = {"httpGet": {"path": "/healthz/ready", "port": 15021}, "timeoutSeconds": 3}
        added = ["NET_ADMIN"] * (self.mode == "TPROXY") + ["NET_BIND_SERVICE"] * (self._note("capNetBindService", "") == "true")
        out: Obj = {
            "name": PROXY,
            "image": self._image(),
            "args": [
                "proxy",
                "sidecar",
                "--domain",
                f"$(POD_NAMESPACE).svc.{DOMAIN}",
                f"--proxyLogLevel={self._note('logLevel', 'warning')}",
                f"--proxyComponentLogLevel={self._note('componentLogLevel', 'misc:error')}",
                self._log_level(),
            ],
            "env": env,
            "ports": [{"containerPort": 15090, "name": "http-envoy-prom", "protocol": "TCP"}],
            "resources": self._resources(),
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "privileged": False,
                "readOnlyRootFilesystem": True,
                "capabilities": ({"add": added} if added else {}) | DROP_ALL,
                "runAsNonRoot": not added,
                "runAsUser": 0 if added else 1337,
                "runAsGroup": 1337,
            },
            "volumeMounts": [{"name": n, "mountPath": p} for n, p in MOUNTS] + self._user("userVolumeMount"),
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

    def _network(self, proxy: Obj) -> None:
        """The pod's network by its label, told last (updateClusterEnvs)."""
        network = labels(self.pod).get("topology.istio.io/network")
        if network is not None:
            proxy["env"] = [e for e in proxy["env"] if e["name"] != "ISTIO_META_NETWORK"]
            proxy["env"].append({"name": "ISTIO_META_NETWORK", "value": network})

    def _init(self, user: Obj) -> Obj:
        def note(name: str, default: str) -> str:
            return self.notes.get(f"traffic.sidecar.istio.io/{name}", default)

        excluded, status = note("excludeInboundPorts", ""), str(self.status_port) if self.status_port else ""
        ports = excluded.split(",")
        if status and status not in ports:
            excluded = ",".join([*(p.strip() for p in ports if p.strip()), status])
        uid = (user.get("securityContext") or {}).get("runAsUser") or 1337
        args = ["istio-iptables", "-p", "15001", "-z", "15006", "-u", str(uid), "-m", self.mode]
        args += ["-i", note("includeOutboundIPRanges", "*"), "-x", note("excludeOutboundIPRanges", "")]
        args += ["-b", note("includeInboundPorts", "*"), "-d", ",".join(["15090", "15021", *([excluded] if excluded else [])])]
        for flag, name in (("-q", "includeOutboundPorts"), ("-o", "excludeOutboundPorts")):
            if f"traffic.sidecar.istio.io/{name}" in self.notes:
                args += [flag, note(name, "")]
        virtual = self.notes.get("istio.io/reroute-virtual-interfaces", self.notes.get("traffic.sidecar.istio.io/kubevirtInterfaces"))
        args += ["-k", virtual] if virtual is not None else []
        if "traffic.sidecar.istio.io/excludeInterfaces" in self.notes:
            args += ["-c", note("excludeInterfaces", "")]
        return {
            "name": INIT,
            "image": self._image(),
            "args": [*args, self._log_level()],
            **({"env": copy.deepcopy(self.metadata_env)} if self.metadata_env else {}),
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

    def _log_level(self) -> str:
        return f"--log_output_level={self._note('agentLogLevel', 'default:info')}"

    def _image(self) -> str:
        image = self._note("proxyImage", "")
        if "/" in image:
            return image
        kind = self._note("proxyImageType", "")
        return f"{HUB}/proxyv2:{installation.VERSION}" + (f"-{kind}" if kind else "")

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
        name = marks.get("app.kubernetes.io/name") or marks.get("app") or self._owner()[0]
        version = marks.get("app.kubernetes.io/version") or marks.get("version") or "latest"
        added = {
            "security.istio.io/tlsMode": "istio",
            "service.istio.io/canonical-name": name[:63].strip("-_."),
            "service.istio.io/canonical-revision": version,
        }
        if (self.config.get("proxyMetadata") or {}).get("ISTIO_META_ENABLE_HBONE") == "true":
            added["networking.istio.io/tunnel"] = "http"
        for key, value in added.items():
            marks[key] = marks.get(key) or value
        names = [c["name"] for c in init]
        status = {
            "initContainers": [*names, PROXY] if self.native else names or None,
            "containers": None if self.native else [PROXY],
            "volumes": [v["name"] for v in volumes],
            "imagePullSecrets": None,
            "revision": self.rev,
        }
        self.notes["istio.io/rev"] = self.rev
        self.notes["sidecar.istio.io/status"] = json.dumps(status, separators=(",", ":"))
        if apps:
            self.notes.setdefault("kubectl.kubernetes.io/default-logs-container", apps[0]["name"])
            self.notes.setdefault("kubectl.kubernetes.io/default-container", apps[0]["name"])
        metadata["labels"], metadata["annotations"] = marks, self.notes

    def _user(self, note: str) -> list[Obj]:
        """Volumes and mounts that an annotation adds, as JSON by name."""
        found = json.loads(self._note(note, "{}"))
        return [{"name": name, **value} for name, value in found.items()]


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
