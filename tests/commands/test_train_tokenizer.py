"""Training the shipped tokenizer: the command, on a slice of the real data."""

import pytest

from hbd3lm.commands.train_tokenizer import main
from hbd3lm.data.tokenizer import load_tokenizer
from hbd3lm.errors import UserError


def test_the_command_writes_a_tokenizer_that_loads_and_does_so_again(data_dir, tmp_path, capsys):
    flags = ["--data_dir", str(data_dir), "--vocab_size", "700", "--limit", "50"]
    written = []
    for name in ("first", "second"):
        path = tmp_path / name / "tokenizer.json"
        assert main([*flags, "--embedded", "20", "--output", str(path)]) == 0
        written.append(path.read_bytes())
    assert written[0] == written[1]
    tokenizer = load_tokenizer(tmp_path / "first")
    assert tokenizer.vocab_size == 700
    assert tokenizer.fingerprint in capsys.readouterr().out


def test_a_vocabulary_too_small_is_refused(data_dir, tmp_path):
    flags = ["--data_dir", str(data_dir), "--limit", "5", "--embedded", "0"]
    with pytest.raises(UserError, match=r"--vocab_size 100: .* need at least 261"):
        main([*flags, "--vocab_size", "100", "--output", str(tmp_path / "t.json")])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--vocab_size", "0"], "--vocab_size: '0' is no whole number of at least 1"),
        (["--vocab_size", "9" * 30], "is more than 9223372036854775807"),
        (["--embedded", "-1"], "--embedded: '-1' is no whole number of 0 or more"),
        (["--limit", "0"], "--limit: '0' is no whole number of at least 1"),
    ],
)
def test_what_is_no_number_of_ids_or_problems_is_refused_by_its_flag(flags, message, capsys):
    with pytest.raises(SystemExit):
        main([*flags, "--output", "t.json"])
    assert message in capsys.readouterr().err


def test_absurd_sizes_are_refused_before_anything_is_read(tmp_path):
    """A trillion problems were begun, and no word was said."""
    flags = ["--data_dir", str(tmp_path / "none"), "--output", str(tmp_path / "t.json")]
    with pytest.raises(UserError, match="1,000,000,000,000 were asked for; at most 3,000,000"):
        main([*flags, "--embedded", "1" + "0" * 12])
    with pytest.raises(UserError, match="--vocab_size 1000000000: at most 1000000"):
        main([*flags, "--vocab_size", "1000000000"])
