import json
import os
import re
import subprocess
import sys
import types

import pytest

from hbd3lm import cli
from hbd3lm.commands.generate_plans import build_parser, main
from hbd3lm.data.records import read_examples
from hbd3lm.errors import UserError
from hbd3lm.plans.manifest import read_manifest
from tests.conftest import REPOSITORY
from tests.toy_engine import ToyEngine

ENTRY = REPOSITORY / "scripts/data_prep/generate_gsm8k_plans.py"
SCRIPT = REPOSITORY / "scripts/data_prep/run_gsm8k_plan_generation.sh"


@pytest.fixture(autouse=True)
def no_ambient_data(monkeypatch):
    monkeypatch.delenv("HBD3LM_DATA_DIR", raising=False)


def generate(tmp_path, *flags):
    output = tmp_path / "out.json"
    assert main(["--output_path", str(output), *flags]) == 0
    return read_examples(output)


def test_embedded_problems_become_the_records_of_the_spec(tmp_path, capsys):
    examples = generate(tmp_path, "--dataset", "embedded", "--num_examples", "12")
    rows = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert list(rows[0]) == ["id", "question", "plan", "execution", "answer_numerical"]
    assert len(examples) == 12
    assert all(e.execution.endswith(f"#### {e.answer_numerical}") for e in examples)
    printed = capsys.readouterr().out
    assert f"wrote 12 examples with rules plans to {tmp_path / 'out.json'}" in printed
    assert "numbers per plan: 0.00 in digits, 0.00 spelled out" in printed
    assert "next: python scripts/analysis/analyze_gsm8k_plans.py --data_path" in printed


def test_the_command_that_comes_next_can_be_copied_from_anywhere(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "with space"
    folder.mkdir()
    assert main(["--output_path", f"{folder}/a.json", "--num_examples", "3", "--shard", "1/2"]) == 0
    printed = capsys.readouterr().out
    assert f"next: python scripts/analysis/analyze_gsm8k_plans.py --data_path '{folder}/" in printed
    assert "hbd3lm plans merge --output_path '" in printed
    monkeypatch.chdir(folder)
    generate(folder, "--num_examples", "3")
    assert f"next: hbd3lm analyze --data_path '{folder}/" in capsys.readouterr().out


def test_the_socratic_planner_reads_the_socratic_file(tmp_path, data_dir):
    flags = ("--data_dir", str(data_dir), "--num_examples", "3")
    plans = [e.plan for e in generate(tmp_path, "--planner", "socratic", *flags)]
    assert plans[0].startswith("How many clips did Natalia sell in May?")
    assert [e.id for e in generate(tmp_path, *flags)] == [f"gsm8k_train_{i}" for i in range(3)]


def test_multiarith_publishes_no_steps_and_the_summary_says_so(tmp_path, data_dir, capsys):
    generate(tmp_path, "--dataset", "multiarith", "--split", "test", "--data_dir", str(data_dir),
             "--num_examples", "4")  # fmt: skip
    assert "4 of 4 problems publish no solution steps" in capsys.readouterr().out


def test_the_default_output_is_the_specs_file_and_no_other_data_sets(
    tmp_path, data_dir, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for dataset, count in (("gsm8k", 2), ("svamp", 3), ("embedded", 4)):
        main(["--dataset", dataset, "--split", "test", "--num_examples", str(count),
              "--data_dir", str(data_dir)])  # fmt: skip
    assert len(read_examples("data/gsm8k/gsm8k_hierarchical_test.json")) == 2
    assert len(read_examples("data/svamp/svamp_hierarchical_test.json")) == 3
    assert len(read_examples("data/embedded/embedded_hierarchical_test.json")) == 4


def test_without_data_and_hub_embedded_problems_are_announced_loudly(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("hbd3lm.data.hub_datasets.hub_reachable", lambda *a, **k: False)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "empty"))
    generate(tmp_path, "--num_examples", "3")
    error = capsys.readouterr().err
    assert "WARNING: GSM8K" in error and "NOT GSM8K" in error and "--data_dir" in error
    (manifest,) = tmp_path.rglob("*.manifest.json")
    assert json.loads(manifest.read_text())["settings"]["dataset"] == "embedded"


def test_a_run_again_replaces_the_file_and_says_so(tmp_path, capsys):
    generate(tmp_path, "--dataset", "embedded", "--num_examples", "3")
    assert len(generate(tmp_path, "--dataset", "embedded", "--num_examples", "2")) == 2
    assert "exists and is replaced" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_examples", "1" + "0" * 12], "1,000,000,000,000 were asked for; at most 3,000,000"),
        (["--planner", "vllm"], "--planner vllm needs --model (a hub name"),
        (["--planner", "llamacpp"], "--planner llamacpp needs --model (a .gguf file)"),
        (["--planner", "transformers"], "--planner transformers needs --model"),
        (["--planner", "openai", "--model", "m"], "--planner openai needs --base_url"),
        (["--temperature", "0.8"], "--temperature 0.8 does nothing with --planner rules"),
        (["--question_only"], "--question_only does nothing with --planner rules"),
        (["--planner", "socratic", "--max_retries", "2"], "--max_retries 2 does nothing with"),
        (
            ["--base_url", "u", "--dtype", "float16"],
            "--dtype float16 does nothing with --planner openai",
        ),
        (
            ["--model", "m", "--base_url", "u", "--tensor_parallel_size", "1"],
            "--tensor_parallel_size 1 does nothing with --planner openai",
        ),
        (
            ["--model", "m.GGUF", "--revision", "r"],
            "--revision r does nothing with --planner llamacpp",
        ),
        (["--model", "m", "--timeout", "3"], "--timeout 3.0 does nothing with --planner vllm"),
        (["--base_url", "u", "--timeout", "0"], "--timeout 0.0"),
        (["--base_url", "u", "--timeout", "1e23"], "--timeout 1e+23: more than 0 seconds and at"),
        (["--model", "m", "--gpu_memory_utilization", "1.5"], "--gpu_memory_utilization 1.5"),
        (["--model", "m", "--min_words", "9", "--max_words", "8"], "--max_words 8"),
        (["--model", "m", "--prompt_file", "/nowhere.yaml"], "--prompt_file: no such file"),
        (["--shard", "4/3"], "--shard 4/3: write I/N, counted from 1: 1/3 to 3/3"),
        (["--num_examples", "2", "--shard", "3/3"], "--shard 3/3: there are only 2 problems"),
        (["--planner", "rules", "--model", "m"], "--model m does nothing with --planner rules"),
        (["--model", "m", "--temperature", "-1"], "--temperature -1"),
        (["--model", "m", "--top_p", "0"], "--top_p 0"),
        (["--split", "validation"], "no split 'validation'"),
        (["--data_dir", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_flags_are_refused_by_name(tmp_path, flags, message):
    with pytest.raises(UserError, match=re.escape(message)):
        main(["--dataset", "embedded" if "--data_dir" not in flags else "gsm8k", *flags])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_examples", "0"], "'0' is no whole number of at least 1"),
        (["--num_examples", "-3"], "'-3' is no whole number of at least 1"),
        (["--num_examples", "\uff13"], "is no whole number of at least 1"),
        (["--batch_size", "0"], "'0' is no whole number of at least 1"),
        (["--seed", "-1"], "'-1' is no whole number of 0 or more"),
        (["--seed", "\uff11"], "is no whole number of 0 or more"),
        (["--seed", str(2**63)], "is more than 9223372036854775807"),
        (["--max_model_len", "0"], "'0' is no whole number of at least 1"),
        (["--max_numbers", "-1"], "'-1' is no whole number of 0 or more"),
        (["--max_retries", "-1"], "'-1' is no whole number of 0 or more"),
        (["--max_tokens", "0"], "'0' is no whole number of at least 1"),
        (["--tensor_parallel_size", "0"], "'0' is no whole number of at least 1"),
        (["--timeout", "inf"], "'inf' is no finite number"),
        (["--temperature", "nan"], "'nan' is no finite number"),
    ],
)
def test_what_is_no_number_is_refused_as_typed(flags, message, capsys):
    with pytest.raises(SystemExit):
        main(flags)
    error = capsys.readouterr().err
    assert f"argument {flags[0]}: " in error and message in error


def test_generating_many_problems_is_announced(tmp_path, monkeypatch, capsys):
    """It takes minutes, in which nothing was to be seen."""
    monkeypatch.setattr("hbd3lm.commands.generate_plans._LONG", 2)
    generate(tmp_path, "--dataset", "embedded", "--num_examples", "3")
    assert capsys.readouterr().out.startswith("generating 3 problems\n")


def test_a_model_without_its_engine_is_an_exit_status_and_one_message(tmp_path):
    pytest.importorskip("hbd3lm.plans.engines.registry")
    code = "import sys; sys.modules['vllm'] = None; sys.argv[0] = 'x'; import runpy; "
    code += f"runpy.run_path({str(ENTRY)!r}, run_name='__main__')"
    flags = ["--dataset", "embedded", "--num_examples", "2", "--model", "m",
             "--output_path", str(tmp_path / "x.json")]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True)
    assert done.returncode == 1
    assert "[vllm]" in done.stderr and "--planner rules" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x.json").exists()


@pytest.fixture
def engines(monkeypatch):
    """Stands in for the registry of engines: what was loaded, how, and the engines themselves."""
    loaded = []

    def load_engine(name, **options):
        loaded.append((name, options, ToyEngine()))
        return loaded[-1][2]

    module = types.ModuleType("hbd3lm.plans.engines.registry")
    module.load_engine = load_engine
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return loaded


@pytest.mark.parametrize(
    ("flags", "name", "options"),
    [
        (["--model", "org/m"], "vllm",
         {"model": "org/m", "seed": 0, "tensor_parallel_size": 1, "pipeline_parallel_size": 1,
          "data_parallel_size": 1}),
        (["--model", "m", "--dtype", "float16", "--max_model_len", "512", "--revision", "v2",
          "--tensor_parallel_size", "4", "--pipeline_parallel_size", "2", "--data_parallel_size",
          "3", "--gpu_memory_utilization", "0.8", "--seed", "5"], "vllm",
         {"model": "m", "dtype": "float16", "max_model_len": 512, "revision": "v2", "seed": 5,
          "tensor_parallel_size": 4, "pipeline_parallel_size": 2, "data_parallel_size": 3,
          "gpu_memory_utilization": 0.8}),
        (["--model", "dir/m.gguf", "--threads", "2", "--max_model_len", "512"], "llamacpp",
         {"model": "dir/m.gguf", "threads": 2, "max_model_len": 512, "seed": 0}),
        (["--base_url", "http://h/v1"], "openai", {"base_url": "http://h/v1"}),
        (["--base_url", "http://h/v1", "--model", "m", "--api_key_env", "KEY", "--timeout", "9"],
         "openai",
         {"base_url": "http://h/v1", "model": "m", "api_key_env": "KEY", "timeout": 9.0}),
        (["--planner", "transformers", "--model", "m"], "transformers", {"model": "m", "seed": 0}),
    ],
)  # fmt: skip
def test_the_flags_choose_the_engine_and_reach_it(tmp_path, engines, flags, name, options):
    generate(tmp_path, "--dataset", "embedded", "--num_examples", "5", "--batch_size", "2", *flags)
    [(loaded, given, engine)] = engines
    assert loaded == name
    assert given == {**options, "constrained": "auto", "max_in_flight": 2}
    assert engine.most_in_flight == 2 and engine.closed


def test_sampling_prompt_and_limits_reach_the_requests_and_the_summary_counts(
    tmp_path, engines, capsys
):
    template = tmp_path / "mine.yaml"
    template.write_text("user: 'Plan this: {question}'\n")
    flags = ["--dataset", "embedded", "--num_examples", "60", "--model", "m",
             "--temperature", "0.5", "--top_p", "0.8", "--max_tokens", "99", "--seed", "4",
             "--prompt_file", str(template),
             "--question_only", "--max_retries", "1", "--constrained", "off"]  # fmt: skip
    generate(tmp_path, *flags)
    [(_, options, engine)] = engines
    first = [request for request in engine.asked if request.key.endswith("#0")]
    assert {(r.temperature, r.top_p, r.max_tokens) for r in first} == {(0.5, 0.8, 99)}
    assert all(r.messages[0]["content"].startswith("Plan this: ") for r in first)
    assert options["constrained"] == "off" and options["seed"] == 4
    manifest = read_manifest(tmp_path / "out.json")
    report = manifest["report"]
    assert manifest["settings"]["prompt"] == template.name
    assert manifest["problems"]["dataset"] == "embedded" and report["failed"] > 0
    printed = capsys.readouterr()
    table = printed.out
    for label in ("Perfect (0 numbers)", "Mostly abstract (1-2 numbers)",
                  "Somewhat concrete (3-5 numbers)", "Too concrete (>5 numbers)"):  # fmt: skip
        numbers = [report[kind].get(label, 0) for kind in ("numbers_first", "numbers_final")]
        row = re.search(re.escape(label) + r" +(\d+) \(.*?%\) +(\d+) \(", table)
        assert [int(row[1]), int(row[2])] == numbers
    for fault, count in report["faults_first"].items():
        row = re.search(rf"fault: {fault} +(\d+) +(\d+)", table)
        assert [int(row[1]), int(row[2])] == [count, report["faults_final"].get(fault, 0)]
    assert f"retries: {report['retries']}, repaired: {report['repaired']}" in table
    assert re.search(r"tokens written: \d+, [\d.e+]+ a second", table)
    assert f"WARNING: {report['failed']} plans still have faults" in printed.err
    generate(tmp_path, *flags)  # the same command again
    assert len(engines) == 1 and "is finished" in capsys.readouterr().out


def test_another_address_goes_on_with_a_run_another_model_does_not(tmp_path, engines, monkeypatch):
    flags = ["--dataset", "embedded", "--num_examples", "6", "--batch_size", "1", "--base_url"]
    asked, real = [], ToyEngine.submit

    def submit(engine, request):
        if len(asked) == 4:
            raise KeyboardInterrupt
        asked.append(request.key)
        real(engine, request)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ToyEngine, "submit", submit)
        generate(tmp_path, *flags, "http://a/v1")
    with pytest.raises(UserError, match=r"model \(null there, other here\)"):
        generate(tmp_path, *flags, "http://b/v1", "--model", "other")
    engines.clear()
    generate(tmp_path, *flags, "http://b/v1")
    later = [request.key for request in engines[0][2].asked]
    assert later and not set(later) & set(asked)


def test_shards_are_written_beside_the_whole_and_merged_by_the_printed_command(tmp_path, capsys):
    flags = ["--dataset", "embedded", "--num_examples", "7", "--output_path"]
    output = tmp_path / "plans.json"
    for shard in ("1/2", "2/2"):
        assert main([*flags, str(output), "--shard", shard]) == 0
    printed = capsys.readouterr().out
    command = re.search(r"when all 2 shards are written: hbd3lm (.*)", printed)[1].split()
    assert cli.main(command) == 0
    assert "merged 2 shards" in capsys.readouterr().out
    main([*flags, str(tmp_path / "whole.json")])
    assert output.read_bytes() == (tmp_path / "whole.json").read_bytes()


def test_merging_finds_the_problems_where_the_shards_found_them(tmp_path, data_dir, capsys):
    output = tmp_path / "plans.json"
    flags = ["--data_dir", str(data_dir), "--planner", "socratic", "--num_examples", "5",
             "--output_path", str(output), "--shard"]  # fmt: skip
    main([*flags, "2/2"])
    capsys.readouterr()
    assert cli.main(["plans", "merge", "--output_path", str(output)]) == 1
    assert "shard 1/2 of" in capsys.readouterr().err
    main([*flags, "1/2"])
    assert cli.main(["plans", "merge", "--output_path", str(output)]) == 0
    assert [e.id for e in read_examples(output)] == [f"gsm8k_train_{i}" for i in range(5)]


def test_help_answers_without_loading_anything_heavy():
    code = (
        "import sys\nfrom hbd3lm.commands.generate_plans import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'vllm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--tensor_parallel_size" in done.stdout
    assert done.stdout.rstrip().endswith("[]")


# --- the SLURM script ---------------------------------------------------------------------------


def run_script(tmp_path, cwd=REPOSITORY, **variables):
    environment = {**os.environ, "PYTHON": sys.executable, "OUTPUT_DIR": str(tmp_path)}
    settings = re.findall(r'^(\w+)="\$\{\1:-', SCRIPT.read_text(), re.MULTILINE)
    for name in [*environment]:
        if name.startswith("SLURM_") or (name in settings and name != "OUTPUT_DIR"):
            del environment[name]
    return subprocess.run(
        ["bash", str(SCRIPT)],
        env={**environment, **variables},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_the_slurm_script_runs_as_plain_bash_on_real_data(tmp_path, data_dir):
    done = run_script(tmp_path, PLANNER="rules", NUM_EXAMPLES="5", DATA_DIR=str(data_dir))
    assert done.returncode == 0, done.stderr
    for split in ("train", "test"):
        examples = read_examples(tmp_path / f"gsm8k_hierarchical_{split}.json")
        assert [e.id for e in examples] == [f"gsm8k_{split}_{i}" for i in range(5)]


def array_task(number, first=0, last=2, **more):
    """What SLURM sets in a task of ``--array=FIRST-LAST``, or of the one task it is repeated as."""
    variables = {"ID": number, "MIN": first, "MAX": last, "COUNT": last - first + 1}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in variables.items()} | more


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PLANNER": "oracle"}, "PLANNER=oracle is none of"),
        ({"PLANNER": "rules", "PYTHON": "no-such-python"}, "no no-such-python"),
        # What is no switch was taken for "off": the model was shown the solutions.
        ({"QUESTION_ONLY": "yes"}, "error: QUESTION_ONLY=yes is neither 0 nor 1"),
        ({"PLANNER": "rules", "OVERWRITE": "true"}, "OVERWRITE=true is neither 0 nor 1"),
        ({"REQUIRE_GPU": "00"}, "REQUIRE_GPU=00 is neither 0 nor 1"),
        (
            {"PLANNER": "rules", "NUM_EXAMPLES": "2", "SPLITS": "train foo"},
            "SPLITS=train foo: 'foo' is neither train nor test",
        ),
        ({"PLANNER": "rules", "SPLITS": " "}, "'' is neither train nor test"),
        ({"PLANNER": "rules", "SPLITS": "train *"}, "'*' is neither train nor test"),
        ({"PLANNER": "rules", "SLURM_SUBMIT_DIR": "/tmp"}, "/tmp is not the repository"),
        ({"PLANNER": "rules", "NUM_EXAMPLES": "0", "SPLITS": "train"}, "--num_examples: '0' is"),
        ({"PLANNER": "rules", "THREADS": "2"}, "--threads 2 does nothing with --planner rules"),
        ({"PLANNER": "rules", "OUTPUT_DIR": "/proc/plans"}, "cannot write to OUTPUT_DIR=/proc"),
        ({"PLANNER": "openai"}, "PLANNER=openai needs BASE_URL"),
        ({"PLANNER": "llamacpp"}, "PLANNER=llamacpp needs MODEL"),
        (array_task(2, 2, 2, PLANNER="rules"), "give SHARDS=N"),
        (array_task(1, 1, 3, PLANNER="rules"), "--array=0-(N-1)"),
        (array_task(4, 4, 4, PLANNER="rules", SHARDS="3"), "its tasks are 0 to 2"),
    ],
)
def test_the_slurm_script_checks_first_and_fails_with_one_message(tmp_path, variables, message):
    done = run_script(tmp_path, **variables)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize("present", ["", "vllm"])
def test_without_vllm_or_a_gpu_the_script_says_so_before_it_starts(tmp_path, present):
    fake = tmp_path / "bin" / "python"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/bash\n[[ "$3" == "" || "$3" == "{present}" ]]\n')
    (fake.parent / "nvidia-smi").write_text("#!/bin/bash\nexit 9\n")
    for program in fake.parent.iterdir():
        program.chmod(0o755)
    path = f"{fake.parent}{os.pathsep}{os.environ['PATH']}"
    done = run_script(tmp_path, PYTHON=str(fake), PATH=path)
    assert done.returncode == 1
    assert ("needs a GPU" if present else "pip install -e '.[vllm]'") in done.stderr
    assert "PLANNER=rules" in done.stderr


def test_tasks_of_an_array_are_shards_and_the_last_one_merges(tmp_path, data_dir):
    run = {"PLANNER": "rules", "NUM_EXAMPLES": "7", "DATA_DIR": str(data_dir), "SPLITS": "test"}
    output = tmp_path / "gsm8k_hierarchical_test.json"
    first = run_script(tmp_path, **run, **array_task(0))
    assert first.returncode == 0, first.stderr
    assert "1 of 3 parts are written" in first.stdout
    run_script(tmp_path, **run, **array_task(1))
    assert not output.exists()
    # A task that failed is repeated alone.
    last = run_script(tmp_path, **run, **array_task(2, 2, 2, SHARDS="3"))
    assert last.returncode == 0, last.stderr
    assert "merged 3 shards" in last.stdout
    (tmp_path / "one").mkdir()
    run_script(tmp_path, **run, OUTPUT_DIR=str(tmp_path / "one"))
    assert output.read_bytes() == (tmp_path / "one" / output.name).read_bytes()


def test_old_parts_of_other_settings_do_not_fail_a_task(tmp_path, data_dir):
    run = {"PLANNER": "rules", "DATA_DIR": str(data_dir), "SPLITS": "test"}
    for task in range(3):
        assert run_script(tmp_path, **run, **array_task(task, NUM_EXAMPLES="7")).returncode == 0
    done = run_script(tmp_path, **run, **array_task(0, NUM_EXAMPLES="8"))
    assert done.returncode == 0
    assert "not shards of one run" in done.stderr and "not merged; when all parts" in done.stdout


def test_what_a_planner_does_not_have_is_refused_by_name(tmp_path, data_dir):
    run = {"PLANNER": "rules", "DATA_DIR": str(data_dir), "NUM_EXAMPLES": "2", "SPLITS": "test"}
    for name, flag in (("TEMPERATURE", "temperature"), ("PROMPT_FILE", "prompt_file"),
                       ("MODEL", "model"), ("MAX_RETRIES", "max_retries")):  # fmt: skip
        done = run_script(tmp_path, **run, **{name: "1"})
        assert done.returncode != 0 and f"--{flag}" in done.stderr, name
    assert "--question_only" in run_script(tmp_path, **run, QUESTION_ONLY="1").stderr
    assert not list(tmp_path.glob("*.json"))


def test_a_folder_is_meant_as_the_caller_sees_it(tmp_path, data_dir):
    (tmp_path / "there").symlink_to(data_dir)
    run = {"PLANNER": "rules", "DATA_DIR": "there", "NUM_EXAMPLES": "2", "SPLITS": "test"}
    done = run_script(tmp_path, cwd=tmp_path, **run, OUTPUT_DIR="plans")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "plans" / "gsm8k_hierarchical_test.json").is_file()


def test_every_variable_of_the_script_reaches_the_program(tmp_path):
    """Run with a python that only notes its arguments, once an engine."""
    fake = tmp_path / "bin" / "python"
    fake.parent.mkdir()
    fake.write_text('#!/bin/bash\n[[ "$1" == -c ]] && exit\nprintf "%s\\0" "$@" > "$ARGUMENTS"\n')
    fake.chmod(0o755)
    common = {
        "BATCH_SIZE": "3", "SEED": "4", "DATA_DIR": "a dir", "NUM_EXAMPLES": "5", "MODEL": "m",
        "TEMPERATURE": "0.1", "TOP_P": "0.2", "MAX_TOKENS": "6", "PROMPT_FILE": "a file",
        "CONSTRAINED": "off", "MAX_NUMBERS": "1", "MIN_WORDS": "2", "MAX_WORDS": "7",
        "MAX_RETRIES": "8", "SHARD": "2/3",
    }  # fmt: skip
    engines = {
        "vllm": {"DTYPE": "float16", "REVISION": "r", "MAX_MODEL_LEN": "9",
                 "TENSOR_PARALLEL_SIZE": "2", "PIPELINE_PARALLEL_SIZE": "3",
                 "DATA_PARALLEL_SIZE": "4", "GPU_MEMORY_UTILIZATION": "0.5"},
        "openai": {"BASE_URL": "http://h/v1", "API_KEY_ENV": "K", "TIMEOUT": "11.0"},
        "llamacpp": {"THREADS": "2", "MAX_MODEL_LEN": "9"},
        "transformers": {"DTYPE": "float16", "REVISION": "r"},
    }  # fmt: skip
    settings = set(re.findall(r'^(\w+)="\$\{\1:-', SCRIPT.read_text(), re.MULTILINE))
    special = {"PLANNER", "SPLITS", "OUTPUT_DIR", "QUESTION_ONLY", "OVERWRITE", "SHARDS",
               "REQUIRE_GPU"}  # fmt: skip
    assert settings == special | set(common).union(*engines.values())
    for planner, own in engines.items():
        given = {**common, **own}
        done = run_script(
            tmp_path, PYTHON=str(fake), PLANNER=planner, SPLITS="test", QUESTION_ONLY="1",
            OVERWRITE="1", REQUIRE_GPU="0", ARGUMENTS=str(tmp_path / "arguments"), **given,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        program, *flags = (tmp_path / "arguments").read_text().split("\0")[:-1]
        assert program.endswith("generate_gsm8k_plans.py")
        args = build_parser().parse_args(flags)
        found = {name: str(getattr(args, name.lower())) for name in given}
        assert found == given
        assert (args.planner, args.split) == (planner, "test")
        assert args.question_only and args.overwrite


def test_the_slurm_script_passes_only_flags_that_exist():
    body = re.sub(r"^\s*#.*$", "", SCRIPT.read_text(), flags=re.MULTILINE)
    used = set(re.findall(r"--[a-z_]+\b(?![=])", body))
    known = {flag for action in build_parser()._actions for flag in action.option_strings}
    assert {"--planner", "--split", "--model", "--overwrite", "--shard"} <= used
    assert used <= known


def test_the_slurm_log_needs_no_folder_that_does_not_exist_yet():
    assert "#SBATCH --output=%x-%j.out" in SCRIPT.read_text()


def test_embedded_problems_that_stand_in_never_replace_real_plans(tmp_path, monkeypatch):
    output = tmp_path / "plans.json"
    output.write_text("[]")
    arguments = ["--num_examples", "2", "--output_path", str(output)]
    with pytest.raises(UserError, match="was not made of the embedded problems"):
        main(arguments)
    assert output.read_text() == "[]"
    assert main([*arguments, "--overwrite"]) == 0
    assert len(read_examples(output)) == 2
    assert main(arguments) == 0, "its own file may be written again"
