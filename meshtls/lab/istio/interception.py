"""What of a pod's traffic goes through its proxy, read from the arguments of its istio-init container
(tools/istio-iptables).

The arguments, not the annotations: as in life, what counts is what the init container was started with.
"""

from itertools import pairwise

import msgspec

from meshtls.lab.istio.envoy import PROXY_MARK
from meshtls.lab.istio.objects import Obj, has_proxy, spec


class Interception(msgspec.Struct, frozen=True):
    """Which TCP connections are redirected. Ports: None stands for all, () for none; ranges are CIDRs, "*" is all.

    Never redirected: what the proxy itself sends (uid, gid or mark 1337), 127.0.0.1, and port 15008 inbound.
    Exclusions beat inclusions.
    """

    mode: str  # REDIRECT, TPROXY or NONE
    inbound_port: int = 15006
    outbound_port: int = 15001
    include_inbound: tuple[int, ...] | None = None
    exclude_inbound: tuple[int, ...] = ()
    include_outbound: tuple[int, ...] = ()
    exclude_outbound: tuple[int, ...] = ()
    include_ranges: tuple[str, ...] = ("*",)
    exclude_ranges: tuple[str, ...] = ()
    uid: int = 1337
    gid: int = 1337
    mark: int = PROXY_MARK


def interception(pod: Obj) -> Interception:
    """A pod's interception; mode NONE without a proxy or without an init container that sets it up.

    `include_outbound` adds ports whose traffic is redirected whatever its address; `include_ranges` are the addresses
    whose traffic is redirected on every port, () for none.
    """
    given = spec(pod).get("initContainers") or []
    args = next((c.get("args") or [] for c in given if c["name"] in ("istio-init", "istio-validation")), None)
    if args is None or not has_proxy(pod):
        return Interception("NONE")
    flags = {flag: value for flag, value in pairwise(args[1:]) if flag.startswith("-") and not flag.startswith("--")}

    def words(flag: str, default: str = "") -> tuple[str, ...]:
        return tuple(w.strip() for w in str(flags.get(flag, default)).split(",") if w.strip())

    def ports(flag: str) -> tuple[int, ...]:
        return tuple(sorted({int(w) for w in words(flag) if w.isdecimal()}))

    return Interception(
        mode=str(flags.get("-m", "REDIRECT")),
        inbound_port=int(flags.get("-z", 15006)),
        outbound_port=int(flags.get("-p", 15001)),
        include_inbound=None if "*" in words("-b", "*") else ports("-b"),
        exclude_inbound=ports("-d"),
        include_outbound=ports("-q"),
        exclude_outbound=ports("-o"),
        include_ranges=words("-i", "*"),
        exclude_ranges=words("-x"),
        uid=int(flags.get("-u", 1337)),
    )
