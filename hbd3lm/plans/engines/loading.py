"""What engines share when they start: the library, the model, the say in constrained decoding.

Everything that can be known without loading is checked before, so that a wrong path costs a
second and one message, not minutes and a traceback of the engine's.
"""

from __future__ import annotations

import hashlib
from importlib import import_module
from pathlib import Path
from types import ModuleType

from hbd3lm.data.hub import hub_endpoint, hub_reachable
from hbd3lm.errors import UserError

WITHOUT_MODEL = "--planner rules or --planner socratic need no language model"
GGUF_MAGIC = b"GGUF"
_ENDS = 1 << 20


def import_engine(module: str, extra: str, what: str | None = None) -> ModuleType:
    """The library behind an engine, or behind ``what`` it is asked for.

    Raises:
        UserError: it is not installed, or its installation is broken.
    """
    try:
        return import_module(module)
    except (ImportError, RuntimeError, OSError) as error:  # a broken binary raises either
        raise UserError(
            f"{what or '--planner ' + extra} needs the package {module}: "
            f"pip install 'hbd3lm[{extra}]' (or -e '.[{extra}]'); {WITHOUT_MODEL} ({reason(error)})"
        ) from error


def reason(error: BaseException, limit: int = 300) -> str:
    """The first line of what a library says, for one message of ours."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:limit]


def pick_constrained(choice: str, default: bool) -> bool:
    """``--constrained auto|on|off`` as a yes or no; ``default`` is what auto means.

    Raises:
        UserError: another word.
    """
    if choice not in ("auto", "on", "off"):
        raise UserError(f"--constrained {choice}: choose from auto, on, off")
    return default if choice == "auto" else choice == "on"


def check_positive(**values: int | None) -> None:
    """Refuse whole numbers below 1 by the name of their flag; None passes."""
    for name, value in values.items():
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}: at least 1 is needed")


def model_fingerprint(model: str | Path) -> str | None:
    """16 hex digits that name the weights of a local model; None for a name on the hub.

    Of names, sizes, first and last megabyte of its files: another model under the same path is
    noticed without reading gigabytes.
    """
    path = Path(model)
    if not path.exists():
        return None
    kinds = {".gguf", ".safetensors", ".bin", ".json"}
    files = sorted(f for f in path.iterdir() if f.suffix in kinds) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as content:
            digest.update(content.read(_ENDS))
            content.seek(max(0, size - _ENDS))
            digest.update(content.read(_ENDS))
    return digest.hexdigest()[:16]


def is_gguf(path: Path) -> bool:
    """Whether the file ``path`` begins as GGUF files do."""
    with path.open("rb") as file:
        return file.read(len(GGUF_MAGIC)) == GGUF_MAGIC


def check_model(model: str, planner: str, revision: str | None = None) -> None:
    """``model`` can be a directory of a transformers model, or a hub name within reach.

    Raises:
        UserError: no such path, a GGUF file, a directory without ``config.json``, a hub name
            that is neither in the cache nor reachable.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        if (path / "config.json").is_file():
            return
        if gguf := sorted(path.glob("*.gguf")):
            raise UserError(f"--model {model}: {_gguf_remedy(planner, gguf[0])}")
        raise UserError(
            f"--model {model}: the folder has no config.json, so it holds no model; name the "
            "folder that save_pretrained() or the hub's download wrote"
        )
    if path.is_file():
        if is_gguf(path):
            raise UserError(f"--model {model}: {_gguf_remedy(planner, path)}")
        raise UserError(f"--model {model} is a file; name the folder with its config.json")
    if model.startswith((".", "/", "~", "\\")) or model.count("/") > 1 or not model.strip("/"):
        raise UserError(f"--model {model}: there is no such folder")
    if not hub_reachable() and not _is_cached(model, revision):
        at = f" at revision {revision}" if revision else ""
        raise UserError(
            f"--model {model}: there is no such folder, the hub's cache lacks it{at}, and the hub "
            f"({hub_endpoint()}) cannot be reached or is switched off; name a local folder with "
            "the model, or set HF_ENDPOINT to a mirror"
        )


def check_gguf(model: str) -> Path:
    """``model`` as the path of a GGUF file with a chat template.

    Raises:
        UserError: no such file, not a GGUF file, or one without a chat template.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        found = ", ".join(file.name for file in sorted(path.glob("*.gguf"))) or "none"
        raise UserError(f"--model {model} is a folder; name a .gguf file (in it: {found})")
    if not path.is_file():
        raise UserError(f"--model {model}: there is no such file; --planner llamacpp reads a .gguf")
    if not is_gguf(path):
        raise UserError(
            f"--model {model} is no GGUF file; name one, or use --planner transformers or vllm"
        )
    # Metadata comes before the weights and holds its keys as they are. Without a template
    # llama.cpp would quietly write one that the model has never seen.
    with path.open("rb") as file:
        if b"tokenizer.chat_template" not in file.read(_METADATA_BYTES):
            raise no_chat_template(model)
    return path


_METADATA_BYTES = 64 * 1024 * 1024  # vocabularies of 256k tokens take about 15 MB


def no_chat_template(model: str, why: str = "it has no chat template") -> UserError:
    """The error for a model that cannot be talked to."""
    return UserError(
        f"--model {model}: {why}; choose an instruction-tuned model (often named ...-Instruct or "
        "...-it), whose template comes with its tokenizer"
    )


def _gguf_remedy(planner: str, path: Path) -> str:
    return (
        f"{path.name} is a GGUF file, which --planner {planner} does not read; use --planner "
        f"llamacpp --model {path}, or convert it: AutoModelForCausalLM.from_pretrained(folder, "
        f"gguf_file={path.name!r}) and save_pretrained() of transformers, model and tokenizer"
    )


def _is_cached(model: str, revision: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(model, "config.json", revision=revision), str)
    except HFValidationError as error:
        raise UserError(
            f"--model {model}: neither a folder nor a name the hub could know: {reason(error)}"
        ) from None
