from hbd3lm.plans.rules.steps import read_steps


def test_a_long_line_of_operands_is_read_at_once():
    """Reading equations with one big regular expression took seconds for such a line."""
    sum_of_bills = " + ".join(f"{n} * ${n} bills" for n in range(2, 60))
    steps = read_steps(f"The till has {sum_of_bills}, or {sum_of_bills} = $<<2+3=5>>5.\n#### 5")
    assert len(steps) == 1
