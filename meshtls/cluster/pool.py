"""The one thread-pool helper: the same question to many things at once, answers in the order of the questions."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from meshtls.errors import MeshtlsError

T = TypeVar("T")
R = TypeVar("R")


def gather(ask: Callable[[T], R], items: Iterable[T], limit: int = 16) -> list[R | MeshtlsError]:
    """`ask` of every item, at most `limit` at a time. Errors of ours are returned in place, others raise."""

    def one(item: T) -> R | MeshtlsError:
        try:
            return ask(item)
        except MeshtlsError as error:
            return error

    items = list(items)
    if len(items) < 2:
        return [one(item) for item in items]
    with ThreadPoolExecutor(max_workers=min(limit, len(items)), thread_name_prefix="meshtls") as pool:
        return list(pool.map(one, items))
