"""A stock Envoy accepts all that the lab configures: `envoy --mode validate` on the resources, embedded as static ones."""

import json
import subprocess
import sys
from pathlib import Path

import named_cases
import pytest
import recordings
import trustme
import yaml

from meshtls.lab import istio
from meshtls.lab.istio.world import World

ENVOY = Path(sys.executable).with_name("envoy")
pytestmark = pytest.mark.skipif(not ENVOY.exists(), reason="the proxy of the lab extra is not installed")

# Everything that the translation can write at least once, in namespace `echo` of the reachability mesh.
EVERYTHING = """
- {kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: "{accessLogFile: /dev/stdout, accessLogEncoding: JSON,
  trustDomainAliases: [old.local], meshMTLS: {minProtocolVersion: TLSV1_3}, protocolDetectionTimeout: 5s}"}}
- kind: VirtualService
  metadata: {name: all, namespace: echo}
  spec:
    hosts: [a, outside.example, "*.wild.example"]
    http:
      - name: matched
        match:
          - {name: m, uri: {prefix: /p}, headers: {x: {exact: "1"}, y: {}}, withoutHeaders: {z: {regex: .+}}, queryParams: {q: {exact: v}}, method: {exact: GET},
             sourceLabels: {app: b}, port: 80, ignoreUriCase: true}
          - {uri: {regex: "/r.*"}, authority: {prefix: a}, scheme: {exact: http}}
        route: [{destination: {host: a}, weight: 90}, {destination: {host: b, port: {number: 80}}, weight: 10}]
        rewrite: {uri: /, authority: b.echo}
        headers: {request: {set: {h: v}, add: {i: v}, remove: [j]}, response: {remove: [k]}}
        timeout: 3s
        retries: {attempts: 3, perTryTimeout: 1s, retryOn: 5xx}
        mirror: {host: b}
        fault: {abort: {httpStatus: 500, percentage: {value: 1.5}}, delay: {fixedDelay: 1s}}
      - {match: [{uri: {exact: /redirect}}], redirect: {uri: /to, authority: b, redirectCode: 302}}
      - {match: [{uri: {exact: /direct}}], directResponse: {status: 418, body: {string: teapot}}}
      - {match: [{uri: {exact: /never}}], route: [{destination: {host: a}}], retries: {attempts: 0}}
      - {route: [{destination: {host: a, subset: v1}}]}
    tcp: [{match: [{port: 9090, destinationSubnets: [10.96.0.0/16]}], route: [{destination: {host: b}, weight: 50}, {destination: {host: a}, weight: 50}]}]
    tls: [{match: [{port: 443, sniHosts: [a.echo.svc.cluster.local]}], route: [{destination: {host: b, port: {number: 443}}}]}]
- kind: DestinationRule
  metadata: {name: b, namespace: echo}
  spec:
    host: b
    trafficPolicy:
      tls: {mode: SIMPLE, caCertificates: /ca.pem, sni: b.example, subjectAltNames: [b.example]}
      connectionPool: {tcp: {connectTimeout: 2s}, http: {h2UpgradePolicy: UPGRADE}}
      portLevelSettings: [{port: {number: 443}, tls: {mode: ISTIO_MUTUAL, sni: s, subjectAltNames: [x.example]}}, {port: {number: 9090}, loadBalancer: {simple: RANDOM}}]
    subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}}]
- {kind: ServiceEntry, metadata: {name: dns, namespace: echo}, spec: {hosts: [dns.example], resolution: DNS, location: MESH_EXTERNAL,
   ports: [{name: http, number: 80, protocol: HTTP}, {name: tls, number: 443, protocol: TLS}]}}
- {kind: ServiceEntry, metadata: {name: cidr, namespace: echo}, spec: {hosts: [cidr.example], addresses: [10.20.0.0/16], resolution: NONE,
   ports: [{name: tcp, number: 5432, protocol: TCP}, {name: tls, number: 5433, protocol: TLS}]}}
- {kind: ServiceEntry, metadata: {name: static, namespace: echo}, spec: {hosts: [static.example], addresses: [10.30.0.1], resolution: STATIC,
   location: MESH_INTERNAL, ports: [{name: grpc, number: 90, protocol: GRPC}, {name: any, number: 91}], endpoints: [{address: 10.9.9.9, serviceAccount: s}]}}
- {kind: Service, metadata: {name: alias, namespace: echo}, spec: {type: ExternalName, externalName: a.echo.svc.cluster.local, ports: [{name: http, port: 80}]}}
- {kind: Sidecar, metadata: {name: s, namespace: echo}, spec: {workloadSelector: {labels: {app: tproxy}},
   outboundTrafficPolicy: {mode: REGISTRY_ONLY}, egress: [{port: {number: 80, protocol: HTTP, name: h}, hosts: [./*]},
   {port: {number: 3128, protocol: HTTP_PROXY, name: p}, captureMode: NONE, bind: 127.0.0.1, hosts: ["*/*"]}, {hosts: ["./*", "~/b.echo.svc.cluster.local"]}],
   ingress: [{port: {number: 18080, protocol: HTTP, name: in}, defaultEndpoint: "0.0.0.0:18080"}, {port: {number: 19090, protocol: TCP, name: t}},
   {port: {number: 7000, protocol: HTTP2, name: u}, defaultEndpoint: "unix:///tmp/app.sock", captureMode: NONE, bind: 0.0.0.0}]}}
- {kind: AuthorizationPolicy, metadata: {name: deny, namespace: echo, annotations: {istio.io/dry-run: "true"}}, spec: {action: DENY,
   rules: [{from: [{source: {notPrincipals: ["*"]}}]}]}}
- kind: AuthorizationPolicy
  metadata: {name: allow, namespace: istio-system}
  spec:
    rules:
      - from: [{source: {principals: [cluster.local/ns/echo/sa/a, "*/sa/b"], namespaces: [echo], ipBlocks: [10.0.0.0/8], notRemoteIpBlocks: [1.1.1.1],
                 serviceAccounts: [echo/a, b], trustDomains: [cluster.local, "*.org"]}}]
        to: [{operation: {ports: ["18080"], methods: [GET], paths: [/x*, "*/y", "/a/{*}/b"], hosts: [a.example], notPorts: ["1"]}}]
        when: [{key: "request.headers[x]", values: ["1", "*"]}, {key: connection.sni, notValues: [z]}, {key: destination.ip, values: [10.1.0.1]},
               {key: source.namespace, values: [a*]}, {key: "request.auth.claims[iss]", notValues: [x]}]
      - {to: [{operation: {ports: ["19090"]}}]}
- {kind: AuthorizationPolicy, metadata: {name: nothing, namespace: echo}, spec: {action: AUDIT}}
- {kind: Telemetry, metadata: {name: t, namespace: echo}, spec: {accessLogging: [{match: {mode: SERVER}, providers: [{name: envoy}],
   filter: {expression: "!connection.mtls || response.code >= 500"}}]}}
"""


def accepted(world, pod, tmp_path):
    resources = {
        "listeners": istio.listeners(world, pod).items,
        "clusters": istio.clusters(world, pod).items,
    }
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")  # validation opens the files that TLS settings name
    text = json.dumps(resources).replace("/ca.pem", str(tmp_path / "ca.pem"))
    bootstrap = istio.bootstrap(pod, world, xds_socket=str(tmp_path / "x"), admin_socket=str(tmp_path / "a"))
    config = named_cases.at_rest(bootstrap, **json.loads(text))
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(config))
    done = subprocess.run(
        [ENVOY, "--mode", "validate", "-c", path, *istio.arguments(world, pod)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["a", "b", "tproxy", "headless"])
def test_a_mesh_that_uses_everything_is_accepted(name, tmp_path):
    world = World.of([*named_cases.reachability({"name": "all"}), *yaml.safe_load(EVERYTHING)])
    ok, said = accepted(world, world.pods_by_name["echo", name], tmp_path)
    assert ok, said
    assert "eprecated" not in said


def test_recorded_meshes_are_accepted(tmp_path):
    for number, recorded in enumerate(recordings.meshes(recordings.DATA / "istiod.jsonl.gz")):
        if number % 25:
            continue
        world = recordings.variant(recorded, "a-strict")
        pod = next(p for p in world.kind("Pod") if istio.has_proxy(p))
        ok, said = accepted(world, pod, tmp_path)
        assert ok, (recorded["seed"], said)


def test_what_envoy_would_refuse_is_noticed(tmp_path):
    world = World.of(named_cases.reachability({"name": "bare"}))
    pod = world.pods_by_name["echo", "a"]
    broken = istio.listeners(world, pod).items[0] | {"no_such_field": True}
    config = named_cases.at_rest(istio.bootstrap(pod, world, xds_socket="x", admin_socket="a"), [broken], [])
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(config))
    assert subprocess.run([ENVOY, "--mode", "validate", "-c", path], capture_output=True, timeout=60).returncode != 0
