"""``model=pretrained``: sizes, tokenizer and weights of another program's checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, open_dict

from hbd3lm.commands.build import build_layout
from hbd3lm.commands.rank import get_rank
from hbd3lm.data.tokenizer import FILL, MASK, SEGMENT_END, SPECIAL_TOKENS
from hbd3lm.errors import UserError

if TYPE_CHECKING:
    from hbd3lm.data.tokenizer import ProblemTokenizer
    from hbd3lm.model.families.pretrained import Pretrained
    from hbd3lm.model.transformer import Transformer


def resolve_pretrained(cfg: DictConfig) -> Pretrained | None:
    """With ``model=pretrained``: write sizes and tokenizer of ``model.path`` into ``cfg``.

    Returns:
        where the weights are; None for any other model.

    Raises:
        UserError: no checkpoint there, one of an unknown kind, or problems too long for it.
    """
    if "path" not in cfg.model:
        return None
    from hbd3lm.data.hub import download_model
    from hbd3lm.model.families.pretrained import read_pretrained

    if not cfg.model.path:
        raise UserError(
            "model=pretrained needs model.path=...: a folder with config.json and weights, the id "
            "of a model on the hub, or a Lightning file of BD3-LM or MDLM"
        )
    path = Path(str(cfg.model.path))
    if not path.exists():
        if path.is_absolute() or str(cfg.model.path).startswith("."):
            raise UserError(f"model.path: no such file or folder: {path}")
        path = download_model(str(cfg.model.path), "model.path", pickles=True)
    source = read_pretrained(path)
    if source.note and not get_rank():
        print(f"model.path: {path}: {source.note}")
    total = build_layout(cfg).max_len
    if source.max_len is not None and total > source.max_len:
        raise UserError(
            f"model.path: the model in {path} reads at most {source.max_len} tokens (its "
            f"max_position_embeddings, sliding_window or model_length), and a problem may have "
            f"{total}; set training.hierarchical.total_len={source.max_len}"
        )
    # Models of next tokens predict the next position and see what stands before; those with a mask
    # token do neither.
    next_token = source.mask_id is None
    pretrained = {"shift": next_token, "causal_context": next_token}
    pretrained = {name: value for name, value in pretrained.items() if cfg.model[name] is None}
    with open_dict(cfg):
        cfg.model.update(source.fields | pretrained)
        cfg.tokenizer.name = str(source.tokenizer or path)
    return source


def check_vocabulary(source: Pretrained, tokenizer: ProblemTokenizer) -> None:
    """Refuse weights and a tokenizer that were not made for one another, as far as one can tell.

    Embeddings may have a few more rows than there are tokens (padding for fast products), never
    fewer; and what the configuration says ends a text must be a special token.

    Raises:
        UserError: they do not fit.
    """
    base = tokenizer.vocab_size - len(SPECIAL_TOKENS)
    where = f"model.path: {source.path}: the tokenizer {tokenizer.name!r}"
    remedy = "use the checkpoint with its own tokenizer files"
    if not base <= source.rows <= base + max(8, source.rows // 100):
        raise UserError(f"{where} has {base} tokens, the embedding {source.rows} rows; {remedy}")
    for index in source.end_ids:
        if index >= base or not tokenizer.is_special(index):
            raise UserError(
                f"{where} has no special token {index}, which ends a text for the network "
                f"(eos_token_id); {remedy}"
            )


def fill_pretrained(
    net: Transformer, source: Pretrained, tokenizer: ProblemTokenizer, seed: int
) -> dict[str, str]:
    """Give ``net`` the weights of ``source``; see :func:`fill_network`.

    The ends of question and plan start as a line end, that of the execution and the fill as the
    checkpoint's end of text, and the mask as the mean of all tokens: of the starts tried, those
    with the lowest loss before any training.

    Returns:
        for the run's card: ``path`` of the weights and their ``fingerprint``.
    """
    from hbd3lm.model.checkpoint import fingerprint_weights
    from hbd3lm.model.families.pretrained import fill_network

    end = source.end_ids[0] if source.end_ids else None
    line = tokenizer.encode("\n")
    line_end = line[0] if len(line) == 1 else end
    starts = {FILL: end, **dict.fromkeys(SEGMENT_END.values(), line_end), MASK: None}
    starts[SEGMENT_END["execution"]] = end
    fill_network(net, source, [starts[token] for token in SPECIAL_TOKENS], seed)
    return {"path": str(source.path), "fingerprint": fingerprint_weights(net)}
