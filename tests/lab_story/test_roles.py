"""The roles of the chart are enough for their commands, and no wider: what is not theirs is refused."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from meshtls.cluster.kinds import KINDS
from meshtls.lab import Lab
from meshtls.model.kinds import READ, kind_of
from meshtls.sources.live import key_of

ROOT = pathlib.Path(__file__).parents[2]
ROLES = ROOT / "charts" / "meshtls" / "files" / "roles.yaml"


def roles() -> dict[str, list[dict[str, Any]]]:
    return {one["metadata"]["name"]: one["rules"] for one in yaml.safe_load_all(ROLES.read_text())}


def test_the_audit_role_reads_what_is_read_and_nothing_else() -> None:
    named = {(group, resource) for rule in roles()["meshtls-audit"] for group in rule["apiGroups"] for resource in rule["resources"]}
    read = {(group, KINDS[key_of(cls, group)].plural) for _, group, cls in READ}

    assert named == read | {("", "pods/log")}
    assert {verb for rule in roles()["meshtls-audit"] for verb in rule["verbs"]} == {"get", "list", "watch"}
    assert "Secret" not in {kind_of(cls) for _, _, cls in READ}


def test_no_role_has_a_wildcard_or_a_secret() -> None:
    for rule in [rule for rules in roles().values() for rule in rules]:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert "secrets" not in rule["resources"]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(manifests=[ROOT / "examples" / "shop", ROLES]) as lab:
        yield lab


def account(lab: Lab, name: str, *bound: tuple[str, str], folder: pathlib.Path) -> str:
    """A kubeconfig of a new service account with these roles: (role, namespace), "" being everywhere."""
    subject = {"kind": "ServiceAccount", "name": name, "namespace": "default"}
    objects: list[dict[str, Any]] = [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "default"}}]
    for number, (role, namespace) in enumerate(bound):
        kind = "RoleBinding" if namespace else "ClusterRoleBinding"
        metadata = {"name": f"{name}-{number}", **({"namespace": namespace} if namespace else {})}
        objects.append({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata, "subjects": [subject],
                        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}})  # fmt: skip
    lab.apply(*objects)
    kubectl = [str(pathlib.Path(sys.executable).with_name("kubectl")), "--kubeconfig", lab.kubeconfig]
    token = subprocess.run([*kubectl, "create", "token", name], check=True, capture_output=True, text=True).stdout.strip()
    config = yaml.safe_load(pathlib.Path(lab.kubeconfig).read_text())
    config["users"][0]["user"] = {"token": token}
    path = folder / name
    path.write_text(yaml.safe_dump(config))
    return str(path)


def run(kubeconfig: str, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KUBECONFIG": kubeconfig}
    command = [sys.executable, "-m", "meshtls.cli.main", *args]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.lab
def test_each_role_is_enough_for_its_commands_and_for_no_more(lab: Lab, tmp_path: pathlib.Path) -> None:
    reader = account(lab, "reader", ("meshtls-audit", ""), folder=tmp_path)
    audited = run(reader, "audit", "-A", "-o", "json")
    assert audited.returncode == 1, audited.stderr
    assert "forbidden" not in audited.stdout.lower()
    assert run(reader, "observe", "-n", "shop").returncode in (0, 1)
    refused = run(reader, "probe", "-n", "shop")
    assert refused.returncode in (2, 3), refused.stdout + refused.stderr
    assert "Traceback" not in refused.stderr

    prober = account(lab, "prober", ("meshtls-audit", ""), ("meshtls-probe", "shop"), folder=tmp_path)
    probed = run(prober, "probe", "-n", "shop", "-o", "json")
    assert probed.returncode == 0, probed.stdout[-2000:] + probed.stderr
    held = run(prober, "migrate", "apply", "-n", "shop", "--yes", "--soak", "1s")
    assert held.returncode in (3, 4), held.stdout + held.stderr
    assert "Traceback" not in held.stderr

    mover = account(lab, "mover", ("meshtls-audit", ""), ("meshtls-probe", "shop"), ("meshtls-migrate", "shop"), folder=tmp_path)
    moved = run(mover, "migrate", "apply", "-n", "shop", "--yes", "--soak", "1s")
    assert moved.returncode == 0, moved.stdout + moved.stderr
    back = run(mover, "migrate", "rollback", "-n", "shop", "--yes")
    assert back.returncode == 0, back.stdout + back.stderr
    elsewhere = run(mover, "migrate", "apply", "-n", "data", "--yes", "--soak", "1s")
    assert elsewhere.returncode in (3, 4), elsewhere.stdout + elsewhere.stderr
