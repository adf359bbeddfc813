"""Engines by name, and what is refused before anything heavy is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hbd3lm.errors import UserError
from hbd3lm.plans.engines.loading import check_gguf, check_model, model_fingerprint
from hbd3lm.plans.engines.registry import ENGINES, load_engine

NEEDED = {
    "vllm": ({"model": "m"}, "vllm", "vllm"),
    "openai": ({"base_url": "http://localhost:1/v1"}, "openai", "openai"),
    "llamacpp": ({"model": "m.gguf"}, "xllamacpp", "llamacpp"),
}


def test_every_engine_is_listed_when_the_name_is_unknown():
    with pytest.raises(UserError) as error:
        load_engine("oracle")
    assert all(name in str(error.value) for name in ENGINES)


@pytest.mark.parametrize("name", ENGINES)
def test_an_option_an_engine_does_not_have_is_refused_by_name(name):
    with pytest.raises(UserError, match=rf"engine '{name}' has no option 'colour'"):
        load_engine(name, colour="red")


def test_a_missing_required_option_is_named():
    with pytest.raises(UserError, match=r"engine 'vllm' needs the option 'model'"):
        load_engine("vllm")


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_library_names_the_extra_and_the_planners_that_need_none(name, monkeypatch):
    options, module, extra = NEEDED[name]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError) as error:
        load_engine(name, **options)
    assert f"pip install 'hbd3lm[{extra}]'" in str(error.value)
    assert "--planner rules or --planner socratic" in str(error.value)


@pytest.mark.parametrize("name", ["vllm", "llamacpp", "transformers"])
def test_settings_out_of_range_are_refused_by_name(name):
    with pytest.raises(UserError, match="--max_in_flight 0: at least 1"):
        load_engine(name, model="m", max_in_flight=0)
    with pytest.raises(UserError, match="--constrained maybe: choose from auto, on, off"):
        load_engine(name, model="m", constrained="maybe")


def test_naming_engines_loads_nothing_heavy():
    code = (
        "import sys, hbd3lm.plans.engines.registry, hbd3lm.plans.engines.loading\n"
        "print([m for m in ('torch', 'transformers', 'vllm', 'openai') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- models -------------------------------------------------------------------------------------


def test_a_folder_with_a_configuration_passes(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    check_model(str(tmp_path), "vllm")


def test_a_gguf_file_is_sent_to_the_planner_that_reads_it(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF....")
    for model in (path, tmp_path):
        with pytest.raises(UserError, match=r"m.gguf is a GGUF file.*--planner llamacpp --model"):
            check_model(str(model), "vllm")


def test_a_folder_without_a_configuration_is_no_model(tmp_path):
    with pytest.raises(UserError, match=r"--model .*has no config.json"):
        check_model(str(tmp_path), "transformers")


@pytest.mark.parametrize("model", ["/no/such/place", "./nowhere", "a/b/c", "~/nowhere-at-all"])
def test_a_path_that_is_not_there_is_not_asked_of_the_hub(model, monkeypatch):
    monkeypatch.setattr("hbd3lm.plans.engines.loading.hub_reachable", lambda: pytest.fail("asked"))
    with pytest.raises(UserError, match=f"--model {model}: there is no such folder"):
        check_model(model, "vllm")


def test_a_hub_out_of_reach_is_noticed_before_the_engine_tries(monkeypatch):
    monkeypatch.setattr("hbd3lm.plans.engines.loading.hub_reachable", lambda: False)
    with pytest.raises(UserError, match=r"--model someone/none: .*cannot be reached.*HF_ENDPOINT"):
        check_model("someone/none", "vllm")
    with pytest.raises(UserError, match="at revision v2"):
        check_model("someone/none", "vllm", "v2")
    with pytest.raises(UserError, match="neither a folder nor a name the hub could know"):
        check_model("not a name", "vllm")


def test_a_model_in_the_hubs_cache_needs_no_hub(monkeypatch, tmp_path):
    snapshot = tmp_path / "models--some--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (tmp_path / "models--some--model" / "refs").mkdir()
    (tmp_path / "models--some--model" / "refs" / "main").write_text("abc")
    monkeypatch.setattr("hbd3lm.plans.engines.loading.hub_reachable", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    check_model("some/model", "vllm")


def test_what_is_no_gguf_file_with_a_template_is_refused(tmp_path):
    path = tmp_path / "m.gguf"
    with pytest.raises(UserError, match="there is no such file"):
        check_gguf(str(path))
    path.write_bytes(b"PK..")
    with pytest.raises(UserError, match="is no GGUF file"):
        check_gguf(str(path))
    with pytest.raises(UserError, match=r"is a folder; name a .gguf file \(in it: m.gguf\)"):
        check_gguf(str(tmp_path))
    path.write_bytes(b"GGUF....")
    with pytest.raises(UserError, match="it has no chat template; choose an instruction-tuned"):
        check_gguf(str(path))
    path.write_bytes(b"GGUF....tokenizer.chat_template....")
    assert check_gguf(str(path)) == path


def test_another_model_under_the_same_path_has_another_fingerprint(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    weights = folder / "model.safetensors"
    weights.write_bytes(b"a" * 3_000_000)
    first = model_fingerprint(folder)
    assert first == model_fingerprint(str(folder)) and len(first) == 16
    weights.write_bytes(b"a" * 2_999_999 + b"b")
    assert model_fingerprint(folder) != first
    assert model_fingerprint(weights) not in (None, first)
    assert model_fingerprint("meta-llama/Meta-Llama-3-8B-Instruct") is None
