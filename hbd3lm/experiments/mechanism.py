"""Experiment 4: does the execution follow the plan, and is the plan about more than numbers?

One trained model is given plans that are right, its own, missing, another problem's, of exchanged
operations, or with numbers put in; whether its executions stay right and which operations they
carry out says what the plan is to them. Its own plans for the same questions with other numbers, or
about other people, say what the plan depends on. And the attention of execution tokens says where
they look. All texts are written by the modes of ``main.py``, over plan files that are kept.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hbd3lm.commands.overrides import override_value
from hbd3lm.data.records import HierarchicalExample, read_examples, write_examples
from hbd3lm.data.rename import rename_people, replace_names
from hbd3lm.data.renumber import RenumberError, renumber
from hbd3lm.errors import UserError
from hbd3lm.experiments.results import Results
from hbd3lm.experiments.run import Run
from hbd3lm.experiments.settings import compose
from hbd3lm.experiments.study import Study
from hbd3lm.plans.interventions import (
    inject_numbers,
    perturbation,
    shuffle_plans,
    swap_operations,
    without_purposes,
)
from hbd3lm.plans.numbers import find_numbers, number_value
from hbd3lm.plans.semantics import compare_operations, plan_operations, solution_operations

GOLD, OWN = "gold", "own"
PLANS = {
    GOLD: "gold",
    OWN: "its own",
    "none": "none (only its end)",
    "shuffled": "another problem's",
    "swapped": "operations exchanged",
    "bare": "without purposes",
    "bare_swapped": "without purposes, exchanged",
    "right_numbers": "right numbers put in",
    "wrong_numbers": "wrong numbers put in",
}
"""The plans an execution is given, and how tables call them."""
CHANGES = {
    "nothing": "nothing (other batches)",
    "names": "names of people",
    "numbers": "numbers",
}
"""What is changed in a question whose plan is asked for again."""
_BATCH = 24  # of "nothing": other company than the default's

Record = dict[str, Any]
Records = dict[str, Record]
"""By id of the problem."""


@dataclass(frozen=True)
class Material:
    """The texts of the study, the same for all models.

    Attributes:
        examples: of the test set.
        plans: examples with changed plans by key of :data:`PLANS` (not ``own``); a problem whose
            plan cannot be changed so is missing.
        injected: the wrong numbers put into each plan, by id.
        questions: examples with changed questions, by key of :data:`CHANGES`.
        names: what became of the names, by id.
        refused: problems that got no other numbers, by reason.
    """

    examples: list[HierarchicalExample]
    plans: dict[str, list[HierarchicalExample]]
    injected: dict[str, list[float]]
    questions: dict[str, list[HierarchicalExample]]
    names: dict[str, dict[str, str]]
    refused: dict[str, int]


@dataclass(frozen=True)
class Measured:
    """What one model did.

    Attributes:
        given: records by plan, then by problem.
        asked: records of changed questions by change, then by problem.
        nats: NLL (a bound, for blocks) of the gold execution by plan, then problem.
        tokens: real tokens of the gold execution, by problem.
        is_bound: the nats are upper bounds.
        attention: ``mass`` and ``uniform`` of :class:`AttentionMass` as lists; empty: left out.
    """

    given: dict[str, Records]
    asked: dict[str, Records]
    nats: dict[str, dict[str, float]]
    tokens: dict[str, float]
    is_bound: bool
    attention: dict[str, Any]


Arm = Sequence[Measured]
"""The models of one arm, a seed each."""


def verdicts(models: Arm, name: str, ids: Sequence[str], key: str) -> np.ndarray:
    """Of the executions under a plan, [seeds, problems]: ``key`` is ``correct_strict`` or so."""
    return np.array([[m.given[name][i][key] for i in ids] for m in models], dtype=float)


def run(study: Study) -> Results:
    """Train the arms (or take a checkpoint), give them the plans, and see what they do."""
    from hbd3lm.experiments.mechanism_report import report

    runs = _runs(study)
    material = prepare(study)
    if len(material.examples) < 2:
        raise UserError("experiment=mechanism exchanges plans: it needs at least two test problems")
    measured = study.each(runs, lambda run: measure(run, material))
    return report(study, runs, material, measured)


def _runs(study: Study) -> list[Run]:
    checkpoint = study.settings.checkpoint
    if checkpoint is not None:
        from hbd3lm.model.checkpoint import read_exported

        if not Path(checkpoint).exists():
            raise UserError(
                f"experiment.checkpoint: no such file or folder: {checkpoint}; give a .ckpt file, "
                "or a folder that `hbd3lm export` wrote"
            )
        if Path(checkpoint).is_dir():
            read_exported(checkpoint, "experiment.checkpoint")  # or it says what to give instead
        return [study.run("checkpoint", [f"checkpoint={override_value(checkpoint)}"], 0)]
    return [
        study.run(arm, [f"hierarchical.modules={arm}"], seed)
        for seed in study.seeds
        for arm in study.settings.arms
    ]


# --- texts --------------------------------------------------------------------------------------


def prepare(study: Study) -> Material:
    """Change plans and questions of the test set; the same whenever it is called."""
    examples = study.examples("test")
    plans, injected = change_plans(examples)
    numbers, refused = _other_numbers(study, examples)
    renamed = {e.id: rename_people(e, i) for i, e in enumerate(examples)}
    renamed = {key: found for key, found in renamed.items() if found}
    return Material(
        examples,
        plans,
        injected,
        {
            "nothing": list(examples),
            "names": [example for example, _ in renamed.values()],
            "numbers": numbers,
        },
        {key: names for key, (_, names) in renamed.items()},
        refused,
    )


def change_plans(
    examples: Sequence[HierarchicalExample],
) -> tuple[dict[str, list[HierarchicalExample]], dict[str, list[float]]]:
    """The examples under each plan of :data:`PLANS` but their own, and the wrong numbers by id."""
    other = shuffle_plans([example.plan for example in examples])
    plans: dict[str, list[HierarchicalExample]] = {name: [] for name in PLANS if name != OWN}
    injected: dict[str, list[float]] = {}
    for i, example in enumerate(examples):
        texts: dict[str, str | None] = {
            GOLD: example.plan,
            "none": "",
            "shuffled": examples[other[i]].plan,
            "swapped": swap_operations(example.plan),
        }
        texts["bare"] = bare = without_purposes(example.plan)
        texts["bare_swapped"] = None if bare is None else swap_operations(bare)
        change = perturbation([example.question, example.execution], i)
        right = inject_numbers(example.plan, example.question, lambda value: value)
        wrong = inject_numbers(example.plan, example.question, change)
        if right and wrong:
            texts["right_numbers"], texts["wrong_numbers"] = right[0], wrong[0]
            injected[example.id] = [float(number) for number in wrong[1]]
        for name, text in texts.items():
            if text is not None:
                plans[name].append(replace(example, plan=text))
    return plans, injected


def _other_numbers(
    study: Study, examples: Sequence[HierarchicalExample]
) -> tuple[list[HierarchicalExample], dict[str, int]]:
    from hbd3lm.commands.problems import load_problem_set
    from hbd3lm.data.annotations import execution_text

    cfg = compose(study.base)
    largest = cfg.data.largest_number if cfg.data.name == "laboratory" else None

    def make() -> dict[str, Any]:
        problems = {p.id: p for p in load_problem_set(cfg, "test").problems}
        made, refused = [], Counter()
        for i, example in enumerate(examples):
            problem = problems.get(example.id)
            if problem is None or problem.question != example.question:
                refused["no annotated solution at hand"] += 1
                continue
            try:
                new = renumber(problem, i, largest)
            except RenumberError as error:
                refused[str(error)] += 1
                continue
            other = replace(example, question=new.question, execution=execution_text(new),
                            answer_numerical=new.answer)  # fmt: skip
            made.append(asdict(other))
        return {"examples": made, "refused": refused}

    found = study.once("renumbered", {"examples": _digest(examples), "largest": largest}, make)
    made = [HierarchicalExample(**row) for row in found["examples"]]
    new = study.are_new([example.question for example in made])
    learned = {"a training problem with these numbers": n} if (n := int((~new).sum())) else {}
    return [e for e, is_new in zip(made, new) if is_new], {**found["refused"], **learned}


def _digest(examples: Sequence[HierarchicalExample]) -> str:
    text = json.dumps([asdict(example) for example in examples])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _file(study: Study, name: str, examples: Sequence[HierarchicalExample]) -> Path:
    """The plan file that holds ``examples``."""
    path = study.folder / "data" / f"{name}.json"
    if not path.is_file() or read_examples(path) != list(examples):
        write_examples(path, examples)
    return path


# --- one model ----------------------------------------------------------------------------------


def measure(run: Run, material: Material) -> Measured:
    """Train the model if it is to be trained, and make every measurement that is not made yet."""
    if run.arm != "checkpoint":
        run.train()
    given = {
        name: _sample(run, f"plans/{name}", examples, "exec_only")
        for name, examples in material.plans.items()
    }
    given[OWN] = _sample(run, "plans/own", material.examples, "full")
    asked = {
        name: _sample(run, f"questions/{name}", examples, "full")
        for name, examples in material.questions.items()
        if name != "nothing"
    }
    asked["nothing"] = _sample(
        run, "questions/nothing", material.examples, "plan_only", f"sampling.batch_size={_BATCH}"
    )
    scored = _likelihoods(run, material, given[OWN])
    return Measured(given, asked, **scored, attention=_attention(run, given[OWN]))


def _sample(
    run: Run, label: str, examples: Sequence[HierarchicalExample], mode: str, *further: str
) -> Records:
    if not examples:
        return {}
    path = _file(run.study, label.replace("/", "_"), examples)
    # The file holds the problems that count, in whatever number.
    settings = (f"data.test_path={override_value(path)}", "eval.num_examples=null", *further)
    _, records = run.sample(label, mode, *settings)
    return {record["id"]: record for record in records}


def _likelihoods(run: Run, material: Material, own: Records) -> dict[str, Any]:
    """``nats``, ``tokens`` and ``is_bound`` of the gold execution given each plan, for
    :class:`Measured`: the same noise under all of them."""
    draws = int(run.study.settings.likelihood_draws)
    texts = {name: {e.id: e.plan for e in found} for name, found in material.plans.items()}
    texts[OWN] = {key: record["plan"] for key, record in own.items()}

    def make() -> dict[str, Any]:
        from hbd3lm.commands.build import build_documents
        from hbd3lm.diffusion.likelihood import SegmentOnly
        from hbd3lm.evaluate.perplexity import score_documents

        loaded = run.load()
        layout = loaded.card.layout
        index = [segment.name for segment in layout.segments].index("execution")
        objective = SegmentOnly(loaded.objective, index)
        nats, tokens = {}, {}
        for name, plans in texts.items():
            # A problem without such a plan keeps its place, with the gold one: noise goes by place.
            changed = [replace(e, plan=plans.get(e.id, e.plan)) for e in material.examples]
            documents = build_documents(changed, loaded.tokenizer, layout)
            nll, counts = score_documents(loaded.net, objective, documents, draws, 64)
            rows = zip(material.examples, nll[:, index].tolist(), counts[:, index].tolist())
            nats[name] = {}
            for example, value, count in rows:
                tokens[example.id] = count
                if example.id in plans:
                    nats[name][example.id] = value
        return {"nats": nats, "tokens": tokens, "is_bound": objective.is_bound}

    about = {
        "draws": draws,
        "texts": hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:12],
        "problems": _digest(material.examples),  # whose executions are scored
    }
    return run.measure("likelihoods_by_plan", about, make)


def _attention(run: Run, own: Records) -> dict[str, Any]:
    """Attention of the model's own executions, under its own plans; empty if nobody asks."""
    chosen = list(own.values())[: run.study.settings.attention_problems]
    names = HierarchicalExample.__slots__
    examples = [HierarchicalExample(*(record[name] for name in names)) for record in chosen]

    def make() -> dict[str, Any]:
        from hbd3lm.commands.build import build_documents
        from hbd3lm.evaluate.attention_mass import attention_mass, group_tokens

        loaded = run.load()
        layout = loaded.card.layout
        documents = build_documents(examples, loaded.tokenizer, layout)
        groups = [
            group_tokens(document, example.question, layout, loaded.tokenizer)
            for document, example in zip(documents, examples)
        ]
        found = attention_mass(loaded.net, loaded.objective, documents, groups)
        return {"mass": found.mass.round(6).tolist(), "uniform": found.uniform.round(6).tolist()}

    if not examples:
        return {}
    return run.measure("attention", {"texts": _digest(examples)}, make)


# --- what a record shows ------------------------------------------------------------------------


def agreement(plan: str, execution: str) -> float | None:
    """How much an execution does of what a plan says: 1 - distance / length of the longer.

    1: the same operations in the same order. 0: nothing in common, or no calculation that can be
    read. None: the plan names no operation.
    """
    said, done = plan_operations(plan), solution_operations(execution)
    if not said:
        return None
    found = compare_operations(said, done)
    return found.similarity if found else 0.0


def holds_any(record: Mapping[str, Any], numbers: Sequence[float]) -> bool:
    """Whether an execution writes one of ``numbers``."""
    written = {float(number_value(number)) for number in find_numbers(record["execution"])}
    return any(number in written for number in numbers)


@dataclass(frozen=True)
class Likeness:
    """Two plans side by side.

    Attributes:
        identical: to the letter.
        similarity: of their words, 1 if all are the same (difflib's ratio).
        operations: the same in the same order.
    """

    identical: bool
    similarity: float
    operations: bool


def compare_texts(first: str, second: str) -> Likeness:
    """How alike two plans are."""
    matcher = difflib.SequenceMatcher(None, first.split(), second.split(), autojunk=False)
    same = plan_operations(first) == plan_operations(second)
    return Likeness(first == second, matcher.ratio(), same)


def likeness(
    measured: Measured, change: str, names: Mapping[str, Mapping[str, str]]
) -> dict[str, Likeness]:
    """Plans for changed questions beside those for the original ones, by problem.

    Names are changed back before plans are compared.
    """
    found = {}
    for key, record in measured.asked[change].items():
        plan = record["plan"]
        if change == "names":
            plan = replace_names(plan, {new: old for old, new in names[key].items()})
        found[key] = compare_texts(measured.given[OWN][key]["plan"], plan)
    return found


def unlike(measured: Measured, material: Material) -> dict[str, Likeness]:
    """The same for plans of two different problems: how alike plans are anyway."""
    own = measured.given[OWN]
    ids = [example.id for example in material.examples]
    order = np.random.default_rng(0).permutation(len(ids))
    pairs = {ids[a]: ids[b] for a, b in zip(order, np.roll(order, 1))}
    return {a: compare_texts(own[a]["plan"], own[b]["plan"]) for a, b in pairs.items()}
