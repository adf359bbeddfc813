"""Training of a byte-level BPE for math problems; made once for the shipped ``gsm``."""

from __future__ import annotations

from collections.abc import Iterable

from hbd3lm.data.tokenizer import SPECIAL_TOKENS, ProblemTokenizer
from hbd3lm.errors import UserError

SMALLEST = 256 + len(SPECIAL_TOKENS)
LARGEST = 1_000_000  # the library makes room for all of them beforehand

# Where text is cut before any merge; a token never reaches over a cut.
_PIECES = "|".join(
    [
        "####",  # GSM8K's answer mark
        r"\p{N}",  # digits one by one, never glued to the space before: "4" has one id everywhere
        r"\n",  # a line break alone: it separates the steps
        "'(?:s|t|re|ve|m|ll|d)",
        r" ?\p{L}+",  # a word with the space before it
        r" ?[^\s\p{L}\p{N}#]+|#",  # signs
        r"[^\S\n]+(?!\S)|[^\S\n]+",  # runs of blanks, the last one left to the word that follows
    ]
)


def check_vocab_size(vocab_size: int) -> None:
    """Refuse, by the flag's name, what no vocabulary can be.

    Raises:
        UserError: too small for the bytes and special tokens, or beyond ``LARGEST``.
    """
    if vocab_size < SMALLEST:
        raise UserError(
            f"--vocab_size {vocab_size}: 256 bytes and {len(SPECIAL_TOKENS)} special tokens need "
            f"at least {SMALLEST}"
        )
    if vocab_size > LARGEST:
        raise UserError(f"--vocab_size {vocab_size}: at most {LARGEST} is possible")


def train_bpe(texts: Iterable[str], vocab_size: int, name: str = "bpe") -> ProblemTokenizer:
    """A lossless byte-level BPE with ``vocab_size`` ids, special tokens included.

    The same texts in the same order give the same tokenizer.

    Raises:
        UserError: what :func:`check_vocab_size` refuses, or more than the texts can fill.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    check_vocab_size(vocab_size)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    trained = ProblemTokenizer(tokenizer, name)
    if trained.vocab_size != vocab_size:
        raise UserError(
            f"the texts give only {trained.vocab_size} tokens, not {vocab_size}: use more text or "
            "a smaller --vocab_size"
        )
    return trained
