"""Published data sets on the Hugging Face hub or in its cache: their rows."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from hbd3lm.data.catalogue import Dataset
from hbd3lm.data.hub import hub_endpoint, hub_reachable
from hbd3lm.data.local_files import REMEDY
from hbd3lm.data.rows import Row
from hbd3lm.errors import UserError


class HubOutOfReachError(Exception):
    """The hub does not answer and its cache lacks the data set; the message says so."""


def read_hub_rows(spec: Dataset, split: str) -> tuple[list[Row], str]:
    """All rows of a split, and the address they are read from, for people.

    Raises:
        HubOutOfReachError: neither the hub nor its cache gives them.
        UserError: the hub answers, and the data set cannot be read or has no rows.
    """
    address = f"{spec.repo} {spec.config}" if spec.config else spec.repo
    cache = _hub_cache()
    if offline := _wants_offline() or not hub_reachable():
        if not _is_cached(spec.repo, cache):
            state = "is switched off" if _wants_offline() else "cannot be reached"
            raise HubOutOfReachError(
                f"the hub ({hub_endpoint()}) {state} and its cache {cache} has no {spec.repo}"
            )
        place, mode = f"the hub's cache: {address}", _offline()
    else:
        place, mode = f"the hub: {address}", contextlib.nullcontext()
    with mode:
        values = _download(spec, split, cache, offline)
    rows = [Row(value, index, f"{address}, row {index}") for index, value in enumerate(values)]
    if not rows:
        raise UserError(f"{address} holds no {split} problems; {REMEDY}")
    return rows, place


def _download(spec: Dataset, split: str, cache: Path, offline: bool) -> list[object]:
    import datasets

    try:
        return [
            row
            for hub_split in spec.hub_splits[split]
            for row in datasets.load_dataset(
                spec.repo, spec.config, split=hub_split, cache_dir=str(cache)
            )
        ]
    except Exception as error:  # any library below may raise its own; none is swallowed
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if offline:  # e.g. another configuration of the data set is all the cache has
            raise HubOutOfReachError(
                f"the hub ({hub_endpoint()}) cannot be reached and its cache {cache} is of no "
                f"use: {reason}"
            ) from error
        if _is_network_failure(error):
            raise HubOutOfReachError(f"the hub ({hub_endpoint()}) failed: {reason}") from error
        raise UserError(f"{spec.repo} cannot be loaded from the hub: {reason}; {REMEDY}") from error


def _is_network_failure(error: BaseException | None) -> bool:
    while error is not None:
        library = type(error).__module__.partition(".")[0]
        if isinstance(error, (ConnectionError, TimeoutError)) or library in ("httpx", "requests"):
            return True
        error = error.__cause__
    return False


def _hub_cache() -> Path:
    from huggingface_hub import constants

    folder = os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets"
    return Path(folder).expanduser()


def _is_cached(repo: str, cache: Path) -> bool:
    """Whether ``datasets`` has prepared ``repo`` before; asked without importing it."""

    def letters(name: str) -> str:
        # The library writes ChilleD/MultiArith as ChilleD___multi_arith.
        return re.sub(r"[/_]", "", name).lower()

    return cache.is_dir() and any(letters(entry.name) == letters(repo) for entry in cache.iterdir())


def _wants_offline() -> bool:
    names = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in names)


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Offline mode, which the libraries otherwise only read from the environment at import.

    Without it they would retry for minutes a hub that we already know to be out of reach.
    """
    import datasets.config
    import huggingface_hub.constants

    switches = (datasets.config, huggingface_hub.constants)
    before = [module.HF_HUB_OFFLINE for module in switches]
    try:
        for module in switches:
            module.HF_HUB_OFFLINE = True
        yield
    finally:
        for module, value in zip(switches, before):
            module.HF_HUB_OFFLINE = value
