import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbd3lm.data.records import HierarchicalExample, Problem, read_examples
from hbd3lm.errors import UserError
from hbd3lm.lock import lock_path, output_lock
from hbd3lm.plans.ask import Recipe
from hbd3lm.plans.details import details_path, read_details
from hbd3lm.plans.engines.engine import Completion
from hbd3lm.plans.generate import generate_plans
from hbd3lm.plans.journal import Journal, journal_path
from hbd3lm.plans.manifest import manifest_path, read_manifest
from tests import toy_engine
from tests.toy_engine import BAD, GOOD, ToyEngine, toy_problems, toy_recipe


class Echo:
    """Plans with the problem's id; remembers its batches and may fail at one of them."""

    name = "echo"

    def __init__(self, fail_at=None):
        self.batches = []
        self.fail_at = fail_at

    def plan(self, problems):
        if len(self.batches) == self.fail_at:
            raise KeyboardInterrupt
        self.batches.append([problem.id for problem in problems])
        return [f"plan of {problem.id}" for problem in problems]


def problems(count):
    return [
        Problem(f"p{i}", f"Question {i}?", f"1+{i}=<<1+{i}={n}>>{n}\n#### {n}", str(n))
        for i, n in enumerate(range(1, count + 1))
    ]


def run(output, planner, count=7, **options):
    return generate_plans(problems(count), planner, output, progress=False, **options)


def test_records_are_written_in_order_with_stripped_executions(tmp_path):
    output = tmp_path / "new" / "plans.json"
    examples = run(output, Echo(), count=3, batch_size=2)
    assert read_examples(output) == examples
    assert examples[1] == HierarchicalExample(
        "p1", "Question 1?", "plan of p1", "1+1=2\n#### 2", "2"
    )
    assert [e.id for e in examples] == ["p0", "p1", "p2"]
    assert not journal_path(output).exists()


def test_annotations_are_kept_on_request(tmp_path):
    [example] = run(tmp_path / "x.json", Echo(), count=1, keep_annotations=True)
    assert "<<1+0=1>>" in example.execution


@settings(max_examples=30)
@given(count=st.integers(1, 9), batch_size=st.integers(1, 10))
def test_batches_cover_every_problem_once_and_in_order(tmp_path_factory, count, batch_size):
    planner = Echo()
    run(tmp_path_factory.mktemp("run") / "x.json", planner, count=count, batch_size=batch_size)
    assert [name for batch in planner.batches for name in batch] == [f"p{i}" for i in range(count)]
    assert all(len(batch) <= batch_size for batch in planner.batches)


def test_an_interrupted_run_continues_and_ends_like_an_uninterrupted_one(tmp_path):
    output, whole = tmp_path / "x.json", tmp_path / "whole.json"
    with pytest.raises(KeyboardInterrupt):
        run(output, Echo(fail_at=2), batch_size=2)
    assert not output.exists()
    second = Echo()
    run(output, second, batch_size=2)
    assert second.batches == [["p4", "p5"], ["p6"]]
    run(whole, Echo(), batch_size=3)
    assert output.read_bytes() == whole.read_bytes()


def test_a_journal_line_cut_off_by_a_crash_is_planned_again(tmp_path):
    output = tmp_path / "x.json"
    with pytest.raises(KeyboardInterrupt):
        run(output, Echo(fail_at=2), batch_size=2)
    journal = journal_path(output)
    journal.write_bytes(journal.read_bytes()[:-9])
    second = Echo()
    assert len(run(output, second, batch_size=4)) == 7
    assert second.batches[0][0] == "p3"


@pytest.mark.parametrize(
    "change", [{"settings": {"temperature": 1}}, {"keep_annotations": True}, {"count": 6}]
)
def test_a_journal_of_another_run_is_refused_unless_overwritten(tmp_path, change):
    output = tmp_path / "x.json"
    with pytest.raises(KeyboardInterrupt):
        run(output, Echo(fail_at=1), batch_size=2, settings={"temperature": 0})
    with pytest.raises(UserError, match="--overwrite"):
        run(output, Echo(), **{"settings": {"temperature": 0}, **change})
    planner = Echo()
    examples = run(output, planner, overwrite=True, **change)
    assert planner.batches[0][0] == "p0" and len(examples) == change.get("count", 7)


def test_the_output_of_an_earlier_run_stays_until_the_new_one_is_complete(tmp_path):
    output = tmp_path / "x.json"
    run(output, Echo(), count=2)
    before = output.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        run(output, Echo(fail_at=1), batch_size=2)
    assert output.read_bytes() == before
    run(output, Echo(), batch_size=2)
    assert len(json.loads(output.read_text())) == 7


def test_an_empty_plan_is_an_error_that_names_the_problem_and_not_filler(tmp_path):
    class Mute(Echo):
        def plan(self, problems):
            return ["fine", " \n"][: len(problems)]

    with pytest.raises(UserError, match=r"planner echo wrote an empty plan for problem p1"):
        run(tmp_path / "x.json", Mute(), count=2)
    assert not (tmp_path / "x.json").exists()


def test_bad_arguments_are_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="no problems"):
        run(tmp_path / "x.json", Echo(), count=0)
    with pytest.raises(UserError, match="--batch_size 0"):
        run(tmp_path / "x.json", Echo(), batch_size=0)
    with pytest.raises(UserError, match="is a folder"):
        run(tmp_path, Echo())
    with pytest.raises(UserError, match="two problems have the id 'p0'"):
        generate_plans(problems(1) * 2, Echo(), tmp_path / "x.json", progress=False)


def test_a_run_that_no_answer_reached_stands_in_nobodys_way(tmp_path):
    output = tmp_path / "x.json"

    def missing():
        raise UserError("--planner vllm needs the package vllm")

    with pytest.raises(UserError, match="needs the package"):
        run(output, missing, settings={"planner": "vllm"})
    assert list(tmp_path.iterdir()) == []
    # Killed while the model was loaded, so that nobody could clear it away.
    header = {"version": 2, "settings": {"planner": "vllm"}}
    lines = [header, {"session": {}}, {"engine": {"model": "m"}}]
    journal_path(output).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert len(run(output, Echo(), settings={"planner": "rules"})) == 7
    # A line that cannot be read may have been an answer: that is somebody's work.
    journal_path(output).write_text(json.dumps(header) + "\n{damaged\n")
    with pytest.raises(UserError, match=r"planner \(vllm there, rules here\)"):
        run(output, Echo(), settings={"planner": "rules"})


def test_a_journal_of_a_planner_names_the_setting_that_changed(tmp_path):
    output = tmp_path / "x.json"
    with pytest.raises(KeyboardInterrupt):
        run(output, Echo(fail_at=1), batch_size=2, settings={"split": "train"})
    with pytest.raises(UserError, match=r"split \(train there, test here\); repeat that run's"):
        run(output, Echo(), settings={"split": "test"})


# --- a language model -----------------------------------------------------------------------------


def ask(output, engine, count=12, recipe=None, **options):
    return generate_plans(
        toy_problems(count), engine, output, recipe=recipe or toy_recipe(),
        progress=False, **options
    )  # fmt: skip


def contents(output):
    """What must be the same after any interruption."""
    return output.read_bytes(), details_path(output).read_bytes()


def test_the_data_file_keeps_its_five_keys_and_the_side_files_the_rest(tmp_path):
    output = tmp_path / "x.json"
    engine = ToyEngine()
    examples = ask(output, engine, count=40, about={"shard": None}, batch_size=7)
    rows = json.loads(output.read_text())
    assert [row["id"] for row in rows] == [f"p{i}" for i in range(40)]
    assert all(len(row) == 5 for row in rows)
    assert engine.most_in_flight == 7 and engine.closed
    details = read_details(output)
    assert [row["id"] for row in details] == [row["id"] for row in rows]
    failed = {row["id"] for row in details if row["status"] == "failed"}
    assert all(
        count_digits(e.plan) == 0 and len(e.plan.split()) > 7
        for e in examples
        if e.id not in failed
    )
    manifest = read_manifest(output)
    report = manifest["report"]
    assert report["plans"] == 40 and report["attempts"] == len(engine.asked) > 40
    assert report["retries"] == report["attempts"] - 40
    assert report["failed"] == len(failed)
    assert report["completion_tokens"] == sum(
        attempt["completion_tokens"] for row in details for attempt in row["attempts"]
    )
    counted = Counter(fault for row in details for a in row["attempts"] for fault in a["faults"])
    assert report["faults_all"] == counted and set(counted) == set(BAD)
    assert manifest["engine"]["model"] == "toy-1"
    assert manifest["settings"]["prompt_sha256"] == toy_recipe().prompt.digest
    assert manifest["settings"]["seed"] == 0 and manifest["tokens_per_second"] > 0
    assert not journal_path(output).exists() and not lock_path(output).exists()


def count_digits(text):
    return sum(char.isdigit() for char in text)


@settings(max_examples=15)
@given(order=st.integers(0, 10**6), in_flight=st.integers(1, 15))
def test_plans_depend_neither_on_the_order_of_answers_nor_on_the_batch(
    tmp_path_factory, order, in_flight
):
    folder = tmp_path_factory.mktemp("order")
    ask(folder / "a.json", ToyEngine(seed=order), batch_size=in_flight)
    ask(folder / "b.json", ToyEngine(), batch_size=3)
    assert contents(folder / "a.json") == contents(folder / "b.json")


def test_another_seed_asks_with_other_seeds(tmp_path):
    engines = [ToyEngine(), ToyEngine()]
    for seed, engine in enumerate(engines):
        ask(tmp_path / f"{seed}.json", engine, recipe=toy_recipe(seed=seed, max_retries=0))
    first, second = ({request.seed for request in engine.asked} for engine in engines)
    assert len(first) == len(second) == 12 and not first & second
    assert all(0 <= seed < 2**31 for seed in first)


def test_a_run_that_is_finished_asks_nothing_and_keeps_its_file(tmp_path):
    output = tmp_path / "x.json"
    examples = ask(output, ToyEngine())
    before, said = contents(output), []
    assert ask(output, None, say=said.append) == examples  # no engine is even built
    assert contents(output) == before and "is finished" in said[0]
    again = ToyEngine()
    ask(output, again, overwrite=True)
    assert again.asked and contents(output) == before


def test_a_file_that_was_edited_since_is_not_taken_for_finished(tmp_path):
    output = tmp_path / "x.json"
    ask(output, ToyEngine())
    before = contents(output)
    output.write_text("[]")
    ask(output, ToyEngine())
    assert contents(output) == before


def test_a_failing_engine_keeps_what_was_answered_and_says_how_to_go_on(tmp_path):
    class Failing(ToyEngine):
        def poll(self):
            if len(self.asked) > 9:
                raise UserError("the server at x has gone; start it again")
            return super().poll()

    output, whole = tmp_path / "x.json", tmp_path / "whole.json"
    engine = Failing()
    with pytest.raises(
        UserError, match=r"gone; start it again; the answers for \d+ problems are kept"
    ):
        ask(output, engine, batch_size=4)
    assert engine.closed and not output.exists() and not lock_path(output).exists()
    kept = len(journalled(output))
    second, fresh = ToyEngine(), ToyEngine()
    ask(output, second)
    ask(whole, fresh)
    assert kept and contents(output) == contents(whole)
    assert len(second.asked) == len(fresh.asked) - kept


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"recipe": toy_recipe(temperature=0.9)}, r"temperature \(0.7 there, 0.9 here\)"),
        ({"engine": ToyEngine(model="toy-2")}, r"model \(toy-1 there, toy-2 here\)"),
        ({"settings": {"model": "m"}}, r"model \(null there, m here\)"),
        ({"count": 11}, "problems_sha256"),
    ],
)
def test_an_old_journal_refuses_another_model_or_setting_by_name(tmp_path, change, named):
    output = tmp_path / "x.json"

    def interrupt(request):
        if request.key.startswith("p9"):
            raise KeyboardInterrupt
        return GOOD

    with pytest.raises(KeyboardInterrupt):
        ask(output, ToyEngine(interrupt), batch_size=2)
    before = journal_path(output).read_bytes()
    with pytest.raises(UserError, match=named) as error:
        ask(output, **{"engine": ToyEngine(), **change})
    assert "--overwrite" in str(error.value) and "repeat that run's command" in str(error.value)
    kept = journal_path(output).read_bytes()
    assert kept.startswith(before)  # a refusal costs nothing


def test_another_prompt_is_refused_by_an_old_journal(tmp_path):
    from hbd3lm.plans.prompt import load_prompt

    output, template = tmp_path / "x.json", tmp_path / "mine.yaml"
    template.write_text("user: 'Plan this: {question}'\n")

    def interrupt(request):
        if request.key.startswith("p9"):
            raise KeyboardInterrupt
        return GOOD

    with pytest.raises(KeyboardInterrupt):
        ask(output, ToyEngine(interrupt), batch_size=2)
    with pytest.raises(UserError, match=r"prompt_sha256 \(\w{10}\.\.\. there, \w{10}\.\.\. here\)"):
        ask(output, ToyEngine(), recipe=toy_recipe(prompt=load_prompt(template)))


def test_an_engine_that_only_errs_is_stopped_early_with_its_own_words(tmp_path):
    def refuse(request):
        return Completion(request.key, "", error="prompt of 900 tokens, context of 512")

    engine = ToyEngine(refuse)
    with pytest.raises(UserError, match=r"none of the last 20 requests.*context of 512; mend that"):
        ask(tmp_path / "x.json", engine, count=500, batch_size=50)
    assert len(engine.asked) < 100
    with pytest.raises(UserError, match="none of the last 2 requests"):
        ask(tmp_path / "y.json", ToyEngine(refuse), count=1, recipe=toy_recipe(max_retries=1))


def test_errors_of_a_dying_engine_use_up_no_attempt(tmp_path):
    output, whole = tmp_path / "x.json", tmp_path / "whole.json"
    engine = ToyEngine()

    def die(request):
        if len(engine.asked) > 30:
            return Completion(request.key, "", error="the connection broke")
        return toy_engine.scripted(request)

    engine.script = die
    with pytest.raises(UserError, match=r"none of the last 20.*connection broke.*are kept in"):
        ask(output, engine, count=30, batch_size=6)
    assert '"error": "' not in journal_path(output).read_text()
    ask(output, ToyEngine(), count=30)
    ask(whole, ToyEngine(), count=30)
    assert contents(output) == contents(whole)


def test_one_error_among_answers_is_a_marked_plan_not_the_end_of_the_run(tmp_path):
    def refuse_one(request):
        refused = request.key.startswith("p3#")
        return Completion(request.key, "", error="refused") if refused else GOOD

    examples = ask(tmp_path / "x.json", ToyEngine(refuse_one))
    assert [e.id for e in examples if not e.plan] == ["p3"]
    row = read_details(tmp_path / "x.json")[3]
    assert (row["status"], row["faults"]) == ("failed", ["error"])
    assert [attempt["error"] for attempt in row["attempts"]] == ["refused"] * 4


def test_an_engine_without_a_recipe_is_a_mistake_of_the_caller(tmp_path):
    with pytest.raises(TypeError, match="needs a recipe"):
        run(tmp_path / "x.json", ToyEngine())


# --- whatever happens -----------------------------------------------------------------------------


def journalled(output):
    """Keys of the answers in the whole lines of a journal."""
    path = journal_path(output)
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    attempts = [json.loads(line).get("attempt") for line in lines]
    return {f"{attempt['id']}#{attempt['number']}" for attempt in attempts if attempt}


def toy_command(*arguments):
    return [sys.executable, toy_engine.__file__, *map(str, arguments)]


def toy_environment():
    from tests.conftest import REPOSITORY

    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments_it_ends_with_the_same_file_and_asks_nothing_twice(tmp_path, seed):
    output, trace, whole = (tmp_path / name for name in ("x.json", "trace", "whole.json"))
    ask(whole, ToyEngine(), count=250, batch_size=8)
    wanted = [
        f"{row['id']}#{attempt['number']}"
        for row in read_details(whole)
        for attempt in row["attempts"]
    ]
    rng = random.Random(seed)
    kills = 0
    while True:
        process = subprocess.Popen(
            toy_command(output, trace, 250), env=toy_environment(), stdout=subprocess.DEVNULL
        )
        safe, seen = journalled(output), len(trace.read_bytes()) if trace.exists() else 0
        # Killed some answers after the first of this session, or before it, in the start.
        if rng.random() < 0.2:
            time.sleep(rng.random() * 0.5)
        else:
            while process.poll() is None and (
                not trace.exists() or len(trace.read_bytes()) == seen
            ):
                time.sleep(0.001)
            time.sleep(rng.random() * 0.15)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        now_asked = trace.read_bytes()[seen:].decode().split() if trace.exists() else []
        assert not safe & set(now_asked), "what was in the journal is asked again"
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
    assert kills > 2
    assert contents(output) == contents(whole)
    # Only an answer that came but was not yet journalled dies with its process: those of one poll.
    asked = Counter(trace.read_text().split())
    assert set(asked) == set(wanted)
    assert asked.total() - len(wanted) <= 5 * kills
    assert read_manifest(output)["report"]["attempts"] == len(wanted)
    assert len(read_manifest(output)["sessions"]) > 2


@settings(max_examples=30)
@given(cut=st.integers(0, 10**6))
def test_a_journal_cut_anywhere_resumes_to_the_same_file_from_what_is_whole(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    output, whole = folder / "x.json", folder / "whole.json"
    complete = []

    class Watching(ToyEngine):
        def close(self):
            complete.append(journal_path(output).read_bytes())

    ask(output, Watching(), count=4)
    output.rename(whole)
    details_path(output).rename(details_path(whole))
    journal_path(output).write_bytes(complete[0][: cut % (len(complete[0]) + 1)])
    kept = len(journalled(output))
    engine = ToyEngine()
    ask(output, engine, count=4)
    assert contents(output) == contents(whole)
    attempts = sum(len(row["attempts"]) for row in read_details(whole))
    assert len(engine.asked) == attempts - kept


@pytest.mark.parametrize("damaged", [b"\0" * 40, b'{"attempt": 5}', b'{"attempt": {}}', b"[]"])
def test_damaged_lines_inside_a_journal_cost_their_plans_only(tmp_path, damaged):
    output, whole, said = tmp_path / "x.json", tmp_path / "whole.json", []

    class Failing(ToyEngine):
        def poll(self):
            if len(self.asked) > 11:
                raise UserError("gone")
            return super().poll()

    with pytest.raises(UserError):
        ask(output, Failing(lambda request: GOOD), batch_size=1)
    lines = journal_path(output).read_bytes().split(b"\n")
    lines[5] = damaged
    journal_path(output).write_bytes(b"\n".join(lines))
    engine = ToyEngine(lambda request: GOOD)
    ask(output, engine, say=said.append)
    assert any("1 damaged lines" in line for line in said) and len(engine.asked) == 2
    ask(whole, ToyEngine(lambda request: GOOD))
    assert contents(output) == contents(whole)


def test_two_runs_on_one_output_the_second_is_told_who_has_it(tmp_path):
    output, trace = tmp_path / "x.json", tmp_path / "trace"
    first = subprocess.Popen(
        toy_command(output, trace, 20_000), env=toy_environment(), stdout=subprocess.DEVNULL
    )
    try:
        while not trace.exists():
            assert first.poll() is None
            time.sleep(0.01)
        second = subprocess.run(
            toy_command(output, tmp_path / "other", 5),
            env=toy_environment(), capture_output=True, text=True,
        )  # fmt: skip
    finally:
        first.kill()
        first.wait()
    assert second.returncode == 1 and "Traceback" not in second.stderr
    assert f"another run is writing {output}: process {first.pid} on " in second.stderr
    assert not (tmp_path / "other").exists()
    # Killed, the first holds nothing any more, though its lock file is still there.
    assert lock_path(output).exists()
    with output_lock(output):
        pass


def test_who_waits_for_the_lock_gets_it_when_the_other_ends(tmp_path):
    output = tmp_path / "x.json"
    code = (
        "import sys\nfrom hbd3lm.lock import output_lock\n"
        "with output_lock(sys.argv[1], wait=True):\n    print('mine', flush=True)\n"
    )
    with output_lock(output):
        waiting = subprocess.Popen(
            [sys.executable, "-c", code, str(output)],
            env=toy_environment(), stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.5)
    assert waiting.communicate(timeout=300)[0] == "mine\n"
    assert not lock_path(output).exists()


def small_files(limit):
    """Run in the child: no file may grow beyond so many bytes, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


@pytest.mark.parametrize("limit", [100, 9_000, 25_000])
def test_a_file_that_cannot_grow_is_a_message_and_the_run_goes_on_when_it_can(tmp_path, limit):
    output, trace, whole = (tmp_path / name for name in ("x.json", "trace", "whole.json"))
    done = subprocess.run(
        toy_command(output, trace, 60), env=toy_environment(), capture_output=True, text=True,
        preexec_fn=lambda: small_files(limit),
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "--output_path: cannot write" in done.stderr and "repeat the command" in done.stderr
    assert journal_path(output).stat().st_size <= limit and not output.exists()
    journal = journal_path(output).read_text()
    assert journal.endswith("\n") or not journal
    kept = journal.count('{"attempt": {')
    assert (kept > 0) == (limit > 100)
    trace.unlink(missing_ok=True)
    assert subprocess.run(toy_command(output, trace, 60), env=toy_environment()).returncode == 0
    ask(whole, ToyEngine(), count=60)
    assert contents(output) == contents(whole)
    attempts = read_manifest(output)["report"]["attempts"]
    assert len(trace.read_text().split()) == attempts - kept


@pytest.mark.parametrize("name", ["x.json", "x.json.details.jsonl", "x.json.manifest.json"])
def test_no_space_for_a_finished_file_keeps_the_journal(tmp_path, monkeypatch, name):
    import hbd3lm.files as files

    output = tmp_path / "x.json"
    real = os.replace

    def full(source, target):
        if os.path.basename(target) == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        real(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(UserError, match=r": No space left on device; make room .*; what is done"):
        ask(output, ToyEngine())
    monkeypatch.undo()
    second = ToyEngine()
    ask(output, second)
    assert second.asked == []
    assert len(json.loads(output.read_text())) == 12 and manifest_path(output).is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "x.json", "x.json.details.jsonl", "x.json.manifest.json",
    ]  # fmt: skip


def test_a_place_that_cannot_be_written_is_one_message_before_any_model_is_loaded(tmp_path):
    def build():
        raise AssertionError("the engine was built")

    for output in ("/proc/plans.json", tmp_path / "file" / "plans.json"):
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match="--output_path: cannot write"):
            ask(output, build)


def test_a_journal_refuses_an_attempt_out_of_turn(tmp_path):
    from hbd3lm.plans.journal import Attempt

    journal = Journal(tmp_path / "j", {}, {})
    with pytest.raises(ValueError, match="attempt 1 at p after 0"):
        journal.add(Attempt("p", 1, "text"))
    journal.close()


def test_a_recipe_out_of_range_is_refused_by_the_flag(tmp_path):
    for flag, value in {
        "temperature": -1.0,
        "top_p": 0.0,
        "max_tokens": 0,
        "max_retries": -1,
    }.items():
        with pytest.raises(UserError, match=f"--{flag} "):
            Recipe(prompt=toy_recipe().prompt, **{flag: value})
