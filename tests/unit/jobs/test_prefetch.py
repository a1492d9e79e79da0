import threading

import pytest

from dinodp.jobs.prefetch import prefetched


def test_order_is_kept_and_the_next_is_made_while_one_is_used():
    made = threading.Event()

    def numbers():
        yield 0
        made.set()
        yield from (1, 2)

    items = prefetched(numbers())
    assert next(items) == 0
    assert made.wait(timeout=10)
    assert list(items) == [1, 2]


def test_an_error_comes_in_its_turn():
    def broken():
        yield 1
        raise KeyError("later")

    items = prefetched(broken())
    assert next(items) == 1
    with pytest.raises(KeyError, match="later"):
        next(items)
