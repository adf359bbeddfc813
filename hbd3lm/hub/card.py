"""The model card (``README.md``) of an exported model, filled from the run that trained it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from hbd3lm.data.catalogue import published_as
from hbd3lm.model.checkpoint import ModelCard


@dataclass(frozen=True)
class RunFacts:
    """What is known of a model besides its card.

    Attributes:
        name: of the model.
        command: the training command, a line to paste.
        summary: the run's ``train_summary.json``, or nothing.
        results: the content of each evaluation of this very checkpoint, by file name.
        plans: rows (what, value) on where the plans it was trained on come from.
        dataset: whose problems they are, by their manifest, which knows where others stood in for
            those of the settings; None: there is none.
    """

    name: str
    command: str
    summary: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    plans: Sequence[tuple[str, str]] = ()
    dataset: str | None = None


def model_card(card: ModelCard, facts: RunFacts, parameters: int) -> str:
    """The text of the card: what it is, how to load it, what it was trained on, what it scores."""
    from huggingface_hub import ModelCardData

    data_name, hub_id = published_as(_data(card, facts))
    data = ModelCardData(
        language="en",
        # Weights that began as somebody else's are not ours to license.
        license=None if _start_name(card) else "mit",
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["hbd3lm", "block-diffusion", "math", "custom_code"],
        datasets=[hub_id] if hub_id else None,
        base_model=_base_model(card),
        model_name=facts.name,
        eval_results=_eval_results(facts) or None,
    )
    segments = ", ".join(f"{s.name} {s.max_len} by {s.block_size}" for s in card.layout.segments)
    modules = {"shared": "one stack", "separate": "a stack each for plan and execution"}
    averaged = (card.settings.get("training") or {}).get("ema_decay")
    rows = [
        ("method", _method(card)),
        ("question →", " → ".join(segment.name for segment in card.layout.segments)),
        ("tokens", f"question {card.layout.question_len}, {segments}"),
        ("network", f"{card.model.n_layers} layers, width {card.model.dim}, "
                    f"{modules[card.model.modules]}, {parameters:,} parameters"),
        ("weights", "average over training (EMA)" if averaged else "of the last step"),
        ("tokenizer", f"{card.tokenizer['name']}, {card.model.vocab_size} ids"),
    ]  # fmt: skip
    return f"""---
{data.to_yaml()}
---

# {facts.name}

A Hierarchical BD3-LM: a language model that solves grade-school math problems, {_describe(card)}.

## Use

```python
from hbd3lm import HBD3LM

model = HBD3LM.from_pretrained("PATH OR ID OF THIS MODEL")
print(model.solve("Ann has 3 bags of 4 apples. How many apples has she?").answer)
```

Without the package, `transformers` loads the same network with the code in this folder, which gives
logits under the model's attention rule (`modeling_hbd3lm.py`); sampling needs the package:

```python
from transformers import AutoModel, AutoTokenizer

model = AutoModel.from_pretrained("PATH OR ID OF THIS MODEL", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained("PATH OR ID OF THIS MODEL", trust_remote_code=True)
```

## What it is

{_table(rows)}

## Training

{_training(card, facts, data_name)}

```bash
{facts.command}
```
{_plans(facts)}
## Results

{_results(facts)}

## Limits

Trained on short word problems in English only; an answer may be wrong however well it reads. A
NELBO is an upper bound on the negative log-likelihood and is not to be set beside exact values.

## Licence

{_licence(card)}
"""


def _data(card: ModelCard, facts: RunFacts) -> str:
    return facts.dataset or (card.settings.get("data") or {}).get("name", "unknown")


def _base_model(card: ModelCard) -> str | None:
    """The id on the hub of the checkpoint that training started from, if it came from there."""
    path = (card.settings.get("model") or {}).get("path")
    start = (card.settings.get("started_from") or {}).get("path")
    if not path or not start or str(PurePath(path)) == start:  # a folder of this machine
        return None
    return path if re.fullmatch(r"[\w.-]+/[\w.-]+", path) else None


def _start_name(card: ModelCard) -> str | None:
    """What training started from, without the folders of this machine; None: from nothing."""
    start = (card.settings.get("started_from") or {}).get("path")
    return _base_model(card) or (PurePath(start).name if start else None)


def _licence(card: ModelCard) -> str:
    text = "The code in this folder is under the MIT licence (`LICENSE`)."
    start = _start_name(card)
    if start:
        text += f" The weights come from those of `{start}`, whose licence goes with them."
    return text


def _method(card: ModelCard) -> str:
    name = (card.settings.get("algo") or {}).get("name")
    return name or card.objective


def _describe(card: ModelCard) -> str:
    if card.objective == "autoregressive":
        return "token by token"
    if card.layout.has_plan:
        return "a plan in words first, then the calculation, both by block diffusion"
    return "by block diffusion"


def _table(rows: list[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _training(card: ModelCard, facts: RunFacts, data_name: str) -> str:
    data = card.settings.get("data") or {}
    source = data_name
    if data.get("train_path"):
        source = f"`{data['train_path']}` (data set setting: {data_name})"
    else:
        planner = (card.settings.get("planner") or {}).get("name")
        if planner and card.layout.has_plan:
            source += f", plans by `{planner}`"
    summary = facts.summary
    if not summary:
        return f"Data: {source}. The run's summary was not at hand when this card was made."
    name = _start_name(card)
    weights = (card.settings.get("started_from") or {}).get("fingerprint")
    weights = f" (weights {weights})" if weights else ""
    lines = [
        *([f"Started from the checkpoint `{name}`{weights}."] if name else []),
        f"Data: {source}; {summary['train_problems']:,} problems, {summary['valid_problems']:,} "
        f"held out for validation.",
        f"Steps: {summary['steps']:,} of {card.settings.get('problems_per_step', '?')} problems, "
        f"precision {summary['precision']}, seed {card.settings.get('seed', '?')}.",
    ]
    if summary.get("frozen"):
        lines.append(f"Frozen: the {summary['frozen']} module.")
    if summary.get("best_valid_nelbo") is not None:
        lines.append(
            f"Best validation loss: {summary['best_valid_nelbo']:.4f} nats per token "
            f"({'exact' if card.objective == 'autoregressive' else 'NELBO'})."
        )
    return "\n".join(f"- {line}" for line in lines)


def _plans(facts: RunFacts) -> str:
    """The section on the plans, or nothing."""
    return f"\n## Plans\n\n{_table(list(facts.plans))}\n" if facts.plans else ""


def _results(facts: RunFacts) -> str:
    rows = ["| metric | value | on |", "|---|---|---|"]
    for result in facts.results.values():
        for part in result.get("segments", {}).values():
            of = part["of"].replace("|", "given")
            value = part["perplexity"]  # None: not finite
            shown = "-" if value is None else f"{value:.3f}"
            rows.append(
                f"| perplexity of {of} ({result['kind']}) | {shown} | {result['token_set']} |"
            )
        for kind in ("strict", "flexible"):
            score = result.get(f"accuracy_{kind}")
            if score:
                rows.append(
                    f"| exact match, {kind} extraction, mode {result['mode']} | "
                    f"{score['value']:.1%} [{score['low']:.1%}, {score['high']:.1%}] | "
                    f"{result['problem_set']} |"
                )
    if len(rows) == 2:
        return "No evaluation of this checkpoint was at hand when this card was made."
    return "\n".join(rows) + "\n\nBrackets hold 95 % intervals (Wilson)."


def _eval_results(facts: RunFacts) -> list:
    """The answers' exact match, as the hub's ``model-index`` wants it."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="text-generation",
            dataset_type="math-word-problems",
            dataset_name=result["problem_set"],
            metric_type="exact_match",
            metric_value=round(result["accuracy_strict"]["value"], 4),
            metric_name=f"exact match ({result['mode']})",
        )
        for result in facts.results.values()
        if "accuracy_strict" in result
    ]
