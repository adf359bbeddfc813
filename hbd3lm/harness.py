"""The model type ``hbd3lm`` of lm-evaluation-harness (the extra ``lm-eval``).

Importing this module registers it. The harness has no list of plug-ins that its own command would
look through, so ``hbd3lm lm_eval ...`` is that command with this module imported first; in Python,
import it and call ``lm_eval.simple_evaluate(model="hbd3lm", ...)``.

Our models read one question. Of a prompt of the harness, which may have solved examples before it,
that is the text between the last ``Question:`` (``Problem:``, ``Q:``) and the answer's mark behind
it; a prompt without marks is the question as it stands. The examples are not read: results are
zero-shot whatever ``--num_fewshot`` says, and the harness should be told 0 so that its records
say so, too.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from hbd3lm.commands.build import build_documents, build_objective
from hbd3lm.data.records import HierarchicalExample
from hbd3lm.errors import UserError
from hbd3lm.evaluate.perplexity import score_documents
from hbd3lm.pretrained import HBD3LM, Solution
from hbd3lm.sample.strategies import SamplingConfig

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ModuleNotFoundError as error:
    if not (error.name or "").startswith("lm_eval"):
        raise
    raise UserError(
        "lm-evaluation-harness is not installed; install it with: pip install 'hbd3lm[lm-eval]' "
        "(in a clone: pip install -e '.[lm-eval]')"
    ) from None

LOG = logging.getLogger("lm_eval.hbd3lm")  # below the harness's own, which prints

_QUESTION = re.compile(r"^(?:Question|Problem|Q):", re.MULTILINE)
_ANSWER = re.compile(r"^(?:[\w-]+ )?(?:Answer|Solution|A):", re.MULTILINE)


def last_question(context: str) -> tuple[str, bool]:
    """The question that a prompt ends in, and whether it was marked as one."""
    marks = list(_QUESTION.finditer(context))
    text = context[marks[-1].end() :] if marks else context
    answers = list(_ANSWER.finditer(text))
    return (text[: answers[-1].start()] if answers else text).strip(), bool(marks)


@register_model("hbd3lm")
class HarnessModel(LM):
    """A trained model as the harness asks it: texts in, texts and likelihoods out.

    Args:
        pretrained: an exported folder, a checkpoint file, or a model of the hub.
        batch_size: problems in flight; ``auto``: as the model's own sampling settings say. No
            result depends on it.
        draws: of the noise, for each likelihood.
        sampling: fields of :class:`SamplingConfig` instead of the model's own, but for the
            temperature and top_p, which the task decides.

    Raises:
        UserError: no such model, or no such setting.
    """

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = "auto",
        max_batch_size: int | None = None,
        device: str | None = None,
        draws: int = 16,
        **sampling: Any,
    ) -> None:
        super().__init__()
        known = {field.name for field in fields(SamplingConfig)} - {"temperature", "top_p"}
        for name in sampling:
            if name not in known:
                raise UserError(
                    f"--model_args: there is no {name}; choose from pretrained, draws, "
                    f"{', '.join(sorted(known))}"
                )
        if not isinstance(draws, int) or draws < 1:
            raise UserError(f"--model_args: draws must be a whole number of at least 1: {draws}")
        if str(device).startswith("cuda") and not torch.cuda.is_available():
            LOG.warning(f"hbd3lm: no GPU for --device {device} (lm-eval's default); using the CPU")
            device = "cpu"
        self.model = HBD3LM.from_pretrained(str(pretrained), device)
        self._device = next(self.model.net.parameters()).device
        self.draws = draws
        if not str(batch_size).startswith("auto"):
            sampling["batch_size"] = int(batch_size)
            if int(batch_size) == 1:
                LOG.warning(
                    "hbd3lm: one problem at a time (--batch_size 1, which is lm-eval's default); "
                    "--batch_size auto solves many at once, with the same results"
                )
        elif max_batch_size is not None:
            sampling["batch_size"] = min(max_batch_size, self._settings({}).batch_size)
        self.model.sampling |= sampling
        self._settings({})  # refuses values that do not fit, before any task is loaded
        self._told: set[str] = set()

    def _settings(self, changes: dict[str, Any]) -> SamplingConfig:
        return SamplingConfig(**(self.model.sampling | changes))

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes beside its results."""
        card = self.model.card
        return {
            "model_num_parameters": self.model.net.count_parameters(),
            "model_objective": card.objective,
            "model_segments": card.layout.to_dict(),
            "model_sampling": vars(self._settings({"temperature": 0.0})),
            "loglikelihood_is": self.likelihood_label,
        }

    @property
    def likelihood_label(self) -> str:
        """What :meth:`loglikelihood` returns, in words."""
        exact = self.model.card.objective == "autoregressive"
        if self.model.card.layout.has_plan:
            value = "exact" if exact else f"NELBO, {self.draws} draws"
            return (
                f"lower bound: log p(plan, text | question) of the model's own plan ({value}), "
                "which is one of the plans that log p(text | question) sums over"
            )
        return "exact" if exact else f"lower bound (NELBO, {self.draws} draws)"

    # -- what the harness asks ----------------------------------------------------------------

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The execution written for each question, cut at the first of the task's stop texts."""
        questions = self._questions([request.args[0] for request in requests])
        texts: list[str] = [""] * len(requests)
        groups: dict[tuple, list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault(tuple(self._of_task(request.args[1]).items()), []).append(i)
        for settings, indices in groups.items():
            solutions = self._solve([questions[i] for i in indices], dict(settings))
            for i, solution in zip(indices, solutions):
                texts[i] = _cut(solution.execution, requests[i].args[1].get("until"))
                self.cache_hook.add_partial("generate_until", requests[i].args, texts[i])
        return texts

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """See :attr:`likelihood_label`; and whether greedy decoding writes just this text.

        The text is taken as a whole execution, its end token included. Of all texts to one
        question the plan is the same, and so is its part of the likelihood.
        """
        contexts = [request.args[0] for request in requests]
        questions = dict(zip(contexts, self._questions(contexts)))
        own = dict(
            zip(questions, self._solve(list(questions.values()), {"temperature": 0.0, "top_p": 1}))
        )
        examples = [
            HierarchicalExample(str(i), questions[c], own[c].plan or "", text.strip(), "")
            for i, (c, text) in enumerate(request.args for request in requests)
        ]
        nats = self._nats(examples)  # [requests, segments]
        for context in own:
            same = [i for i, c in enumerate(contexts) if c == context]
            nats[same, :-1] = nats[same, :-1].mean(0)
        results = []
        for example, context, row, request in zip(examples, contexts, nats, requests):
            greedy = own[context].execution.strip() == example.execution
            results.append((-float(row.sum()), greedy))
            self.cache_hook.add_partial("loglikelihood", request.args, results[-1])
        return results

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Refused: the model has no likelihood of a text that answers no question."""
        raise UserError(
            "this task asks for the perplexity of running text, but hbd3lm models write a "
            "calculation to a question; for theirs use mode=ppl_eval"
        )

    # -- how it is answered -------------------------------------------------------------------

    def _solve(self, questions: list[str], settings: dict[str, Any]) -> list[Solution]:
        return self.model.solve(questions, **settings) if questions else []

    def _questions(self, contexts: Sequence[str]) -> list[str]:
        """The question of each prompt.

        Raises:
            UserError: a prompt without marks that is too long to be a question.
        """
        cap = self.model.card.layout.question_len
        found = []
        for context in contexts:
            question, marked = last_question(context)
            if not marked and len(self.model.tokenizer.encode(question)) >= cap:
                raise UserError(
                    f"the task's prompt begins {question[:60]!r}, marks no question (Question:, "
                    f"Problem:, Q:) and is longer than the {cap} tokens of the model's questions; "
                    "if it has solved examples in front, use --num_fewshot 0"
                )
            found.append(question)
        return found

    def _of_task(self, settings: dict[str, Any]) -> dict[str, Any]:
        """A task's generation settings as ours. What we have no counterpart for is said once."""
        for name in settings.keys() - {"until", "do_sample", "temperature", "top_p"} - self._told:
            self._told.add(name)
            LOG.warning(
                f"hbd3lm: the task sets {name}={settings[name]!r}, which has no counterpart here"
            )
        if not settings.get("do_sample", bool(settings.get("temperature"))):
            return {"temperature": 0.0, "top_p": 1.0}
        return {
            "temperature": float(settings.get("temperature", 1.0)),
            "top_p": float(settings.get("top_p", 1.0)),
        }

    def _nats(self, examples: list[HierarchicalExample]) -> np.ndarray:
        """-log p of every segment, or its bound: [examples, segments].

        Raises:
            UserError: a text is longer than the model's executions.
        """
        card, tokenizer = self.model.card, self.model.tokenizer
        cap = card.layout.segments[-1].max_len
        for example in examples:
            if len(tokenizer.encode(example.execution)) + 1 > cap:
                raise UserError(
                    f"the task's text {example.execution[:60]!r} is longer than the {cap} tokens "
                    "of the model's executions, so it has no likelihood"
                )
        objective = build_objective(card.objective, card.layout, tokenizer.mask_id, card.model)
        config = self._settings({})
        documents = build_documents(examples, tokenizer, card.layout, LOG.warning)
        nats, _ = score_documents(
            self.model.net, objective, documents, self.draws, config.batch_size, config.seed
        )
        return nats


def _cut(text: str, stops: str | Sequence[str] | None) -> str:
    """``text`` up to the first of ``stops``."""
    stops = [stops] if isinstance(stops, str) else stops or []
    places = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return text[: min(places)] if places else text
