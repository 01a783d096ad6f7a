"""The addresses and node ports that the API gives to Services."""
import ipaddress

import httpx
import pytest


def made(http: httpx.Client, count: int = 1, **spec: object) -> list[dict]:
    """The specs of Services that the API has just created."""
    answers = [http.post("/api/v1/namespaces/default/services", json={
        "apiVersion": "v1", "kind": "Service", "metadata": {"generateName": "web-"},
        "spec": {"ports": [{"port": 80}], **spec}}) for _ in range(count)]
    assert [answer.status_code for answer in answers] == [201] * count, answers[-1].text
    return [answer.json()["spec"] for answer in answers]


def test_each_service_has_an_address_of_its_own(http: httpx.Client) -> None:
    addresses = [ipaddress.ip_address(spec["clusterIP"]) for spec in made(http, 50)]
    assert len(set(addresses)) == 50 and all(one in ipaddress.ip_network("10.96.0.0/16") for one in addresses)


@pytest.mark.parametrize("address", ["10.96.77.10", "None"])
def test_a_given_address_stays(http: httpx.Client, address: str) -> None:
    assert made(http, clusterIP=address)[0]["clusterIPs"] == [address]


def test_an_external_name_has_no_address(http: httpx.Client) -> None:
    assert "clusterIP" not in made(http, type="ExternalName", externalName="example.com")[0]


def test_node_ports_are_given_once(http: httpx.Client) -> None:
    ports = [spec["ports"][0]["nodePort"] for spec in made(http, 20, type="NodePort")]
    assert len(set(ports)) == 20 and all(30000 <= port <= 32767 for port in ports)
