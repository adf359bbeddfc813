import json
import math

from hbd3lm.experiments.statistics import Estimate
from hbd3lm.json_values import json_ready


def test_what_json_lacks_becomes_null_a_list_or_a_dictionary():
    value = {"a": math.nan, "b": (1, math.inf), "c": [{"d": Estimate(0.5)}], "e": "text"}
    ready = json_ready(value)
    estimate = {"value": 0.5, "low": None, "high": None}
    assert ready == {"a": None, "b": [1, None], "c": [{"d": estimate}], "e": "text"}
    assert json.loads(json.dumps(ready, allow_nan=False)) == ready
