"""The probe answers within seconds, whatever the network does."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from hbd3lm.data.hub import hub_endpoint, hub_reachable


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def serve():
    """A local web server that gives one status to everything; returns its address."""
    servers = []

    def start(status: int) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.send_response(status)
                self.end_headers()

            def log_message(self, *args):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "reachable"),
    [(200, True), (404, True), (405, True), (429, True), (403, False), (407, False), (503, False)],
)
def test_an_answer_counts_unless_a_gateway_refuses_or_fails(monkeypatch, serve, status, reachable):
    monkeypatch.setenv("HF_ENDPOINT", serve(status))
    assert hub_reachable() is reachable


def test_a_silent_server_is_given_up_after_the_timeout(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert not hub_reachable(timeout=0.3)  # and returns: nobody ever answers


def test_name_resolution_that_hangs_is_given_up_after_the_timeout(monkeypatch):
    release = threading.Event()

    def hang(*args, **kwargs):
        release.wait()
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    assert not hub_reachable(timeout=0.3)  # and returns, while the look-up goes on
    release.set()


def test_offline_mode_asks_nobody(monkeypatch, serve):
    monkeypatch.setenv("HF_ENDPOINT", serve(200))
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "1")
            assert not hub_reachable()
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert hub_reachable()


def test_the_proxy_of_the_environment_is_used(monkeypatch, serve):
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    assert not hub_reachable()
    monkeypatch.setenv("http_proxy", serve(200))
    assert hub_reachable()


def test_an_endpoint_that_is_no_address_is_unreachable(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "not an address/")
    assert hub_endpoint() == "not an address"
    assert not hub_reachable()
