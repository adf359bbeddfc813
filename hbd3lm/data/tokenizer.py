"""Text to token ids and back, and the one home of the special tokens.

A :class:`ProblemTokenizer` is any lossless vocabulary of the field with our five special tokens
appended, so that the ids of the base vocabulary (and the embeddings of a pretrained model) keep
their meaning. ``gsm``, a byte-level BPE that writes numbers digit by digit, ships with the
package and needs neither the network nor ``transformers``.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from hbd3lm.data.hub import hub_endpoint, hub_reachable
from hbd3lm.errors import UserError
from hbd3lm.files import atomic_write

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILL = "<|fill|>"
SEGMENT_END = {
    "question": "<|question_end|>",
    "plan": "<|plan_end|>",
    "execution": "<|execution_end|>",
}
MASK = "<|mask|>"

SPECIAL_TOKENS: tuple[str, ...] = (FILL, *SEGMENT_END.values(), MASK)
"""Appended to every base vocabulary in this order. The mask comes last: it is never predicted,
so the model's output head simply has one row less than its embedding."""

_SAMPLE = "Tom sold 48/2 = 24 clips at $3.50 (half price).\n#### 84"


class ProblemTokenizer:
    """A base vocabulary with :data:`SPECIAL_TOKENS` at its end.

    Attributes:
        name: what the user called it (``gsm``, ``gpt2``, a folder or a hub id).
        vocab_size: number of ids, the special ones included.
        fill_id, question_end_id, plan_end_id, execution_end_id, mask_id: the special ids;
            ``mask_id == vocab_size - 1``.
        end_ids: the end token's id by segment: ``question``, ``plan``, ``execution``.
    """

    def __init__(self, backend: Tokenizer, name: str) -> None:
        """Take over ``backend``, appending the special tokens unless it already ends in them.

        Raises:
            UserError: the vocabulary cannot carry them, or loses text (see :meth:`_check`).
        """
        from tokenizers import AddedToken

        self.name = name
        self._backend = backend
        known = [backend.token_to_id(token) is not None for token in SPECIAL_TOKENS]
        if not any(known):
            backend.add_special_tokens(
                [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
            )
        self._encode_specials_as_text()
        ids = [backend.token_to_id(token) for token in SPECIAL_TOKENS]
        # Not get_vocab_size(): a vocabulary may have holes, an embedding table may not.
        self.vocab_size: int = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        first = self.vocab_size - len(SPECIAL_TOKENS)
        if ids != list(range(first, self.vocab_size)):
            raise UserError(
                f"tokenizer {name!r}: its vocabulary must end in {' '.join(SPECIAL_TOKENS)}, in "
                f"this order, or hold none of them; found the ids {ids} of {self.vocab_size}"
            )
        self.fill_id, self.question_end_id, self.plan_end_id, self.execution_end_id = ids[:4]
        self.mask_id: int = ids[4]
        self.end_ids: dict[str, int] = dict(zip(SEGMENT_END, ids[1:4]))
        self._check()

    def __repr__(self) -> str:
        return f"ProblemTokenizer({self.name!r}, vocab_size={self.vocab_size})"

    def __len__(self) -> int:
        return self.vocab_size

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._encode_specials_as_text()  # the flag does not survive pickling (data workers)

    def _encode_specials_as_text(self) -> None:
        # "<|mask|>" written by a user is seven ordinary characters or so, never the mask id.
        self._backend.encode_special_tokens = True

    def _check(self) -> None:
        """Refuse a vocabulary that loses text: digits, newlines and ``####`` must come back.

        Also catches a tokenizer built from nothing: in transformers 5,
        ``GPT2TokenizerFast(vocab_file=...)`` silently gives one of a single token.
        """
        if self.vocab_size - len(SPECIAL_TOKENS) < 256:
            raise UserError(
                f"tokenizer {self.name!r} has only {self.vocab_size - len(SPECIAL_TOKENS)} "
                "tokens: its files are incomplete; the folder needs tokenizer.json, or "
                "vocab.json and merges.txt"
            )
        back = self.decode(self.encode(_SAMPLE))
        if back != _SAMPLE:
            raise UserError(
                f"tokenizer {self.name!r} loses text: {_SAMPLE!r} comes back as {back!r}; "
                "use a byte-level one (tokenizer=gsm, tokenizer=gpt2)"
            )

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``, without any special token."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """:meth:`encode` of each text, in parallel."""
        batch = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of ``text`` and the stretch of characters (start, end) that each stands for."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of ``ids``; special tokens are left out, or spelled out if not skipped.

        Bytes that are no UTF-8 (a model may sample half a character) become U+FFFD.
        """
        return self._backend.decode(list(ids), skip_special_tokens=skip_special)

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits that name vocabulary, merges and special tokens.

        Stored in a checkpoint, so that one used with another tokenizer is refused.
        """
        merges = json.loads(self._backend.to_str())["model"].get("merges", [])
        vocabulary = sorted(
            (index, token)
            for token, index in self._backend.get_vocab(with_added_tokens=True).items()
        )
        # A merge is "a b" in older files and ["a", "b"] in newer ones.
        pairs = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in merges]
        content = json.dumps([vocabulary, pairs, SPECIAL_TOKENS], ensure_ascii=True)
        return hashlib.sha256(content.encode("ascii")).hexdigest()[:16]

    def is_special(self, index: int) -> bool:
        """Is it one of the tokens that no text is made of (ours, or the base vocabulary's own)?"""
        token = self._backend.get_added_tokens_decoder().get(index)
        return token is not None and token.special

    def to_json(self) -> str:
        """The content of a ``tokenizer.json``, special tokens included."""
        return self._backend.to_str()

    def save(self, directory: str | Path) -> None:
        """Write ``tokenizer.json``; ``load_tokenizer(directory)`` reads it back."""
        with atomic_write(Path(directory) / "tokenizer.json") as file:
            file.write(self.to_json())


def load_tokenizer(
    name_or_path: str | Path, data_dir: str | Path | None = None
) -> ProblemTokenizer:
    """Load a tokenizer by name, from a folder or from the hub.

    Args:
        name_or_path: ``gsm`` (ships with the package), ``gpt2``, a local folder
            (``tokenizer.json``, or the files transformers reads) or a hub id.
        data_dir: where ``gpt2`` is looked for first, as a folder of that name; by default
            ``HBD3LM_DATA_DIR``.

    Raises:
        UserError: not to be had (the message says how to do without), or not lossless.
    """
    from tokenizers import Tokenizer

    name = str(name_or_path)
    if name == "gsm":
        file = resources.files("hbd3lm.data") / "tokenizer_files" / "gsm.json"
        return ProblemTokenizer(Tokenizer.from_str(file.read_text(encoding="utf-8")), name)
    folder = Path(name)
    if name == "gpt2":
        data_dir = data_dir or os.environ.get("HBD3LM_DATA_DIR")
        folder = Path(data_dir or "", "gpt2")
    if folder.is_dir():
        return ProblemTokenizer(_from_folder(folder, name), name)
    if folder.exists():
        raise UserError(f"tokenizer: {folder} is a file; give the folder that holds it")
    if folder.is_absolute() or name.startswith("."):
        raise UserError(
            f"tokenizer: no such folder: {folder}; give a folder with a tokenizer, or use "
            "tokenizer=gsm, which ships with the package"
        )
    return ProblemTokenizer(_from_hub(name), name)


def _from_folder(folder: Path, name: str) -> Tokenizer:
    from tokenizers import Tokenizer

    if (folder / "tokenizer.json").is_file():
        try:
            return Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the Rust library raises bare Exception
            raise UserError(
                f"tokenizer: {folder / 'tokenizer.json'} cannot be read: {error}"
            ) from None
    return _with_transformers(str(folder), name, local_files_only=True)


def _from_hub(name: str) -> Tokenizer:
    online = hub_reachable()
    try:
        # Offline, an earlier download in the hub's cache still serves.
        return _with_transformers(name, name, local_files_only=not online)
    except UserError as error:
        if online:
            raise
        raise UserError(
            f"tokenizer {name!r}: {hub_endpoint()} cannot be reached, and there is no local copy "
            "(neither a folder of that name, nor one in the data folder, nor the hub's cache); "
            "give a local directory, or use tokenizer=gsm, which ships with the package"
        ) from error


def _with_transformers(source: str, name: str, local_files_only: bool) -> Tokenizer:
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(source, local_files_only=local_files_only)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise UserError(
            f"tokenizer {name!r}: transformers cannot load it from {source}: {reason}; give a "
            "folder or hub id that holds a tokenizer, or use tokenizer=gsm, which ships with "
            "the package"
        ) from error
    if not loaded.is_fast:
        raise UserError(
            f"tokenizer {name!r} exists only in slow Python form; choose one with a "
            "tokenizer.json, or tokenizer=gsm"
        )
    return loaded.backend_tokenizer
