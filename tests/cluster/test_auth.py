"""Which cluster and which credentials the flags, the environment and the files give."""

import base64
import json
import stat
import sys
from pathlib import Path

import pytest
import yaml

from meshtls.cluster import auth
from meshtls.errors import InputError


def config(folder: Path, name: str = "config", *, user: dict | None = None, context: str = "c", **cluster: object) -> Path:
    content = {
        "current-context": context,
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        "clusters": [{"name": context, "cluster": {"server": f"https://{context}.test", **cluster}}],
        "users": [{"name": context, "user": user or {"token": "t"}}],
    }
    path = folder / name
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(auth, "IN_CLUSTER", tmp_path / "serviceaccount")


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ({"token": "abc"}, "Bearer abc"),
        ({"tokenFile": "token.txt"}, "Bearer from-file"),
        ({"username": "ann", "password": "pw"}, "Basic " + base64.b64encode(b"ann:pw").decode()),
    ],
)
def test_plain_credentials_need_no_kubernetes_package(tmp_path, monkeypatch, user, expected) -> None:
    (tmp_path / "token.txt").write_text("from-file\n")
    monkeypatch.setitem(sys.modules, "kubernetes", None)

    access = auth.load(str(config(tmp_path, user=user)))

    assert access.authorization == expected
    assert (access.server, access.namespace) == ("https://c.test", "default")
    assert "abc" not in repr(access)


def test_the_flag_wins_over_the_environment_which_wins_over_home(tmp_path, monkeypatch) -> None:
    home = tmp_path / "home" / ".kube"
    home.mkdir(parents=True)
    config(home, "config", context="home")
    assert auth.load().server == "https://home.test"
    monkeypatch.setenv("KUBECONFIG", str(config(tmp_path, "env", context="env")))
    assert auth.load().server == "https://env.test"
    assert auth.load(str(config(tmp_path, "flag", context="flag"))).server == "https://flag.test"


def test_several_files_merge_and_the_first_to_name_a_thing_wins(tmp_path, monkeypatch) -> None:
    one, two = config(tmp_path, "one", context="a"), config(tmp_path, "two", context="b")
    monkeypatch.setenv("KUBECONFIG", f"{one}:{tmp_path / 'missing'}:{two}")

    assert auth.load().server == "https://a.test"
    assert auth.load(context="b").server == "https://b.test"
    with pytest.raises(InputError, match="no context named 'z'.*it has: a, b"):
        auth.load(context="z")


def test_in_a_pod_the_service_account_is_used(tmp_path, monkeypatch) -> None:
    import trustme

    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "token").write_text("pod-token\n")
    (folder / "namespace").write_text("ops")
    (folder / "ca.crt").write_bytes(trustme.CA().cert_pem.bytes())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")

    access = auth.load()

    assert (access.server, access.namespace, access.authorization) == ("https://[fd00::1]:443", "ops", "Bearer pod-token")


def test_without_any_configuration_the_message_says_what_to_do() -> None:
    with pytest.raises(InputError, match="no cluster is configured.*--kubeconfig"):
        auth.load()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"), ("[]", "no mapping"), ("a: [", "no YAML"), ("a: 1", "no current context"),
        ("current-context: x\ncontexts: [{name: x}]", "malformed"),
        ("current-context: x\ncontexts: [{name: x, context: {cluster: y}}]", "no cluster named 'y'"),
    ],
)
def test_a_broken_kubeconfig_is_named_with_what_is_wrong(tmp_path, content, message) -> None:
    path = tmp_path / "config"
    path.write_text(content)

    with pytest.raises(InputError, match=message):
        auth.load(str(path))


def plugin(folder: Path, script: str) -> dict:
    path = folder / "plugin.py"
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(path), "installHint": "get the plugin"}}


def test_an_exec_plugin_gives_a_token(tmp_path) -> None:
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "from-plugin"}}

    access = auth.load(str(config(tmp_path, user=plugin(tmp_path, f"print('''{json.dumps(answer)}''')"))))

    assert access.authorization == "Bearer from-plugin"


@pytest.mark.parametrize("script", ["raise SystemExit('no session')", "print('{}')", "print('nonsense')"])
def test_an_exec_plugin_that_fails_is_named_with_its_install_hint(tmp_path, script) -> None:
    with pytest.raises(InputError, match=r"credential plugin.*get the plugin|gave neither"):
        auth.load(str(config(tmp_path, user=plugin(tmp_path, script))))


def test_an_exec_plugin_that_is_missing_is_named(tmp_path) -> None:
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "/nonexistent/plugin"}}

    with pytest.raises(InputError, match="No such file"):
        auth.load(str(config(tmp_path, user=user)))


def test_a_client_certificate_that_cannot_be_used_is_named_and_leaves_no_file(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    data = base64.b64encode(b"nonsense").decode()

    with pytest.raises(InputError, match="cannot be used"):
        auth.load(str(config(tmp_path, user={"client-certificate-data": data, "client-key-data": data})))

    assert list((tmp_path / "t").iterdir()) == []


def test_a_kubeconfig_that_is_nested_to_end_the_process_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("a: " + "[" * 60_000)

    with pytest.raises(InputError, match="nested too deeply"):
        auth.load(str(config))
