import pytest

from hbd3lm.data.records import Problem
from hbd3lm.errors import UserError
from hbd3lm.plans.planner import PLANNERS, Planner, load_planner

PROBLEM = Problem(
    "p", "Ann has 3 hats and 4 caps. How many?", "3+4=<<3+4=7>>7\n#### 7", "7", ("?",)
)


@pytest.mark.parametrize("name", ["rules", "socratic"])
def test_a_planner_without_a_model_loads_by_name_and_keeps_the_protocol(name):
    planner = load_planner(name)
    assert planner.name == name
    assert isinstance(planner, Planner)


def test_every_advertised_planner_is_listed_when_the_name_is_unknown():
    with pytest.raises(UserError) as error:
        load_planner("oracle")
    assert "'oracle'" in str(error.value)
    assert all(name in str(error.value) for name in PLANNERS)


def test_an_option_the_planner_does_not_have_is_refused_by_name():
    with pytest.raises(UserError, match=r"planner 'rules' has no option 'model'"):
        load_planner("rules", model="x")
