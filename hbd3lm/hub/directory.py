"""An exported model as files: what ``transformers.AutoModel`` and hbd3lm both load.

config.json, model.safetensors          the card and the (averaged) weights
tokenizer.json, tokenizer_config.json   for AutoTokenizer
generation_config.json                  how to sample: the run's ``sampling`` settings
modeling_hbd3lm.py, hbd3lm_bundle.py    the code AutoModel runs
README.md, LICENSE                      the model card and the licence of the code
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from hbd3lm.data.tokenizer import FILL, MASK, SEGMENT_END, ProblemTokenizer
from hbd3lm.errors import UserError
from hbd3lm.files import atomic_folder, atomic_write, read_json, read_text, writing
from hbd3lm.hub.bundle import AUTO_MAP, remote_code
from hbd3lm.model.checkpoint import CONFIG_FILE, KEY, WEIGHTS_FILE, ModelCard
from hbd3lm.model.transformer import Transformer
from hbd3lm.sample.strategies import SamplingConfig

GENERATION_FILE = "generation_config.json"
_NOT_OF_THE_MODEL = ("batch_size", "seed", "trajectory")


def write_exported(
    folder: str | Path,
    net: Transformer,
    card: ModelCard,
    tokenizer: ProblemTokenizer,
    readme: str,
    overwrite: bool = False,
) -> None:
    """Write the folder: all of it, or (if anything fails) nothing.

    Raises:
        UserError: see :func:`check_target`.
    """
    from safetensors.torch import save

    folder = Path(folder)
    check_target(folder, overwrite)
    weights = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    sampling = sampling_defaults(card.settings.get("sampling", {}))
    texts = {
        CONFIG_FILE: _json(_config(card, tokenizer, weights)),
        "tokenizer.json": tokenizer.to_json(),
        "tokenizer_config.json": _json(_tokenizer_config(card)),
        GENERATION_FILE: _json(_generation_config(sampling, tokenizer)),
        "README.md": readme,
        "LICENSE": licence(),
        **remote_code(),
    }
    with atomic_folder(folder, "--output_dir") as temporary:
        with atomic_write(temporary / WEIGHTS_FILE, "wb") as file:
            # transformers refuses a file that does not name its format
            file.write(save(weights, metadata={"format": "pt"}))
        for name, text in texts.items():
            with atomic_write(temporary / name) as file:
                file.write(text)


def check_target(
    folder: Path,
    overwrite: bool,
    sign: tuple[str, str] = (CONFIG_FILE, f'"{KEY}"'),
    kind: str = "exported model",
) -> None:
    """Refuse a place that holds something else.

    Args:
        sign: the file, and the text in it, by which a folder of this kind is known.

    Raises:
        UserError: a file, a folder with content without ``overwrite``, or with it a folder that
            is no exported model.
    """
    with writing(folder, "--output_dir"):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--output_dir: {folder} is a file; name a folder")
        if not folder.is_dir() or not any(folder.iterdir()):
            return
    if not overwrite:
        raise UserError(
            f"--output_dir: {folder} is not empty; choose another folder, or give --overwrite"
        )
    file = folder / sign[0]
    if not file.is_file() or sign[1] not in file.read_text("utf-8", errors="replace"):
        raise UserError(
            f"--output_dir: {folder} is no {kind}, so --overwrite does not delete it; "
            "choose another folder"
        )


def sampling_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """The settings of a sampler that belong to a model: not those of one call, such as the seed."""
    names = [f.name for f in fields(SamplingConfig) if f.name not in _NOT_OF_THE_MODEL]
    return {name: values[name] for name in names if name in values}


def read_sampling(folder: Path) -> dict[str, Any]:
    """What ``generation_config.json`` says of sampling; nothing where there is no such file.

    Raises:
        UserError: the file is damaged.
    """
    file = folder / GENERATION_FILE
    if not file.is_file():
        return {}
    remedy = "remove it or export again"
    values = read_json(file, "sampling", remedy).get(KEY, {})
    if not isinstance(values, dict):
        raise UserError(f"{file} is damaged ({KEY!r} is no object); {remedy}")
    return sampling_defaults(values)


def _json(values: dict) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def _config(card: ModelCard, tokenizer: ProblemTokenizer, weights: dict) -> dict:
    import transformers

    return {
        "model_type": KEY,
        "architectures": ["HBD3LMModel"],
        "auto_map": AUTO_MAP,
        "dtype": str(next(iter(weights.values())).dtype).removeprefix("torch."),
        "transformers_version": transformers.__version__,
        "special_ids": {
            "fill": tokenizer.fill_id,
            **tokenizer.end_ids,
            "mask": tokenizer.mask_id,
        },
        "card": card.to_dict(),
    }


def _tokenizer_config(card: ModelCard) -> dict:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": FILL,
        "eos_token": SEGMENT_END["execution"],
        "mask_token": MASK,
        "extra_special_tokens": [SEGMENT_END["question"], SEGMENT_END["plan"]],
        "split_special_tokens": True,  # "<|mask|>" typed by a user is text, as in hbd3lm
        "clean_up_tokenization_spaces": False,
        "model_max_length": card.layout.max_len,
    }


def _generation_config(sampling: dict, tokenizer: ProblemTokenizer) -> dict:
    return {
        "pad_token_id": tokenizer.fill_id,
        "eos_token_id": tokenizer.execution_end_id,
        KEY: sampling,
    }


def licence() -> str:
    """The text of the package's licence, from its installation or its source tree."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        text = importlib.metadata.distribution("hbd3lm").read_text("licenses/LICENSE")
        if text is not None:
            return text
    return read_text(Path(__file__).resolve().parents[2] / "LICENSE", "licence of hbd3lm")
