"""Exceptions beyond today's: who answers for what until when. Pure; today's date is an argument.

    exceptions:
    - {rule: host-network, namespace: shop, subject: DaemonSet/agent, owner: team-node, reason: "reads the node", expires: 2027-05-31}

`value` narrows it to one flaw of the rule, such as the port of excluded-port. The day is counted to its end, in UTC. The engines
have no clock: they compare with the time that the API server writes into what is created or changed, so an exception that is
over refuses the next write, and leaves what stands.
"""

import datetime
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from meshtls.errors import InputError
from meshtls.guard.achieved import Granted, Kept, owners
from meshtls.guard.rules import RULES
from meshtls.model.workload import Workload

FIELDS = ("rule", "namespace", "subject", "owner", "reason", "expires")
_MOST = 1000
_NAME = re.compile(r"[A-Z][A-Za-z]*(/[a-z0-9]([-a-z0-9.]*[a-z0-9])?){1,2}")


def entries(data: Any, where: str) -> list[Granted]:
    """Exceptions in parsed YAML: a mapping with `exceptions`, a list, or one entry. Raises InputError."""
    if isinstance(data, dict) and "exceptions" in data:
        data = data["exceptions"]
    listed = data if isinstance(data, list) else [data]
    if len(listed) > _MOST:
        raise InputError(f"{where}: more than {_MOST} exceptions")
    return [_entry(entry, where) for entry in listed]


def _entry(entry: Any, where: str) -> Granted:
    known = {rule.name for rule in RULES}
    if not isinstance(entry, dict) or not set(entry) <= {*FIELDS, "value"}:
        raise InputError(f"{where}: an exception is a mapping of {', '.join(FIELDS)} (and value)", "see docs/guard.md")
    lacking = [field for field in FIELDS if not entry.get(field)]
    if lacking:
        raise InputError(f"{where}: an exception lacks {', '.join(lacking)}", "owner, reason and a date are what makes it one")
    said = {field: str(entry[field]) for field in FIELDS}
    if said["rule"] not in known:
        raise InputError(f"{where}: {said['rule']!r} is no rule", f"one of {', '.join(sorted(known))}")
    if not _NAME.fullmatch(said["subject"]):
        raise InputError(f"{where}: {said['subject']!r} is no subject", "Kind/name, such as DaemonSet/agent; of a DestinationRule Kind/namespace/name")
    try:
        last = entry["expires"] if type(entry["expires"]) is datetime.date else datetime.date.fromisoformat(said["expires"])
        until = last + datetime.timedelta(days=1)
    except (ValueError, OverflowError):
        raise InputError(f"{where}: {said['expires']!r} is no day", "write expires as 2027-05-31") from None
    value = entry.get("value")
    flaw = re.escape(said["rule"]) + (re.escape(f" {value}") if value is not None else "( .*)?")
    return Granted(rule=said["rule"], namespace=said["namespace"], subject=said["subject"], owner=said["owner"], reason=said["reason"],
                   pattern=f"^{flaw} ({'|'.join(_who(said['subject']))})$", until=f"{until.isoformat()}T00:00:00Z")  # fmt: skip


def _who(subject: str) -> list[str]:
    kind, _, name = subject.partition("/")
    if kind == "DestinationRule":
        return [f"{re.escape(subject)} [^ ]*"]  # a host; a flaw's own words, which may say anything, stand before
    return [re.escape(subject), *owners(Workload(kind, "", name, None, (), None))[1:]]


def over(granted: Iterable[Granted], today: datetime.date) -> list[Granted]:
    """Those whose time is over."""
    return [one for one in granted if one.until[:10] <= today.isoformat()]


def with_granted(kept: Sequence[Kept], granted: Sequence[Granted]) -> list[Kept]:
    """What is kept, with the exceptions in their namespaces. Raises InputError for one in a namespace that is not kept."""
    stray = next((one for one in granted if one.namespace not in {each.namespace for each in kept}), None)
    if stray is not None:
        raise InputError(f"an exception for {stray.subject} is in namespace {stray.namespace}, which is not kept")
    return [msgspec.structs.replace(each, granted=tuple(g for g in granted if g.namespace == each.namespace)) for each in kept]
