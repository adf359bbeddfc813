import json
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbd3lm.errors import UserError
from hbd3lm.plans.details import details_path
from hbd3lm.plans.generate import generate_plans, problems_digest
from hbd3lm.plans.journal import journal_path
from hbd3lm.plans.manifest import is_finished, manifest_path, read_manifest
from hbd3lm.plans.shards import Shard, find_shards, merge_shards
from tests.plans.test_generate import contents, toy_command, toy_environment
from tests.toy_engine import ToyEngine, toy_problems, toy_recipe


def write_shard(output, shard, count=20, engine=None, recipe=None):
    problems = toy_problems(count)
    about = {
        "problems": {"sha256": problems_digest(problems), "origin": f"{count} toys"},
        "shard": str(shard) if shard else None,
    }
    path = shard.path(output) if shard else output
    generate_plans(
        shard.take(problems) if shard else problems, engine or ToyEngine(), path,
        recipe=recipe or toy_recipe(), about=about, progress=False,
    )  # fmt: skip
    return path


def write_shards(output, count=3, problems=20):
    return [write_shard(output, Shard(i, count), problems) for i in range(1, count + 1)]


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/4", "1/4/4"])
def test_a_shard_that_does_not_exist_is_refused_with_those_that_do(text):
    with pytest.raises(UserError, match=r"--shard .*write I/N, counted from 1: 1/\d to"):
        Shard.parse(text)


@given(count=st.integers(1, 9), items=st.integers(0, 40))
def test_shards_cover_everything_once_and_differ_by_one_at_most(count, items):
    parts = [Shard.parse(f"{i}/{count}").take(range(items)) for i in range(1, count + 1)]
    assert sorted(item for part in parts for item in part) == list(range(items))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@settings(max_examples=8)
@given(count=st.integers(1, 5), problems=st.integers(5, 15), seed=st.integers(0, 99))
def test_merged_shards_are_the_file_of_a_single_run(tmp_path_factory, count, problems, seed):
    folder = tmp_path_factory.mktemp("merge")
    whole, output = write_shard(folder / "whole.json", None, problems), folder / "x.json"
    paths = [
        write_shard(output, Shard(i, count), problems, ToyEngine(seed=seed + i))
        for i in range(1, count + 1)
    ]
    assert find_shards(output) == paths
    merge_shards(paths[::-1], toy_problems(problems), output)
    assert contents(output) == contents(whole)
    mine, theirs = read_manifest(output), read_manifest(whole)
    assert mine["report"] == theirs["report"] and mine["settings"] == theirs["settings"]
    assert len(mine["merged_from"]) == len(mine["sessions"]) == count
    # ... so that the command for the whole file finds it finished.
    assert is_finished(output, theirs["settings"])


def test_missing_and_unfinished_shards_are_named_with_their_command(tmp_path):
    output = tmp_path / "x.json"
    with pytest.raises(UserError, match=r"no x\.shard-\*-of-\*\.json beside it"):
        find_shards(output)
    paths = write_shards(output)
    paths[1].rename(journal_path(paths[1]))
    with pytest.raises(UserError, match=r"shard 2/3 of .*x\.json is unfinished.*--shard 2/3"):
        find_shards(output)
    journal_path(paths[1]).unlink()
    with pytest.raises(UserError, match=r"shard 2/3 of .* is missing"):
        find_shards(output)
    with pytest.raises(UserError, match=r"7 of 20 ids are in no file: p1, p4, .*; run --shard 2/3"):
        merge_shards([paths[0], paths[2]], toy_problems(20), output)
    assert not output.exists()


def test_shards_of_two_cuts_beside_one_output_are_not_mixed(tmp_path):
    output = tmp_path / "x.json"
    paths = write_shards(output, 2)
    other = write_shard(output, Shard(3, 3))
    with pytest.raises(UserError, match="cuts into 2 and 3"):
        find_shards(output)
    with pytest.raises(UserError, match=r"ids are in more than one file: .* is in x\.shard"):
        merge_shards([*paths, other], toy_problems(20), output)
    merge_shards(paths, toy_problems(20), output)  # named, they are clear


def test_damaged_side_files_are_named(tmp_path):
    paths = write_shards(tmp_path / "x.json")
    details, manifest = details_path(paths[0]), manifest_path(paths[1])
    whole = details.read_text()
    for line in ("[]", '{"id": "p0"}', "{"):
        details.write_text(f"{whole}{line}\n")
        with pytest.raises(
            UserError, match=rf"details\.jsonl, line {len(whole.splitlines()) + 1} "
        ):
            merge_shards(paths, toy_problems(20), tmp_path / "x.json")
    details.write_text(whole)
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "problems": None}))
    with pytest.raises(UserError, match=r"manifest\.json does not say which problems"):
        merge_shards(paths, toy_problems(20), tmp_path / "x.json")


def test_a_shard_is_not_overwritten_by_the_whole(tmp_path):
    paths = write_shards(tmp_path / "x.json")
    before = paths[0].read_bytes()
    with pytest.raises(UserError, match=r"--output_path .* is one of the shards"):
        merge_shards(paths, toy_problems(20), paths[0])
    assert paths[0].read_bytes() == before


def test_a_shard_named_twice_is_refused(tmp_path):
    paths = write_shards(tmp_path / "x.json", 2)
    with pytest.raises(UserError, match=r"10 ids are in more than one file: p0, .* and 5 more;"):
        merge_shards([*paths, paths[0]], toy_problems(20), tmp_path / "x.json")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"engine": ToyEngine(model="toy-2")}, "engine's model (toy-1 in the first, toy-2 in"),
        ({"recipe": toy_recipe(seed=1)}, "seed (0 in the first, 1 in the second)"),
        ({"recipe": toy_recipe(max_tokens=9)}, "max_tokens"),
        ({"count": 21}, "problem set"),
    ],
)
def test_shards_of_another_model_prompt_or_problem_set_are_refused(tmp_path, changes, named):
    output = tmp_path / "x.json"
    paths = [write_shard(output, Shard(1, 2)), write_shard(output, Shard(2, 2), **changes)]
    with pytest.raises(UserError) as error:
        merge_shards(paths, toy_problems(20), output)
    assert named in str(error.value) and "not shards of one run" in str(error.value)
    assert all(str(path) in str(error.value) for path in paths)


def test_problems_other_than_those_of_the_shards_are_refused(tmp_path):
    paths = write_shards(tmp_path / "x.json")
    with pytest.raises(UserError, match=r"for other problems \(20 toys\).*--data_dir"):
        merge_shards(paths, toy_problems(21), tmp_path / "x.json")


def test_ids_that_no_problem_has_are_named(tmp_path):
    """Only a hand that also mends the manifest gets as far as this check."""
    output = tmp_path / "x.json"
    paths = write_shards(output)
    rows = json.loads(paths[0].read_text())
    rows[0]["id"] = "stranger"
    paths[0].write_text(json.dumps(rows))
    with pytest.raises(UserError, match="is not the file its manifest describes"):
        merge_shards(paths, toy_problems(20), output)
    manifest = read_manifest(paths[0])
    manifest["sha256"] = __import__("hashlib").sha256(paths[0].read_bytes()).hexdigest()
    manifest_path(paths[0]).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="1 ids are not in the problem set: stranger"):
        merge_shards(paths, toy_problems(20), output)


def test_a_shard_without_manifest_or_details_and_a_whole_file_are_refused(tmp_path):
    output = tmp_path / "x.json"
    paths = write_shards(output)
    whole = write_shard(tmp_path / "whole.json", None)
    with pytest.raises(UserError, match=r"whole\.json is no shard but a whole file"):
        merge_shards([whole], toy_problems(20), output)
    details_path(paths[0]).unlink()
    with pytest.raises(UserError, match="details: no such file"):
        merge_shards(paths, toy_problems(20), output)
    manifest_path(paths[1]).unlink()
    with pytest.raises(UserError, match=r"has no manifest x\.shard-2-of-3\.json\.manifest\.json"):
        merge_shards(paths, toy_problems(20), output)
    with pytest.raises(UserError, match="there is no shard"):
        merge_shards([tmp_path / "none.json"], toy_problems(20), output)


def test_shards_run_at_the_same_time_in_processes_of_their_own(tmp_path):
    output = tmp_path / "x.json"
    jobs = [
        subprocess.Popen(
            toy_command(output, tmp_path / f"trace{i}", 30, f"{i}/3"), env=toy_environment()
        )
        for i in (1, 2, 3)
    ]
    assert [job.wait() for job in jobs] == [0, 0, 0]
    merge_shards(find_shards(output), toy_problems(30), output)
    whole = write_shard(tmp_path / "whole.json", None, 30)
    assert contents(output) == contents(whole)
