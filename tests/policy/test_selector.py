"""`-l` means what it means to kubectl."""

import pytest

from meshtls.errors import InputError
from meshtls.policy.select import matches, selector

WEB = {"app": "web", "tier": "front"}


@pytest.mark.parametrize(("text", "expected"), [
    ("", True), ("app=web", True), ("app==web", True), ("app=db", False), ("app!=db", True), ("app!=web", False), ("none!=x", True),
    ("app", True), ("none", False), ("!none", True), ("!app", False), ("! app", False), ("app=web,tier=front", True),
    ("app=web, tier!=front", False), ("app in (web,db)", True), ("app in (db)", False), ("app notin (db, x)", True),
    ("app notin (web)", False), ("none notin (x)", True), ("none in (x)", False), ("app in (web),tier", True), ("none=", False),
    ("app.kubernetes.io/name=web", False),
])  # fmt: skip
def test_a_selector_chooses_as_kubectl_does(text: str, expected: bool) -> None:
    assert matches(selector(text), WEB) is expected


@pytest.mark.parametrize("text", ["=web", "app=web,,tier", "app in web", "app in (a", "!app=web", "a b", "app=w b", ",", "app>1"])
def test_what_is_no_selector_is_said_to_be_none(text: str) -> None:
    with pytest.raises(InputError, match="no label selector"):
        selector(text)
