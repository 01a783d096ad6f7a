"""A real Prometheus with a history that is written for it: what its own arithmetic makes of resets, new series and gaps, and ours of that."""

import datetime
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import prom
import pytest
import trustme

from meshtls.errors import InputError, ServerFault, Unauthorized, Unreachable
from meshtls.model.check import Check, Status
from meshtls.model.mesh import Mesh
from meshtls.model.objects import Pod
from meshtls.observe import counted, metrics
from meshtls.observe.counted import Counted, Proxied
from meshtls.observe.metrics import Security
from meshtls.observe.prometheus import Prometheus, Source, count

pytestmark = prom.NEEDED
HOUR, STEP = 3600, 30
Samples = list[tuple[str, float, float]]


def series(name: str, to: str, policy: str | None = "none", source: str = "unknown", **more: str) -> str:
    labels = {"reporter": "destination", "destination_workload": to, "destination_workload_namespace": "shop",
              "source_workload": source, "source_workload_namespace": "mesh" if source != "unknown" else "unknown",
              "destination_service_name": to, "instance": f"{ADDRESS.get(to, '10.0.0.99')}:15020", **more}  # fmt: skip
    if policy is not None:
        labels["connection_security_policy"] = policy
    return f"{name}{{{','.join(f'{k}={chr(34)}{v}{chr(34)}' for k, v in sorted(labels.items()))}}}"


WORKLOADS = ("mtls", "once", "reset", "before", "unlabelled", "quiet", "unscraped", "named", "passed", "ambient", "tcp", "half", "gap")
ADDRESS = {name: f"10.0.0.{number}" for number, name in enumerate(WORKLOADS, 1)}
REQUESTS, OPENED, CLOSED = "istio_requests_total", "istio_tcp_connections_opened_total", "istio_tcp_connections_closed_total"


def steady(name: str, begin: float, end: float, value: float, grows: float = 0.0) -> Samples:
    times = [begin + STEP * n for n in range(int((end - begin) / STEP) + 1)]
    return [(name, at, value + grows * n) for n, at in enumerate(times)]


def written(now: float) -> Samples:
    """Three hours of a mesh; what is asked about is the last one."""
    long_ago, an_hour = now - 3 * HOUR, now - HOUR
    whole = (long_ago, now)
    out: Samples = []
    for name in WORKLOADS:
        if name not in ("unscraped", "half"):
            out += steady(f'up{{instance="{ADDRESS[name]}:15020"}}', *whole, 1)
    out += steady(f'up{{instance="{ADDRESS["half"]}:15020"}}', *whole, 0)
    out += steady(f'up{{instance="{ADDRESS["mtls"]}:8080"}}', *whole, 0)
    for name in ("mtls", "once", "before", "quiet", "half", "gap"):
        grows = 0 if name == "quiet" else 1
        out += steady(series(REQUESTS, name, "mutual_tls", "web"), *whole, 100, grows)
    # plaintext that ended before the hour, and one call in it, after which the series says 1 for ever
    out += steady(series(REQUESTS, "before"), *whole, 40)
    out += steady(series(REQUESTS, "once"), now - HOUR / 2, now, 1)
    # a proxy that restarted: its counter begins again
    out += steady(series(REQUESTS, "reset"), long_ago, an_hour + 600, 500, 0) + steady(series(REQUESTS, "reset"), an_hour + 600 + STEP, now, 7, 0)
    out += steady(series(REQUESTS, "unlabelled", None), *whole, 10, 1)
    out += steady(series(REQUESTS, "named", "none", "web"), *whole, 10, 1)
    out += steady(series(REQUESTS, "passed", "none", "web"), *whole, 10, 1)
    out += steady(series(REQUESTS, "passed", "unknown", "web", reporter="source", destination_service_name="PassthroughCluster"), *whole, 10, 1)
    out += steady(series(REQUESTS, "unknown", "unknown", "away", reporter="source", destination_service_name="PassthroughCluster",
                         destination_workload_namespace="unknown"), *whole, 10, 1)  # fmt: skip
    # what a client's proxy counts of the server says nothing about how it came
    out += steady(series(REQUESTS, "mtls", "unknown", "web", reporter="source"), *whole, 10, 1)
    # ztunnel: plaintext is `unknown`, and what it refuses it has opened before
    out += steady(series(OPENED, "ambient", "unknown", "cli"), *whole, 0, 3)
    out += steady(series(CLOSED, "ambient", "unknown", "cli", response_flags="DENY"), *whole, 0, 1)
    out += steady(series(CLOSED, "ambient", "unknown", "cli", response_flags="-"), *whole, 0, 2)
    out += steady(series(OPENED, "ambient", "mutual_tls", "good"), *whole, 0, 1)
    out += steady(series(OPENED, "tcp"), *whole, 0, 2)
    # nothing was scraped when the hour began: the series is older all the same
    out += steady(series(REQUESTS, "gap"), long_ago, an_hour - 1200, 40) + steady(series(REQUESTS, "gap"), an_hour + 1200, now, 40)
    return out


def pod(name: str, where: str = "shop", proxied: bool = True) -> Pod:
    return msgspec.convert({
        "metadata": {"name": name, "namespace": where, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": "app"}, *([{"name": "istio-proxy"}] if proxied else [])]},
        "status": {"phase": "Running", "podIP": ADDRESS.get(name, "10.1.0.1")},
    }, Pod)


MESH = Mesh(pods=(*(pod(name) for name in WORKLOADS), pod("web", "mesh"), pod("cli", "mesh", proxied=False)))


@pytest.fixture(scope="module")
def hour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    """What was counted in the last hour."""
    folder = tmp_path_factory.mktemp("prometheus")
    prom.history(folder, written(time.time()))
    with prom.running(folder) as url, Prometheus(Source(url=url)) as prometheus:
        yield count(prometheus, counted.proxied(MESH, ["shop"]), ["shop"], HOUR)


def check(hour: Counted, name: str) -> Check:
    return next(c for c in counted.checks(hour, counted.proxied(MESH, ["shop"]), MESH) if c.id == f"metrics/Pod/shop/{name}")


def about(hour: Counted, name: str, security: Security = Security.PLAINTEXT) -> float:
    return sum(flow.count for flow in hour.flows if flow.destination == name and flow.security is security)


def test_only_mtls_passes_and_says_how_much(hour: Counted) -> None:
    assert check(hour, "mtls").status is Status.PASS
    assert abs(about(hour, "mtls", Security.MTLS) - HOUR / STEP) < 3


def test_a_client_that_came_once_is_counted_although_its_series_never_grew(hour: Counted) -> None:
    assert about(hour, "once") == 1
    assert check(hour, "once").status is Status.FAIL


def test_what_came_before_the_time_asked_about_is_not_counted(hour: Counted) -> None:
    assert about(hour, "before") == 0
    assert check(hour, "before").status is Status.PASS


def test_a_series_that_was_not_scraped_for_a_while_is_not_taken_for_new(hour: Counted) -> None:
    assert about(hour, "gap") == 0


def test_a_counter_that_begins_again_has_counted_what_it_says(hour: Counted) -> None:
    assert 6 < about(hour, "reset") < 9
    assert check(hour, "reset").status is Status.FAIL


def test_a_client_with_a_proxy_is_named_by_it(hour: Counted) -> None:
    found, = check(hour, "named").findings
    assert (found.code, found.subject) == ("MT601", "Pod/mesh/web")
    assert "a proxy and bypasses it" in found.fix


def test_what_a_clients_proxy_passes_through_says_so_and_elsewhere_is_only_mentioned(hour: Counted) -> None:
    found, = check(hour, "passed").findings
    assert any("PassthroughCluster" in line for line in found.because)
    assert not any("PassthroughCluster" in line for line in check(hour, "named").findings[0].because)
    elsewhere = next(c for c in counted.checks(hour, counted.proxied(MESH, ["shop"]), MESH) if c.id == "metrics/passthrough")
    assert elsewhere.status is Status.SKIP and [f.subject for f in elsewhere.findings] == ["Workload/mesh/away"]


def test_series_without_the_label_and_proxies_that_are_not_scraped_are_unknown(hour: Counted) -> None:
    assert {name: check(hour, name).status for name in ("unlabelled", "unscraped", "half", "quiet")} == {
        "unlabelled": Status.ERROR, "unscraped": Status.ERROR, "half": Status.ERROR, "quiet": Status.SKIP}  # fmt: skip


def test_ztunnel_counts_what_it_refuses_and_that_is_not_accepted(hour: Counted) -> None:
    codes = {f.code: f for f in check(hour, "ambient").findings}
    assert set(codes) == {"MT601", "MT602"}
    assert abs(about(hour, "ambient") - 2 * HOUR / STEP) < 6 and abs(about(hour, "ambient", Security.REFUSED) - HOUR / STEP) < 3
    assert codes["MT601"].subject == "Pod/mesh/cli" and "give the client a sidecar" in codes["MT601"].fix


def test_tcp_without_a_name_says_that_it_may_be_tls_of_the_application(hour: Counted) -> None:
    found, = check(hour, "tcp").findings
    assert "a client that the metrics do not name, nor do the logs" in found.message
    assert any("TLS of the application" in line for line in found.because)


def test_how_far_it_reaches_is_said(hour: Counted) -> None:
    reach = counted.reach(hour, counted.proxied(MESH, ["shop"]))
    assert f"{len(WORKLOADS) - 2} of {len(WORKLOADS)} proxies scraped" in reach
    since = datetime.datetime.strptime(reach.split("since ")[1][:20], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC)
    assert abs((since - hour.since).total_seconds()) < HOUR / 60


def test_a_prometheus_that_is_younger_than_the_time_asked_about_knows_nothing_of_pods_that_are_gone(tmp_path: Path) -> None:
    now = time.time()
    prom.history(tmp_path, [*steady('up{instance="10.0.0.1:15020"}', now - 600, now, 1),
                            *steady(series(REQUESTS, "mtls", "mutual_tls", "web"), now - 600, now, 100, 1)])  # fmt: skip

    def said(pod_age_s: float, workload_age_s: float, window_s: float) -> Check:
        made, began = (datetime.datetime.fromtimestamp(now - age, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for age in (workload_age_s, pod_age_s))
        workloads = (Proxied(ref="Deployment/shop/mtls", proxies=("10.0.0.1",), made=made, began=began),)
        return counted.checks(count(prometheus, workloads, ["shop"], window_s), workloads, MESH)[0]

    with prom.running(tmp_path) as url, Prometheus(Source(url=url)) as prometheus:
        # a pod that came before the Prometheus, after others
        assert said(900, 2 * HOUR, HOUR).status is Status.ERROR
        assert "give a shorter --since" in said(900, 2 * HOUR, HOUR).reason
        assert said(900, 2 * HOUR, 300).status is Status.PASS
        # the first of its pods, and one that was there all the time, have counted all the time
        assert said(900, 901, HOUR).status is Status.PASS
        assert said(2 * HOUR, 2 * HOUR, HOUR).status is Status.PASS


# s3cret
HASHED = "$2b$04$H7aOuoA3y6pmHUXLzGo.i.mqEPF3C8pM5iOqjY7h2Jb8T0ssSQvdS"


def test_one_with_a_log_in_and_a_ca_of_its_own_lets_in_who_has_both(tmp_path: Path) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca"))
    leaf.private_key_pem.write_to_path(str(tmp_path / "key"))
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "cert"))
    (tmp_path / "good").write_text("s3cret\n")
    (tmp_path / "bad").write_text("guess\n")
    web = f"tls_server_config: {{cert_file: {tmp_path / 'cert'}, key_file: {tmp_path / 'key'}}}\nbasic_auth_users: {{ann: {HASHED}}}\n"

    def ask(url: str, **how: str) -> None:
        with Prometheus(Source(url=url, **how)) as prometheus:
            prometheus.at(metrics.CLOCK, None)

    with prom.running(tmp_path, web=web) as url:
        ask(url, user="ann", password_file=str(tmp_path / "good"), ca_file=str(tmp_path / "ca"))
        with pytest.raises(Unauthorized):
            ask(url, user="ann", password_file=str(tmp_path / "bad"), ca_file=str(tmp_path / "ca"))
        with pytest.raises(Unreachable, match="certificate verify failed"):
            ask(url, user="ann", password_file=str(tmp_path / "good"))
        # it says so and hangs up, and which of the two arrives first is open
        with pytest.raises((InputError, Unreachable), match="is not a Prometheus|cannot be reached"):
            ask(url.replace("https", "http"))


def test_a_query_that_is_too_much_for_it_is_refused_in_its_own_words(tmp_path: Path) -> None:
    prom.history(tmp_path, written(time.time()))
    with (
        prom.running(tmp_path, limits=["--query.max-samples=50"]) as url, Prometheus(Source(url=url)) as prometheus,
        pytest.raises(ServerFault, match="too many samples") as refused,
    ):  # fmt: skip
        count(prometheus, counted.proxied(MESH, ["shop"]), ["shop"], HOUR)

    assert "a shorter --since asks for less" in str(refused.value)


def test_one_that_has_scraped_nothing_knows_nothing(tmp_path: Path) -> None:
    with prom.running(tmp_path) as url, Prometheus(Source(url=url)) as prometheus:
        found = count(prometheus, counted.proxied(MESH, ["shop"]), ["shop"], HOUR)

    assert {c.status for c in counted.checks(found, counted.proxied(MESH, ["shop"]), MESH)} == {Status.ERROR}
    assert "no data at all" in counted.reach(found, counted.proxied(MESH, ["shop"]))
