"""Which runs may start, and what becomes of those that wait for a failed one."""

from hardy.studies.order import Order


def test_a_run_waits_for_the_one_before_it():
    order = Order({"a": None, "b": "a", "c": "b", "d": None}, done=["d"])
    assert list(order.ready()) == ["a"]
    order.start("a")
    assert list(order.ready()) == []
    assert order.end("a", "done") == []
    assert list(order.ready()) == ["b"]
    assert (order.count("done"), order.named("waiting")) == (2, ["b", "c"])


def test_all_that_go_on_from_a_failed_run_are_skipped_and_no_other():
    order = Order({"a": None, "b": "a", "c": "b", "other": None, "after": "other"})
    order.start("a")
    assert order.end("a", "failed") == ["b", "c"]
    assert order.states == {"a": "failed", "b": "skipped", "c": "skipped", "other": "waiting", "after": "waiting"}
    assert list(order.ready()) == ["other"]


def test_what_goes_on_from_a_stopped_run_still_waits():
    order = Order({"a": None, "b": "a"})
    order.start("a")
    assert order.end("a", "stopped") == []
    assert order.states["b"] == "waiting"
    assert list(order.ready()) == []
