"""A trained model in three lines: ``HBD3LM.from_pretrained(...).solve(question).answer``."""

from __future__ import annotations

import queue
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbd3lm.commands.build import load_trained_tokenizer
from hbd3lm.data.answers import strict_answer
from hbd3lm.data.hub import download_model, hub_endpoint, hub_reachable
from hbd3lm.data.records import HierarchicalExample
from hbd3lm.errors import UserError
from hbd3lm.evaluate.answers import Generation, GenerationRun, generate
from hbd3lm.evaluate.trajectories import Trajectory, describe_trajectory
from hbd3lm.hub.bundle import MODELING_FILE
from hbd3lm.hub.directory import read_sampling, sampling_defaults
from hbd3lm.model.checkpoint import ModelCard, load_network
from hbd3lm.model.transformer import Transformer
from hbd3lm.sample.strategies import SamplingConfig

if TYPE_CHECKING:
    from hbd3lm.data.tokenizer import ProblemTokenizer
    from hbd3lm.sample.trajectory import Event


class _LeftError(Exception):
    """Ends a sampling whose spectator has left."""


@dataclass(frozen=True)
class Solution:
    """What the model wrote for one question.

    Attributes:
        plan: the plan it followed: its own, or the one given; None for a model without plans.
        execution: the calculation.
        answer: the number on the execution's answer line (``#### 54``); None without such a line.
        evaluations: network evaluations it took.
        trajectory: with ``trajectory=True`` what each of them decided, token by token.
    """

    plan: str | None
    execution: str
    answer: str | None
    evaluations: int = 0
    trajectory: Trajectory | None = None


class HBD3LM:
    """A network with its tokenizer and the settings it samples with.

    Attributes:
        net, card, tokenizer: the model.
        sampling: fields of :class:`SamplingConfig`; ``solve`` may change any of them for a call.
        path: where it was loaded from.
    """

    def __init__(
        self,
        net: Transformer,
        card: ModelCard,
        tokenizer: ProblemTokenizer,
        sampling: dict[str, Any],
        path: Path,
    ) -> None:
        self.net, self.card, self.tokenizer = net, card, tokenizer
        self.sampling, self.path = sampling, path

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, device: str | None = None, revision: str | None = None
    ) -> HBD3LM:
        """Load an exported folder, a checkpoint file, or a model of the Hugging Face hub.

        No code of the folder or file is run.

        Args:
            device: None: the GPU where there is one.
            revision: branch, tag or commit of a model of the hub; None: its newest.

        Raises:
            UserError: not to be had, damaged, or of another program.
        """
        import torch

        path = Path(name_or_path)
        if not path.exists():
            path = download_model(str(name_or_path), "from_pretrained", revision=revision)
        net, card = load_network(path, what="from_pretrained")
        tokenizer = load_trained_tokenizer(card, path)
        if path.is_dir():
            sampling = read_sampling(path)
        else:
            sampling = sampling_defaults(card.settings.get("sampling", {}))
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(net.to(device), card, tokenizer, sampling, path)

    def solve(
        self,
        question: str | Sequence[str],
        plan: str | Sequence[str] | None = None,
        **sampling: Any,
    ) -> Solution | list[Solution]:
        """Solve one question, or many at once (then the result is a list).

        Args:
            plan: the plan to follow, one a question; None: the model writes its own.
            sampling: fields of :class:`SamplingConfig`, e.g. ``temperature=0.7, seed=1``, or
                ``trajectory=True`` to have every step recorded.

        Raises:
            UserError: a setting that does not exist or fit, a plan for a model without plans.
        """
        one = isinstance(question, str)
        questions = [question] if one else list(question)
        plans = [plan] if isinstance(plan, str) else plan and list(plan)
        if plans is not None and len(plans) != len(questions):
            raise UserError(f"solve: {len(plans)} plans for {len(questions)} questions")
        run = self._generate(questions, plans, sampling)
        solutions = [
            self._solution(generation, plans[i] if plans else None)
            for i, generation in enumerate(run.generations)
        ]
        return solutions[0] if one else solutions

    def watch(self, question: str, plan: str | None = None, **sampling: Any) -> Iterator[Solution]:
        """Solve one question, yielding the solution as far as it is written after every pass.

        The last one is what ``solve`` with ``trajectory=True`` gives; those before hold the text
        decided so far, and no answer. Leaving the loop early ends the sampling.

        Raises:
            UserError: as :meth:`solve`.
        """
        passes: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        left = threading.Event()
        flat = not self.card.layout.has_plan

        def take(_: int, event: Event) -> None:
            if left.is_set():
                raise _LeftError
            passes.put(event)

        sampling = sampling | {"trajectory": True}
        with ThreadPoolExecutor(1) as pool:
            plans = None if plan is None else [plan]
            future = pool.submit(self._generate, [question], plans, sampling, take)
            future.add_done_callback(lambda _: passes.put(None))
            events: list[Event] = []
            try:
                while (event := passes.get()) is not None:
                    events.append(event)
                    trajectory = describe_trajectory(events, self.tokenizer)
                    yield Solution(
                        plan if plan is not None or flat else trajectory.text("plan"),
                        trajectory.text("execution"),
                        None,
                        event.evaluations,
                        trajectory,
                    )
                yield self._solution(future.result().generations[0], plan)
            finally:
                left.set()

    def _generate(
        self,
        questions: Sequence[str],
        plans: Sequence[str] | None,
        sampling: dict[str, Any],
        on_event: Callable[[int, Event], None] | None = None,
    ) -> GenerationRun:
        known = [f.name for f in fields(SamplingConfig)]
        for name in sampling:
            if name not in known:
                raise UserError(f"solve: there is no {name}; choose from {', '.join(known)}")
        return generate(
            self.net,
            self.card.layout,
            self.tokenizer,
            [
                HierarchicalExample(f"question {i}", text, plans[i] if plans else "", "", "")
                for i, text in enumerate(questions)
            ],
            SamplingConfig(**(self.sampling | sampling)),
            "exec_only" if plans else "full",
            self.card.objective == "autoregressive",
            on_event=on_event,
        )

    @staticmethod
    def _solution(generation: Generation, plan: str | None) -> Solution:
        return Solution(
            generation.plan if plan is None else plan,
            generation.execution,
            strict_answer(generation.execution),
            generation.evaluations,
            generation.trajectory,
        )

    def push_to_hub(self, repo_id: str, private: bool = False) -> str:
        """Upload the exported folder (a checkpoint is exported first); the model's address.

        Raises:
            UserError: see :func:`upload_folder`.
        """
        if self.path.is_dir():
            if not (self.path / MODELING_FILE).is_file():  # a copy of the hub's, as we fetch it
                raise UserError(
                    f"push_to_hub: {self.path} holds no {MODELING_FILE}, without which AutoModel "
                    "could not load the upload; it is not fetched with a model of the hub: "
                    "copy that model on the hub itself, or export a checkpoint of yours"
                )
            return upload_folder(self.path, repo_id, private)
        from hbd3lm.commands.export import export

        with tempfile.TemporaryDirectory() as folder:
            export(self.path, folder)
            return upload_folder(Path(folder), repo_id, private)


def upload_folder(folder: Path, repo_id: str, private: bool = False, kind: str = "model") -> str:
    """Upload an exported folder to the hub, making the repository if needed; its address.

    Args:
        kind: ``model`` or ``dataset``.

    Raises:
        UserError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if not hub_reachable():
        raise UserError(
            f"push_to_hub: {hub_endpoint()} cannot be reached; {folder} is complete and can be "
            "uploaded later"
        )
    api = HfApi()
    try:
        address = api.create_repo(repo_id, private=private, exist_ok=True, repo_type=kind)
        api.upload_folder(repo_id=repo_id, folder_path=folder, repo_type=kind)
    except (HfHubHTTPError, HFValidationError) as error:
        raise UserError(
            f"push_to_hub: the hub refuses {repo_id}: {str(error).strip().splitlines()[0]}; log in "
            "with `hf auth login` and name it USER/NAME"
        ) from None
    return str(address)
