"""A plan as files to commit: each folder is what a run would have left in the cluster at that stage."""

from typing import Any

import pytest
import yaml

from meshtls.migrate.baseline import gitops_owner
from meshtls.migrate.files import folders
from meshtls.migrate.plan import Plan, Stage
from tests.migrate.conftest import CANARY, PERMISSIVE_SPEC, STRICT, Eyes, World, policy, wide
from tests.migrate.test_crash import SCENES, staged


def plan(*stages: Stage) -> Plan:
    return Plan(namespace="shop", was="PERMISSIVE", stages=stages)


def specs(files: dict[str, str]) -> dict[str, Any]:
    return {name.removesuffix(".yaml"): yaml.safe_load(text)["spec"] for name, text in files.items()}


@pytest.mark.parametrize("name", [name for name, scene in SCENES.items() if scene.done])
def test_each_folder_holds_what_a_run_leaves_at_that_stage(name: str) -> None:
    world, stages = staged(SCENES[name])
    live = {stage.policy: world.api.policies().get(stage.policy) for stage in stages}
    seen: list[dict[str, Any]] = [{n: o["spec"] for n, o in world.api.policies().items()}]
    eyes = Eyes()
    eyes.seeing = lambda stage: seen.append({n: o["spec"] for n, o in world.api.policies().items()})
    world.start(stages, eyes)
    seen.append({n: o["spec"] for n, o in world.api.policies().items()})

    found = folders(plan(*stages), live)
    assert [specs(files) for _, files in found] == seen
    assert [folder for folder, _ in found] == ["0-before", *(f"{n}-{s.id}" for n, s in enumerate(stages, 1)), f"{len(stages) + 1}-done"]


def test_what_the_server_and_other_commands_note_on_an_object_is_not_committed(world: World) -> None:
    stage = wide(world)
    held = world.api.policies()["default"]
    held["metadata"] |= {"generation": 3, "managedFields": [{"manager": "x"}], "annotations": {
        "kubectl.kubernetes.io/last-applied-configuration": "{}", "owner": "team-a"}}  # fmt: skip
    _, files = folders(plan(stage), {"default": held})[0]
    assert yaml.safe_load(files["default.yaml"]) == {
        "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "spec": PERMISSIVE_SPEC,
        "metadata": {"name": "default", "namespace": "shop", "labels": {"team": "a"}, "annotations": {"owner": "team-a"}}}  # fmt: skip


def test_what_is_made_for_git_is_not_marked_as_ours() -> None:
    folder, files = folders(plan(CANARY), {CANARY.policy: None})[1]
    made = yaml.safe_load(files[f"{CANARY.policy}.yaml"])
    assert folder == "1-canary"
    assert made["metadata"] == {"name": CANARY.policy, "namespace": "shop"}
    assert made["spec"] == {"selector": {"matchLabels": {"app": "cart"}}, **STRICT}


@pytest.mark.parametrize(("meta", "owner"), [
    ({"annotations": {"argocd.argoproj.io/tracking-id": "shop:security.istio.io/PeerAuthentication:shop/default"}}, "Argo CD"),
    ({"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}}, "Flux (Kustomization)"),
    ({"labels": {"helm.toolkit.fluxcd.io/name": "apps"}}, "Flux (HelmRelease)"),
    ({"annotations": {"configmanagement.gke.io/managed": "enabled"}}, "Config Sync"),
    ({"managedFields": [{"manager": "kustomize-controller"}]}, "Flux"),
    ({"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}, "annotations": {"kustomize.toolkit.fluxcd.io/reconcile": "disabled"}}, ""),
    ({"annotations": {"argocd.argoproj.io/sync-wave": "1"}}, ""),
    ({"labels": {"team": "a"}}, ""),
])  # fmt: skip
def test_an_owner_from_git_is_known_by_what_the_audit_knows(meta: dict[str, Any], owner: str) -> None:
    made = policy("default", STRICT)
    assert gitops_owner({**made, "metadata": made["metadata"] | meta}) == owner
