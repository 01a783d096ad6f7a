"""AuthorizationPolicy as Envoy RBAC filters (pilot/pkg/security/authz): AUDIT, DENY, then ALLOW; dry-run policies are
shadow rules, which count and refuse nothing.

On TCP a rule with an HTTP-only field is dropped from an ALLOW policy and widened in a DENY policy. CUSTOM is not
translated.
"""

import re
from collections.abc import Callable
from typing import Any

from meshtls.errors import InputError
from meshtls.lab.istio import envoy, hosts
from meshtls.lab.istio.envoy import Json
from meshtls.lab.istio.objects import DOMAIN, Obj, annotations, labels, name_of, namespace_of, spec
from meshtls.lab.istio.world import World

NEVER: Json = {"permissions": [{"not_rule": {"any": True}}], "principals": [{"not_id": {"any": True}}]}
PREFIX = {"ALLOW": "istio_dry_run_allow_", "DENY": "istio_dry_run_deny_"}


class HttpOnly(Exception):
    """A condition that means nothing on a TCP connection, or that is not known."""


class Rules:
    """The RBAC filters of one pod's inbound chains."""

    def __init__(self, world: World, pod: Obj) -> None:
        self.world, self.pod = world, pod

    def http(self) -> list[Json]:
        """HTTP filters."""
        return self._cached("http")

    def tcp(self) -> list[Json]:
        """Network filters."""
        return self._cached("tcp")

    def _cached(self, kind: str) -> list[Json]:
        key = ("authz", kind, namespace_of(self.pod), *sorted(labels(self.pod).items()))
        if key not in self.world.cache:
            self.world.cache[key] = self._filters(kind == "tcp")
        found: list[Json] = self.world.cache[key]
        return found

    def _policies(self) -> list[Obj]:
        out = []
        for home in dict.fromkeys([self.world.root_namespace, namespace_of(self.pod)]):
            for policy in self.world.kind("AuthorizationPolicy"):
                selector = (spec(policy).get("selector") or {}).get("matchLabels")
                refers = spec(policy).get("targetRef") or spec(policy).get("targetRefs")
                if namespace_of(policy) == home and not refers and hosts.labels_match(selector, labels(self.pod)):
                    out.append(policy)
        return out

    def _filters(self, tcp: bool) -> list[Json]:
        policies, out = self._policies(), []
        for action, name in (("AUDIT", "LOG"), ("DENY", "DENY"), ("ALLOW", "ALLOW")):
            chosen = [p for p in policies if (spec(p).get("action") or "ALLOW") == action]
            if not chosen:
                continue
            rules: dict[bool, Json] = {}
            for policy in chosen:
                dry = annotations(policy).get("istio.io/dry-run", "").lower() in ("true", "1", "t")
                table = rules.setdefault(dry, {"action": name, "policies": {}})["policies"]
                table.update(self._policy(policy, action == "ALLOW", tcp))
            fields: Json = {"rules": rules.get(False), "shadow_rules": rules.get(True)}
            if True in rules and action in PREFIX:
                fields["shadow_rules_stat_prefix"] = PREFIX[action]
            if tcp:
                out.append(
                    envoy.extension(
                        "envoy.filters.network.rbac", "filters.network.rbac.v3.RBAC", stat_prefix="tcp.", **fields
                    )
                )
            else:
                out.append(envoy.extension("envoy.filters.http.rbac", "filters.http.rbac.v3.RBAC", **fields))
        return out

    def _policy(self, policy: Obj, allow: bool, tcp: bool) -> Json:
        rules = spec(policy).get("rules") or []
        prefix = f"ns[{namespace_of(policy)}]-policy[{name_of(policy)}]-rule"
        if not rules:
            return {f"{prefix}[0]": NEVER}
        out = {}
        for number, rule in enumerate(rules):
            try:
                out[f"{prefix}[{number}]"] = self._rule(rule or {}, namespace_of(policy), allow, tcp)
            except HttpOnly:
                continue
        return out

    def _rule(self, rule: Obj, home: str, allow: bool, tcp: bool) -> Json:
        when = rule.get("when") or []

        def both(entry: Obj, table: dict[str, Callable[..., Json]], key: str, negate: str) -> list[Json]:
            found = []
            for field, make in table.items():
                for values, negated in (
                    (entry.get(field), False),
                    (entry.get("not" + field[0].upper() + field[1:]), True),
                ):
                    found += self._any(values or [], make, key, negate if negated else "", home, allow, tcp)
            return found

        def conditions(table: dict[str, Callable[..., Json]], key: str, negate: str) -> list[Json]:
            found = []
            for entry in when:
                name = entry["key"].partition("[")[0]
                argument = entry["key"].partition("[")[2].rstrip("]")
                if name in table:
                    for values, negated in ((entry.get("values"), False), (entry.get("notValues"), True)):
                        found += self._any(
                            values or [], table[name], key, negate if negated else "", home, allow, tcp, argument
                        )
                elif name not in WHEN_PERMISSIONS and name not in WHEN_PRINCIPALS and allow:
                    raise HttpOnly(name)
            return found

        operations = [o.get("operation") or {} for o in rule.get("to") or [{}]]
        sources = [s.get("source") or {} for s in rule.get("from") or [{}]]
        permissions = [
            both(o, OPERATIONS, "or_rules", "not_rule") + conditions(WHEN_PERMISSIONS, "or_rules", "not_rule")
            for o in operations
        ]
        principals = [
            both(s, SOURCES, "or_ids", "not_id") + conditions(WHEN_PRINCIPALS, "or_ids", "not_id") for s in sources
        ]
        return {
            "permissions": [{"and_rules": {"rules": p or [{"any": True}]}} for p in permissions],
            "principals": [{"and_ids": {"ids": p or [{"any": True}]}} for p in principals],
        }

    def _any(
        self,
        values: list[str],
        make: Callable[..., Json],
        key: str,
        negate: str,
        home: str,
        allow: bool,
        tcp: bool,
        argument: str = "",
    ) -> list[Json]:
        if make is _principal:
            values = self._aliased(values)
        elif make is _trust_domain:
            domains = self.world.trust_domains
            values = list(dict.fromkeys(d for v in values for d in (domains if v in domains else [v])))
        found = []
        for value in values:
            try:
                if tcp and make in HTTP_ONLY:
                    raise HttpOnly(value)
                found.append(make(value, home, argument))
            except HttpOnly:
                if allow:
                    raise
        if not found:
            return []
        joined = {key: {key.partition("_")[2]: found}}
        return [{negate: joined} if negate else joined]

    def _aliased(self, principals: list[str]) -> list[str]:
        """Principals of the mesh's own trust domain under each of its aliases too."""
        out = []
        for principal in principals:
            domain, _, rest = principal.partition("/")
            known = principal.count("/") == 4 and (domain in self.world.trust_domains or domain == DOMAIN)
            out += [f"{d}/{rest}" for d in self.world.trust_domains] if known else [principal]
        return list(dict.fromkeys(out))


def _matcher(value: str, prefix: str = "") -> Json:
    """Istio's wildcards: `*`, `*suffix`, `prefix*`, exact."""
    if value == "*":
        return {"safe_regex": {"regex": ".+"}}
    if value.startswith("*"):
        return {"suffix": value[1:]}
    if value.endswith("*"):
        return {"prefix": prefix + value[:-1]}
    return {"exact": prefix + value}


def _authenticated(name: Json) -> Json:
    return {"authenticated": {"principal_name": name}}


def _regex(pattern: str) -> Json:
    return _authenticated({"safe_regex": {"regex": pattern}})


def _cidr(value: str) -> Json:
    ip, _, length = value.partition("/")
    if not hosts.is_ip(ip):
        raise HttpOnly(value)
    return {"address_prefix": ip, "prefix_len": int(length or (128 if ":" in ip else 32))}


def _principal(value: str, *_: Any) -> Json:
    return _authenticated(_matcher(value, "spiffe://"))


def _namespace(value: str, *_: Any) -> Json:
    return _regex(f".*/ns/{'.*'.join(re.escape(p) for p in value.split('*'))}/.*")


def _service_account(value: str, home: str, _: str) -> Json:
    namespace, found, account = value.partition("/")
    if not found:
        namespace, account = home, value
    return _regex(f"spiffe://.+/ns/{re.escape(namespace)}/(.+/|)sa/{re.escape(account)}(/.+)?")


def _trust_domain(value: str, *_: Any) -> Json:
    if "*" not in value or value == "*":
        return _authenticated({"prefix": "spiffe://" if value == "*" else f"spiffe://{value}/"})
    first, _star, rest = value.partition("*")
    return _regex(f"spiffe://{re.escape(first)}[^/]*{re.escape(rest)}/.*")


def _source_ip(value: str, *_: Any) -> Json:
    return {"direct_remote_ip": _cidr(value)}


def _remote_ip(value: str, *_: Any) -> Json:
    return {"remote_ip": _cidr(value)}


def _header(value: str, _: str, name: str) -> Json:
    if value == "*":
        return {"header": {"name": name, "present_match": True}}
    return {"header": {"name": name, "string_match": _matcher(value)}}


def _method(value: str, *_: Any) -> Json:
    return _header(value, "", ":method")


def _host(value: str, *_: Any) -> Json:
    match = _matcher(value)
    return {
        "header": {
            "name": ":authority",
            "string_match": match if "safe_regex" in match else {**match, "ignore_case": True},
        }
    }


def _path(value: str, *_: Any) -> Json:
    return {"url_path": {"path": _matcher(value)}}


def _port(value: str, *_: Any) -> Json:
    if not value.isdecimal():
        raise InputError(f"AuthorizationPolicy: not a port: {value!r}", "write a number between 1 and 65535, in quotes")
    return {"destination_port": int(value)}


def _destination_ip(value: str, *_: Any) -> Json:
    return {"destination_ip": _cidr(value)}


def _sni(value: str, *_: Any) -> Json:
    return {"requested_server_name": _matcher(value)}


def _claim(value: str, *_: Any) -> Json:
    return {"not_id": {"any": True}}  # the lab verifies no tokens, so no request has an identity


OPERATIONS: dict[str, Callable[..., Json]] = {"hosts": _host, "methods": _method, "paths": _path, "ports": _port}
SOURCES: dict[str, Callable[..., Json]] = {
    "principals": _principal,
    "requestPrincipals": _claim,
    "serviceAccounts": _service_account,
    "trustDomains": _trust_domain,
    "namespaces": _namespace,
    "remoteIpBlocks": _remote_ip,
    "ipBlocks": _source_ip,
}
WHEN_PERMISSIONS: dict[str, Callable[..., Json]] = {
    "destination.ip": _destination_ip,
    "destination.port": _port,
    "connection.sni": _sni,
}
WHEN_PRINCIPALS: dict[str, Callable[..., Json]] = {
    "source.ip": _source_ip,
    "remote.ip": _remote_ip,
    "source.namespace": _namespace,
    "source.principal": _principal,
    "source.serviceAccount": _service_account,
    "source.trustDomain": _trust_domain,
    "request.headers": _header,
}
HTTP_ONLY = frozenset({_header, _method, _host, _path, _claim})
