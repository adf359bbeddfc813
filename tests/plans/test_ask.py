from hypothesis import given, settings
from hypothesis import strategies as st

from hbd3lm.plans.ask import HOTTEST, ask_for_plans, request_seed
from hbd3lm.plans.engines.engine import Completion
from hbd3lm.plans.judge import Limits
from tests.toy_engine import BAD, GOOD, ToyEngine, toy_problems, toy_recipe


def ask(engine, recipe, count=1, in_flight=4):
    """All attempts, by problem."""
    attempts = {}
    for attempt in ask_for_plans(engine, recipe, toy_problems(count), {}, in_flight):
        attempts.setdefault(attempt.id, []).append(attempt)
    return attempts


def answers(*texts):
    """The n-th attempt at any problem gets the n-th text."""
    return lambda request: texts[int(request.key.partition("#")[2])]


def test_a_faulty_plan_is_asked_for_again_hotter_with_emphasis_and_more_examples():
    engine, recipe = ToyEngine(answers(BAD["numbers"], BAD["empty"], GOOD)), toy_recipe()
    [attempts] = ask(engine, recipe).values()
    assert [recipe.faults(toy_problems(1)[0], a) for a in attempts] == [
        ("numbers",), ("empty",), (),
    ]  # fmt: skip
    first, second, third = engine.asked
    assert (first.temperature, second.temperature, third.temperature) == (0.7, 0.85, 1.0)
    assert len({request.seed for request in engine.asked}) == 3
    assert len(first.messages) < len(second.messages) < len(third.messages)
    assert recipe.prompt.faults["numbers"] in second.messages[-1]["content"]
    assert recipe.prompt.faults["empty"] in third.messages[-1]["content"]
    assert recipe.prompt.insist[0] in second.messages[0]["content"]
    assert recipe.prompt.insist[1] in third.messages[0]["content"]


def test_after_the_last_retry_the_best_attempt_is_kept_as_the_model_wrote_it():
    engine = ToyEngine(answers(BAD["numbers"], BAD["too_short"], BAD["empty"]))
    recipe = toy_recipe(max_retries=2)
    [attempts] = ask(engine, recipe).values()
    assert len(attempts) == 3
    assert recipe.best(toy_problems(1)[0], attempts).text == BAD["too_short"]


def test_no_retries_means_one_request_a_problem():
    engine = ToyEngine(lambda request: BAD["numbers"])
    ask(engine, toy_recipe(max_retries=0), count=9)
    assert len(engine.asked) == 9


def test_a_greedy_run_warms_up_and_no_temperature_passes_the_top():
    engine = ToyEngine(lambda request: "")
    ask(engine, toy_recipe(temperature=0.0, max_retries=20))
    heat = [request.temperature for request in engine.asked]
    assert heat[:3] == [0.0, 0.15, 0.3] and heat == sorted(heat) and heat[-1] == HOTTEST
    engine = ToyEngine(lambda request: "")
    ask(engine, toy_recipe(temperature=1.7, max_retries=2))
    assert {request.temperature for request in engine.asked} == {1.7}


def test_a_cut_off_answer_is_repaired_even_if_it_reads_well():
    def script(request):
        return Completion(request.key, GOOD, finished=request.key.endswith("#1"))

    [attempts] = ask(ToyEngine(script), toy_recipe()).values()
    assert [attempt.finished for attempt in attempts] == [False, True]


@settings(max_examples=40)
@given(count=st.integers(1, 30), in_flight=st.integers(1, 12), order=st.integers(0, 10**6))
def test_no_more_is_in_flight_than_allowed_and_every_problem_gets_done(count, in_flight, order):
    engine, recipe = ToyEngine(seed=order), toy_recipe()
    attempts = ask(engine, recipe, count, in_flight)
    assert engine.most_in_flight == min(count, in_flight)
    assert not engine.flying
    assert set(attempts) == {problem.id for problem in toy_problems(count)}
    for problem in toy_problems(count):
        series = attempts[problem.id]
        assert [attempt.number for attempt in series] == list(range(len(series)))
        assert recipe.is_done(problem, series) and not recipe.is_done(problem, series[:-1])


def test_what_was_asked_before_is_not_asked_again():
    recipe, problems = toy_recipe(), toy_problems(8)
    whole = ask(ToyEngine(), recipe, 8)
    for kept in range(3):
        attempts = {name: series[:kept] for name, series in whole.items()}
        engine = ToyEngine(seed=kept)
        for attempt in ask_for_plans(engine, recipe, problems, dict(attempts), 3):
            attempts[attempt.id] = [*attempts[attempt.id], attempt]
        assert attempts == whole
        assert len(engine.asked) == sum(max(0, len(s) - kept) for s in whole.values())


def test_a_seed_is_of_problem_attempt_and_run():
    seeds = {request_seed(s, p, n) for s in range(5) for p in ("a", "b", "1/a") for n in range(5)}
    assert len(seeds) == 75 and request_seed(0, "a", 0) == request_seed(0, "a", 0)


def test_the_limits_of_the_recipe_decide_what_is_accepted():
    engine = ToyEngine(lambda request: BAD["numbers"])
    ask(engine, toy_recipe(limits=Limits(max_numbers=2)))
    assert len(engine.asked) == 1
