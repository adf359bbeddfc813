"""The transformers engine, on a tiny random model with a template of its own."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hbd3lm.errors import UserError
from hbd3lm.plans.engines.engine import Completion, Engine, Request
from hbd3lm.plans.engines.registry import load_engine
from hbd3lm.plans.engines.shape import plan_regex
from tests.toy_chat_model import save_chat_model

HAS_XGRAMMAR = importlib.util.find_spec("xgrammar") is not None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_chat_model(tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module")
def engine(folder):
    loaded = load_engine("transformers", model=str(folder), device="cpu", dtype="float32", batch=4)
    yield loaded
    loaded.close()


def request(key: str, text: str = "Hello", **changes) -> Request:
    messages = ({"role": "system", "content": "Plan."}, {"role": "user", "content": text})
    values = {"temperature": 1.0, "top_p": 0.9, "max_tokens": 20, "seed": 1} | changes
    return Request(key, messages, **values)


def answers(engine: Engine, requests: list[Request]) -> dict[str, Completion]:
    for one in requests:
        engine.submit(one)
    found: dict[str, Completion] = {}
    while len(found) < len(requests):
        done = engine.poll()
        assert done, "poll() came back empty-handed with requests in flight"
        found |= {completion.key: completion for completion in done}
    assert engine.poll() == []
    return found


def test_it_keeps_the_contract_and_describes_itself(engine, folder):
    assert isinstance(engine, Engine)
    about = engine.describe()
    assert about["model"] == str(folder) and about["dtype"] == "float32"
    assert about["versions"]["torch"] == torch.__version__


def test_greedy_answers_are_those_of_the_model_alone_whoever_shares_the_batch(engine, folder):
    requests = [request(str(i), "How many? " * i, temperature=0.0, max_tokens=12) for i in range(6)]
    found = answers(engine, requests)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for one in requests:
        prompt = tokenizer.apply_chat_template(
            list(one.messages), add_generation_prompt=True, tokenize=False
        )
        assert prompt.startswith("<system>Plan.<end><user>") and prompt.endswith("<assistant>")
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
        expected = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        completion = found[one.key]
        assert completion.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert completion.prompt_tokens == ids.shape[1]
        assert completion.completion_tokens == len(expected)
        assert completion.finished == (expected[-1].item() == model.config.eos_token_id)


def test_a_seed_decides_an_answer_whoever_shares_the_batch(engine):
    alone = answers(engine, [request("a", seed=5)])["a"]
    crowd = [request("a", seed=5), *(request(str(i), "Other " * i, seed=i) for i in range(3))]
    assert answers(engine, crowd)["a"] == alone
    assert answers(engine, [request("a", seed=6)])["a"].text != alone.text


def test_requests_with_other_settings_are_sampled_by_their_own(engine):
    requests = [
        request(f"{t} {p} {n}", temperature=t, top_p=p, max_tokens=n, seed=3)
        for t in (0.0, 1.5)
        for p in (0.5, 1.0)
        for n in (3, 9)
    ]
    mixed = answers(engine, requests)
    for one in requests:
        assert answers(engine, [one])[one.key] == mixed[one.key]
        assert mixed[one.key].completion_tokens <= one.max_tokens
    assert mixed["0.0 0.5 9"].text == mixed["0.0 1.0 9"].text
    assert mixed["1.5 1.0 9"].text != mixed["0.0 1.0 9"].text


def test_a_tiny_nucleus_is_greedy(engine):
    greedy = answers(engine, [request("a", temperature=0.0)])["a"].text
    assert answers(engine, [request("a", temperature=1.0, top_p=1e-6)])["a"].text == greedy


def test_draws_follow_the_softmax():
    from hbd3lm.plans.engines.transformers import _Draw

    probabilities = torch.tensor([0.5, 0.3, 0.2, 0.0])
    scores = probabilities.log().expand(4000, -1)
    drawn = _Draw(list(range(4000)))(None, scores).argmax(-1)
    shares = torch.bincount(drawn, minlength=4) / 4000
    torch.testing.assert_close(shares, probabilities, atol=0.03, rtol=0)
    assert shares[3] == 0


def test_a_prompt_longer_than_the_context_is_an_error_of_its_own(engine):
    found = answers(engine, [request("long", "x" * 200), request("short")])
    assert "the model's context 128" in found["long"].error
    assert found["long"].text == ""
    assert found["short"].error is None


def test_an_answer_ends_where_the_context_does(engine):
    near = request("near", "x" * 90, max_tokens=100, temperature=0.0)
    completion = answers(engine, [near])["near"]
    assert completion.prompt_tokens + completion.completion_tokens <= 128


def test_a_model_without_a_template_is_refused_with_the_remedy(tmp_path):
    save_chat_model(tmp_path, template=None)
    with pytest.raises(UserError, match=r"--model .*cannot write a chat.*instruction-tuned"):
        load_engine("transformers", model=str(tmp_path))


def test_a_template_that_takes_no_system_message_is_refused_before_the_first_problem(tmp_path):
    refuses = "{{ raise_exception('no system role') if messages[0]['role'] == 'system' }}"
    save_chat_model(tmp_path, template=refuses)
    with pytest.raises(UserError, match="no system role"):
        load_engine("transformers", model=str(tmp_path))


def test_a_broken_model_is_one_message(folder, tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(UserError, match=r"--model: transformers cannot load"):
        load_engine("transformers", model=str(tmp_path))


def test_constrained_without_its_library_names_the_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "xgrammar", None)
    with pytest.raises(
        UserError, match=r"^--constrained on with .*pip install 'hbd3lm\[constrained\]'"
    ):
        load_engine("transformers", model=str(folder), constrained="on")


@pytest.mark.skipif(not HAS_XGRAMMAR, reason="xgrammar is not installed")
def test_constrained_answers_are_beginnings_of_plans(folder):
    """A random model, so nothing but the constraint can give them their form."""
    import regex

    engine = load_engine(
        "transformers", model=str(folder), device="cpu", dtype="float32", constrained="on"
    )
    shape = regex.compile(plan_regex())
    requests = [request(str(i), temperature=1.0, max_tokens=90, seed=i) for i in range(4)]
    for completion in answers(engine, [replace(one, top_p=1.0) for one in requests]).values():
        assert completion.text
        assert shape.fullmatch(completion.text, partial=not completion.finished)
