"""An admission webhook that runs in the mesh: called at its Service from outside, until STRICT shows the caller the mesh's certificate."""

import base64

import pytest
import scene
import trustme
from scene import container, pod, policy, service, until

from meshtls.errors import ClusterError
from meshtls.lab import Lab

pytestmark = pytest.mark.lab
# allows everything, and writes its word into what it sees
HOOK = """
import base64, http.server, json, os, signal, ssl
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))["request"]
        patch = base64.b64encode(json.dumps([{"op": "add", "path": "/data", "value": {"seen": asked["operation"]}}]).encode()).decode()
        body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                           "response": {"uid": asked["uid"], "allowed": True, "patchType": "JSONPatch", "patch": patch}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
with open("/tmp/pem", "w") as file:
    file.write(os.environ["PEM"])
server = http.server.ThreadingHTTPServer(("", 8443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tmp/pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def test_a_webhook_in_the_mesh_is_called_until_strict_shows_the_meshs_certificate() -> None:
    authority = trustme.CA()
    pem = authority.issue_cert("hook.mesh.svc").private_key_and_cert_chain_pem.bytes().decode()
    bundle = base64.b64encode(authority.cert_pem.bytes()).decode()
    hook = {"name": "hook.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 5,
            "clientConfig": {"service": {"namespace": "mesh", "name": "hook", "port": 8443}, "caBundle": bundle},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "bare"}}}  # fmt: skip
    manifests = [scene.MESHED, scene.BARE, policy("PERMISSIVE"), service("hook", "mesh", ports={"https": 8443}),
                 pod("hook", "mesh", container(HOOK, env=[{"name": "PEM", "value": pem}], readinessProbe={"tcpSocket": {"port": 8443}, "periodSeconds": 1}))]  # fmt: skip
    with Lab(manifests=manifests) as lab, lab.client() as client:
        lab.wait()
        client.create({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": "hook"}, "webhooks": [hook]})

        def refused() -> str:
            try:
                client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "c-", "namespace": "bare"}})
            except ClusterError as error:
                return str(error)
            return ""

        made = client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "before", "namespace": "bare"}})
        assert made["data"] == {"seen": "CREATE"}
        client.patch("PeerAuthentication", "default", "mesh", {"spec": {"mtls": {"mode": "STRICT"}}})
        said = until(refused)
    assert 'failed calling webhook "hook.example.com": failed to call webhook: Post "https://hook.mesh.svc:8443/?timeout=5s": tls: failed to verify certificate: x509: ' \
           "certificate is not valid for any names, but wanted to match hook.mesh.svc" in said
