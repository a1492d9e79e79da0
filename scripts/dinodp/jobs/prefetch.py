"""Overlap of reading, computing and writing."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")
END = object()


def prefetched(items: Iterable[Item]) -> Iterator[Item]:
    """Yield ``items`` in order; a thread makes the next one while the last one is used. An error comes in its turn."""
    source = iter(items)
    with ThreadPoolExecutor(max_workers=1) as pool:
        upcoming = pool.submit(next, source, END)
        while (item := upcoming.result()) is not END:
            upcoming = pool.submit(next, source, END)
            yield item  # type: ignore[misc]


def run_behind(items: Iterable[tuple[Item, ...]], last: Callable[..., Made]) -> Iterator[Made]:
    """What ``last`` makes of each item, in order; a thread does it while the next item comes about.

    What was begun is finished, also where the items end in an error.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        pending: Future[Made] | None = None
        for item in items:
            if pending is not None:
                yield pending.result()
            pending = pool.submit(last, *item)
        if pending is not None:
            yield pending.result()
