"""Admission over HTTP: webhooks really called, policies by CEL, custom kinds, Pod Security, the injector in process."""
import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
import trustme

from tests.lone_api import Standalone, standalone

HOOKS = "/apis/admissionregistration.k8s.io/v1"
MAPS = "/api/v1/namespaces/default/configmaps"
Answer = Callable[[dict], dict]


class Hook:
    """A webhook server: `answer` makes a response of each request; `asked` are the requests."""

    def __init__(self) -> None:
        self.asked: list[dict] = []
        self.answer: Answer = lambda request: {"allowed": True}
        self.authority = trustme.CA()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.authority.issue_cert("127.0.0.1").configure_cert(context)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(review["request"])
                response = {"uid": review["request"]["uid"], **outer.answer(review["request"])}
                body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                                   "response": response}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def configuration(self, kind: str, **more: object) -> dict:
        bundle = base64.b64encode(self.authority.cert_pem.bytes()).decode()
        hook = {"name": "guard.meshtls.dev", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "timeoutSeconds": 5,
                "clientConfig": {"url": f"https://127.0.0.1:{self.server.server_port}/judge", "caBundle": bundle},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                           "resources": ["configmaps"]}], **more}
        return {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "judge"},
                "webhooks": [hook]}


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def configured(http: httpx.Client, hook: Hook) -> Iterator[Callable[..., None]]:
    """Register the hook; its configuration goes with the test."""
    paths: list[str] = []

    def register(kind: str, **more: object) -> None:
        path = f"{HOOKS}/{kind.lower()}s"
        made = http.post(path, json=hook.configuration(kind, **more))
        assert made.status_code == 201, made.text
        paths.append(f"{path}/judge")
    yield register
    for path in paths:
        assert http.delete(path).status_code == 200


def config(name: str, **more: object) -> dict:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **more}


def test_a_validating_webhook_refuses_with_its_own_words(http: httpx.Client, hook: Hook,
                                                         configured: Callable[..., None]) -> None:
    configured("ValidatingWebhookConfiguration")
    hook.answer = lambda request: {"allowed": False, "status": {"message": "not on Fridays", "code": 403},
                                   "warnings": ["look out"]}
    refused = http.post(MAPS, json=config("friday"))
    assert (refused.status_code, refused.json()["message"]) == (
        403, 'admission webhook "guard.meshtls.dev" denied the request: not on Fridays')
    asked = hook.asked[0]
    assert (asked["operation"], asked["name"], asked["namespace"], asked["userInfo"]["username"]) == (
        "CREATE", "friday", "default", "lab-admin")
    assert asked["resource"] == {"group": "", "version": "v1", "resource": "configmaps"}


def test_a_mutating_webhook_changes_the_object_and_warns(http: httpx.Client, hook: Hook,
                                                         configured: Callable[..., None]) -> None:
    configured("MutatingWebhookConfiguration")
    change = [{"op": "add", "path": "/data", "value": {"added": "yes"}}]
    hook.answer = lambda request: {"allowed": True, "patchType": "JSONPatch", "warnings": ["changed"],
                                   "patch": base64.b64encode(json.dumps(change).encode()).decode()}
    made = http.post(MAPS, json=config("changed"))
    assert (made.status_code, made.json()["data"],
            made.headers["warning"]) == (201, {"added": "yes"}, '299 - "changed"')


SELECTORS = [
    ("another namespace", {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}),
    ("other labels", {"objectSelector": {"matchLabels": {"wanted": "yes"}}}),
    ("a false condition", {"matchConditions": [{"name": "named", "expression": "object.metadata.name == 'other'"}]}),
    ("another operation",
     {"rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["configmaps"]}]}),
    ("subresources only",
     {"rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps/status"]}]})]


@pytest.mark.parametrize("more", [case[1] for case in SELECTORS], ids=[case[0] for case in SELECTORS])
def test_a_webhook_is_not_asked_about_what_it_does_not_select(http: httpx.Client, hook: Hook,
                                                              configured: Callable[..., None],
                                                              more: dict) -> None:
    configured("ValidatingWebhookConfiguration", **more)
    hook.answer = lambda request: {"allowed": False}
    assert http.post(MAPS, json=config("unasked"), params={"dryRun": "All"}).status_code == 201
    assert hook.asked == []


@pytest.mark.parametrize(("policy", "code"), [("Fail", 500), ("Ignore", 201)])
def test_a_ca_that_did_not_sign_is_a_failed_call(http: httpx.Client, hook: Hook, configured: Callable[..., None],
                                                 policy: str,
                                                 code: int) -> None:
    other = base64.b64encode(trustme.CA().cert_pem.bytes()).decode()
    url = f"https://127.0.0.1:{hook.server.server_port}/judge"
    configured("ValidatingWebhookConfiguration", failurePolicy=policy, clientConfig={"url": url, "caBundle": other})
    answer = http.post(MAPS, json=config("unsigned"), params={"dryRun": "All"})
    assert answer.status_code == code
    if code == 500:
        assert "x509: certificate signed by unknown authority" in answer.json()["message"]


@pytest.mark.parametrize(("policy", "code"), [("Fail", 500), ("Ignore", 201)])
def test_a_webhook_that_does_not_answer_in_its_time_is_a_failed_call(http: httpx.Client, hook: Hook, configured: Callable[..., None], policy: str, code: int) -> None:
    over = threading.Event()
    hook.answer = lambda request: {"allowed": over.wait(20)}
    configured("ValidatingWebhookConfiguration", failurePolicy=policy, timeoutSeconds=1)
    answer = http.post(MAPS, json=config("slow"), params={"dryRun": "All"})
    over.set()
    assert answer.status_code == code
    if code == 500:
        assert answer.json()["message"].endswith(f'Post "https://127.0.0.1:{hook.server.server_port}/judge?timeout=1s": context deadline exceeded')


def test_a_runtime_class_brings_its_overhead_and_its_nodes(http: httpx.Client) -> None:
    made = http.post("/apis/node.k8s.io/v1/runtimeclasses", json={
        "metadata": {"name": "boxed"}, "handler": "box", "overhead": {"podFixed": {"memory": "64Mi"}},
        "scheduling": {"nodeSelector": {"boxes": "yes"}, "tolerations": [{"key": "boxes", "operator": "Exists"}]}})
    assert made.status_code == 201, made.text

    def asked(**spec: object) -> httpx.Response:
        body = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "app", "image": "app:1"}], **spec}}
        return http.post("/api/v1/namespaces/default/pods", json=body, params={"dryRun": "All"})
    spec = asked(runtimeClassName="boxed", nodeSelector={"disk": "fast"}).json()["spec"]
    assert (spec["overhead"], spec["nodeSelector"]) == ({"memory": "64Mi"}, {"disk": "fast", "boxes": "yes"})
    assert {"key": "boxes", "operator": "Exists"} in spec["tolerations"]
    absent = asked(runtimeClassName="absent")
    assert (absent.status_code, absent.json()["message"]) == (403, 'pods "p" is forbidden: pod rejected: RuntimeClass "absent" not found')
    torn = asked(runtimeClassName="boxed", nodeSelector={"boxes": "no"})
    assert (torn.status_code, torn.json()["message"]) == (
        403, 'pods "p" is forbidden: conflict: runtimeClass.scheduling.nodeSelector[boxes] = yes; pod.spec.nodeSelector[boxes] = no')


def test_a_webhook_without_its_service_is_a_failed_call(http: httpx.Client, configured: Callable[..., None]) -> None:
    configured("ValidatingWebhookConfiguration",
               clientConfig={"service": {"namespace": "default", "name": "absent", "path": "/v"}})
    answer = http.post(MAPS, json=config("serviceless"))
    assert (answer.status_code, answer.json()["message"]) == (
        500, 'Internal error occurred: failed calling webhook "guard.meshtls.dev": failed to call webhook: Post '
             '"https://absent.default.svc:443/v?timeout=5s": service "absent" not found')


def test_admission_policies_refuse_and_warn_by_cel(http: httpx.Client) -> None:
    policy = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
              "metadata": {"name": "few"}, "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"],
                                                "operations": ["CREATE", "UPDATE"],
                                                "resources": ["deployments"]}]},
        "variables": [{"name": "count", "expression": "object.spec.replicas"}],
        "validations": [{"expression": "variables.count <= 5",
                         "messageExpression": "'asked for ' + string(variables.count)"}]}}
    binding = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
               "metadata": {"name": "few"},
               "spec": {"policyName": "few", "validationActions": ["Deny"]}}
    assert http.post(f"{HOOKS}/validatingadmissionpolicies", json=policy).status_code == 201
    assert http.post(f"{HOOKS}/validatingadmissionpolicybindings", json=binding).status_code == 201
    path = "/apis/apps/v1/namespaces/default/deployments"
    refused = http.post(path, json=deployment(6))
    assert (refused.status_code, refused.json()["reason"], refused.json()["message"]) == (
        422, "Invalid",
        "deployments.apps \"many\" is forbidden: ValidatingAdmissionPolicy 'few' with binding 'few' denied request: "
        "asked for 6")
    assert http.post(path, json=deployment(5), params={"dryRun": "All"}).status_code == 201
    http.patch(f"{HOOKS}/validatingadmissionpolicybindings/few", json={"spec": {"validationActions": ["Warn"]}},
               headers={"Content-Type": "application/merge-patch+json"})
    warned = http.post(path, json=deployment(6), params={"dryRun": "All"})
    assert (warned.status_code, warned.headers["warning"]) == (
        201, "299 - \"Validation failed for ValidatingAdmissionPolicy 'few' with binding 'few': asked for 6\"")


def deployment(replicas: int) -> dict:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "many"}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}}


def test_a_custom_kind_comes_and_goes_with_its_definition(http: httpx.Client) -> None:
    schema = {"type": "object", "properties": {"spec": {
        "type": "object", "required": ["size"],
        "x-kubernetes-validations": [{"rule": "self.size <= self.limit", "message": "too big"}],
        "properties": {"size": {"type": "integer", "minimum": 1}, "limit": {"type": "integer", "default": 3}}}}}
    definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                  "metadata": {"name": "boxes.test.dev"}, "spec": {
        "group": "test.dev", "scope": "Namespaced", "names": {"plural": "boxes", "kind": "Box", "shortNames": ["bx"]},
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
                      "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]}]}}
    made = http.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json=definition)
    assert {one["type"]: one["status"] for one in made.json()["status"]["conditions"]}["Established"] == "True"
    path = "/apis/test.dev/v1/namespaces/default/boxes"

    def box(spec: dict) -> httpx.Response:
        return http.post(path, json={"apiVersion": "test.dev/v1", "kind": "Box", "metadata": {"name": "one"},
                                     "spec": spec})
    assert box({}).json()["details"]["causes"][0] == {"reason": "FieldValueRequired", "message": "Required value",
                                                      "field": "spec.size"}
    assert box({"size": 9}).json()["message"] == 'Box.test.dev "one" is invalid: spec: Invalid value: too big'
    assert box({"size": 2, "odd": 1}).json()["spec"] == {"size": 2, "limit": 3}
    rows = http.get(path, headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}).json()
    assert (rows["columnDefinitions"][1]["name"], rows["rows"][0]["cells"]) == ("Size", ["one", 2])
    http.delete("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/boxes.test.dev")
    assert http.get(path).status_code == 404


def test_the_injector_in_process_answers_for_istios_webhook() -> None:
    def inject(pod: dict, namespace: dict) -> dict:
        probe = {"httpGet": {"path": "/", "port": 15021}, "initialDelaySeconds": 0}
        pod["spec"]["containers"].append({"name": "istio-proxy", "image": "proxy:1", "readinessProbe": probe, "args": []})
        return pod
    with standalone(inject=inject) as api:
        answers = _with_injector(api)
        with httpx.Client(base_url=api.server, verify=ssl.create_default_context(cafile=api.ca), headers={"Authorization": f"Bearer {api.token}"}) as client:
            labelled = client.patch("/api/v1/namespaces/in/pods/p", json={"metadata": {"labels": {"x": "y"}}}, headers={"Content-Type": "application/merge-patch+json"})
    assert [[one["name"] for one in answer["spec"]["containers"]]
            for answer in answers] == [["app", "istio-proxy"], ["app"]]
    injected = answers[0]["spec"]["containers"][1]
    assert injected["imagePullPolicy"] == "IfNotPresent", "what was injected gets its defaults"
    assert "initialDelaySeconds" not in injected["readinessProbe"] and "args" not in injected, "and is read as a client's words are"
    assert labelled.status_code == 200, labelled.text


def _with_injector(api: Standalone) -> list[dict]:
    configuration = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
                     "metadata": {
        "name": "istio-sidecar-injector"}, "webhooks": [{
            "name": "namespace.sidecar-injector.istio.io", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"namespace": "istio-system", "name": "istiod", "path": "/inject"}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            "namespaceSelector": {"matchLabels": {"istio-injection": "enabled"}}}]}
    made = []
    with httpx.Client(base_url=api.server, verify=ssl.create_default_context(cafile=api.ca),
                      headers={"Authorization": f"Bearer {api.token}"}) as client:
        client.post(f"{HOOKS}/mutatingwebhookconfigurations", json=configuration)
        for name, labels in (("in", {"istio-injection": "enabled"}), ("out", {})):
            client.post("/api/v1/namespaces", json={"metadata": {"name": name, "labels": labels}})
            made.append(client.post(f"/api/v1/namespaces/{name}/pods", json={"metadata": {"name": "p"}, "spec": {
                "containers": [{"name": "app", "image": "app:1"}]}}).json())
    return made


def test_a_stricter_namespace_names_the_pods_that_violate_it(http: httpx.Client) -> None:
    http.post("/api/v1/namespaces", json={"metadata": {"name": "loose"}})
    for name in ("one", "two"):
        http.post("/api/v1/namespaces/loose/pods", json={"metadata": {"name": name}, "spec": {
            "hostNetwork": True, "containers": [{"name": "app", "image": "app:1"}]}})
    made = http.patch("/api/v1/namespaces/loose",
                      json={"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}},
                      headers={"Content-Type": "application/merge-patch+json"})
    assert made.headers.get_list("warning") == [
        '299 - "existing pods in namespace \\"loose\\" violate the new PodSecurity enforce level '
        '\\"baseline:latest\\""',
        '299 - "one (and 1 other pod): host namespaces"']
