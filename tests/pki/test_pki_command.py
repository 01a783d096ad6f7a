"""`meshtls pki` as an operator meets it."""

import json
import os
import stat

import pytest
from click.testing import CliRunner

from meshtls.cli.pki import pki
from meshtls.errors import InputError

WHO = "spiffe://cluster.local/ns/shop/sa/cart"


def run(*arguments, data=None):
    outcome = CliRunner().invoke(pki, list(arguments), input=data, catch_exceptions=True)
    if isinstance(outcome.exception, InputError):
        raise outcome.exception
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


@pytest.fixture
def folder(tmp_path):
    run("ca", "-d", str(tmp_path))
    return tmp_path


def test_keys_are_for_their_owner_only_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        run("ca", "-d", str(tmp_path))
        run("flaws", WHO, "-d", str(tmp_path))
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert {mode for name, mode in modes.items() if name.endswith("-key.pem")} == {0o600}
    assert {mode for name, mode in modes.items() if not name.endswith("-key.pem")} == {0o644}


def test_nothing_is_overwritten_without_force(folder):
    before = (folder / "ca.pem").read_bytes()
    with pytest.raises(InputError, match="is there already.*--force"):
        run("ca", "-d", str(folder))
    assert (folder / "ca.pem").read_bytes() == before
    run("ca", "-d", str(folder), "--force")
    assert (folder / "ca.pem").read_bytes() != before


def test_flaws_are_written_all_or_none(folder):
    (folder / "expired.pem").write_text("mine")
    with pytest.raises(InputError, match="expired.pem is there already"):
        run("flaws", WHO, "-d", str(folder))
    assert sorted(file.name for file in folder.iterdir()) == ["ca-key.pem", "ca.pem", "expired.pem"]


def test_what_was_made_is_told_as_json(folder):
    told = json.loads(run("flaws", WHO, "-d", str(folder), "--only", "expired", "--only", "unknown-ca", "-o", "json"))
    assert told["kind"] == "CertificateFiles" and [one["name"] for one in told["items"]] == ["expired", "unknown-ca"]
    assert all(os.path.exists(one["certificate"]) and os.path.exists(one["key"]) for one in told["items"])
    assert "PRIVATE" not in json.dumps(told)


def test_a_leaf_is_inspected_against_its_ca(folder):
    run("leaf", WHO, "-d", str(folder), "--lifetime", "10m")
    told = json.loads(run("inspect", str(folder / "shop-cart.pem"), "--root", str(folder / "ca.pem"), "-o", "json"))
    [facts] = told["certificates"]
    assert (facts["kind"], facts["account"], facts["trusted"]) == ("test", "cart", True)
    text = run("inspect", "-", data=(folder / "shop-cart.pem").read_bytes())
    assert text.startswith("A test certificate of meshtls, for service account cart in namespace shop")


def test_a_ca_is_compared_with_the_meshs_root(folder, tmp_path):
    run("ca", "-d", str(tmp_path / "other"), "--mesh-root", str(folder / "ca.pem"))
    assert (tmp_path / "other" / "ca.pem").exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["leaf", WHO], "cannot read .*ca.pem.*make a test CA first"),
        (["leaf", "cart"], "is no Istio identity"),
        (["ca", "--lifetime", "48h"], "is not allowed"),
        (["flaws", WHO, "--only", "nonsense"], "there is no flaw 'nonsense'"),
        (["ca", "--mesh-root", "nowhere.pem"], "cannot read nowhere.pem"),
    ],
)
def test_bad_input_is_one_line_with_what_to_do_next(tmp_path, arguments, why):
    with pytest.raises(InputError, match=why) as caught:
        run(*arguments, "-d", str(tmp_path))
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "a/b", ".", "..", "ca"])
def test_file_names_stay_in_the_folder(folder, name):
    with pytest.raises(InputError, match="cannot name the files"):
        run("leaf", WHO, "-d", str(folder), "--name", name)
    assert not (folder.parent / "x.pem").exists()


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        run("ca", "-d", str(tmp_path / "file"))
