from hbd3lm.plans.rules.givens import read_givens


def test_givens_are_read_in_digits_and_in_words():
    names = {g.value: g.name for g in read_givens("Six cats eat 250 grams a day; 20% of $40 tips.")}
    assert names[6] == "the given cats"
    assert names[250] == "the given grams per day"
    assert names[20] == "the given percentage"
