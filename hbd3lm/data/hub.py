"""Is the Hugging Face hub there? Asked before anything that would otherwise retry for minutes."""

from __future__ import annotations

import http.client
import os
import threading
import urllib.error
import urllib.request

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
