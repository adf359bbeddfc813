"""The demo's page, as a Gradio app, and what its buttons do. Nothing of it is fetched from afar."""

from __future__ import annotations

import time
from collections.abc import Iterator
from html import escape
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import gradio as gr

from hbd3lm.data.synthetic import generate_problems
from hbd3lm.errors import UserError, printable
from hbd3lm.evaluate.trajectories import Token, Trajectory
from hbd3lm.report.tokens import segment_html, token_style
from hbd3lm.sample.strategies import METHODS

if TYPE_CHECKING:
    from hbd3lm.pretrained import HBD3LM, Solution

# Problems of the usual kind; those the package generates follow.
EXAMPLES = (
    "Ann has 3 bags with 4 apples in each. She eats 2 apples. How many apples are left?",
    "A book has 250 pages. Ben reads 28 pages a day for 7 days. How many pages are left to read?",
)
PAUSE = 0.06  # seconds a pass, so that a fast model can be watched
Run = tuple[str, "Solution", bool, dict]
"""Question, what came out, whether the plan was given, and how it was sampled."""


def launch(app: gr.Blocks, host: str, port: int | None, inbrowser: bool = False) -> str:
    """Serve ``app`` from a thread of its own; its address.

    Raises:
        UserError: the address cannot be listened on.
    """
    try:
        _, address, _ = app.launch(
            server_name=host,
            server_port=port,
            inbrowser=inbrowser,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            footer_links=[],
            css=token_style(),
            # The theme's own fonts would be asked for over the network.
            theme=gr.themes.Base(
                font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
            ),
        )
    except OSError as error:
        if port is None:
            raise UserError(f"--host {host}: cannot listen there ({error})") from None
        raise UserError(
            f"--port {port}: it is taken, or may not be used, on {host}; give another, or leave "
            "--port out to have a free one chosen"
        ) from None
    return address


def build_app(model: HBD3LM, folder: Path) -> gr.Blocks:
    """The page for ``model``; what it offers to download is written into ``folder``."""
    layout, has_plan = model.card.layout, model.card.layout.has_plan
    tokenwise = model.card.objective == "autoregressive"
    defaults = model.sampling
    with gr.Blocks(title="hbd3lm demo", analytics_enabled=False) as app:
        runs = gr.State([])
        gr.Markdown(f"# Plan first, then calculate\n{_describe(model)}")
        question = gr.Textbox(
            label="Problem",
            placeholder="Type a word problem, or choose one below.",
            lines=3,
            max_length=20_000,
            elem_id="question",
        )
        gr.Examples([[text] for text in _examples()], question, label="Examples")
        with gr.Row():
            solve = gr.Button("Solve", variant="primary", scale=3, elem_id="solve")
            stop = gr.Button("Stop", variant="stop", scale=1, elem_id="stop")
        with gr.Accordion("Sampling", open=False):
            with gr.Row(visible=not tokenwise):
                method = gr.Dropdown(
                    list(METHODS),
                    value=defaults.get("method", "confidence"),
                    label="Method",
                    elem_id="method",
                )
                steps = gr.Number(
                    value=defaults.get("steps") or 0,
                    precision=0,
                    minimum=0,
                    label="Steps a block",
                    info="0: one a token",
                    elem_id="steps",
                )
                threshold = gr.Slider(
                    0,
                    1,
                    value=defaults.get("threshold") or 0,
                    step=0.01,
                    label="Threshold",
                    info="decide all tokens at least this probable; 0: off",
                    elem_id="threshold",
                )
            with gr.Row():
                temperature = gr.Slider(
                    0,
                    2,
                    value=defaults.get("temperature", 0.0),
                    step=0.05,
                    label="Temperature",
                    info="0: the most probable token",
                    elem_id="temperature",
                )
                seed = gr.Number(value=0, precision=0, minimum=0, label="Seed", elem_id="seed")
                pause = gr.Slider(
                    0,
                    0.5,
                    value=PAUSE,
                    step=0.01,
                    label="Pause",
                    info="seconds a network evaluation, to watch it",
                    elem_id="pause",
                )
        settings = [method, steps, threshold, temperature, seed, pause]
        with gr.Row():
            own = gr.HTML(_nothing("Nothing is solved yet."), elem_id="own", min_height=160)
            with gr.Column(visible=has_plan):
                plan = gr.Textbox(
                    label="Plan to follow",
                    info="The model's plan comes here; change it, then follow it.",
                    lines=4,
                    max_length=20_000,
                    elem_id="plan",
                )
                follow = gr.Button("Follow this plan", variant="primary", elem_id="follow")
                yours = gr.HTML("", elem_id="yours")
        page = gr.DownloadButton(
            "Save all solutions as a page", interactive=False, elem_id="page", size="md"
        )

        def solve_own(question: str, runs: list[Run], *values: Any) -> Iterator[tuple]:
            _check_question(model, question)
            for solution, done in _watch(model, question, None, values):
                html = _solution_html(solution, layout, done, given=False)
                if not done:
                    yield html, "", gr.skip(), gr.skip(), gr.skip()
            kept = [*runs, (question, solution, False, _sampling(values))]
            yield html, "", solution.plan or "", kept, _offer(model, kept, folder)

        def solve_yours(question: str, plan: str, runs: list[Run], *values: Any) -> Iterator[tuple]:
            if not plan.strip():
                raise gr.Error("Type a plan first.", print_exception=False)
            _check_question(model, question)
            for solution, done in _watch(model, question, plan, values):
                html = _solution_html(solution, layout, done, given=True)
                if not done:
                    yield html, gr.skip(), gr.skip()
            kept = [*runs, (question, solution, True, _sampling(values))]
            yield html, kept, _offer(model, kept, folder)

        hidden = {"show_progress": "hidden", "api_visibility": "private"}
        watching = [
            solve.click(
                solve_own, [question, runs, *settings], [own, yours, plan, runs, page], **hidden
            ),
            follow.click(
                solve_yours, [question, plan, runs, *settings], [yours, runs, page], **hidden
            ),
        ]
        stop.click(None, cancels=watching, **hidden)
    return app


def _offer(model: HBD3LM, runs: list[Run], folder: Path) -> gr.DownloadButton:
    return gr.DownloadButton(value=save_page(model, runs, folder), interactive=True)


def _describe(model: HBD3LM) -> str:
    layout = model.card.layout
    blocks = ", ".join(
        f"{s.name} token by token" if s.block_size == 1 else f"{s.name} in blocks of {s.block_size}"
        for s in layout.segments
    )
    parameters = model.net.count_parameters()
    return f"{parameters:,} parameters; {blocks}. A token's shade says how unsure the model was."


def _examples() -> list[str]:
    generated = [
        *generate_problems("train", 2, seed=1, max_steps=1),
        *generate_problems("train", 1, seed=1, min_steps=2, max_steps=2),
    ]
    return [*EXAMPLES, *(problem.question for problem in generated)]


def _check_question(model: HBD3LM, question: str) -> None:
    if not question.strip():
        raise gr.Error("Type a problem first.", print_exception=False)
    length, cap = len(model.tokenizer.encode(question)) + 1, model.card.layout.question_len
    if length > cap:
        gr.Warning(f"The problem has {length} tokens; the model reads the last {cap} of them.")


def _watch(
    model: HBD3LM, question: str, plan: str | None, values: tuple
) -> Iterator[tuple[Solution, bool]]:
    """Every stage of a solution, and whether it is the last one."""
    *_, pause = values
    watched = model.watch(question, plan, **_sampling(values))
    try:
        for solution in watched:
            # Only the last one has been scored; a model may write no answer at all.
            yield solution, False
            time.sleep(pause)
        yield solution, True
    except UserError as error:
        raise gr.Error(escape(str(error)), print_exception=False) from None
    finally:
        watched.close()


def _sampling(values: tuple) -> dict[str, Any]:
    """The fields of the page as settings of the sampler."""
    method, steps, threshold, temperature, seed, _ = values
    return {
        "method": method,
        "steps": int(steps) or None if steps is not None else None,
        "threshold": threshold or None,
        "temperature": temperature,
        "seed": int(seed or 0),
    }


# --- what is shown ------------------------------------------------------------------------------


def _nothing(text: str) -> str:
    return f'<div class="hbd3lm"><p class="waiting">{escape(text)}</p></div>'


def _solution_html(solution: Solution, layout: Any, done: bool, given: bool) -> str:
    """Plan and execution as far as they are written, the answer, and what it cost."""
    trajectory = solution.trajectory or Trajectory(())
    parts = [f"<h2>{'With your plan' if given else 'As the model does it'}</h2>"]
    for segment in layout.segments:
        if segment.name == "plan" and given:
            continue
        tokens, fresh = _tokens(trajectory, segment.name, segment.block_size, done)
        if tokens:
            parts.append(f'<h3 class="{segment.name}">{segment.name.capitalize()}</h3>')
            parts.append(segment_html(tokens, fresh, segment.block_size))
    answer = solution.answer if solution.answer is not None else "none (no line with ####)"
    shown = printable(answer) if done else "…"
    parts.append(f'<p class="answer">Answer: <span>{escape(shown)}</span></p>')
    decided = sum(len(step.tokens) for step in trajectory.steps)
    parts.append(
        f'<p class="counts">{solution.evaluations} network evaluations, {decided} tokens</p>'
    )
    return f'<div class="hbd3lm">{"".join(parts)}</div>'


def _tokens(
    trajectory: Trajectory, name: str, block_size: int, done: bool
) -> tuple[list[tuple[str, str, float] | None], set[int]]:
    """Tokens of a segment up to the end of its last opened block, and the newest among them."""
    found: dict[int, Token] = {}
    for step in trajectory.steps:
        if step.segment == name:
            found |= {token.position: token for token in step.tokens}
    length = -(-(max(found, default=-1) + 1) // block_size) * block_size
    tokens = [
        (found[i].text, found[i].kind, found[i].confidence) if i in found else None
        for i in range(length)
    ]
    last = trajectory.steps[-1] if trajectory.steps and not done else None
    newest = last.tokens if last is not None and last.segment == name else ()
    return tokens, {token.position for token in newest}


def save_page(model: HBD3LM, runs: list[Run], folder: Path) -> str:
    """The denoising viewer of everything solved so far, as a file in ``folder`` to download.

    What the page says of the sampling holds for all solutions; where they differ, their names tell.
    """
    from hbd3lm.commands.view import edit_commands
    from hbd3lm.data.records import HierarchicalExample
    from hbd3lm.evaluate.answers import Generation, GenerationRun, make_records
    from hbd3lm.evaluate.trajectories import describe_run, trajectory_to_json
    from hbd3lm.report.denoising_page import write_denoising_page

    used = [model.sampling | settings for *_, settings in runs]
    shared = {k: v for k, v in used[0].items() if all(other.get(k) == v for other in used)}
    records = []
    for number, (question, solution, given, _) in enumerate(runs, start=1):
        own = {k: v for k, v in used[number - 1].items() if k not in shared}
        words = ["plan given"] if given else []
        words += [f"{k} {'off' if v is None else v}" for k, v in own.items()]
        name = ", ".join([f"solution {number}", *words])
        example = HierarchicalExample(name, question, solution.plan or "", "", "")
        ended = {}
        generation = Generation(solution.plan, solution.execution, solution.evaluations, ended)
        run = GenerationRun([generation], 0.0, 0, 0, solution.evaluations)
        (record,) = make_records([example], run, "exec_only" if given else "full")
        records.append(record | {"gold_plan": "", "trajectory": trajectory_to_json(
            solution.trajectory)})  # fmt: skip
    about = describe_run(model.card.layout, model.path, "problems of the demo", shared)
    page = Path(mkdtemp(dir=folder)) / "solutions.html"  # visitors do not share one
    write_denoising_page(page, about, records, edit_commands(about, Path("demo")))
    return str(page)
