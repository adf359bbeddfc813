from __future__ import annotations

import threading

import pytest

from hbd3lm.plans.engines.engine import Completion, Request
from hbd3lm.plans.engines.workers import Workers


def request(key: str) -> Request:
    return Request(key, (), 0.0, 1.0, 1, 0)


def take_all(workers: Workers) -> list[str]:
    found = []
    while workers.pending:
        found += [completion.key for completion in workers.take()]
    return found


def test_every_request_comes_back_once_and_no_more_than_count_run_together():
    lock, running, most = threading.Lock(), 0, 0
    together = threading.Barrier(3, timeout=10)

    def work(request: Request) -> Completion:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait()  # 9 requests, 3 at a time: passes only if three do run together
        with lock:
            running -= 1
        return Completion(request.key, "")

    workers = Workers(work, 3)
    for i in range(9):
        workers.submit(request(str(i)))
    assert sorted(take_all(workers)) == [str(i) for i in range(9)]
    assert most == 3
    assert workers.take() == []
    workers.close(wait=True)


def test_an_answer_is_handed_out_while_others_are_still_waited_for():
    gate = threading.Event()

    def work(request: Request) -> Completion:
        if request.key == "slow":
            assert gate.wait(10)
        return Completion(request.key, "")

    workers = Workers(work, 2)
    workers.submit(request("slow"))
    workers.submit(request("quick"))
    assert [completion.key for completion in workers.take()] == ["quick"]
    gate.set()
    assert take_all(workers) == ["slow"]
    workers.close(wait=True)


def test_a_failure_is_raised_after_what_ended_well_was_handed_out():
    def work(request: Request) -> Completion:
        if request.key == "bad":
            raise ValueError("broken")
        return Completion(request.key, "")

    workers = Workers(work, 1)
    for key in ("good", "bad"):
        workers.submit(request(key))
    found = []
    with pytest.raises(ValueError, match="broken"):
        while True:
            found += workers.take()
    assert [completion.key for completion in found] == ["good"]
    workers.close(wait=True)


def test_closing_forgets_what_waits_in_line():
    gate, seen = threading.Event(), []

    def work(request: Request) -> Completion:
        seen.append(request.key)
        assert gate.wait(10)
        return Completion(request.key, "")

    workers = Workers(work, 1)
    for i in range(5):
        workers.submit(request(str(i)))
    while not seen:
        pass
    threading.Timer(0.1, gate.set).start()
    workers.close(wait=True)
    assert seen == ["0"]
