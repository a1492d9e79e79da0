import threading

import pytest

from dinodp.jobs.prefetch import prefetched, run_behind


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


def test_the_last_step_runs_while_the_next_item_comes_about():
    """The second item is made only when the last step has begun with the first, which waits for that."""
    begun, made = threading.Event(), threading.Event()

    def items():
        yield (1,)
        assert begun.wait(10)
        made.set()
        yield (2,)

    def last(number):
        begun.set()
        assert made.wait(10)
        return 10 * number

    assert list(run_behind(items(), last)) == [10, 20]


def test_what_was_begun_is_finished_and_nothing_after_an_error_is_begun():
    done = []

    def broken():
        yield ("a",)
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        list(run_behind(broken(), done.append))
    assert done == ["a"]

    def fails(name):
        done.append(name)
        raise ValueError(name)

    with pytest.raises(ValueError, match="b"):
        list(run_behind([("b",), ("c",)], fails))
    assert done == ["a", "b"]
