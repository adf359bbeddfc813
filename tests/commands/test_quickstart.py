"""``hbd3lm quickstart``: a page at the end of the whole pipeline; safe to run again."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from hbd3lm.cli import VERBS
from hbd3lm.commands import check_mask, quickstart
from hbd3lm.commands.quickstart import build_parser, main
from hbd3lm.data.records import read_examples
from hbd3lm.data.sources import ProblemSet
from hbd3lm.data.synthetic import generate_problems
from hbd3lm.errors import UserError
from hbd3lm.evaluate.chance import question_numbers

# A network of a few thousand weights, and segments so short that sampling takes no time.
TINY = [
    "model.dim=16", "model.n_layers=1", "model.n_heads=2", "training.batch_size=4",
    "training.hierarchical.question_len=64", "training.hierarchical.plan_len=16",
    "training.hierarchical.exec_len=16", "trainer.accelerator=cpu", "trainer.progress_bar=false",
    "trainer.loggers=[csv]", "eval.samples=1",
]  # fmt: skip
SMALL = ["--steps", "3", "--num_train", "30", "--num_test", "6"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(check_mask, "LAYOUTS", ((3, 4, 6, 2, 3),))
    monkeypatch.delenv("HBD3LM_DATA_DIR", raising=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder (with a blank in its name) and the flags of a finished run in it."""
    folder = tmp_path_factory.mktemp("quick start")
    flags = ["--dataset", "embedded", "--output_dir", str(folder), *SMALL, *TINY]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check_mask, "LAYOUTS", ((3, 4, 6, 2, 3),))
        assert main(flags) == 0
    return folder, flags


def page_of(folder) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


def test_the_page_shows_figures_tables_problems_and_files(finished):
    folder, _ = finished
    page = page_of(folder)
    assert page.count("data:image/png;base64,") == 3  # analysis, loss curve, mask
    assert page.count('<article class="card') == 5
    records = (folder / "embedded/eval/samples_full.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(records) == 6
    assert [json.loads(line)["id"] for line in records[:5]] == re.findall(
        r'class="id">([^<]*)<', page
    )
    for address in re.findall(r'<td><a href="([^"]*)"', page):
        assert (folder / address).exists()
    chance = json.loads((folder / "embedded/eval/chance.json").read_text(encoding="utf-8"))
    assert chance["problems"] == 6
    assert f'<dd class="value">{chance["best"]:.1%}</dd>' in page
    assert "thresholds kept" in page and "perplexity" in page and "95% interval" in page


def test_every_printed_command_parses(finished):
    """Flags as the verb's own parser takes them, settings as Hydra does."""
    from html import unescape

    from hbd3lm.commands.compose import check_overrides

    folder, flags = finished
    commands = [shlex.split(unescape(c)) for c in re.findall(r"<pre>(.*?)</pre>", page_of(folder))]
    verbs = [words[3] for words in commands]
    assert verbs == [
        "quickstart", "analyze", "lengths", "mask", "train", "ppl_eval", "sample_eval", "analyze",
    ]  # fmt: skip
    for words in commands:
        assert words[1:3] == ["-m", "hbd3lm.cli"]
        verb, *rest = words[3:]
        if VERBS[verb].module is None:
            check_overrides([f"mode={verb}", *rest])
        else:
            module = __import__(VERBS[verb].module, fromlist=["build_parser"])
            module.build_parser().parse_args(rest)
    again = vars(build_parser().parse_args(commands[0][4:]))
    first = vars(build_parser().parse_args(flags))
    assert again == first


def test_running_again_keeps_the_training_and_repeats_the_result(finished, capsys):
    folder, flags = finished
    samples = folder / "embedded" / "eval" / "samples_full.jsonl"
    summary = folder / "embedded" / "train_summary.json"
    before = samples.read_bytes(), summary.stat().st_mtime_ns
    assert main(flags) == 0
    assert (samples.read_bytes(), summary.stat().st_mtime_ns) == before
    out = capsys.readouterr().out
    assert "already trained for 3 steps" in out
    assert f"everything on one page: {folder / 'index.html'}" in out
    for number in range(1, 8):
        assert re.search(rf"\[{number}/7\] [a-z -]+: \d+\.\d s", out)


def test_a_folder_of_other_settings_is_refused_and_left_alone(finished):
    folder, flags = finished
    before = page_of(folder)
    with pytest.raises(UserError, match=r"training.max_steps: 3 != 4.*--overwrite"):
        main([*flags, "--steps", "4"])
    with pytest.raises(UserError, match="other settings"):
        main([*flags, "--seed", "1"])
    assert page_of(folder) == before


def test_an_interrupted_run_is_finished(finished, tmp_path, monkeypatch):
    """Stopped after the plans, it ends with the samples of the uninterrupted run."""
    folder, flags = finished
    flags = [str(tmp_path) if flag == str(folder) else flag for flag in flags]
    real = quickstart._run_mode

    def interrupted(settings):
        if "mode=train" in settings:
            raise KeyboardInterrupt
        real(settings)

    monkeypatch.setattr(quickstart, "_run_mode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(flags)
    monkeypatch.setattr(quickstart, "_run_mode", real)
    assert main(flags) == 0
    names = [root / "embedded" / "eval" / "samples_full.jsonl" for root in (folder, tmp_path)]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_a_run_whose_training_was_stopped_by_a_signal_ends_there(tmp_path, monkeypatch):
    """Its half-trained model is not scored as if it were the finished one."""
    modes = []

    def dispatch(cfg):
        modes.append(cfg.mode)
        return 75

    monkeypatch.setattr("hbd3lm.commands.run.dispatch", dispatch)
    with pytest.raises(SystemExit) as stop:
        main(["--dataset", "embedded", "--output_dir", str(tmp_path), *SMALL, *TINY])
    assert stop.value.code == 75 and modes == ["train"]


@pytest.mark.parametrize("content", [b"[1]", b"\xff{}", b"{"])
def test_a_broken_record_of_the_run_is_one_message(content, finished, tmp_path):
    flags = ["--dataset", "embedded", "--output_dir", str(tmp_path), *SMALL, *TINY]
    (tmp_path / "embedded").mkdir()
    (tmp_path / "embedded" / "quickstart.json").write_bytes(content)
    with pytest.raises(UserError, match=r"quickstart\.json.*"):
        main(flags)


def test_overwrite_discards_the_earlier_run(tmp_path, monkeypatch):
    flags = ["--dataset", "embedded", "--output_dir", str(tmp_path), *SMALL, *TINY]
    args = build_parser().parse_args(flags)
    overrides = quickstart._user_overrides(args.overrides)
    work = quickstart._prepare(args, overrides)
    kept = work.run_dir / "checkpoints"
    kept.mkdir()
    quickstart._prepare(args, overrides)
    assert kept.exists()
    args = build_parser().parse_args([*flags, "--overwrite", "--seed", "7"])
    quickstart._prepare(args, overrides)
    assert not kept.exists()
    assert json.loads((work.run_dir / "quickstart.json").read_text())["seed"] == 7


def test_a_folder_that_is_no_quickstart_is_never_touched(tmp_path):
    (tmp_path / "embedded").mkdir()
    (tmp_path / "embedded" / "thesis.tex").write_text("mine")
    for extra in ([], ["--overwrite"]):
        with pytest.raises(UserError, match="holds files that are no quickstart"):
            main(["--dataset", "embedded", "--output_dir", str(tmp_path), *SMALL, *extra])
    assert [path.name for path in (tmp_path / "embedded").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model=huge", "there is no such model"),
        ("training.max_step=3", "did you mean training.max_steps"),
        ("nonsense", "write KEY=VALUE"),
        ("run_dir=elsewhere", "quickstart sets run_dir itself"),
        ("data.train_path=x.json", "quickstart sets data.train_path itself"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(setting, message, tmp_path):
    with pytest.raises(UserError, match=message):
        main(["--dataset", "embedded", "--output_dir", str(tmp_path / "out"), *SMALL, setting])
    assert not (tmp_path / "out").exists()


def test_without_gsm8k_embedded_problems_are_used_and_the_page_says_so(
    tmp_path, monkeypatch, capsys
):
    sentence = "GSM8K train was asked for, but the hub <is away>: NOT GSM8K."

    def find_problems(dataset, split, data_dir, limit):
        return ProblemSet(generate_problems(split, 2), "replacement", sentence)

    monkeypatch.setattr("hbd3lm.data.sources.find_problems", find_problems)
    assert main(["--output_dir", str(tmp_path), *SMALL, *TINY]) == 0
    assert f"WARNING: {sentence}" in capsys.readouterr().err
    page = page_of(tmp_path)
    assert "the hub &lt;is away&gt;: NOT GSM8K." in page
    assert "--dataset embedded" in page  # the command to repeat it names what was used
    assert "embedded problems, train: 30 (calculations: at most 1, numbers: up to 20)" in page


def test_real_problems_go_the_same_way_into_a_folder_of_their_own(tmp_path):
    """The folder's files have GSM8K's names and format; here they hold generated problems."""
    data = tmp_path / "data"
    data.mkdir()
    for split, count in (("train", 30), ("test", 6)):
        rows = [
            json.dumps({"question": problem.question, "answer": problem.solution})
            for problem in generate_problems(split, count)
        ]
        (data / f"gsm8k_{split}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    out = tmp_path / "out"
    flags = ["--data_dir", str(data), "--output_dir", str(out), "--steps", "3"]
    assert main([*flags, *TINY]) == 0
    page = page_of(out)
    assert 'role="note"' not in page
    assert f"30 problems from {data / 'gsm8k_train.jsonl'}" in page
    assert f"plans --split train --num_examples 30 --data_dir {data}" in page
    assert (out / "gsm8k" / "checkpoints" / "last.ckpt").is_file()


def test_embedded_problems_are_easy_and_no_held_out_question_is_trained_on(tmp_path):
    flags = ["--output_dir", str(tmp_path), "--num_train", "40", "--num_test", "20", "--steps", "2"]
    assert main(["--dataset", "embedded", *flags, *TINY]) == 0
    train, test = (
        read_examples(tmp_path / "embedded" / "data" / f"{split}.json")
        for split in ("train", "test")
    )
    assert (len(train), len(test)) == (40, 20)
    assert len({example.question for example in (*train, *test)}) == 60
    for example in (*train, *test):
        assert example.execution.count("\n") == 1
        assert max(question_numbers(example.question)) <= 20
        assert float(example.answer_numerical) <= 20


def test_a_data_folder_and_embedded_problems_contradict_each_other(tmp_path):
    with pytest.raises(UserError, match="choose one"):
        main(["--dataset", "embedded", "--data_dir", str(tmp_path)])
    with pytest.raises(UserError, match=r"has no file gsm8k_train\.jsonl"):
        main(["--data_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")])


@pytest.mark.parametrize("name", ["my folder/it's", "a=b,c", "back\\slash\\", 'a "b" {${c}}'])
def test_paths_survive_hydras_grammar(name):
    args = build_parser().parse_args(["--output_dir", name])
    work = quickstart.Work(args, "embedded", None, [], [], ("", ""), {"model": "nano"})
    assert work.training_config.run_dir == f"{name}/embedded"
    assert work.training_config.data.train_path == f"{name}/embedded/data/train.json"
    scored = quickstart._compose(work.settings_of("sample_eval"))
    assert scored.data.test_path == f"{name}/embedded/data/test.json"


def test_settings_of_the_user_are_read_as_main_py_reads_them():
    given = ["sampling.question=Is it [5], or 6?", "trainer.loggers=[csv]", "model=tiny"]
    settings = [f"{key}={value}" for key, value in quickstart._user_overrides(given).items()]
    cfg = quickstart._compose(settings)
    assert (cfg.sampling.question, cfg.model.name) == ("Is it [5], or 6?", "tiny")
    assert cfg.trainer.loggers == ["csv"]
