"""Tokenizers: lossless, digits one by one, special tokens in one place and out of reach."""

import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbd3lm.data import tokenizer as module
from hbd3lm.data.bpe import train_bpe
from hbd3lm.data.synthetic import generate_problems
from hbd3lm.data.tokenizer import SPECIAL_TOKENS, ProblemTokenizer, load_tokenizer
from hbd3lm.errors import UserError

GSM = load_tokenizer("gsm")
TEXTS = [problem.question + "\n" + problem.solution for problem in generate_problems("train", 200)]


@pytest.fixture(scope="session")
def gpt2(data_dir):
    return load_tokenizer("gpt2", data_dir=data_dir)


def _pieces(tokenizer: ProblemTokenizer, text: str) -> list[str]:
    return [tokenizer.decode([index]) for index in tokenizer.encode(text)]


# --- special tokens ---------------------------------------------------------------------------


def _check_special_ids(tokenizer: ProblemTokenizer) -> None:
    ids = [
        tokenizer.fill_id,
        tokenizer.question_end_id,
        tokenizer.plan_end_id,
        tokenizer.execution_end_id,
        tokenizer.mask_id,
    ]
    assert ids == list(range(tokenizer.vocab_size - 5, tokenizer.vocab_size))
    assert tokenizer.end_ids == dict(zip(("question", "plan", "execution"), ids[1:4]))
    assert tokenizer.decode(ids) == ""
    assert tokenizer.decode(ids, skip_special=False) == "".join(SPECIAL_TOKENS)


def test_special_tokens_follow_the_vocabulary_and_the_mask_comes_last():
    assert SPECIAL_TOKENS[0] == "<|fill|>" and SPECIAL_TOKENS[-1] == "<|mask|>"
    assert GSM.vocab_size == len(GSM) == 4096
    _check_special_ids(GSM)


def test_gpt2_keeps_its_ids_and_gets_the_special_tokens_behind_them(gpt2):
    assert gpt2.encode("Hello world") == [15496, 995]
    assert gpt2.vocab_size == 50257 + 5
    _check_special_ids(gpt2)


@pytest.mark.parametrize("special", [*SPECIAL_TOKENS, "<|endoftext|>"])
def test_a_special_token_spelled_in_a_text_is_ordinary_text(special, request):
    text = f"He wrote {special}{special} twice."
    for tokenizer in (GSM, pickle.loads(pickle.dumps(GSM)), request.getfixturevalue("gpt2")):
        ids = tokenizer.encode(text)
        assert tokenizer.encode_batch([text]) == [ids]
        assert max(ids) < tokenizer.fill_id
        assert 50256 not in ids
        assert tokenizer.decode(ids) == text


# --- text and ids -----------------------------------------------------------------------------


@given(st.text())
def test_any_text_comes_back_unchanged(text):
    assert GSM.decode(GSM.encode(text)) == text


@given(st.lists(st.text(), max_size=5))
def test_a_batch_gives_the_ids_of_its_texts_one_by_one(texts):
    assert GSM.encode_batch(texts) == [GSM.encode(text) for text in texts]


@given(st.from_regex(r"[ $(]?[0-9][0-9,.]*", fullmatch=True))
def test_every_digit_is_a_token_of_its_own_with_one_id_everywhere(text):
    pieces = _pieces(GSM, text)
    assert [piece for piece in pieces if any(map(str.isdigit, piece))] == list(
        filter(str.isdigit, text)
    )


def test_the_layout_of_a_solution_is_visible_in_its_tokens():
    pieces = _pieces(GSM, "She sold 48/2 = $24.\n\n#### 24")
    assert pieces == [
        *("She", " sold", " ", "4", "8", "/", "2", " =", " $", "2", "4", "."),
        *("\n", "\n", "####", " ", "2", "4"),
    ]


def test_the_shipped_tokenizer_is_at_home_in_gsm8k(data_dir):
    """Few tokens more than GPT-2's ten times larger vocabulary takes for the words."""
    from hbd3lm.data.sources import load_problems

    problems = load_problems("gsm8k", "test", data_dir, limit=300).problems
    questions = [problem.question for problem in problems]
    ours = sum(map(len, GSM.encode_batch(questions)))
    theirs = sum(map(len, load_tokenizer("gpt2", data_dir=data_dir).encode_batch(questions)))
    assert ours < 1.25 * theirs


def test_gsm_needs_neither_transformers_nor_torch():
    code = (
        "import sys; from hbd3lm.data.tokenizer import load_tokenizer; load_tokenizer('gsm');"
        "print([m for m in ('torch', 'transformers', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- identity, saving, training ---------------------------------------------------------------


def test_saving_and_loading_changes_nothing(tmp_path):
    GSM.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.fingerprint == GSM.fingerprint
    assert again.end_ids == GSM.end_ids and again.vocab_size == GSM.vocab_size
    assert again.encode_batch(TEXTS[:20]) == GSM.encode_batch(TEXTS[:20])


def test_the_fingerprint_tells_vocabularies_apart(gpt2):
    small, other = train_bpe(TEXTS, 500), train_bpe(TEXTS[:100], 500)
    assert len({GSM.fingerprint, gpt2.fingerprint, small.fingerprint, other.fingerprint}) == 4
    assert len(GSM.fingerprint) == 16


def test_training_twice_gives_the_same_file_and_the_size_asked_for():
    first, second = train_bpe(TEXTS, 600), train_bpe(TEXTS, 600)
    assert first.to_json() == second.to_json()
    assert first.vocab_size == 600
    assert first.decode(first.encode("Größe 12 🎓")) == "Größe 12 🎓"


def test_training_refuses_sizes_that_cannot_be():
    with pytest.raises(UserError, match="at least 261"):
        train_bpe(TEXTS, 260)
    with pytest.raises(UserError, match="--vocab_size 10000000: at most 1000000"):
        train_bpe(TEXTS, 10_000_000)
    with pytest.raises(UserError, match="use more text or a smaller --vocab_size"):
        train_bpe(["one two"], 5000)


# --- what cannot be used ----------------------------------------------------------------------


def test_a_hub_out_of_reach_is_said_with_the_way_out(monkeypatch):
    monkeypatch.setattr(module, "hub_reachable", lambda: False)
    with pytest.raises(UserError, match=r"cannot be reached.*local directory.*tokenizer=gsm"):
        load_tokenizer("nobody/no-such-tokenizer")


def test_a_missing_folder_is_not_looked_up_on_the_hub(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "hub_reachable", lambda: pytest.fail("asked the hub"))
    with pytest.raises(UserError, match="no such folder"):
        load_tokenizer(tmp_path / "missing")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        load_tokenizer(tmp_path / "file")


def test_the_data_folder_of_the_environment_holds_gpt2(monkeypatch, data_dir):
    monkeypatch.setattr(module, "hub_reachable", lambda: pytest.fail("asked the hub"))
    monkeypatch.setenv("HBD3LM_DATA_DIR", str(data_dir))
    assert load_tokenizer("gpt2").vocab_size == 50262


def test_a_tokenizer_built_from_nothing_is_refused(tmp_path):
    """transformers 5 silently makes a one-token tokenizer of a folder without vocabulary."""
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    with pytest.raises(UserError, match=r"incomplete|cannot load"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match="files are incomplete"):
        ProblemTokenizer(_word_level(["a", "b"]), "tiny")


def test_a_tokenizer_that_loses_text_is_refused():
    with pytest.raises(UserError, match="loses text"):
        ProblemTokenizer(_word_level([f"w{i}" for i in range(300)]), "words")


def test_special_tokens_in_another_order_are_refused():
    words = [f"w{i}" for i in range(300)]
    with pytest.raises(UserError, match="must end in"):
        ProblemTokenizer(_word_level([*words, *reversed(SPECIAL_TOKENS)]), "reversed")
    with pytest.raises(UserError, match="must end in"):
        ProblemTokenizer(_word_level([*words, SPECIAL_TOKENS[0]]), "partial")


def test_a_broken_tokenizer_file_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer\.json cannot be read"):
        load_tokenizer(tmp_path)


def _word_level(words):
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: index for index, word in enumerate([*words, "<unk>"])}
    if SPECIAL_TOKENS[0] in words:  # keep the special tokens at the end
        vocabulary = {word: index for index, word in enumerate(["<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer
