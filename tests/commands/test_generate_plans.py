import json
import os
import re
import subprocess
import sys

import pytest

from hbd3lm.commands.generate_plans import build_parser, main
from hbd3lm.data.records import read_examples
from hbd3lm.errors import UserError
from tests.conftest import REPOSITORY

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


def test_the_socratic_planner_reads_the_socratic_file(tmp_path, data_dir):
    flags = ("--data_dir", str(data_dir), "--num_examples", "3")
    plans = [e.plan for e in generate(tmp_path, "--planner", "socratic", *flags)]
    assert plans[0].startswith("How many clips did Natalia sell in May?")
    assert [e.id for e in generate(tmp_path, *flags)] == [f"gsm8k_train_{i}" for i in range(3)]


def test_multiarith_publishes_no_steps_and_the_summary_says_so(tmp_path, data_dir, capsys):
    generate(tmp_path, "--dataset", "multiarith", "--split", "test", "--data_dir", str(data_dir),
             "--num_examples", "4")  # fmt: skip
    assert "4 of 4 problems publish no solution steps" in capsys.readouterr().out


def test_the_default_output_is_the_specs_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["--dataset", "embedded", "--split", "test", "--num_examples", "2"])
    assert len(read_examples("data/gsm8k/gsm8k_hierarchical_test.json")) == 2


def test_without_data_and_hub_embedded_problems_are_announced_loudly(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("hbd3lm.data.sources.hub_reachable", lambda *a, **k: False)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "empty"))
    generate(tmp_path, "--num_examples", "3")
    error = capsys.readouterr().err
    assert "WARNING: GSM8K" in error and "NOT GSM8K" in error and "--data_dir" in error


def test_a_run_again_replaces_the_file_and_says_so(tmp_path, capsys):
    generate(tmp_path, "--dataset", "embedded", "--num_examples", "3")
    assert len(generate(tmp_path, "--dataset", "embedded", "--num_examples", "2")) == 2
    assert "exists and is replaced" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_examples", "0"], "--num_examples 0"),
        (["--num_examples", "-3"], "--num_examples -3"),
        (["--batch_size", "0"], "--batch_size 0"),
        (["--planner", "vllm"], "needs --model"),
        (["--planner", "rules", "--model", "m"], "--model m does nothing with --planner rules"),
        (["--model", "m", "--temperature", "-1"], "--temperature -1"),
        (["--model", "m", "--top_p", "0"], "--top_p 0"),
        (["--model", "m", "--max_tokens", "0"], "--max_tokens 0"),
        (["--model", "m", "--tensor_parallel_size", "0"], "--tensor_parallel_size 0"),
        (["--split", "validation"], "no split 'validation'"),
        (["--data_dir", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_flags_are_refused_by_name(tmp_path, flags, message):
    with pytest.raises(UserError, match=re.escape(message)):
        main(["--dataset", "embedded" if "--data_dir" not in flags else "gsm8k", *flags])


def test_a_model_without_its_engine_is_an_exit_status_and_one_message(tmp_path):
    code = "import sys; sys.modules['vllm'] = None; sys.argv[0] = 'x'; import runpy; "
    code += f"runpy.run_path({str(ENTRY)!r}, run_name='__main__')"
    flags = ["--dataset", "embedded", "--num_examples", "2", "--model", "m",
             "--output_path", str(tmp_path / "x.json")]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True)
    assert done.returncode == 1
    assert "hbd3lm[vllm]" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "x.json").exists()


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


def run_script(tmp_path, **variables):
    environment = {**os.environ, "PYTHON": sys.executable, "OUTPUT_DIR": str(tmp_path)}
    environment.pop("SLURM_SUBMIT_DIR", None)
    return subprocess.run(
        ["bash", str(SCRIPT)],
        env={**environment, **variables},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_slurm_script_runs_as_plain_bash_on_real_data(tmp_path, data_dir):
    done = run_script(tmp_path, PLANNER="rules", NUM_EXAMPLES="5", DATA_DIR=str(data_dir))
    assert done.returncode == 0, done.stderr
    for split in ("train", "test"):
        examples = read_examples(tmp_path / f"gsm8k_hierarchical_{split}.json")
        assert [e.id for e in examples] == [f"gsm8k_{split}_{i}" for i in range(5)]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PLANNER": "oracle"}, "PLANNER=oracle is none of"),
        ({"PLANNER": "rules", "PYTHON": "no-such-python"}, "no no-such-python"),
        ({"PLANNER": "rules", "SLURM_SUBMIT_DIR": "/tmp"}, "submit from the root"),
        ({"PLANNER": "rules", "NUM_EXAMPLES": "0", "SPLITS": "train"}, "--num_examples 0"),
    ],
)
def test_the_slurm_script_checks_first_and_fails_with_one_message(tmp_path, variables, message):
    done = run_script(tmp_path, **variables)
    assert done.returncode != 0
    assert message in done.stderr


def test_the_slurm_script_passes_only_flags_that_exist():
    body = re.sub(r"^\s*#.*$", "", SCRIPT.read_text(), flags=re.MULTILINE)
    used = set(re.findall(r"--[a-z_]+\b", body))
    known = {flag for action in build_parser()._actions for flag in action.option_strings}
    assert {"--planner", "--split", "--model", "--overwrite"} <= used
    assert used <= known


def test_the_slurm_log_needs_no_folder_that_does_not_exist_yet():
    assert "#SBATCH --output=%x-%j.out" in SCRIPT.read_text()
