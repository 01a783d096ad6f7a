"""A finding points to the line that decided, in every way in which manifests are written."""

import pytest

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


def test_json_has_a_file_and_no_line(tmp_path):
    file = tmp_path / "all.json"
    file.write_text('{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}]}')

    assert sources.load([str(file)]).origins.where("Pod/default/a").file == str(file)
