"""lm-evaluation-harness asks our models and scores them as we do, offline."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hbd3lm.commands.build import build_documents, build_objective
from hbd3lm.data.records import HierarchicalExample
from hbd3lm.data.sources import load_problems
from hbd3lm.diffusion.objective import negative_log_likelihood
from hbd3lm.errors import UserError
from hbd3lm.evaluate.answers import GenerationRun, make_records, score_records
from hbd3lm.evaluate.perplexity import score_documents
from hbd3lm.hub.directory import write_exported
from hbd3lm.model.checkpoint import ModelCard
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.layout import plan_execution_layout
from hbd3lm.model.transformer import Transformer
from hbd3lm.train.config import TrainingConfig
from hbd3lm.train.optim import make_optimizer
from tests.hub.exports import TOKENIZER, export_method
from tests.test_docs import commands

REPOSITORY = Path(__file__).resolve().parents[1]


def test_without_the_harness_the_command_says_what_to_install():
    code = (
        "import sys; sys.modules['lm_eval'] = None\n"
        "from hbd3lm import cli\n"
        "sys.exit(cli.main(['lm_eval', '--model', 'hbd3lm']))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr.count("\n") == 1
    assert "pip install 'hbd3lm[lm-eval]'" in run.stderr


pytest.importorskip(
    "lm_eval", reason="lm-evaluation-harness is not installed: pip install -e '.[lm-eval]'"
)
import lm_eval  # noqa: E402
from lm_eval.api.instance import Instance  # noqa: E402

from hbd3lm import harness  # noqa: E402
from hbd3lm.harness import HarnessModel, last_question  # noqa: E402

# The harness's own gsm8k, word for word, but for the data.
TASK = r"""
task: gsm8k_local
dataset_path: json
dataset_kwargs:
  data_files: {train: PLACE, test: PLACE}
output_type: generate_until
training_split: train
fewshot_split: train
test_split: test
doc_to_text: "Question: {{question}}\nAnswer:"
doc_to_target: "{{answer}}"
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
    ignore_punctuation: false
    regexes_to_ignore: [",", "\\$", "(?s).*#### ", "\\.$"]
generation_kwargs:
  until: ["Question:", "</s>", "<|im_end|>"]
  do_sample: false
  temperature: 0.0
repeats: 1
num_fewshot: 5
filter_list:
  - name: strict-match
    filter:
      - function: regex
        regex_pattern: "#### (\\-?[0-9\\.\\,]+)"
      - function: take_first
  - name: flexible-extract
    filter:
      - function: regex
        group_select: -1
        regex_pattern: "(-?[$0-9.,]{2,})|(-?[0-9]+)"
      - function: take_first
"""
KNOWN = 5
"""Of the problems, so many the model has learned by heart."""


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(autouse=True, scope="module")
def offline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Path:
    """A folder with a task over eight problems in GSM8K's format."""
    folder = tmp_path_factory.mktemp("task")
    with open(folder / "problems.jsonl", "w") as file:
        for problem in load_problems("embedded", "train", limit=8).problems:
            row = {"question": problem.question, "answer": problem.solution}
            file.write(json.dumps(row) + "\n")
    (folder / "task.yaml").write_text(TASK.replace("PLACE", str(folder / "problems.jsonl")))
    return folder


@pytest.fixture(scope="module")
def problems(task) -> list[HierarchicalExample]:
    rows = read_lines(task / "problems.jsonl")
    answers = [row["answer"].rpartition("#### ")[2] for row in rows]
    return [
        HierarchicalExample(str(i), row["question"], "", f"#### {a}", a)
        for i, (row, a) in enumerate(zip(rows, answers))
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory, problems) -> Path:
    """An exported model that has learned some of the answers by heart, without a plan."""
    torch.manual_seed(0)
    layout = plan_execution_layout(96, 1, 16, 1, 4, with_plan=False)
    config = ModelConfig(TOKENIZER.vocab_size, dim=64, n_layers=2, n_heads=2)
    net = Transformer(config)
    objective = build_objective("diffusion", layout, TOKENIZER.mask_id, config)
    documents = build_documents(problems[:KNOWN], TOKENIZER, layout)
    optimizer = make_optimizer(net, TrainingConfig(learning_rate=4e-3))
    rng = np.random.default_rng(0)
    for _ in range(100):
        noises = [objective.evaluation_noise(document, 4, rng) for document in documents]
        batch = objective.assemble(
            [d for d in documents for _ in range(4)], [n for draws in noises for n in draws]
        )
        optimizer.zero_grad()
        negative_log_likelihood(net, batch).mean().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    described = {"name": "gsm", "fingerprint": TOKENIZER.fingerprint}
    folder = tmp_path_factory.mktemp("model") / "model"
    write_exported(folder, net, ModelCard(config, layout, "diffusion", described), TOKENIZER, "")
    return folder


def ours(problems, texts) -> dict[str, float]:
    """Our accuracies of these executions."""
    from hbd3lm.evaluate.answers import Generation

    generations = [Generation(None, text, 1, {"execution": True}) for text in texts]
    run = GenerationRun(generations, 1.0, 1, 1, 1)
    scores = score_records(make_records(problems, run, "full"), "full")
    return {kind: scores[f"accuracy_{kind}"]["value"] for kind in ("strict", "flexible")}


def theirs(results) -> dict[str, float]:
    scores = results["results"]["gsm8k_local"]
    return {
        "strict": scores["exact_match,strict-match"],
        "flexible": scores["exact_match,flexible-extract"],
    }


# -- generation -------------------------------------------------------------------------------


def test_a_task_whose_data_cannot_be_fetched_ends_in_one_message(monkeypatch):
    import lm_eval.__main__

    from hbd3lm.commands.lm_eval import main

    def unreachable() -> None:
        raise ConnectionError("Couldn't reach 'openai/gsm8k' on the Hub")

    monkeypatch.setattr(lm_eval.__main__, "cli_evaluate", unreachable)
    monkeypatch.setattr(sys, "argv", ["hbd3lm"])
    with pytest.raises(UserError, match=r"Couldn't reach 'openai/gsm8k'.*--include_path DIR"):
        main(["--model", "hbd3lm", "--tasks", "gsm8k"])


def test_the_command_scores_a_model_as_we_do_on_the_same_generations(
    model, task, problems, tmp_path, monkeypatch
):
    """The command as documented; what it generated, scored by both."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    arguments = [
        "--model", "hbd3lm", "--model_args", f"pretrained={model}", "--tasks", "gsm8k_local",
        "--include_path", str(task), "--output_path", str(tmp_path / "out"), "--log_samples",
        "--device", "cpu", "--batch_size", "auto",
    ]  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-m", "hbd3lm.cli", "lm_eval", *arguments],
        capture_output=True, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "gsm8k_local" in run.stdout
    (file,) = (tmp_path / "out").rglob("results_*.json")
    results = json.loads(file.read_text())
    (file,) = (tmp_path / "out").rglob("samples_*.jsonl")
    samples = read_lines(file)
    texts = {sample["doc"]["question"]: sample["resps"][0][0] for sample in samples}
    assert len(texts) == len(problems)
    scores = ours(problems, [texts[problem.question] for problem in problems])
    assert theirs(results) == pytest.approx(scores)
    assert scores["strict"] >= (KNOWN - 1) / len(problems)
    # In spite of the five solved examples in front, each was asked its question alone.
    alone = HarnessModel(str(model), device="cpu").model.solve([p.question for p in problems])
    assert [texts[p.question] for p in problems] == [solution.execution for solution in alone]
    assert results["config"]["loglikelihood_is"] == "lower bound (NELBO, 16 draws)"


def test_on_texts_of_every_kind_both_count_the_same(model, task, problems, monkeypatch):
    """Right and wrong, with and without an answer line, with commas, with more after it."""
    right = [p.answer_numerical for p in problems]
    texts = [
        f"It is {right[0]}.\n#### {right[0]}",
        f"1+1=2\n#### {right[1]}.",
        f"The answer is {right[2]}.",
        "#### 1,234,567",
        "I do not know.",
        f"#### {right[5]} apples",
        f"{right[6]} in all\n#### 999999",
        f"#### {right[7]}",
    ]
    solved = {p.question: text for p, text in zip(problems, texts)}

    def solve(self, questions, **settings):
        from hbd3lm.pretrained import Solution

        return [Solution(None, solved[question], None) for question in questions]

    monkeypatch.setattr(harness.HBD3LM, "solve", solve)
    results = lm_eval.simple_evaluate(
        model=HarnessModel(str(model), device="cpu"),
        tasks=["gsm8k_local"],
        task_manager=lm_eval.tasks.TaskManager(include_path=str(task)),
        bootstrap_iters=0,
    )
    assert theirs(results) == pytest.approx(ours(problems, texts))
    assert theirs(results) == {"strict": 4 / 8, "flexible": 5 / 8}


@pytest.mark.parametrize(
    ("context", "question", "marked"),
    [
        ("Question: A?\nAnswer:", "A?", True),
        ("Question: A?\nAnswer: 1\n\nQuestion: B\nand C?\nAnswer:", "B\nand C?", True),
        ("Q: A?\nA: It is 1.\n\nQ: B?\nA: Let's think step by step.", "B?", True),
        ("Solve these.\n\nProblem: A?\nSolution:", "A?", True),
        ("Question: A?\nStep-by-Step Answer:", "A?", True),
        ("Question: A: or B:?\nAnswer:", "A: or B:?", True),
        ("How many?", "How many?", False),
        ("", "", False),
    ],
)
def test_the_last_question_of_a_prompt_is_what_the_model_reads(context, question, marked):
    assert last_question(context) == (question, marked)


def ask(kind: str, *arguments) -> list[Instance]:
    return [Instance(kind, {}, pair, i) for i, pair in enumerate(arguments)]


def test_the_task_decides_on_temperature_and_stop_texts(tmp_path, caplog, monkeypatch):
    export_method("hierarchical", tmp_path / "model")
    model = HarnessModel(str(tmp_path / "model"), device="cpu", method="first_hitting", seed=3)
    asked = []
    solve = model.model.solve
    monkeypatch.setattr(
        model.model, "solve", lambda qs, **given: asked.append((qs, given)) or solve(qs, **given)
    )
    greedy, hot = {"do_sample": False, "temperature": 0.7}, {"do_sample": True, "top_k": 3}
    first, second, third = ("How many apples?", "Tom has 3.", "And 4?")
    whole = model.generate_until(
        ask("generate_until", *((f"Q: {question}\nA:", settings) for question, settings in
                                ((first, greedy), (second, hot), (third, greedy))))
    )  # fmt: skip
    assert asked == [
        ([first, third], {"temperature": 0.0, "top_p": 1.0}),
        ([second], {"temperature": 1.0, "top_p": 1.0}),
    ]
    assert whole[0] == solve(first, temperature=0.0).execution != whole[2]
    assert "top_k=3, which has no counterpart" in caplog.text
    stop = whole[0][2:4]
    cut = model.generate_until(ask("generate_until", (f"Q: {first}\nA:", {"until": [stop, ""]})))
    assert cut == [whole[0][: whole[0].index(stop)]]


def test_settings_that_do_not_exist_or_fit_are_refused_before_the_task(tmp_path):
    export_method("flat", tmp_path / "model")
    for arguments, message in (
        ({"heat": 1}, "there is no heat; choose from pretrained, draws, batch_size"),
        ({"temperature": 1.0}, "there is no temperature"),
        ({"method": "guess"}, "sampling.method=guess"),
        ({"draws": 0}, "draws must be a whole number"),
        ({"pretrained": str(tmp_path / "none")}, "no such file or folder"),
    ):
        with pytest.raises(UserError, match=message):
            HarnessModel(**({"pretrained": str(tmp_path / "model"), "device": "cpu"} | arguments))


def test_a_prompt_without_marks_must_be_short_enough_to_be_a_question(tmp_path):
    export_method("flat", tmp_path / "model")
    model = HarnessModel(str(tmp_path / "model"), device="cpu")
    with pytest.raises(UserError, match=r"marks no question .* longer than the 12 tokens"):
        model.generate_until(ask("generate_until", ("one two three four " * 9, {})))
    with pytest.raises(UserError, match="perplexity of running text"):
        model.loglikelihood_rolling([])


# -- likelihood -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["flat", "ar", "hierarchical", "separate"])
def test_a_likelihood_is_that_of_our_own_evaluation(method, tmp_path):
    """With a plan: log p(own plan, text | question), of which the plan's part is shared."""
    net, card = export_method(method, tmp_path / "model")
    model = HarnessModel(str(tmp_path / "model"), device="cpu", draws=8)
    context, texts = "Question: a?\nAnswer:", ["1", "22"]
    results = model.loglikelihood(ask("loglikelihood", *((context, f" {t}") for t in texts)))
    plan = model.model.solve("a?").plan or ""
    examples = [HierarchicalExample(str(i), "a?", plan, t, "") for i, t in enumerate(texts)]
    objective = build_objective(card.objective, card.layout, TOKENIZER.mask_id, card.model)
    nats, _ = score_documents(
        net, objective, build_documents(examples, TOKENIZER, card.layout), 8, 4
    )
    nats[:, :-1] = nats[:, :-1].mean(0)
    assert [value for value, _ in results] == pytest.approx(list(-nats.sum(1)), rel=1e-5)
    expected = {
        "flat": "lower bound (NELBO, 8 draws)",
        "hierarchical": "lower bound: log p(plan, text | question) of the model's own plan "
        "(NELBO, 8 draws)",
        "ar": "lower bound: log p(plan, text | question) of the model's own plan (exact)",
    }
    expected["separate"] = expected["hierarchical"]
    assert model.get_model_info()["loglikelihood_is"].startswith(expected[method])


def test_a_text_learned_by_heart_is_likely_and_greedy(model, problems):
    learned = HarnessModel(str(model), device="cpu")
    right, wrong = problems[0].execution, problems[1].execution
    context = f"Question: {problems[0].question}\nAnswer:"
    (likely, greedy), (unlikely, other) = learned.loglikelihood(
        ask("loglikelihood", (context, f" {right}"), (context, f" {wrong}"))
    )
    assert likely > unlikely + 5 and greedy and not other
    with pytest.raises(UserError, match=r"is longer than the 16 tokens"):
        learned.loglikelihood(ask("loglikelihood", (context, "word " * 40)))


def test_the_commands_in_the_documents_are_ones_the_harness_accepts():
    from lm_eval._cli import HarnessCLI

    found = [
        shlex.split(line)
        for name in ("README.md", "GSM8K_TRAINING_GUIDE.md")
        for line in commands(REPOSITORY / name)
        if line.startswith("hbd3lm lm_eval ")
    ]
    assert len(found) >= 2
    for words in found:
        parsed = HarnessCLI()._parser.parse_args(["run", *words[2:]])
        assert parsed.model == "hbd3lm" and "pretrained" in parsed.model_args
