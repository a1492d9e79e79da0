"""Overlap of reading and computing."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
END = object()


def prefetched(items: Iterable[Item]) -> Iterator[Item]:
    """Yield ``items`` in order; a thread makes the next one while the last one is used. An error comes in its turn."""
    source = iter(items)
    with ThreadPoolExecutor(max_workers=1) as pool:
        upcoming = pool.submit(next, source, END)
        while (item := upcoming.result()) is not END:
            upcoming = pool.submit(next, source, END)
            yield item  # type: ignore[misc]
