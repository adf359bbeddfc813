"""Examples as token ids: segment ends added, caps enforced, truncation reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hbd3lm.data.records import HierarchicalExample, read_examples

if TYPE_CHECKING:
    from pathlib import Path

    from hbd3lm.data.tokenizer import ProblemTokenizer


@dataclass(frozen=True)
class Caps:
    """Most tokens of each segment, its end token included."""

    question: int = 128
    plan: int = 128
    execution: int = 256


@dataclass(frozen=True)
class EncodedExample:
    """Token ids of one example; each segment closes with its end token unless it was cut."""

    id: str
    question: list[int]
    plan: list[int]
    execution: list[int]


@dataclass
class Truncation:
    """What the caps cut: ids of the examples, by segment."""

    total: int
    caps: Caps
    cut: dict[str, list[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(self.cut.values())

    def __str__(self) -> str:
        """One line a segment, e.g. ``12 of 7473 questions are longer than 128 tokens ...``."""
        lines = []
        for name, ids in self.cut.items():
            if ids:
                shown = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
                end = "start" if name == "question" else "end"
                flag = "exec" if name == "execution" else name
                cap = getattr(self.caps, name)
                lines.append(
                    f"{len(ids)} of {self.total} {name}s are longer than {cap} tokens and lose "
                    f"their {end} ({shown}); raise hierarchical.{flag}_len to keep them whole"
                )
        return "\n".join(lines)


def encode_examples(
    examples: Sequence[HierarchicalExample], tokenizer: ProblemTokenizer, caps: Caps
) -> tuple[list[EncodedExample], Truncation]:
    """Tokenise all segments of all examples.

    A question over its cap loses its first tokens, since what is asked for stands at its end. A
    plan or execution over its cap loses its last tokens *and its end token*: the model must not
    learn that such a segment ends there.
    """
    truncation = Truncation(len(examples), caps)
    columns: dict[str, list[list[int]]] = {}
    for name in ("question", "plan", "execution"):
        cap, end = getattr(caps, name), tokenizer.end_ids[name]
        cut = truncation.cut[name] = []
        column = columns[name] = []
        texts = [getattr(example, name) for example in examples]
        for example, ids in zip(examples, tokenizer.encode_batch(texts)):
            if len(ids) + 1 > cap:
                cut.append(example.id)
                ids = [*ids[len(ids) + 1 - cap :], end] if name == "question" else ids[:cap]
            else:
                ids = [*ids, end]
            column.append(ids)
    rows = zip(examples, columns["question"], columns["plan"], columns["execution"])
    return [EncodedExample(example.id, *ids) for example, *ids in rows], truncation


class HierarchicalDataset:
    """A plan file as a PyTorch map-style data set (what ``gsm8k_dataloader.py`` exports).

    Items are dicts with ``id`` and the int64 tensors ``question_ids``, ``plan_ids`` and
    ``execution_ids``, each of its own length: batches align them to blocks, not to the caps.

    Args:
        data_path: JSON or JSON Lines of examples.
        tokenizer: name or folder for :func:`load_tokenizer`, or a loaded tokenizer.
        question_len, plan_len, exec_len: caps in tokens.

    Raises:
        UserError: see :func:`read_examples` and :func:`load_tokenizer`.
    """

    def __init__(
        self,
        data_path: str | Path,
        tokenizer: str | ProblemTokenizer = "gsm",
        question_len: int = 128,
        plan_len: int = 128,
        exec_len: int = 256,
    ) -> None:
        from hbd3lm.data.tokenizer import load_tokenizer

        self.tokenizer = load_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer
        self.examples = read_examples(data_path)
        self.encoded, self.truncation = encode_examples(
            self.examples, self.tokenizer, Caps(question_len, plan_len, exec_len)
        )

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> dict:
        import torch

        item = self.encoded[index]
        return {
            "id": item.id,
            **{
                f"{name}_ids": torch.tensor(getattr(item, name))
                for name in ("question", "plan", "execution")
            },
        }
