"""Overrides as Hydra reads them: any text arrives as it was typed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from hbd3lm.commands.overrides import override_value, quote, quote_text
from tests.commands.runs import compose


@pytest.mark.parametrize(
    "text",
    [
        "Tom has 3 apples, and eats (1). How many?",
        "It's [5]: {x} = $3.50, 'no' or \"yes\"? 100% + a=b",
        'back\\slash \\" end\\',
        "${seed} and \\n",
        "Zwei Zeilen\nÄpfel",
        "3",
    ],
)
def test_any_question_reaches_the_sampler_as_typed(text):
    quoted = quote_text(f"sampling.question={text}")
    assert str(compose(quoted).sampling.question) == text
    assert quote_text(quoted) == quoted  # a process started anew is given it again


@pytest.mark.parametrize("name", ["2026", "1.50", "1e3", "-7", "007", "1_000"])
def test_a_folder_may_be_called_a_number(name):
    quoted = quote_text(f"run_dir={name}")
    assert compose(quoted).run_dir == name
    assert quote_text(quoted) == quoted
    assert quote_text("training.max_steps=5") == "training.max_steps=5"


@pytest.mark.parametrize(
    "value", [None, True, 3, 0.5, "32-true", "a, b", "null", Path("out, [1]/it's"), [1, "x y"]]
)
def test_any_value_is_read_back_as_it_was(value):
    read = compose(f"+any={override_value(value)}").any
    assert read == (str(value) if isinstance(value, Path) else value)
    assert type(read) is not str or isinstance(value, (str, Path))


def read(value: str) -> object:
    """What Hydra and OmegaConf make of ``KEY=value``; composing the whole takes much longer."""
    cfg = OmegaConf.create({})
    OmegaConf.update(cfg, "any", OverridesParser.create().parse_override(f"+any={value}").value())
    return OmegaConf.to_container(cfg, resolve=True)["any"]


HARD = st.text(st.sampled_from("\\\"'${}[](),=:.\n\t 1aeÄ")) | st.text()
"""Texts of the signs of Hydra's grammar, and any others that a command line can hold."""


@given(HARD)
@example("\\${x}")  # a backslash before what is no interpolation
@example(".5")
@example("Äpfel/run")
def test_any_text_is_read_back_as_it_was(text):
    assert read(override_value(text)) == text
    assert read(quote(text)) == text
    assert read(override_value([text, "a"])) == [text, "a"]
