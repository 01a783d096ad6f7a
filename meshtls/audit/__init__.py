"""The audit: Mesh -> Checks, one check a rule. Pure: files, clusters, the clock and exit codes are elsewhere."""

from collections.abc import Collection

from meshtls.audit.catalogue import least_sure
from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule, Unsure
from meshtls.audit.rules import RULES
from meshtls.audit.scope import Scope
from meshtls.model.check import Check, Finding, Status
from meshtls.model.kinds import BY_KIND
from meshtls.model.mesh import Mesh

__all__ = ["RULES", "check", "coverage"]

_FIELDS: dict[str, tuple[str, ...]] = {}
for (_group, _kind), (_field, _class) in BY_KIND.items():
    _FIELDS[_kind] = (*_FIELDS.get(_kind, ()), _field)


def check(
    mesh: Mesh, namespaces: Collection[str] | None = None, selector: str = "", rules: tuple[Rule, ...] = RULES
) -> list[Check]:
    """One check for each rule, in their order.

    `namespaces` keeps the findings that concern them (None: all), `selector` those about objects with such labels; the whole
    mesh is judged either way, since the clients of one namespace live in others. Raises InputError for a selector that is none.
    """
    facts = Facts(mesh)
    scope = Scope(mesh, namespaces, selector)
    return [_ask(rule, facts, scope) for rule in rules]


def coverage(checks: list[Check]) -> dict[str, int]:
    """How many questions were asked, and how many could be answered."""
    answered = sum(c.status in (Status.PASS, Status.FAIL) for c in checks)
    return {"questions": len(checks), "answered": answered, "percent": round(100 * answered / len(checks)) if checks else 0}


def _ask(rule: Rule, facts: Facts, scope: Scope) -> Check:
    mesh = facts.mesh
    for kind in rule.needs:
        if kind in mesh.absent:
            return _skip(rule, f"{kind} could not be read: {mesh.absent[kind]}")
    unread = [kind for kind in rule.inputs if kind in mesh.absent]
    if all(kind in mesh.absent for kind in rule.about):
        return _skip(rule, f"{unread[0]} could not be read: {mesh.absent[unread[0]]}")
    if not mesh.live and (lacking := _lacking(rule, facts)):
        return _skip(rule, lacking)
    findings: dict[tuple[str, tuple[str, ...]], Finding] = {}
    unsure: list[str] = []
    for flaw in rule.find(facts):
        if isinstance(flaw, Unsure):
            unsure.append(flaw.reason)
        elif scope.holds(flaw):
            findings.setdefault((flaw.subject, flaw.path), _finding(rule, flaw, mesh))
    if findings:
        found = tuple(sorted(findings.values(), key=lambda f: (f.severity.rank, f.subject, f.path)))
        return Check(id=rule.code, title=rule.title, group=rule.group, status=Status.FAIL, findings=found)
    if unread:
        return _skip(rule, f"{unread[0]} could not be read: {mesh.absent[unread[0]]}")
    if not mesh.live and "Namespace" in rule.needs and facts.unknown_namespaces:
        unsure.append(f"whether namespace {facts.unknown_namespaces[0]} injects is unknown: the input holds no Namespace object of it")
    if unsure:
        return _skip(rule, unsure[0])
    return Check(id=rule.code, title=rule.title, group=rule.group, status=Status.PASS)


def _lacking(rule: Rule, facts: Facts) -> str:
    """What files hold nothing of, although the question is about it or cannot be answered without."""
    mesh = facts.mesh
    if not any(_some(mesh, kind) for kind in rule.about):
        return f"the input holds no {'workload' if 'Pod' in rule.about else ' or '.join(rule.about)}"
    if "Pod" in rule.needs and not mesh.workloads:
        return "the input holds no workload"
    if "Service" in rule.needs and not mesh.services:
        return "the input holds no Service"
    return ""


def _some(mesh: Mesh, kind: str) -> bool:
    if kind == "MeshConfig":
        return bool(mesh.configs)
    return any(getattr(mesh, field) for field in _FIELDS[kind])


def _skip(rule: Rule, reason: str) -> Check:
    return Check(id=rule.code, title=rule.title, group=rule.group, status=Status.SKIP, reason=reason)


def _finding(rule: Rule, flaw: Flaw, mesh: Mesh) -> Finding:
    where = mesh.origins.where(flaw.subject, flaw.path)
    return Finding(
        code=rule.code, severity=flaw.severity or rule.severity, subject=flaw.subject, message=flaw.message, path=flaw.path,
        because=flaw.because, fix=flaw.fix, catalogue=flaw.catalogue or rule.catalogue,
        confidence=least_sure(flaw.catalogue or rule.catalogue, flaw.confidence or rule.confidence), file=where.file, line=where.line, column=where.column,
    )
