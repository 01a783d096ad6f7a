"""A cluster as a source: every kind is read, what may not be read is absent with its reason, and nothing of that ever passes."""

import json
from types import SimpleNamespace

import msgspec
import pytest

from meshtls import audit
from meshtls.cluster.kinds import KINDS
from meshtls.errors import Forbidden, NotFound, ServerFault, Unreachable
from meshtls.model.check import Status
from meshtls.model.kinds import CLUSTER_SCOPED, READ, kind_of
from meshtls.model.objects import K8sGateway
from meshtls.sources import live
from meshtls.sources.document import Document
from tests.audit import cases


class Cluster:
    """An API server's answers, from objects; some kinds forbidden (except in some namespaces), some only in an older version."""

    def __init__(self, objects, forbidden=(), allowed=(), missing=(), versions=None, groupless=()):
        self.objects = [document.body for document in objects]
        self.forbidden, self.allowed, self.missing, self.versions, self.groupless = forbidden, allowed, missing, versions or {}, groupless
        self.asked = []

    def list_pages(self, kind, namespace=None):
        self.asked.append((kind.kind, kind.version, namespace))
        if kind.kind in self.missing or self.versions.get(kind.kind, kind.version) != kind.version:
            raise NotFound(f"the server has no {kind.plural}")
        if kind.kind in self.forbidden and namespace not in self.allowed:
            raise Forbidden(f"may not list {kind.plural}")
        items = [o for o in self.objects if o["kind"] == kind.kind and o["apiVersion"].rpartition("/")[0] == kind.group
                 and namespace in (None, o["metadata"].get("namespace"))]
        bare = [{k: v for k, v in o.items() if k not in ("kind", "apiVersion")} for o in items]
        for start in range(0, max(1, len(bare)), 2):
            yield json.dumps({"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "items": bare[start:start + 2]}).encode()

    def raw(self, method, path):
        group = path.rpartition("/")[2]
        served = {v for k, v in self.versions.items() if KINDS[k].group == group}
        if group in self.groupless:
            raise NotFound(f"no group {group}")
        return SimpleNamespace(content=json.dumps({"kind": "APIGroup", "versions": [{"version": v} for v in sorted(served)]}).encode())


def _objects():
    """One object of every kind that is read, and the mesh that every case starts with."""
    yield from cases.documents(cases.objects({"objects": {}}))
    for _, group, cls in READ:
        kind = kind_of(cls)
        meta = {"name": f"one-{kind.lower()}"} | ({} if kind in CLUSTER_SCOPED else {"namespace": "shop"})
        body = {"apiVersion": f"{group}/v1" if group else "v1", "kind": kind, "metadata": meta}
        if kind == "ConfigMap":
            meta["name"], body["data"] = "istio", {"mesh": "rootNamespace: istio-system"}
        yield Document(body["apiVersion"], kind, body)


def test_every_kind_is_read_from_a_cluster():
    mesh = live.read(Cluster(_objects()))

    assert mesh.live and mesh.absent == {}
    assert [field for field, _, _ in READ if not getattr(mesh, field)] == []


@pytest.mark.parametrize("name", [kind_of(cls) for _, group, cls in READ if cls is not K8sGateway])
def test_a_kind_that_is_forbidden_or_not_served_is_absent_with_the_reason(name):
    forbidden = live.read(Cluster(_objects(), forbidden=[name]))
    missing = live.read(Cluster(_objects(), missing=[name]))

    assert f"may not list {KINDS[name].plural}" in forbidden.absent[name]
    assert missing.absent[name] == "the cluster does not serve this kind"
    for mesh in (forbidden, missing):
        dependent = [c for c, rule in zip(audit.check(mesh), audit.RULES, strict=True) if name in rule.inputs]
        assert all(check.status is not Status.PASS for check in dependent)
        assert all(check.reason for check in dependent if check.status is Status.SKIP)


def test_the_two_gateways_are_told_apart():
    mesh = live.read(Cluster(_objects()))

    assert type(mesh.gateways[0]).__name__ == "Gateway" and type(mesh.k8s_gateways[0]) is K8sGateway


def test_who_may_list_in_one_namespace_gets_that_and_the_reason():
    mesh = live.read(Cluster(_objects(), forbidden=["Service"], allowed=["shop"]), namespaces=["shop", "old"])

    assert [s.name for s in mesh.services] == ["one-service", "web"]
    assert "read in shop only" in mesh.absent["Service"]


def test_a_kind_of_a_group_that_is_not_there_is_not_served_even_where_it_is_forbidden():
    """The API server asks for roles before it looks for the kind."""
    kinds = [kind_of(cls) for _, group, cls in READ if group == "gateway.networking.k8s.io" and cls is not K8sGateway]
    mesh = live.read(Cluster(_objects(), forbidden=[*kinds, "Sidecar"], groupless=["gateway.networking.k8s.io"]))

    assert {mesh.absent[kind] for kind in kinds} == {live.NOT_SERVED} and "may not list" in mesh.absent["Sidecar"]


def test_who_may_read_nothing_is_told_so():
    with pytest.raises(Forbidden, match="nothing in this cluster may be read"):
        live.read(Cluster(_objects(), forbidden=[kind_of(cls) for _, _, cls in READ]))


def test_another_version_is_taken_where_the_usual_one_is_not_served():
    cluster = Cluster(_objects(), versions={"BackendTLSPolicy": "v1alpha3", "PeerAuthentication": "v1beta1"})
    mesh = live.read(cluster)

    assert mesh.absent == {} and mesh.backend_tls_policies and mesh.peer_authentications
    assert ("PeerAuthentication", "v1beta1", None) in cluster.asked


def test_secrets_are_not_asked_for_and_of_config_maps_only_istios_are_kept():
    other = Document("v1", "ConfigMap", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "app", "namespace": "shop"}, "data": {"a": "b"}})
    cluster = Cluster([*_objects(), other])
    mesh = live.read(cluster)

    assert "Secret" not in {kind for kind, _, _ in cluster.asked}
    assert [c.name for c in mesh.config_maps] == ["istio"]


def test_proposed_files_are_laid_over_a_cluster_and_keep_age_and_name():
    old = {"PeerAuthentication/shop/default": {"created": "2024-01-01T00:00:00Z", "uid": "u", "spec": {"mtls": {"mode": "PERMISSIVE"}}},
           "PeerAuthentication/shop/younger": {"created": "2025-01-01T00:00:00Z", "spec": {"mtls": {"mode": "DISABLE"}}}}
    new = {"PeerAuthentication/shop/default": {"spec": {"mtls": {"mode": "STRICT"}}}, "Service/shop/extra": {"spec": {"selector": {"app": "web"}}}}
    mesh = live.read(Cluster(cases.documents(old)), overlay=cases.documents(new))

    found = {p.name: p for p in mesh.peer_authentications}
    assert found["default"].spec.mtls.mode == "STRICT" and found["default"].metadata.creation_timestamp == "2024-01-01T00:00:00Z"
    assert len(found) == 2 and [s.name for s in mesh.services] == ["extra"] and mesh.live


def test_a_mesh_has_one_configuration_for_each_revision():
    maps = {f"ConfigMap/istio-system/istio{suffix}": {"data": {"mesh": f"trustDomain: {domain}\nenableAutoMtls: {auto}"}}
            for suffix, domain, auto in (("", "one.example", "true"), ("-canary", "two.example", "false"))}
    mesh = live.read(Cluster(cases.documents(maps)))

    assert {r: (c.trust_domain, c.enable_auto_mtls) for r, c in mesh.configs.items()} == {
        "default": ("one.example", True), "canary": ("two.example", False)}


def test_of_two_configurations_of_one_revision_istio_systems_counts():
    maps = {f"ConfigMap/{ns}/istio": {"data": {"mesh": f"trustDomain: {ns}.example"}} for ns in ("a-copy", "istio-system")}
    mesh = live.read(Cluster(cases.documents(maps)))

    assert mesh.config.trust_domain == "istio-system.example" and "a-copy" in mesh.notes[0]


def test_reading_is_not_confused_by_an_object_that_newer_versions_extend():
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "shop", "somethingNew": [1]},
            "spec": {"ports": [{"port": 80, "newField": {"x": None}}], "trafficDistribution": "PreferClose"}, "unknown": {}}
    mesh = live.read(Cluster([Document("v1", "Service", body)]))

    assert [p.port for p in mesh.services[0].spec.ports] == [80] and msgspec.to_builtins(mesh.services[0])


class Undiscovered(Cluster):
    """Rules are served in an older version only, and whoever asks which gets `answer`."""

    def __init__(self, answer):
        super().__init__(_objects(), versions={"DestinationRule": "v1beta1"})
        self.answer = answer

    def raw(self, method, path):
        if path.endswith("/networking.istio.io"):
            if isinstance(self.answer, Exception):
                raise self.answer
            return SimpleNamespace(content=self.answer)
        return super().raw(method, path)


@pytest.mark.parametrize("answer", [ServerFault("busy"), Unreachable("no answer"), b"<html>", b'{"x": ' + b"[" * 200_000])
def test_a_group_that_could_not_be_asked_for_its_versions_is_not_one_that_is_not_there(answer):
    with pytest.raises((ServerFault, Unreachable)):
        live.documents(Undiscovered(answer), (), {})


def test_a_group_that_may_not_be_asked_for_its_versions_could_not_be_read():
    absent = {}
    live.documents(Undiscovered(Forbidden("may not discover")), (), absent)

    assert absent["DestinationRule"] == "may not discover" and "VirtualService" not in absent
