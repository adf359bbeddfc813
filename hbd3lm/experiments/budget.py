"""What an arm is trained with: parameters, steps, problems, floating-point operations.

Counted from shapes (``model/cost.py``): tokens that are computed for these very problems, pairs
that the mask rule lets attention read, no padding, the optimiser's products included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hbd3lm.errors import UserError
from hbd3lm.experiments.settings import compose
from hbd3lm.experiments.study import Study

if TYPE_CHECKING:
    from hbd3lm.model.cost import Lengths

BUDGETS = ("problems", "operations")
PROBLEMS_COUNTED = 2000
"""Training problems whose lengths are taken for those of all."""


@dataclass(frozen=True)
class Budget:
    """Of one arm.

    Attributes:
        steps: optimiser steps.
        valid_every: steps between validations.
        problems: seen in all steps together.
        parameters: of the network.
        operations: of all steps.
        sampling_operations: of writing one problem's gold texts, a step a token.
    """

    steps: int
    valid_every: int
    problems: int
    parameters: int
    operations: float
    sampling_operations: float

    @property
    def settings(self) -> list[str]:
        return [f"training.max_steps={self.steps}", f"training.valid_every={self.valid_every}"]


def find_budgets(study: Study, arms: Mapping[str, Sequence[str]], kind: str) -> dict[str, Budget]:
    """The budget of every arm (name -> overrides); equal in ``kind``.

    ``problems``: the steps are those of the settings. ``operations``: those of the first arm, and
    as many for the others as cost the same, validated as often.

    Raises:
        UserError: another kind.
    """
    if kind not in BUDGETS:
        raise UserError(f"experiment.budget={kind}: choose {' or '.join(BUDGETS)}")
    examples = study.examples("train")[:PROBLEMS_COUNTED]
    found: dict[str, Budget] = {}
    for name, overrides in arms.items():
        budget = _count(study, overrides, examples)
        if kind == "operations" and found:
            first = next(iter(found.values()))
            validations = max(1, first.steps // first.valid_every)
            a_step = budget.operations / budget.steps
            every = max(1, round(first.operations / a_step / validations))
            steps = every * validations
            budget = Budget(
                steps,
                every,
                budget.problems // budget.steps * steps,
                budget.parameters,
                a_step * steps,
                budget.sampling_operations,
            )
        found[name] = budget
    return found


def _count(study: Study, overrides: Sequence[str], examples: Sequence) -> Budget:
    from hbd3lm.commands import build
    from hbd3lm.commands.pretrained_start import resolve_pretrained
    from hbd3lm.commands.settings import typed
    from hbd3lm.data.tokenizer import load_tokenizer
    from hbd3lm.model import cost
    from hbd3lm.train.config import TrainingConfig

    cfg = compose([*study.base, *study.data, *overrides])
    resolve_pretrained(cfg)  # sizes and tokenizer of model=pretrained
    tokenizer = load_tokenizer(cfg.tokenizer.name, cfg.data.dir)
    card = build.build_card(cfg, tokenizer)
    training = typed(TrainingConfig, cfg.training, "training").for_processes(1)
    # What the caps cut is reported where the model is trained.
    documents = build.build_documents(list(examples), tokenizer, card.layout, lambda _: None)
    lengths = [_lengths(document, len(card.layout.segments)) for document in documents]
    autoregressive = card.objective == "autoregressive"
    shapes = cost.expected_shapes(
        card.layout,
        lengths,
        modules=card.model.modules,
        times=(cfg.algo.t_min, cfg.algo.t_max),
        autoregressive=autoregressive,
        shift=card.model.shift,
        causal_context=card.model.causal_context,
    )
    a_problem = cost.step_operations(card.model, shapes).total / len(lengths)
    a_step = training.batch_size * training.accumulate
    operations = a_step * a_problem + cost.optimizer_operations(card.model, training.optimizer)
    sampling = [
        cost.sampling_cost(
            card.model, card.layout, one, asked="masked", autoregressive=autoregressive
        ).operations.total
        for one in lengths[:200]
    ]
    return Budget(
        steps=training.max_steps,
        valid_every=training.valid_interval,
        problems=training.max_steps * a_step,
        parameters=sum(m.total for m in cost.parameters_by_module(card.model).values()),
        operations=operations * training.max_steps,
        sampling_operations=sum(sampling) / len(sampling),
    )


def _lengths(document, segments: int) -> Lengths:
    import numpy as np

    from hbd3lm.model.cost import Lengths

    counts = np.bincount(document.segment[document.real], minlength=segments)
    return Lengths(len(document.question), tuple(counts.tolist()))
