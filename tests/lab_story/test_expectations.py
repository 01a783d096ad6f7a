"""The pipeline of docs/expectations.md, run as it stands on real Envoys; and a mesh that does not keep what the file says."""

import os
import pathlib
import shutil
import subprocess
import sys
import xml.etree.ElementTree as xml

import pytest
import yaml

pytestmark = pytest.mark.lab
ROOT = pathlib.Path(__file__).parents[2]
STRICT = """
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: payments}
spec: {mtls: {mode: STRICT}}
"""
# what an exception takes out, and what no sidecar changes, once payments is STRICT
REFUSED = """
apiVersion: meshtls.dev/v1
kind: Expectations
calls:
- {from: shop/*, to: payments/gateway, must: MTLS}
- {from: Deployment/legacy/*, to: payments/gateway, must: REFUSED}
- {from: Deployment/legacy/*, to: payments/gateway, port: http, must: PLAINTEXT}
modes:
- {workloads: payments/*, mode: STRICT}
- {workloads: shop/c*, mode: STRICT}
"""


def steps() -> dict[str, str]:
    """The shell steps of the documented pipeline, by name; what installs meshtls is done already."""
    text = (ROOT / "docs/expectations.md").read_text()
    workflow = next(block for block in text.split("```yaml\n")[1:] if "jobs:" in block).partition("```")[0]
    (job,) = yaml.safe_load(workflow)["jobs"].values()
    found = {step["name"]: step["run"] for step in job["steps"] if "run" in step}
    assert found.pop("Install").startswith("pip install")
    return found


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> pathlib.Path:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return tmp_path


def run(folder: pathlib.Path, script: str) -> tuple[int, str]:
    """A step as a runner runs it: bash, ended by the first failure. Labs get a name of this test's own."""
    script = script.replace("--name ci", f"--name expect-{os.getpid()}")
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script], cwd=folder, capture_output=True, text=True, timeout=300,
                          env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)})
    return done.returncode, done.stdout + done.stderr


def cases(file: pathlib.Path) -> dict[str, str]:
    """Expectation -> PASS, or what JUnit calls its trouble."""
    found = [suite for suite in xml.parse(file).iter("testsuite") if suite.get("name") == "expectations"]
    return {case.get("name", ""): next((child.tag for child in case if child.tag != "system-out"), "PASS") for suite in found for case in suite}


def test_the_documented_pipeline_holds_on_the_shop(checkout: pathlib.Path) -> None:
    predict, probe = steps().values()

    code, said = run(checkout, predict)
    assert code == 0, said
    code, said = run(checkout, probe)
    assert code == 0, said
    assert cases(checkout / "predict.xml") == cases(checkout / "probe.xml")
    assert len(cases(checkout / "probe.xml")) == 5 and set(cases(checkout / "probe.xml").values()) == {"PASS"}
    assert (checkout / "probe.html").exists()


def test_the_same_pipeline_names_what_does_not_hold_once_a_namespace_is_strict(checkout: pathlib.Path) -> None:
    """Prediction and wire say the same of each expectation, those that hold and those that do not."""
    manifests = checkout / "examples/shop/20-payments.yaml"
    manifests.write_text(manifests.read_text() + STRICT)
    (checkout / "examples/expectations.yaml").write_text(REFUSED)
    predict, probe = steps().values()
    predicted, observed = run(checkout, predict), run(checkout, probe)

    assert (predicted[0], observed[0]) == (1, 1), (predicted, observed)
    on_the_wire = cases(checkout / "probe.xml")
    assert on_the_wire == {
        "shop/* -> payments/gateway must be MTLS": "PASS",
        "Deployment/legacy/* -> payments/gateway must be REFUSED": "PASS",
        "Deployment/legacy/* -> payments/gateway:http must be PLAINTEXT": "failure",
        "mode of payments/* must be STRICT": "PASS",
        "mode of shop/c* must be STRICT": "failure",
    }
    # offline sees one thing more: the example's policy opens a port 80 that no container has
    assert cases(checkout / "predict.xml") == on_the_wire | {"mode of payments/* must be STRICT": "failure"}
