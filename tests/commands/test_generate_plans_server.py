"""Plans from a real HTTP server that misbehaves: a correct file, or a message and a journal."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hbd3lm.commands.generate_plans import main
from hbd3lm.errors import UserError
from hbd3lm.plans.details import details_path
from hbd3lm.plans.journal import journal_path
from hbd3lm.plans.manifest import read_manifest

pytest.importorskip("openai", reason="the extra 'openai' is not installed")
pytest.importorskip("hbd3lm.plans.engines.registry")

PLAN = "Add the given amounts of both days. Then subtract what was given away to find the rest."


class Server:
    """Answers chat requests with :data:`PLAN`, but for those that ``moods`` names by count."""

    def __init__(self) -> None:
        self.moods: dict[int, str] = {}
        self.asked = 0
        self.in_flight = self.most_in_flight = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments) -> None:
                pass

            def do_GET(self) -> None:
                self._send(200, {"object": "list", "data": [{"id": "toy", "object": "model"}]})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with server._lock:
                    mood = server.moods.get(server.asked, server.moods.get(-1))
                    server.asked += 1
                    server.in_flight += 1
                    server.most_in_flight = max(server.most_in_flight, server.in_flight)
                try:
                    time.sleep(0.01)
                    self._chat(json.loads(body), mood)
                finally:
                    with server._lock:
                        server.in_flight -= 1

            def _chat(self, asked, mood) -> None:
                assert asked["messages"][-1]["role"] == "user"
                answer = {
                    "id": "x", "object": "chat.completion", "created": 0, "model": "toy",
                    "choices": [{"index": 0, "finish_reason": "stop",
                                 "message": {"role": "assistant", "content": PLAN}}],
                    "usage": {"prompt_tokens": 9, "completion_tokens": 17, "total_tokens": 26},
                }  # fmt: skip
                if mood == "busy":
                    self._send(503, {"error": {"message": "overloaded"}}, {"Retry-After": "0"})
                elif mood == "garbage":
                    self._send(200, "<html>It works!</html>")
                elif mood == "half":
                    self._send(200, json.dumps(answer)[:60])
                elif mood == "hang up":
                    self.send_response(200)
                    self.send_header("Content-Length", "9999")
                    self.end_headers()
                    self.wfile.write(b'{"id": "x", "choi')
                    self.connection.close()
                elif mood == "gone":
                    server._http.socket.close()  # from now on connections are refused
                    self.connection.close()
                elif mood == "stall":
                    time.sleep(3)
                elif mood == "too long":
                    self._send(400, {"error": {"message": "context of 512 tokens exceeded"}})
                else:
                    self._send(200, answer)

            def _send(self, status, content, headers=None) -> None:
                body = (content if isinstance(content, str) else json.dumps(content)).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def plan(tmp_path, server, *flags):
    output = tmp_path / "x.json"
    main(["--dataset", "embedded", "--num_examples", "40", "--base_url", server.url,
          "--batch_size", "3", "--timeout", "1", "--output_path", str(output), *flags])  # fmt: skip
    return output


@pytest.mark.parametrize("mood", ["busy", "garbage", "half", "hang up", "stall"])
def test_a_server_that_misbehaves_now_and_then_yields_the_file_of_a_good_one(
    tmp_path, server, mood
):
    whole = plan(tmp_path, server).rename(tmp_path / "whole.json")
    details = details_path(tmp_path / "x.json").rename(tmp_path / "whole.details")
    assert server.asked == 40 and server.most_in_flight <= 3
    server.moods = {40: mood, 42: mood, 43: mood, 60: mood}
    output = plan(tmp_path, server)
    assert output.read_bytes() == whole.read_bytes()
    assert details_path(output).read_bytes() == details.read_bytes()
    assert server.asked >= 84


@pytest.mark.slow  # the client waits between its retries
def test_a_server_that_goes_away_is_a_message_and_the_run_goes_on_with_the_next(tmp_path, server):
    whole = plan(tmp_path, server).rename(tmp_path / "whole.json")
    server.moods = {52: "gone"}
    with pytest.raises(UserError, match=r"kept in .*partial.jsonl, repeat the command") as error:
        plan(tmp_path, server)
    assert server.url in str(error.value)
    kept = journal_path(tmp_path / "x.json").read_text().count('"attempt": {')
    assert kept >= 1
    other = Server()
    try:
        output = plan(tmp_path, other)
    finally:
        other.close()
    assert other.asked == 40 - kept
    assert output.read_bytes() == whole.read_bytes()
    assert len(read_manifest(output)["sessions"]) == 2


def test_one_refused_request_is_asked_again_and_does_not_stop_the_run(tmp_path, server):
    server.moods = {5: "too long"}
    report = read_manifest(plan(tmp_path, server))["report"]
    assert report["faults_all"] == {"error": 1} and report["failed"] == 0
    assert server.asked == 41


def test_a_server_that_refuses_everything_is_one_message_with_its_own_words(tmp_path, server):
    server.moods = {-1: "too long"}
    with pytest.raises(UserError, match="context of 512 tokens exceeded"):
        plan(tmp_path, server)
    assert server.asked < 50
