"""Texts that try to get out of where they are shown: markup, script, control characters, size."""

from __future__ import annotations

import json
from pathlib import Path

MEGABYTE = "Ann has 3 apples and 4 pears. " * 35_000

# Each sets window.__pwned if a browser runs it, or steers a terminal that prints it raw.
QUESTIONS: tuple[str, ...] = (
    "<script>window.__pwned = 1; alert(1)</script> How many of 3 apples are left?",
    "</script><script>window.__pwned = 2</script><!-- <img src=x onerror='window.__pwned = 3'> 4",
    "\"><svg onload=window.__pwned=4><iframe srcdoc='<script>top.__pwned=5</script>'> & &lt; 5",
    "{{ 7 * 7 }} {% raw %} ${8} [bold red]9[/bold red] [/] [link=http://evil.example]10[/link]",
    "\x1b[2J\x1b]0;owned\x07\x1b[31mRed 11\x1b[0m \x9b31m back\x08\x08 \x7f \r overwritten",
    "null\x00byte 12 \u2028line\u2029paragraph\ufeff",
    "كم عدد التفاح إذا كان لديها 13 تفاحة؟ \u202egnirts desrever\u202c \u2067isolate\u2069",
    "\U0001f34e Emoji 14 \U0001f469\u200d\U0001f469\u200d\U0001f467 $x^2$ \\frac{1}{0}",
    MEGABYTE,
)


def rows() -> list[dict[str, str]]:
    """Plan examples: each text as question, plan, execution, and (cut short) as id."""
    return [
        {
            "id": f"{index} {text[:80]}",
            "question": text,
            "plan": text,
            "execution": f"{text}\n1+2 = 3\n#### 3",
            "answer_numerical": "3",
        }
        for index, text in enumerate(QUESTIONS)
    ]


def write_problems(folder: Path) -> Path:
    """GSM8K's training file with the hostile questions and solutions; returns ``folder``."""
    lines = [
        json.dumps({"question": text, "answer": f"{text}\n1+2 = <<1+2=3>>3\n#### 3"})
        for text in QUESTIONS
    ]
    (folder / "gsm8k_train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
