"""A finding points to the line that decided, in every way in which manifests are written."""

import pytest
import yaml

from meshtls import sources

TEXT = """# a comment

apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata:
  name: web
  namespace: shop
spec:
  portLevelMtls:
    8080:
      mode: DISABLE
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Pod
  metadata: {name: a, namespace: shop}
  spec:
    containers:
    - {name: one}
    - name: two
      ports: []
"""


@pytest.mark.parametrize(("ref", "path", "place"), [
    ("Namespace/shop", (), (3, 1)),
    ("PeerAuthentication/shop/web", (), (7, 1)),
    ("PeerAuthentication/shop/web", ("spec", "portLevelMtls", "8080"), (14, 5)),
    ("PeerAuthentication/shop/web", ("spec", "portLevelMtls", "9090"), (13, 3)),
    ("PeerAuthentication/shop/web", ("spec", "mtls", "mode"), (12, 1)),
    ("Pod/shop/a", ("spec", "containers", "two", "ports"), (27, 7)),
    ("Pod/shop/a", ("spec", "containers", "0"), (25, 7)),
])
def test_a_path_has_its_line_or_that_of_the_nearest_part_above(tmp_path, ref, path, place):
    file = tmp_path / "all.yaml"
    file.write_text(TEXT)

    at = sources.load([str(file)]).origins.where(ref, path)

    assert (at.file, at.line, at.column) == (str(file), *place)


KUBECTL = """apiVersion: v1
items:
- apiVersion: v1
  data:
    trap: |-
      name: web

      - name: trap
    name: web
  kind: ConfigMap
  metadata:
    name: istio
    namespace: istio-system
# a comment
- apiVersion: v1
  kind: Service
  metadata:
    name: web
    namespace: shop
  spec:
    ports:
    - port: 80
kind: List
metadata:
  resourceVersion: ""
"""


@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("indent", ["", "  "], ids=["flush", "indented"])
def test_items_of_a_list_as_kubectl_writes_it_have_their_lines(tmp_path, indent, ending):
    before, kind, after = KUBECTL.partition("kind: List")
    head, items, rest = before.partition("items:\n")
    file = tmp_path / "list.yaml"
    text = head + items + "".join(indent + line for line in rest.splitlines(keepends=True)) + kind + after
    file.write_bytes(text.replace("\n", ending).encode())

    where = sources.load([str(file)]).origins.where

    assert [where("ConfigMap/istio-system/istio").line, where("Service/shop/web").line] == [3, 15]
    port = where("Service/shop/web", ("spec", "ports", "0", "port"))
    assert (port.line, port.column) == (22, 7 + len(indent))
    assert where("ConfigMap/istio-system/istio", ("data", "trap")).line == 5


def test_a_large_list_is_looked_into_item_by_item(tmp_path, monkeypatch):
    items = "".join(f"- apiVersion: v1\n  kind: Namespace\n  metadata:\n    name: n{i}\n" for i in range(5000))
    file = tmp_path / "list.yaml"
    file.write_text(f"apiVersion: v1\nitems:\n{items}kind: List\n")
    composed = []
    monkeypatch.setattr("yaml.compose", lambda text, Loader, compose=yaml.compose: composed.append(len(text)) or compose(text, Loader))

    where = sources.load([str(file)]).origins.where

    assert [where(f"Namespace/n{i}").line for i in (0, 4999)] == [3, 3 + 4 * 4999]
    assert sum(composed) < 200


def test_json_has_a_file_and_no_line(tmp_path):
    file = tmp_path / "all.json"
    file.write_text('{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}]}')

    assert sources.load([str(file)]).origins.where("Pod/default/a").file == str(file)
