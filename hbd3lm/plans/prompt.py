"""What a language model is asked for when it writes a plan."""

from __future__ import annotations

from hbd3lm.data.annotations import strip_annotations
from hbd3lm.data.records import Problem

PLAN_EXTRACTION_PROMPT = """
IMPORTANT RULES:
1. The plan should contain ONLY logical steps and operations
2. Do NOT include specific numbers or calculations
3. Use abstract terms like "initial quantity", "given amount"
4. Keep it concise (2-4 sentences)
5. Focus on reasoning structure, not execution
"""

_TASK = (
    "You read a math word problem and its worked solution, and write the abstract plan that "
    "leads from the one to the other."
)


def plan_messages(problem: Problem) -> list[dict[str, str]]:
    """The chat that asks for the plan of ``problem``: the rules as system message, then the
    problem with its solution (annotations stripped, without the final ``####`` line)."""
    lines = strip_annotations(problem.solution).splitlines()
    solution = "\n".join(line for line in lines if not line.startswith("####")).strip()
    parts = [f"Problem:\n{problem.question.strip()}"]
    if solution:  # some data sets publish none
        parts.append(f"Solution:\n{solution}")
    parts.append("Write only the plan.")
    return [
        {"role": "system", "content": f"{_TASK}\n{PLAN_EXTRACTION_PROMPT}".strip()},
        {"role": "user", "content": "\n\n".join(parts)},
    ]


def clean_plan(text: str) -> str:
    """A model's answer as a plan: one paragraph, without a heading such as ``Plan:``.

    What the model said is left alone otherwise: whether it is abstract is measured, not hidden.
    """
    text = " ".join(text.split())
    for heading in ("**Plan:**", "Plan:", "Abstract plan:", "Here is the plan:"):
        if text.lower().startswith(heading.lower()):
            text = text[len(heading) :].strip()
    return text.strip("\"' ")
