"""Is the Hugging Face hub there, asked before anything that would otherwise retry for minutes; and
the local copy of a model on it."""

from __future__ import annotations

import http.client
import os
import threading
import urllib.error
import urllib.request
from pathlib import Path

from hbd3lm.errors import UserError

_TRUE = {"1", "ON", "YES", "TRUE"}  # what the hub's own client takes for "set"


def hub_endpoint() -> str:
    """The address of the hub: ``HF_ENDPOINT`` (a mirror), or the public one."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def hub_reachable(timeout: float = 3.0) -> bool:
    """Whether the hub answers within ``timeout`` seconds of wall time.

    Honours ``HF_ENDPOINT``, ``HF_HUB_OFFLINE`` and the usual proxy variables. Any answer of the
    hub counts, save those of a gateway that refuses or fails (403, 407 and 5xx).
    """
    offline = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    if any(value.upper() in _TRUE for value in offline):
        return False
    answered: list[bool] = []
    # The socket timeout does not cover name resolution, which can hang for minutes on a cut-off
    # machine: hence a thread that may be abandoned (a daemon never delays the exit).
    probe = threading.Thread(target=lambda: answered.append(_answers(timeout)), daemon=True)
    probe.start()
    probe.join(timeout)
    return bool(answered and answered[0])


def _answers(timeout: float) -> bool:
    try:
        request = urllib.request.Request(hub_endpoint(), method="HEAD")
        # A fresh opener: urlopen() keeps the proxies it saw first.
        with urllib.request.build_opener().open(request, timeout=timeout):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500 and error.code not in (403, 407)
    except (OSError, ValueError, http.client.HTTPException):  # ValueError: not an address at all
        return False


def download_model(
    repo_id: str, what: str, pickles: bool = False, revision: str | None = None
) -> Path:
    """The local copy of a model of the hub; its Python files are not fetched.

    Args:
        what: the flag or key that named it, for messages.
        pickles: also ``.bin`` files, where there are no safetensors.
        revision: branch, tag or commit; None: the newest.

    Raises:
        UserError: there is no such model, or the hub cannot be reached and its cache has none.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    online = hub_reachable()
    patterns = ["*.json", "*.safetensors", "*.txt", "*.model"]
    try:
        if pickles and online:
            files = HfApi().list_repo_files(repo_id, revision=revision)
            if not any(file.endswith(".safetensors") for file in files):
                patterns.append("*.bin")
        folder = snapshot_download(
            repo_id, revision=revision, allow_patterns=patterns, local_files_only=not online
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0]
        if not online:
            reason = f"{hub_endpoint()} cannot be reached, and the hub's cache does not hold it"
        raise UserError(
            f"{what}: no such file or folder: {repo_id}, and as a model of the hub: {reason}"
        ) from None
    return Path(folder)
