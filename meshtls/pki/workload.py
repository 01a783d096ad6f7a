"""Workload certificates: a leaf that names a service account, as istiod would name it. Pure."""

import datetime

from cryptography import x509

from meshtls.pki.authority import LIFETIME, Authority, Pair, Random
from meshtls.pki.identity import Identity


def issue(
    authority: Authority,
    identity: Identity,
    now: datetime.datetime,
    random: Random,
    life: datetime.timedelta = LIFETIME,
) -> Pair:
    """A good leaf of this test CA. Raises InputError if the CA has ended or the lifetime is too long."""
    return authority.issue(names(identity), authority.life(now, life), random)


def names(identity: Identity) -> list[x509.GeneralName]:
    """The subject alternative names of a workload: its SPIFFE name and nothing else."""
    return [x509.UniformResourceIdentifier(str(identity))]
