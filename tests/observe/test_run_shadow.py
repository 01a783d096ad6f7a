"""The dry run's hand: nothing is made where it would not be a dry run, and it goes whatever goes wrong meanwhile."""

import datetime
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from meshtls.cluster.owned import Run
from meshtls.errors import ClusterError, InputError, NotFound, ServerFault, Unreachable
from meshtls.observe import run_shadow
from meshtls.observe.counted import Proxied
from meshtls.observe.metrics import Answer, decode
from meshtls.observe.shadow import Tally

WEB = Proxied(ref="Deployment/shop/web", proxies=("10.0.0.1",), made="", began="")
RUN = Run("r", "shadow", datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
Json = dict[str, Any]


class Server:
    """An API server of one policy. `changes` is what admission makes of it, `meets` what happens when it is looked at."""

    def __init__(self, changes: Callable[[Json], Json] = lambda obj: obj, meets: Callable[[Json], Json] = lambda obj: obj) -> None:
        self.changes, self.meets = changes, meets
        self.live: Json | None = None
        self.made = 0

    def create(self, obj: Json, dry_run: bool = False) -> Json:
        answer = self.changes(obj)
        if not dry_run:
            self.live, self.made = answer, self.made + 1
        return answer

    def get(self, kind: str, name: str, namespace: str) -> Json:
        assert self.live is not None
        return self.meets(self.live)

    def delete(self, kind: str, name: str, namespace: str, **_: object) -> None:
        assert (kind, name, namespace) == ("AuthorizationPolicy", "meshtls-shadow-r", "shop")
        self.live = None


class Prom:
    """A Prometheus that answers, or fails, as it is told; the last one again and again."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers: Iterator[int | Exception] = iter(answers)
        self.last: int | Exception = 0

    def at(self, query: Any, when: None) -> Answer:
        if not query.text.startswith("envoy_http"):
            return decode(b'{"status": "success"}')
        self.last = next(self.answers, self.last)
        if isinstance(self.last, Exception):
            raise self.last
        labels = '"instance": "10.0.0.1:15020", "authz_dry_run_result": "denied", "http_conn_manager_prefix": "inbound_0.0.0.0_8080"'
        return decode(f'{{"status": "success", "data": {{"resultType": "vector", "result": [{{"metric": {{{labels}}}, "value": [1, "{self.last}"]}}]}}}}'.encode())


def watch(server: Server, prom: Prom, for_s: float = 0.05) -> tuple[float, list[str]]:
    tally, said = Tally(), list[str]()
    left: list[str] = []
    try:
        run_shadow.watch(server, prom, RUN, "shop", {}, [WEB], for_s, tally, left, said.append)  # type: ignore[arg-type]
    finally:
        assert server.live is None and left == []
    return sum(tally.counts.values()), said


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_shadow, "EVERY_S", 0.0)


def bare(obj: Json) -> Json:
    return {**obj, "metadata": {**obj["metadata"], "annotations": {}}}


def dressed(obj: Json) -> Json:
    return {**obj, "metadata": {**obj["metadata"], "annotations": {"istio.io/dry-run": "true"}}}


def gone(_: Json) -> Json:
    raise NotFound("no such policy")


def test_what_came_while_it_was_there_is_counted() -> None:
    assert watch(Server(), Prom(5, 9))[0] == 4


def test_what_admission_would_make_of_it_is_known_before_it_is_made() -> None:
    server = Server(changes=bare)
    with pytest.raises(InputError, match="not tried: .*refuses in earnest"):
        run_shadow.tried(server, RUN, "shop", {})  # type: ignore[arg-type]
    assert server.made == 0


def test_a_cluster_without_the_kind_is_an_error_of_usage() -> None:
    with pytest.raises(InputError, match=r"no AuthorizationPolicy of security\.istio\.io/v1"):
        run_shadow.tried(Server(changes=gone), RUN, "shop", {})  # type: ignore[arg-type]


@pytest.mark.parametrize(("server", "words"), [
    (Server(changes=bare, meets=dressed), "taken away at once"), (Server(meets=bare), "taken away at once"), (Server(meets=gone), "somebody has removed"),
])  # fmt: skip
def test_it_goes_at_once_where_it_is_no_dry_run_any_more(server: Server, words: str) -> None:
    with pytest.raises(ClusterError, match=words):
        watch(server, Prom(0), for_s=3.0)


def test_a_prometheus_that_is_silent_for_a_while_is_asked_again_and_one_that_stays_silent_is_told() -> None:
    lost = Unreachable("Prometheus cannot be reached")
    counted, said = watch(Server(), Prom(5, lost, 7), for_s=0.5)
    assert counted == 2 and [line for line in said if "asking again" in line] == ["Prometheus cannot be reached; asking again"]
    with pytest.raises(Unreachable):
        watch(Server(), Prom(5, lost))


def test_without_a_first_reading_nothing_is_made() -> None:
    server = Server()
    with pytest.raises(Unreachable):
        watch(server, Prom(Unreachable("Prometheus cannot be reached")))
    assert server.made == 0


def test_an_answer_with_parts_missing_is_no_reading() -> None:
    class Partial(Prom):
        def at(self, query: Any, when: None) -> Answer:
            return msgspec.structs.replace(super().at(query, when), warnings=("a store is down",))

    server = Server()
    with pytest.raises(ServerFault, match="a store is down"):
        watch(server, Partial(0))
    assert server.made == 0
