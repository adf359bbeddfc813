"""Values as JSON has them."""

from __future__ import annotations

import math
from typing import Any


def json_ready(value: Any) -> Any:
    """``value`` as JSON can hold it, throughout.

    NaN and infinities, which it lacks, become ``None``, tuples become lists, and what has a
    ``to_dict`` becomes that dictionary.
    """
    if hasattr(value, "to_dict"):
        return json_ready(value.to_dict())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    return value
