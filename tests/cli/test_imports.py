"""Nothing heavy is imported before it is needed: what a user runs all day feels instant."""

import subprocess
import sys

import pytest

READERS = {"msgspec", "yaml", "meshtls.model.objects", "meshtls.policy"}
HEAVY = {"ryml", "rich", "httpx", "kubernetes", "jinja2", "cryptography", "ssl", "asyncio", "meshtls.cluster.client",
         "meshtls.lab", "meshtls.probe", "meshtls.observe", "meshtls.migrate", "meshtls.report.html", "meshtls.policy.predict"}  # fmt: skip


@pytest.mark.parametrize(("arguments", "never"), [
    (["--help"], HEAVY | READERS),
    (["--version"], HEAVY | READERS),
    (["lab", "--help"], HEAVY - {"meshtls.lab"}),
    (["audit", "--help"], HEAVY),
    (["audit", "a.yaml"], HEAVY),
    (["audit", "a.yaml", "-o", "json"], HEAVY),
    (["modes", "a.yaml"], HEAVY - {"meshtls.policy.predict"}),
    (["predict", "a.yaml"], HEAVY - {"meshtls.policy.predict"}),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")  # fmt: skip
def test_a_verb_imports_only_what_it_needs(tmp_path, arguments: list[str], never: set[str]) -> None:
    (tmp_path / "a.yaml").write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n")
    script = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); from meshtls.cli.main import main; main()"

    done = subprocess.run([sys.executable, "-c", script, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)

    loaded = set(done.stderr.split("\n")[-2].split(" "))
    assert "meshtls.cli.main" in loaded
    assert not loaded & never
