"""The vLLM engine: its side of the conversation with a stand-in, and the whole with vLLM itself
where that is installed."""

from __future__ import annotations

import importlib.util
import sys
import types

import pytest

from hbd3lm.errors import UserError
from hbd3lm.plans.engines.engine import Completion, Engine, Request
from hbd3lm.plans.engines.registry import load_engine
from hbd3lm.plans.engines.shape import plan_regex
from tests.toy_chat_model import save_chat_model

HAS_VLLM = importlib.util.find_spec("vllm") is not None


def request(key: str, text: str = "Hello", **changes) -> Request:
    messages = ({"role": "system", "content": "Plan."}, {"role": "user", "content": text})
    values = {"temperature": 0.7, "top_p": 0.9, "max_tokens": 20, "seed": 4} | changes
    return Request(key, messages, **values)


def drain(engine: Engine) -> dict[str, Completion]:
    found: dict[str, Completion] = {}
    while done := engine.poll():
        found |= {completion.key: completion for completion in done}
    return found


# --- with a stand-in ----------------------------------------------------------------------------


class ClientError(Exception):
    """As in vLLM, not a ValueError."""


class FakeLLM:
    """Answers request n after n steps, with the seed it was given; numbers as vLLM gives them."""

    made: FakeLLM
    fail_on_load: str | None = None
    template_fails = False

    def __init__(self, **options):
        if self.fail_on_load:
            try:
                raise RuntimeError(self.fail_on_load)
            except RuntimeError as cause:
                raise ValueError("Engine core initialization failed. See root cause above.") from (
                    cause
                )
        FakeLLM.made, self.options = self, options
        self.model_config = types.SimpleNamespace(dtype="torch.bfloat16", max_model_len=99)
        self.llm_engine, self.count, self.running = self, 0, {}
        self.engine_core = types.SimpleNamespace(shutdown=lambda: self.running.clear())
        self.stops_at = None

    def get_tokenizer(self):
        return types.SimpleNamespace(get_vocab=lambda: {"Ġ": 7, "Ġthe": 8})

    def enqueue_chat(self, chats, sampling, use_tqdm):
        (chat,), (one,) = chats, sampling
        assert use_tqdm is False and all(set(m) == {"role", "content"} for m in chat)
        if self.template_fails:
            raise ValueError("no default chat template is allowed")
        if len(chat[-1]["content"]) > 50:
            raise ClientError("This model's maximum context length is 99 tokens.\nand more")
        self.count += 1
        self.running[str(self.count)] = [one.max_tokens, one]
        return [f"{self.count}-0a1b2c"]

    def step(self):
        if self.stops_at == 0:
            raise RuntimeError("out of memory")
        if self.stops_at is not None:
            self.stops_at -= 1
        outputs = []
        for number, entry in list(self.running.items()):
            entry[0] -= 1
            why = "length" if entry[1].max_tokens % 2 else "stop"
            answer = types.SimpleNamespace(
                text=f"seed {entry[1].seed}", finish_reason=why, token_ids=[1] * 3
            )
            ended = entry[0] <= 0
            outputs.append(
                types.SimpleNamespace(
                    request_id=number, finished=ended, outputs=[answer], prompt_token_ids=[1, 2]
                )
            )
            if ended:
                del self.running[number]
        return outputs


@pytest.fixture
def fake(monkeypatch, tmp_path):
    def module(name: str, **values) -> types.ModuleType:
        made = types.ModuleType(name)
        vars(made).update(values)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    platform = types.SimpleNamespace(is_cpu=lambda: platform.cpu, cpu=False)
    llm = type("LLM", (FakeLLM,), {})
    made = module("vllm", LLM=llm, SamplingParams=types.SimpleNamespace, __version__="0.0")
    module("vllm.platforms", current_platform=platform)
    module("vllm.exceptions", VLLMClientError=ClientError)
    module("vllm.sampling_params", StructuredOutputsParams=types.SimpleNamespace)
    (tmp_path / "config.json").write_text("{}")
    made.folder, made.platform = str(tmp_path), platform
    return made


def test_options_reach_vllm_and_defaults_are_left_to_it(fake):
    load_engine("vllm", model=fake.folder)
    plain = {
        "model": fake.folder,
        "dtype": "auto",
        "seed": 0,
        "max_num_seqs": 256,
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "enforce_eager": False,
    }
    assert FakeLLM.made.options == plain
    given = {"dtype": "float16", "seed": 3, "tensor_parallel_size": 2, "pipeline_parallel_size": 3,
             "max_model_len": 77, "gpu_memory_utilization": 0.5, "revision": "v1",
             "enforce_eager": True}  # fmt: skip
    engine = load_engine("vllm", model=fake.folder, max_in_flight=8, **given)
    expected = {"model": fake.folder, "max_num_seqs": 8, "tokenizer_revision": "v1", **given}
    assert FakeLLM.made.options == expected
    assert engine.describe()["revision"] == "v1"


def test_on_a_cpu_nothing_is_compiled_and_no_prompt_is_cut(fake):
    fake.platform.cpu = True
    load_engine("vllm", model=fake.folder)
    assert FakeLLM.made.options["enforce_eager"] is True
    assert FakeLLM.made.options["enable_chunked_prefill"] is False


def test_answers_stream_out_as_they_end_with_their_own_keys_and_seeds(fake):
    engine = load_engine("vllm", model=fake.folder)
    assert isinstance(engine, Engine)
    for key, tokens in (("slow", 5), ("quick", 2), ("middle", 4)):
        engine.submit(request(key, max_tokens=tokens, seed=tokens))
    assert [completion.key for completion in engine.poll()] == ["quick"]
    engine.submit(request("late", max_tokens=1, seed=9))
    late = Completion("late", "seed 9", False, 2, 3)
    assert engine.poll() == [late]
    assert list(drain(engine)) == ["middle", "slow"]
    assert engine.poll() == []


def test_sampling_is_that_of_each_request(fake):
    engine = load_engine("vllm", model=fake.folder, constrained="off")
    engine.submit(request("a", temperature=0.3, top_p=0.5, max_tokens=6, seed=12))
    ((_, sampling),) = FakeLLM.made.running.values()
    assert vars(sampling) == {"temperature": 0.3, "top_p": 0.5, "max_tokens": 6, "seed": 12}
    for choice in ("on", "auto"):
        engine = load_engine("vllm", model=fake.folder, constrained=choice)
        engine.submit(request("a"))
        ((_, sampling),) = FakeLLM.made.running.values()
        assert engine.constrained and sampling.structured_outputs.regex == plan_regex()
        assert sampling.logit_bias == {7: -100.0}, "the lone blank"


def test_a_prompt_longer_than_the_context_is_an_error_of_its_own(fake):
    engine = load_engine("vllm", model=fake.folder)
    engine.submit(request("good"))
    engine.submit(request("long", "x" * 51))
    found = drain(engine)
    told = "This model's maximum context length is 99 tokens."
    assert found["long"] == Completion("long", "", error=told)
    assert found["good"].error is None


def test_an_engine_that_stops_is_one_message_after_what_it_had_answered(fake):
    engine = load_engine("vllm", model=fake.folder)
    engine.submit(request("quick", max_tokens=1))
    engine.submit(request("slow", max_tokens=9))
    FakeLLM.made.stops_at = 1
    assert [completion.key for completion in engine.poll()] == ["quick"]
    with pytest.raises(UserError, match=r"vLLM stopped: out of memory; .*goes on where"):
        engine.poll()


def test_a_model_that_does_not_load_is_one_message_with_the_innermost_cause(fake):
    fake.LLM.fail_on_load = "CUDA out of memory\nand more"
    with pytest.raises(UserError, match=r"--model: vLLM cannot load '.*': CUDA out of memory;"):
        load_engine("vllm", model=fake.folder)


def test_a_model_without_a_template_is_refused_before_the_first_problem(fake):
    fake.LLM.template_fails = True
    with pytest.raises(UserError, match=r"--model .*no default chat template.*instruction-tuned"):
        load_engine("vllm", model=fake.folder)


def test_data_parallelism_is_refused_with_the_way_to_it():
    with pytest.raises(UserError) as error:
        load_engine("vllm", model="m", data_parallel_size=4)
    assert "vllm serve m --data-parallel-size 4" in str(error.value)
    assert "--planner openai" in str(error.value) and "--shard 1/4" in str(error.value)


# --- with vLLM itself ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not HAS_VLLM, reason="vLLM is not installed")
def test_vllm_itself_answers_streams_refuses_and_keeps_the_form(tmp_path, monkeypatch):
    """One load for all: it takes most of the time. A random model, so only the form is fixed."""
    import regex

    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    folder = save_chat_model(tmp_path / "model", context=512)
    engine = load_engine(
        "vllm", model=str(folder), dtype="bfloat16", constrained="on", max_in_flight=4
    )
    try:
        assert engine.describe()["max_model_len"] == 512
        for i in range(6):
            engine.submit(request(str(i), max_tokens=60 if i else 5, seed=i, temperature=1.0))
        engine.submit(request("long", "x" * 600))
        found = drain(engine)
        assert "512" in found.pop("long").error
        assert sorted(found) == list("012345")
        shape = regex.compile(plan_regex())
        for completion in found.values():
            assert completion.error is None and completion.text
            assert shape.fullmatch(completion.text, partial=not completion.finished)
            assert completion.completion_tokens <= 60
        assert found["0"].completion_tokens == 5 and not found["0"].finished
        engine.submit(request("again", max_tokens=5, seed=0, temperature=1.0))
        assert engine.poll()[0].text == found["0"].text, "the seed decides, not the batch"
    finally:
        engine.close()


@pytest.mark.skipif(not HAS_VLLM, reason="vLLM is not installed")
def test_vllm_itself_is_asked_for_a_template_first(tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    folder = save_chat_model(tmp_path / "model", template=None, context=512)
    with pytest.raises(UserError, match="instruction-tuned"):
        load_engine("vllm", model=str(folder), dtype="bfloat16")
