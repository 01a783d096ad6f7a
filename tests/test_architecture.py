"""Who may import whom, and who may touch the world. A change here is argued in a decision record (docs/decisions).

    cli -> {lab, */run, sources} -> cluster
    cli -> {audit, expect, probe, observe, migrate, guard, rehearse, report} -> policy -> model -> errors
    rehearse/run -> lab
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "meshtls"

# package -> the packages of ours that its modules may import, besides itself
HEADS = {
    "errors": set(),
    "model": {"errors"},
    "policy": {"model", "errors"},
    "audit": {"policy", "model", "errors"},
    "expect": {"policy", "model", "errors"},
    "probe": {"policy", "model", "errors", "pki"},
    "observe": {"policy", "model", "errors"},
    "migrate": {"policy", "model", "errors"},
    "guard": {"policy", "model", "errors"},
    "rehearse": {"policy", "model", "errors"},
    "report": {"model", "errors"},
    "pki": {"model", "errors"},
    "cluster": {"errors"},
    "sources": {"cluster", "model", "errors"},
    "lab": {"cluster", "errors"},
}
# hands of a package (its module run, or a package run) may also talk to the cluster and read a Mesh
HAND = {"cluster", "sources", "probe", "observe"}
HANDS = ("run", "webhook", "cleanup")
OTHER_HANDS = {"migrate/preflight.py", "migrate/store.py", "observe/ears.py", "observe/prometheus.py"}
# the hand of rehearsing brings a lab up, as the command line does; its head knows nothing of labs (docs/decisions/0006)
IN_A_LAB = {"rehearse/run.py"}
EVERYWHERE = {"cli"}

# what touches the world; heads import none of it
WORLD = {"httpx", "subprocess", "socket", "kubernetes", "requests", "urllib.request", "asyncio", "threading", "signal", "tempfile", "shutil"}
PURE = ("model", "policy", "audit", "expect", "report", "errors")


def _modules():
    return sorted(p for p in ROOT.rglob("*.py") if "_probes" not in p.parts)


def _imports(path):
    """(module imported, line) of every import in a file, those within functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module == "meshtls":
                yield from ((f"meshtls.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield node.module, node.lineno


def _package(path):
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def test_imports_point_downwards_only():
    wrong = []
    for path in _modules():
        package = _package(path)
        if package in EVERYWHERE or package == "__init__":
            continue
        allowed = HEADS[package] | {package}
        if str(path.relative_to(ROOT)) in OTHER_HANDS or path.stem.startswith(HANDS) or any(part in HANDS for part in path.relative_to(ROOT).parts):
            allowed |= HAND
        if str(path.relative_to(ROOT)) in IN_A_LAB:
            allowed |= {"lab"}
        for name, line in _imports(path):
            parts = name.split(".")
            if parts[0] == "meshtls" and len(parts) > 1 and parts[1] not in allowed and parts[1] != "__version__":
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_the_lab_and_the_policy_engine_know_nothing_of_each_other():
    for path in _modules():
        if _package(path) in ("lab", "policy"):
            other = "meshtls.policy" if _package(path) == "lab" else "meshtls.lab"
            assert not [line for name, line in _imports(path) if name.startswith(other)], path


def test_heads_do_not_touch_the_world():
    wrong = []
    for path in _modules():
        if _package(path) not in PURE:
            continue
        wrong += [f"{path.relative_to(ROOT)}:{line} imports {name}" for name, line in _imports(path) if name in WORLD]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("open", "print", "input"):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} calls {node.func.id}")
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "today", "utcnow") and isinstance(node.value, ast.Name):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} reads {node.value.id}.{node.attr}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", ["kubernetes", "httpx"])
def test_only_the_cluster_package_talks_to_kubernetes(library):
    users = {str(path.relative_to(ROOT)) for path in _modules() for name, _ in _imports(path) if name.split(".")[0] == library}
    users -= {"observe/prometheus.py"}  # no part of Kubernetes

    assert {user.split("/")[0] for user in users} <= ({"cluster"} if library == "kubernetes" else {"cluster", "lab"}), users


def test_every_module_opens_with_what_it_is():
    silent = [str(p.relative_to(ROOT)) for p in _modules() if p.stat().st_size and not ast.get_docstring(ast.parse(p.read_text()))]

    assert not silent


def test_registries_are_literal_and_complete():
    from meshtls.audit import rules
    from meshtls.cli.main import VERBS
    from meshtls.report import FORMATS

    files = {p.stem for p in (ROOT / "audit/rules").glob("*.py")} - {"__init__"}
    assert {rule.find.__module__.rsplit(".", 1)[-1] for rule in rules.RULES} == files
    assert set(FORMATS) == {"console", "json", "junit", "sarif", "html", "markdown"}
    assert all(module.isidentifier() for module, _ in VERBS.values())
