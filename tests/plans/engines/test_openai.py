"""The engine for servers, against a real one in a thread that behaves as badly as it is told."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("openai", reason="the extra 'openai' is not installed")

from hbd3lm.errors import UserError
from hbd3lm.plans.engines.engine import Completion, Engine, Request
from hbd3lm.plans.engines.registry import load_engine
from hbd3lm.plans.engines.shape import plan_grammar, plan_regex

KEY = "sk-very-secret-0123456789"


def answer(text: str = "Add them. Then stop.", **changes) -> dict:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant"}}
    choice = {**choice, **changes}
    choice["message"] = {"role": "assistant", "content": text}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    }


class Server:
    """``reply(body, n)`` decides: a dict (sent as JSON), a number (that status), or a function
    that writes to the handler; ``n`` counts the times this very chat was asked before."""

    def __init__(self, reply: Callable, models: list | int = ("m",), owner: str = "someone"):
        self.asked: list[dict] = []
        self.headers: list[dict] = []
        self.running = self.most = 0
        lock, seen, outer = threading.Lock(), {}, self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                outer.headers.append({k.lower(): v for k, v in self.headers.items()})
                if self.path == "/version":
                    self.send(200, {"version": "0.32.0"})
                elif isinstance(models, int):
                    self.send(models, {"error": {"message": f"no list for {KEY}"}})
                else:
                    data = [{"id": m, "object": "model", "owned_by": owner} for m in models]
                    self.send(200, {"object": "list", "data": data})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/tokenize":
                    self.send(200, {"tokens": [216] if body["prompt"] == " " else [1, 2]})
                    return
                with lock:
                    outer.running += 1
                    outer.most = max(outer.most, outer.running)
                    outer.asked.append(body)
                    outer.headers.append({k.lower(): v for k, v in self.headers.items()})
                    name = json.dumps(body["messages"])
                    seen[name] = seen.get(name, -1) + 1
                try:
                    said = reply(body, seen[name])
                    if callable(said):
                        said(self)
                    elif isinstance(said, int):
                        self.send(said, {"error": {"message": f"status {said} for {KEY}"}})
                    else:
                        self.send(200, said)
                finally:
                    with lock:
                        outer.running -= 1

            def send(self, status: int, body: dict | bytes, length: int | None = None, **headers):
                body = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(length or len(body)))
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # The waiting itself is the client's and tested there; here only how often and for what.
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.02)
    real_sleep = time.sleep
    monkeypatch.setattr(
        "hbd3lm.plans.engines.openai.time.sleep", lambda s: real_sleep(min(s, 0.01))
    )
    servers = []

    def start(reply: Callable = lambda body, n: answer(), **options) -> Server:
        servers.append(Server(reply, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def request(key: str) -> Request:
    return Request(key, ({"role": "user", "content": key},), 0.7, 0.9, 50, 11)


def ask(engine: Engine, keys: list[str]) -> dict[str, Completion]:
    for key in keys:
        engine.submit(request(key))
    found: dict[str, Completion] = {}
    while len(found) < len(keys):
        done = engine.poll()
        assert done, "poll() came back empty-handed with requests in flight"
        found |= {completion.key: completion for completion in done}
    assert engine.poll() == []
    return found


def name(body: dict) -> str:
    return body["messages"][-1]["content"]


# --- when all is well ---------------------------------------------------------------------------


def test_what_is_asked_arrives_and_what_is_answered_comes_back(serve):
    server = serve(lambda body, n: answer(f"Plan of {name(body)}.", finish_reason="length"))
    engine = load_engine("openai", base_url=server.url)
    assert isinstance(engine, Engine)
    found = ask(engine, ["a"])["a"]
    assert found == Completion("a", "Plan of a.", False, 7, 5)
    (asked,) = server.asked
    assert asked == {
        "model": "m",
        "messages": [{"role": "user", "content": "a"}],
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 50,
        "seed": 11,
    }
    assert server.headers[-1]["authorization"] == f"Bearer {KEY}"
    engine.close()


def test_requests_run_together_up_to_the_bound(serve):
    def reply(body, n):
        time.sleep(0.05)
        return answer(name(body))

    server = serve(reply)
    engine = load_engine("openai", base_url=server.url, max_in_flight=3)
    found = ask(engine, [str(i) for i in range(10)])
    assert {key: completion.text for key, completion in found.items()} == {
        str(i): str(i) for i in range(10)
    }
    assert server.most == 3
    engine.close()


def test_the_only_model_is_taken_and_of_several_one_must_be_named(serve):
    server = serve(models=["m1", "m2"])
    with pytest.raises(UserError, match=r"--model is needed: .* has m1, m2; name one"):
        load_engine("openai", base_url=server.url)
    assert load_engine("openai", base_url=server.url, model="m2").describe()["model"] == "m2"
    with pytest.raises(UserError, match=r"--model m3: .* has no such model; it has m1, m2"):
        load_engine("openai", base_url=server.url, model="m3")
    mute = serve(models=404)
    with pytest.raises(UserError, match="does not say what it has; name one"):
        load_engine("openai", base_url=mute.url)
    assert load_engine("openai", base_url=mute.url, model="x").describe()["model"] == "x"


def test_a_server_that_knows_the_limit_by_its_newer_name_is_obeyed(serve):
    def reply(body, n):
        if "max_tokens" in body:
            told = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return lambda handler: handler.send(400, {"error": {"message": told}})
        return answer()

    server = serve(reply)
    engine = load_engine("openai", base_url=server.url, max_in_flight=1)
    assert all(completion.error is None for completion in ask(engine, ["a", "b"]).values())
    assert [body.get("max_completion_tokens") for body in server.asked] == [None, 50, 50]


# --- constrained decoding -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "field", "value", "bias"),
    [
        ("vllm", "structured_outputs", {"regex": plan_regex()}, {"216": -100}),
        ("llamacpp", "grammar", plan_grammar(), [[" ", False]]),
    ],
)
@pytest.mark.parametrize("choice", ["on", "auto"])
def test_each_server_is_constrained_in_its_own_way(serve, owner, field, value, bias, choice):
    server = serve(owner=owner)
    engine = load_engine("openai", base_url=server.url, constrained=choice)
    ask(engine, ["a"])
    assert engine.constrained and server.asked[0][field] == value
    assert server.asked[0]["logit_bias"] == bias
    assert engine.describe()["server"].startswith(owner)
    free = load_engine("openai", base_url=server.url, constrained="off")
    ask(free, ["a"])
    assert not free.constrained and field not in server.asked[1]


def test_an_unknown_server_cannot_be_told_to_constrain(serve):
    server = serve()
    with pytest.raises(UserError, match=r"--constrained on: .*neither vLLM's nor llama.cpp's"):
        load_engine("openai", base_url=server.url, constrained="on")
    engine = load_engine("openai", base_url=server.url, constrained="auto")
    assert not engine.constrained and engine.describe()["server"] == "unknown"


# --- when it is not -----------------------------------------------------------------------------


def test_a_busy_server_is_asked_again(serve):
    def reply(body, n):
        if n < 2:
            return lambda handler: handler.send(429, {"error": {}}, Retry_After="0.01")
        return answer()

    server = serve(reply)
    engine = load_engine("openai", base_url=server.url)
    assert ask(engine, ["a"])["a"].error is None
    assert len(server.asked) == 3


def garbage(handler):
    handler.send(200, b"<html>oops")


def half(handler):
    body = json.dumps(answer()).encode()
    handler.send(200, body[: len(body) // 2], length=len(body))
    handler.connection.shutdown(socket.SHUT_RDWR)


def no_choices(handler):
    handler.send(200, {"object": "chat.completion", "choices": []})


def stall(handler):
    time.sleep(0.6)


BROKEN = {"garbage": garbage, "half": half, "no choices": no_choices, "stall": stall, "500": 500}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_answer_is_asked_for_again(serve, kind):
    server = serve(lambda body, n: BROKEN[kind] if n == 0 else answer())
    engine = load_engine("openai", base_url=server.url, timeout=0.3)
    completion = ask(engine, ["a"])["a"]
    assert completion.error is None and completion.text == "Add them. Then stop."
    assert len(server.asked) == 2


@pytest.mark.parametrize("kind", BROKEN)
def test_one_request_that_always_fails_does_not_stop_the_others(serve, kind):
    server = serve(lambda body, n: BROKEN[kind] if name(body) == "bad" else answer())
    engine = load_engine("openai", base_url=server.url, timeout=0.3, max_retries=1)
    found = ask(engine, ["a", "bad", "b"])
    assert found["bad"].error and found["bad"].text == ""
    assert found["a"].error is None and found["b"].error is None
    assert sum(name(body) == "bad" for body in server.asked) == 2


@pytest.mark.parametrize("kind", BROKEN)
def test_a_server_that_only_fails_stops_the_run(serve, kind):
    server = serve(lambda body, n: BROKEN[kind])
    engine = load_engine("openai", base_url=server.url, timeout=0.3, max_retries=1)
    with pytest.raises(UserError, match="answers none of the last 3 requests"):
        ask(engine, ["a", "b", "c"])


def test_a_server_that_fails_midway_stops_the_run_and_no_problem_is_blamed(serve):
    server = serve(lambda body, n: 500 if int(name(body)) >= 5 else answer())
    engine = load_engine("openai", base_url=server.url, max_retries=0, max_in_flight=1)
    for i in range(100):
        engine.submit(request(str(i)))
    found = []
    with pytest.raises(UserError, match="answers none of the last 8 requests: status 500"):
        while True:
            found += engine.poll()
    assert [completion.key for completion in found] == ["0", "1", "2", "3", "4"]
    assert len(server.asked) < 20


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_is_an_error_of_its_own_and_not_repeated(serve, status):
    server = serve(lambda body, n: status if name(body) == "bad" else answer())
    engine = load_engine("openai", base_url=server.url)
    found = ask(engine, ["bad", "a"])
    assert f"status {status}" in found["bad"].error and found["a"].error is None
    assert sum(name(body) == "bad" for body in server.asked) == 1


def test_a_filtered_answer_is_an_error_of_its_own(serve):
    def reply(body, n):
        return answer("x", finish_reason="content_filter" if name(body) == "bad" else "stop")

    found = ask(load_engine("openai", base_url=serve(reply).url), ["bad", "a"])
    assert "content filter" in found["bad"].error and found["bad"].text == ""
    assert found["a"].text == "x"


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, r"refuses the key in OPENAI_API_KEY \(status 401\)"), (403, "status 403"),
     (404, "knows no such address or model")],
)  # fmt: skip
def test_what_every_request_would_meet_stops_the_run(serve, status, message):
    server = serve(lambda body, n: status)
    engine = load_engine("openai", base_url=server.url)
    engine.submit(request("a"))
    with pytest.raises(UserError, match=message):
        engine.poll()
    assert len(server.asked) == 1


def test_a_refused_key_is_noticed_when_the_engine_is_built(serve):
    with pytest.raises(UserError, match="refuses the key in OPENAI_API_KEY"):
        load_engine("openai", base_url=serve(models=401).url)


def test_no_server_at_all_is_noticed_when_the_engine_is_built():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match=r"the server cannot be reached .*refused"):
        load_engine("openai", base_url=f"http://127.0.0.1:{port}/v1", max_retries=0)


def test_a_server_that_goes_away_stops_the_run(serve):
    server = serve()
    engine = load_engine("openai", base_url=server.url, max_retries=1)
    assert ask(engine, ["a"])["a"].error is None
    server.stop()
    engine.submit(request("b"))
    with pytest.raises(UserError, match=r"cannot be reached .*goes on where this run stopped"):
        engine.poll()


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://x/v1", "", "http:///v1"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(UserError, match=r"--base_url .*an address such as"):
        load_engine("openai", base_url=url)


# --- the key ------------------------------------------------------------------------------------


def test_a_named_variable_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(UserError, match="--api_key_env MY_KEY: there is no such"):
        load_engine("openai", base_url="http://127.0.0.1:1/v1", api_key_env="MY_KEY")


def test_the_key_is_nowhere_to_be_seen(serve, capfd, caplog):
    """Whatever goes wrong, and although this server repeats the key in all its errors."""
    caplog.set_level(logging.DEBUG)
    said = []
    for status in (400, 401, 404, 429, 500):
        server = serve(lambda body, n, status=status: status if name(body) == "b" else answer())
        engine = load_engine("openai", base_url=server.url, max_retries=0)
        said.append(json.dumps(engine.describe()) + repr(engine) + repr(engine._workers))
        engine.submit(request("a"))
        said.append(repr(engine.poll()))
        engine.submit(request("b"))
        try:
            said.append(repr(engine.poll()))
        except UserError as error:
            said += [str(error), repr(error.__cause__)]
        engine.close()
    with pytest.raises(UserError) as refused:
        load_engine("openai", base_url=serve(models=403).url)
    said.append(str(refused.value))
    with pytest.raises(UserError, match="holds a user name or password") as refused:
        load_engine("openai", base_url=f"http://user:{KEY}@127.0.0.1:1/v1")
    said += [str(refused.value), *capfd.readouterr(), caplog.text]
    assert any("***" in text for text in said), "the servers did repeat it"
    for text in said:
        assert KEY not in text and "0123456789" not in text
