"""AuthorizationPolicy as Envoy RBAC filters (pilot/pkg/security/authz): AUDIT, DENY, then ALLOW; dry-run policies are
shadow rules, which count and refuse nothing.

A rule is permissions (what is asked for) and principals (who asks), each a list of which one must hold. What `from` and
`to` say by field, `when` says by key: both are conditions of FIELDS. On TCP a rule with an HTTP-only condition is
dropped from an ALLOW policy and widened in a DENY policy. CUSTOM is not translated.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from meshtls.errors import InputError
from meshtls.lab.istio import envoy, hosts
from meshtls.lab.istio.envoy import Json
from meshtls.lab.istio.objects import DOMAIN, Obj, annotations, at, name_of, namespace_of, spec
from meshtls.lab.istio.world import World, remembered

NEVER: Json = {"permissions": [{"not_rule": {"any": True}}], "principals": [{"not_id": {"any": True}}]}
PREFIX = {"ALLOW": "istio_dry_run_allow_", "DENY": "istio_dry_run_deny_"}


class HttpOnly(Exception):
    """A condition that means nothing on a TCP connection, or that is not known."""


class Asked(NamedTuple):
    """A value of a condition: of a policy in `home`, for the header or claim `name`."""

    value: str
    home: str
    name: str


def _matcher(value: str, prefix: str = "") -> Json:
    """Istio's wildcards: `*`, `*suffix`, `prefix*`, exact."""
    if value == "*":
        return {"safe_regex": {"regex": ".+"}}
    if value.startswith("*"):
        return {"safe_regex": {"regex": f"{prefix}.*{re.escape(value[1:])}"}} if prefix else {"suffix": value[1:]}
    if value.endswith("*"):
        return {"prefix": prefix + value[:-1]}
    return {"exact": prefix + value}


def _named(name: Json) -> Json:
    return {"authenticated": {"principal_name": name}}


def _regex(pattern: str) -> Json:
    return _named({"safe_regex": {"regex": pattern}})


def _cidr(asked: Asked) -> Json:
    if not hosts.is_ip(asked.value.partition("/")[0]):
        raise HttpOnly(asked.value)
    return envoy.cidr(asked.value)


def _namespace(asked: Asked) -> Json:
    return _regex(f".*/ns/{'.*'.join(re.escape(p) for p in asked.value.split('*'))}/.*")


def _service_account(asked: Asked) -> Json:
    namespace, found, account = asked.value.partition("/")
    if not found:
        namespace, account = asked.home, asked.value
    return _regex(f"spiffe://.+/ns/{re.escape(namespace)}/(.+/|)sa/{re.escape(account)}(/.+)?")


def _trust_domain(asked: Asked) -> Json:
    first, star, rest = asked.value.partition("*")
    if not star or asked.value == "*":
        return _named({"prefix": f"spiffe://{first}/" if first else "spiffe://"})
    return _regex(f"spiffe://{re.escape(first)}[^/]*{re.escape(rest)}/.*")


def _path(asked: Asked) -> Json:
    value = asked.value
    if "{*}" not in value and "{**}" not in value:
        return {"url_path": {"path": _matcher(value)}}
    template = value.replace("{**}", "**").replace("{*}", "*")
    config = envoy.typed("path.match.uri_template.v3.UriTemplateMatchConfig", path_template=template)
    return {"uri_template": {"name": "uri-template", "typed_config": config}}


def _header(name: str, value: str, **fields: Any) -> Json:
    match = _matcher(value)
    exact = {"string_match": match if "safe_regex" in match else match | fields}
    return {"header": {"name": name, **({"present_match": True} if value == "*" else exact)}}


def _port(asked: Asked) -> Json:
    value = asked.value
    if not value.isdecimal():
        raise InputError(f"AuthorizationPolicy: not a port: {value!r}", "write a number between 1 and 65535, in quotes")
    return {"destination_port": int(value)}


RULE, ID = "rule", "id"
Make = Callable[[Asked], Json]
# Where it belongs, whether it is for HTTP alone, and how one value of it is said. The lab verifies no tokens: no request
# has an identity of its own, and none of the filters that leave metadata exist.
NOBODY: Json = {"not_id": {"any": True}}
FIELDS: dict[str, tuple[str, bool, Make]] = {
    "operation.hosts": (RULE, True, lambda a: _header(":authority", a.value, ignore_case=True)),
    "operation.methods": (RULE, True, lambda a: _header(":method", a.value)),
    "operation.paths": (RULE, True, _path),
    "destination.port": (RULE, False, _port),
    "destination.ip": (RULE, False, lambda a: {"destination_ip": _cidr(a)}),
    "connection.sni": (RULE, False, lambda a: {"requested_server_name": _matcher(a.value)}),
    "source.principal": (ID, False, lambda a: _named(_matcher(a.value, "spiffe://"))),
    "source.requestPrincipals": (ID, True, lambda a: NOBODY),
    **dict.fromkeys((f"request.auth.{one}" for one in ("principal", "audiences", "presenter", "claims")), (ID, True, lambda a: NOBODY)),
    "source.serviceAccount": (ID, False, _service_account),
    "source.trustDomain": (ID, False, _trust_domain),
    "source.namespace": (ID, False, _namespace),
    "remote.ip": (ID, False, lambda a: {"remote_ip": _cidr(a)}),
    "source.ip": (ID, False, lambda a: {"direct_remote_ip": _cidr(a)}),
    "request.headers": (ID, True, lambda a: _header(a.name, a.value)),
    "experimental": (RULE, False, lambda a: {"not_rule": {"any": True}}),
}
# The fields of `operation` and `source`, and what they are called above.
OPERATION = {"hosts": "operation.hosts", "methods": "operation.methods", "paths": "operation.paths", "ports": "destination.port"}
SOURCE = {
    "principals": "source.principal",
    "requestPrincipals": "source.requestPrincipals",
    "serviceAccounts": "source.serviceAccount",
    "trustDomains": "source.trustDomain",
    "namespaces": "source.namespace",
    "remoteIpBlocks": "remote.ip",
    "ipBlocks": "source.ip",
}


@remembered
def filters(world: World, namespace: str, marks: dict[str, str], tcp: bool) -> list[Json]:
    """The RBAC filters of a workload's inbound chains, for TCP or for HTTP."""
    policies, out = list(_policies(world, namespace, marks)), []
    for action, name in (("AUDIT", "LOG"), ("DENY", "DENY"), ("ALLOW", "ALLOW")):
        rules: dict[bool, Json] = {}
        for policy in policies:
            if (spec(policy).get("action") or "ALLOW") == action:
                dry = annotations(policy).get("istio.io/dry-run", "").lower() in ("true", "1", "t")
                table = rules.setdefault(dry, {"action": name, "policies": {}})["policies"]
                table.update(_policy(world, policy, action == "ALLOW", tcp))
        fields: Json = {"rules": rules.get(False), "shadow_rules": rules.get(True)}
        fields["shadow_rules_stat_prefix"] = PREFIX.get(action) if True in rules else None
        fields["stat_prefix"] = "tcp." if tcp else None
        kind = "network" if tcp else "http"
        if rules:
            out.append(envoy.extension(f"filters.{kind}.rbac.v3.RBAC", **fields))
    return out


def _policies(world: World, namespace: str, marks: dict[str, str]) -> Iterator[Obj]:
    for home in dict.fromkeys([world.root_namespace, namespace]):
        for policy in world.kind("AuthorizationPolicy"):
            body = spec(policy)
            refers = body.get("targetRef") or body.get("targetRefs")
            selected = hosts.labels_match(at(body, "selector", "matchLabels"), marks)
            if namespace_of(policy) == home and not refers and selected:
                yield policy


def _policy(world: World, policy: Obj, allow: bool, tcp: bool) -> Json:
    prefix, home = f"ns[{namespace_of(policy)}]-policy[{name_of(policy)}]-rule", namespace_of(policy)
    out = {}
    for number, rule in enumerate(spec(policy).get("rules") or []):
        try:
            out[f"{prefix}[{number}]"] = _rule(world, rule or {}, home, allow, tcp)
        except HttpOnly:
            continue
    return out if spec(policy).get("rules") else {f"{prefix}[0]": NEVER}


def _rule(world: World, rule: Obj, home: str, allow: bool, tcp: bool) -> Json:
    when = rule.get("when") or []

    def one(side: str, entry: Obj, fields: dict[str, str]) -> Json:
        """All that must hold: what the entry says, and what `when` says for this side."""
        said = [(called, "", entry.get(f), entry.get("not" + f[0].upper() + f[1:])) for f, called in fields.items()]
        for condition in when:
            key, _, argument = condition["key"].partition("[")
            key = "experimental" if key.startswith("experimental.envoy.filters.") else key
            if key in FIELDS and FIELDS[key][0] == side:
                said.append((key, argument.rstrip("]"), condition.get("values"), condition.get("notValues")))
            elif key not in FIELDS and allow:
                raise HttpOnly(key)
        found = []
        for called, argument, values, others in said:
            for given, negated in ((values, False), (others, True)):
                anyone = list(_any(world, called, given or [], home, argument, allow, tcp))
                joined = {f"or_{side}s": {f"{side}s": anyone}}
                found += [{f"not_{side}": joined} if negated else joined] if anyone else []
        return {f"and_{side}s": {f"{side}s": found or [{"any": True}]}}

    operations = [o.get("operation") or {} for o in rule.get("to") or [{}]]
    sources = [s.get("source") or {} for s in rule.get("from") or [{}]]
    return {
        "permissions": [one(RULE, o, OPERATION) for o in operations],
        "principals": [one(ID, s, SOURCE) for s in sources],
    }


def _any(world: World, called: str, values: list[str], home: str, name: str, allow: bool, tcp: bool) -> Iterator[Json]:
    """The values of a condition, one of which must hold; those that mean nothing here void an ALLOW."""
    _, http_only, make = FIELDS[called]
    for value in dict.fromkeys(v for given in values for v in _aliased(world, called, given)):
        try:
            if tcp and http_only:
                raise HttpOnly(value)
            yield make(Asked(value, home, name))
        except HttpOnly:
            if allow:
                raise


def _aliased(world: World, called: str, value: str) -> list[str]:
    """Principals and trust domains of the mesh itself under each of its trust domain's aliases too (pilot/pkg/security/trustdomain)."""
    domains = [world.mesh["trustDomain"], *sorted(world.mesh.get("trustDomainAliases") or [])]
    domain, _, rest = value.partition("/")
    if called == "source.trustDomain":
        return domains if value in domains else [value]
    if called != "source.principal" or value.count("/") != 4 or domain == "*":
        return [value]
    begins, ends = domain.removesuffix("*") if domain.endswith("*") else domain + "/", domain[1:] if domain.startswith("*") else "/"
    if domain != DOMAIN and not any(f"{d}/".startswith(begins) or d.endswith(ends) for d in domains):
        return [value]
    return [value if d.endswith(ends) else f"{d}/{rest}" for d in domains]
