from hbd3lm.plans.rules.expressions import Number, Product, Sum, parse_calculation


def test_expressions_ignore_units_and_refuse_what_is_no_arithmetic():
    product = Product(((True, Number(7)), (True, Number(6))))
    assert parse_calculation("7 stickers/page * 6 pages") == product
    assert parse_calculation("7 x 6") == parse_calculation("7 × 6") == product
    assert parse_calculation("$5 - $2") == Sum(((True, Number(5)), (False, Number(2))))
    for text in ("", "7", "x + 3 =", "3 + ", "two", "2**3", "__import__('os')"):
        assert parse_calculation(text) is None, text
