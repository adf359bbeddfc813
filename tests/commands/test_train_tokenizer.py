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
    with pytest.raises(UserError, match="vocab_size is 100"):
        main([*flags, "--vocab_size", "100", "--output", str(tmp_path / "t.json")])
