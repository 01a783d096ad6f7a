"""The mesh's own settings on real Envoys: another trust domain with an alias, and another root namespace."""

import pytest
import scene
from scene import container, namespace, pod, policy, service, told, until

from meshtls.errors import LabError
from meshtls.lab import Lab

pytestmark = pytest.mark.lab
MESH = {"trustDomain": "corp.example", "trustDomainAliases": ["old.example"], "rootNamespace": "settings"}
# asks the server again and again, and shows what its metrics say of who asked
CALLER = """
import http.client, json, os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

def asked(host, port, path):
    try:
        connection = http.client.HTTPConnection(host, port, timeout=5)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__, ""

while True:
    page = asked(sys.argv[1], 15020, "/stats/prometheus")[1].splitlines()
    print(json.dumps({"got": asked("server.mesh", 8080, "/")[0], "page": [line for line in page if line.startswith("istio_requests_total")]}), flush=True)
    time.sleep(0.1)
"""


def test_the_meshs_trust_domain_its_aliases_and_its_root_namespace_count() -> None:
    allowed = {"action": "ALLOW", "rules": [{"from": [{"source": {"principals": ["old.example/ns/mesh/sa/default"]}}]}]}
    manifests = [scene.MESHED, scene.BARE, namespace("settings"), policy("STRICT", "settings"), service("server", "mesh"), pod("server", "mesh", container(scene.SERVER)),
                 {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "members", "namespace": "mesh"}, "spec": allowed}]  # fmt: skip
    with Lab(manifests=manifests, mesh=MESH) as lab, lab.client() as client:
        lab.wait()
        address = client.get("Pod", "server", "mesh")["status"]["podIP"]
        lab.apply(pod("meshed", "mesh", container(CALLER, address)), pod("outside", "bare", container(CALLER, address)))
        # the root's policy is the whole mesh's, and the alias names whoever the mesh's own domain names
        until(lambda: [line for line in told(client, "mesh", "meshed") if line["got"] == 200])
        until(lambda: [line for line in told(client, "bare", "outside") if line["got"] == "ConnectionResetError"])
        until(lambda: any('source_principal="spiffe://corp.example/ns/mesh/sa/default"' in series for line in told(client, "bare", "outside", tail=2) for series in line["page"]))

        client.delete("PeerAuthentication", "default", "settings")
        until(lambda: told(client, "bare", "outside", tail=2)[-1]["got"] == 403)


@pytest.mark.parametrize("mesh", [{"trustDomain": 5}, {"defaultConfig": {"drainDuration": "soon"}}, {"trustDomainAliases": "old.example"}], ids=str)
def test_a_lab_whose_mesh_configuration_is_none_does_not_come_up_and_says_why(mesh: dict[str, object]) -> None:
    with pytest.raises(LabError, match="ConfigMap istio-system/istio, key mesh: "), Lab(mesh=mesh):
        pass
