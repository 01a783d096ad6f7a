"""The file of expectations: what is written is read as written, and what is wrong has its line."""

import datetime
import textwrap

import jsonschema
import pytest
import yaml

from meshtls.errors import InputError
from meshtls.expect.file import parse, schema
from meshtls.expect.match import is_service, matches

HEAD = "apiVersion: meshtls.dev/v1\nkind: Expectations\n"
WHOLE = HEAD + textwrap.dedent("""\
    calls:
    - from: Deployment/shop/cart
      to: Service/payments/gateway:80
      must: MTLS
      except:
      - {from: "*/shop/ca*", owner: team-shop, reason: moves, until: 2027-03-31}
    modes:
    - workloads: payments/*
      mode: STRICT
      except:
      - workload: Deployment/payments/legacy:8080
        owner: team-payments
        until: "2027-01-31"
    """)


def test_every_field_is_read_and_every_expectation_has_its_line():
    found = parse(WHOLE, "e.yaml")
    call, modes = found.document.calls[0], found.document.modes[0]

    assert (call.from_, call.to, call.port, call.must) == ("Deployment/shop/cart", "Service/payments/gateway", 80, "MTLS")
    assert (call.except_[0].owner, call.except_[0].reason, call.except_[0].until) == ("team-shop", "moves", datetime.date(2027, 3, 31))
    assert (modes.workloads, modes.mode, modes.except_[0].workload, modes.except_[0].port) == ("payments/*", "STRICT", "Deployment/payments/legacy", 8080)
    assert [found.at(p)[0] for p in ("$.calls[0]", "$.calls[0].except[0]", "$.modes[0]", "$.modes[0].except[0]")] == [4, 8, 10, 13]


def test_what_is_read_fits_the_published_schema():
    plain = yaml.safe_load(WHOLE.replace("2027-03-31}", "'2027-03-31'}"))

    jsonschema.validate(plain, schema(), format_checker=jsonschema.FormatChecker())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(plain | {"callz": []}, schema())


@pytest.mark.parametrize("text, line, says", [
    ("calls:\n- {from: a/b, to: c/d, must: MUTUAL}", 4, "one of MTLS, PLAINTEXT, REFUSED, WORKS, BREAKS"),
    ("calls:\n- from: a/b\n  to: c/d\n  musst: MTLS", 6, "unknown field 'musst'"),
    ("calls:\n- {from: a/b, to: c/d}", 4, "lacks 'must'"),
    ("calls:\n- {from: shop, to: c/d, must: MTLS}", 4, "write NAMESPACE/NAME"),
    ("calls:\n- {from: a/b/c/d, to: c/d, must: MTLS}", 4, "write NAMESPACE/NAME"),
    ("calls:\n- {from: a/b, to: '*/c/d', must: MTLS}", 4, "leaves open whether a Service or a workload"),
    ("calls:\n- {from: a/b, to: 'c/d:80', port: 80, must: MTLS}", 4, "port is given besides"),
    ("calls:\n- {from: a/b, to: c/d, port: 70000, must: MTLS}", 4, "65535"),
    ("calls:\n- from: a/b\n  to: c/d\n  must: MTLS\n  except:\n  - {from: a/b, until: 2027-01-01}", 8, "lacks 'owner'"),
    ("calls:\n- from: a/b\n  to: c/d\n  must: MTLS\n  except:\n  - {from: a/b, owner: x}", 8, "lacks 'until'"),
    ("calls:\n- from: a/b\n  to: c/d\n  must: MTLS\n  except:\n  - {owner: x, until: soon}", 8, "a day such as"),
    ("calls:\n- {from: a/b, to: c/d, must: MTLS}\n- {from: a/b, to: c/d, must: WORKS}", 5, "expected twice"),
    ("modes:\n- {workloads: a/b, mode: STRIKT}", 4, "one of STRICT, PERMISSIVE, DISABLE, NONE"),
    ("calls: []", 1, "nothing is expected"),
    ("calls: 3", 3, "expected `array`"),
    ("calls: [a, b", 4, "broken YAML"),
    ("calls: []\ncalls: []", 4, "stands twice"),
])  # fmt: skip
def test_what_is_wrong_is_an_error_of_usage_with_its_line(text, line, says):
    with pytest.raises(InputError) as caught:
        parse(HEAD + text, "e.yaml")

    assert caught.value.exit_code == 2
    assert caught.value.line == line and says in str(caught.value), str(caught.value)


@pytest.mark.parametrize("text", ["", "null", "[]", "3", "- a", "a: &a [*a]", "kind: Expectations", HEAD.replace("v1", "v2") + "calls: []",
                                  "x: &x [1,1,1,1,1,1,1,1,1,1]\n" + "".join(f"y{i}: &y{i} [{','.join([f'*{chr(121)}{i - 1}' if i else '*x'] * 10)}]\n" for i in range(7))])  # fmt: skip
def test_a_file_that_is_no_expectations_is_one_error(text):
    with pytest.raises(InputError):
        parse(text, "e.yaml")


@pytest.mark.parametrize("pattern, ref, kind, meant", [
    ("shop/cart", "Deployment/shop/cart", "*", True),
    ("deployment/shop/cart", "Deployment/shop/cart", "*", True),
    ("StatefulSet/shop/cart", "Deployment/shop/cart", "*", False),
    ("shop/*", "Deployment/shop/cart", "*", True),
    ("sh*/c?rt", "Deployment/shop/cart", "*", True),
    ("*/shop/cart", "CronJob/shop/cart", "*", True),
    ("*/cart", "Deployment/shop/cart", "*", True),
    ("shop/CART", "Deployment/shop/cart", "*", False),
    ("payments/gateway", "Deployment/payments/gateway", "Service", False),
    ("payments/gateway", "Service/payments/gateway", "Service", True),
])  # fmt: skip
def test_a_pattern_means_what_it_names(pattern, ref, kind, meant):
    assert matches(pattern, ref, kind) is meant


def test_a_call_without_a_kind_goes_to_a_service():
    assert is_service("payments/gateway") and is_service("service/a/b") and not is_service("Deployment/a/b")


@pytest.mark.parametrize("port", ["\u00b2", "9" * 5000])
def test_a_port_that_only_looks_like_a_number_is_an_error_with_its_line(port):
    with pytest.raises(InputError) as failed:
        parse(HEAD + f'calls:\n- {{from: "a/*", to: "a/b:{port}", must: MTLS}}\n', "e.yaml")

    assert failed.value.line == 4
