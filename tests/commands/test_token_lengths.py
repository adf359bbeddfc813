"""gsm8k_dataloader.py: the table, the printed examples, and what it refuses."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hbd3lm.commands.token_lengths import main
from hbd3lm.data.annotations import execution_text
from hbd3lm.data.records import HierarchicalExample, write_examples
from hbd3lm.data.synthetic import generate_problems
from hbd3lm.data.tokenizer import load_tokenizer
from hbd3lm.errors import HUNG_UP, UserError

SCRIPT = Path(__file__).resolve().parents[2] / "gsm8k_dataloader.py"


@pytest.fixture
def data_path(tmp_path) -> str:
    examples = [
        HierarchicalExample(
            problem.id,
            problem.question,
            " ".join(problem.subquestions),
            execution_text(problem),
            problem.answer,
        )
        for problem in generate_problems("train", 40)
    ]
    write_examples(tmp_path / "train.json", examples)
    return str(tmp_path / "train.json")


def _run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True)


def test_the_table_names_every_segment_and_says_what_it_counts(data_path, capsys):
    assert main(["--data_path", data_path, "--analyze"]) == 0
    printed = capsys.readouterr().out
    for word in ("Question", "Plan", "Execution", "Total", "Mean", "Median", "95th", "99th", "Max"):
        assert word in printed
    assert "with its end token" in printed
    rows = {row.split()[1]: row for row in printed.splitlines() if row.startswith("│")}
    assert [rows[name].split("│")[7].strip() for name in rows] == ["128", "128", "256", "512"]


@pytest.mark.parametrize("columns", ["1", "10", "79"])
def test_a_narrow_terminal_still_gets_the_numbers(data_path, monkeypatch, capsys, columns):
    """With COLUMNS=10 the table was printed without a single one."""
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["--data_path", data_path, "--analyze"]) == 0
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
    caps = [cells[7].strip() for cells in rows if cells[2].strip()]  # others go on with a cell
    assert caps == ["128", "128", "256", "512"]


def test_empty_texts_are_warned_of_and_refused_where_there_is_nothing_else(data_path, capsys):
    rows = json.loads(Path(data_path).read_text())

    def analyze(**texts) -> str:
        Path(data_path).write_text(json.dumps([{**r, **texts} for r in rows[:2]] + rows[2:3]))
        assert main(["--data_path", data_path, "--analyze"]) == 0
        return capsys.readouterr().err

    assert analyze() == ""
    assert analyze(question=" ").startswith(
        f"warning: --data_path {data_path}: empty question in 2 of 3 records, the first is "
        "'embedded_train_0'"
    )
    rows = [{**r, "plan": ""} for r in rows]  # as for a method without plans
    assert "empty plan in 3 of 3 records" in analyze()
    rows = [{**r, "execution": "\n"} for r in rows]
    with pytest.raises(UserError, match="the execution is empty in all 3 records"):
        analyze()


def test_the_json_holds_the_table_and_the_tokenizer(data_path, tmp_path, capsys):
    path = tmp_path / "out" / "lengths.json"
    flags = ["--question_len", "20", "--block_size", "4", "--output_json", str(path)]
    assert main(["--data_path", data_path, "--analyze", *flags]) == 0
    report = json.loads(path.read_text())
    assert report["examples"] == 40 and report["end_tokens_counted"] is True
    assert report["tokenizer_fingerprint"] == load_tokenizer("gsm").fingerprint
    assert list(report["lengths"]) == ["question", "plan", "execution", "total"]
    assert report["lengths"]["question"]["cap"] == 20
    assert 0 < report["lengths"]["question"]["truncated_share"] <= 1
    assert report["lengths"]["plan"]["recommended"] % 4 == 0


def test_a_local_tokenizer_is_measured_too(data_path, data_dir, capsys):
    arguments = ["--analyze", "--tokenizer", "gpt2", "--data_dir", str(data_dir)]
    assert main(["--data_path", data_path, *arguments]) == 0
    assert "tokenizer gpt2 (50,262 ids)" in capsys.readouterr().out


def test_examples_are_printed_as_training_sees_them(data_path, capsys):
    assert main(["--data_path", data_path]) == 0
    printed = capsys.readouterr().out
    assert len(re.findall(r"^embedded_train_\d+: \d+ tokens, answer", printed, re.MULTILINE)) == 10
    assert printed.count("decodes to the text exactly") == 10
    assert printed.count("<|plan_end|>") == 10
    problem = generate_problems("train", 1)[0]
    assert f"{problem.question}<|question_end|>" in printed
    tokens = len(load_tokenizer("gsm").encode(problem.question)) + 1
    assert f"  question  {tokens:4} tokens [" in printed


def test_what_the_caps_cut_is_reported(data_path, capsys):
    assert main(["--data_path", data_path, "--question_len", "8", "--num_samples", "3"]) == 0
    printed = capsys.readouterr().out
    assert "40 of 40 questions are longer than 8 tokens" in printed
    assert printed.count("cut: decodes to a part of the text") == 3


def test_a_reader_that_leaves_early_is_no_error(data_path):
    """As in `python gsm8k_dataloader.py --data_path ... | head -1`, with more than a pipe holds."""
    examples = [
        HierarchicalExample(f"e{i}", "How many? " * 10, "Add. " * 10, "1+1=2\n#### 2", "2")
        for i in range(2000)
    ]
    write_examples(data_path, examples)
    command = [sys.executable, SCRIPT, "--data_path", data_path, "--num_samples", "2000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait() == HUNG_UP
    assert errors == b""


def test_bad_input_is_one_message_and_status_one(tmp_path, data_path):
    missing = _run("--data_path", str(tmp_path / "none.json"), "--analyze")
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: --data_path: no such file")
    assert "Traceback" not in missing.stderr
    with pytest.raises(UserError, match="no such folder"):
        main(["--data_path", data_path, "--tokenizer", str(tmp_path / "none")])
    with pytest.raises(UserError, match="give --analyze"):
        main(["--data_path", data_path, "--output_json", "x.json"])


@pytest.mark.parametrize("flag", ["--question_len", "--block_size", "--num_samples"])
def test_lengths_below_one_are_refused_by_the_flags_name(data_path, flag, capsys):
    with pytest.raises(SystemExit):
        main(["--data_path", data_path, flag, "0"])
    assert flag in capsys.readouterr().err


def test_the_script_exports_the_dataset(data_path, monkeypatch):
    from hbd3lm.data.encoding import HierarchicalDataset

    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    from gsm8k_dataloader import GSM8KHierarchicalDataset

    assert GSM8KHierarchicalDataset is HierarchicalDataset
    assert len(GSM8KHierarchicalDataset(data_path)) == 40
    with pytest.raises(ImportError):
        from gsm8k_dataloader import Missing  # noqa: F401


def test_help_does_not_pay_for_heavy_imports():
    code = (
        "import sys; from hbd3lm.commands.token_lengths import build_parser; build_parser();"
        "print([m for m in ('torch', 'numpy', 'rich', 'tokenizers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
