#!/usr/bin/env python
"""What asking vLLM request by request costs against handing it everything at once.

    python benchmarks/plan_overhead.py --model DIR

The plan loop submits requests and takes answers one by one, so that each can be judged and written
down as it ends. The same chats, sampled with the same settings and seeds, also go through
``LLM.chat`` of the same loaded model; the two take turns. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hbd3lm.commands.arguments import positive
from hbd3lm.errors import UserError, run_command

if TYPE_CHECKING:
    from hbd3lm.data.records import Problem
    from hbd3lm.plans.engines.engine import Request
    from hbd3lm.plans.engines.vllm import VLLMEngine


def build_parser() -> argparse.ArgumentParser:
    """The command line, described once."""
    parser = argparse.ArgumentParser(prog="benchmarks/plan_overhead.py", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--model", required=True, help="what vLLM loads: hub name or local directory")
    add("--data_dir", help="folder of GSM8K (default: HBD3LM_DATA_DIR; without: embedded problems)")
    add("--problems", type=positive, default=64, help="in a turn (default: 64)")
    add("--max_tokens", type=positive, default=64, help="of an answer (default: 64)")
    add("--max_model_len", type=positive, default=2048, help="default: 2048")
    add("--dtype", default="auto", help="default: the model's")
    add("--constrained", choices=["on", "off"], default="off", help="default: off")
    add("--repeats", type=positive, default=3, help="turns of each (default: 3)")
    add("--quick", action="store_true", help="a few problems, to see that everything runs")
    return parser


def make_requests(args: argparse.Namespace) -> list[Request]:
    """One request a problem, with the seed that is its number."""
    from hbd3lm.data.sources import load_problems
    from hbd3lm.plans.engines.engine import Request

    problems = load_problems("gsm8k", "train", args.data_dir, args.problems).problems
    return [
        Request(problem.id, _chat(problem), 0.7, 0.9, args.max_tokens, seed)
        for seed, problem in enumerate(problems)
    ]


def _chat(problem: Problem) -> tuple[dict[str, str], ...]:
    """About as long as what the plan loop asks; what it says does not matter here."""
    return (
        {"role": "system", "content": "You write abstract plans for math word problems. " * 8},
        {"role": "user", "content": f"{problem.question}\n\n{problem.solution}\n\nThe plan:"},
    )


def ours(engine: VLLMEngine, requests: list[Request]) -> int:
    """All requests through ``submit`` and ``poll``. Returns the tokens written."""
    for request in requests:
        engine.submit(request)
    tokens = answered = 0
    while answered < len(requests):
        for completion in engine.poll():
            if completion.error is not None:
                raise UserError(f"problem {completion.key}: {completion.error}")
            answered += 1
            tokens += completion.completion_tokens
    return tokens


def direct(engine: VLLMEngine, requests: list[Request]) -> int:
    """The same through ``LLM.chat``. Returns the tokens written."""
    outputs = engine._llm.chat(
        [[dict(message) for message in request.messages] for request in requests],
        [engine.sampling(request) for request in requests],
        use_tqdm=False,
    )
    return sum(len(output.outputs[0].token_ids) for output in outputs)


def timed(way: Any, engine: VLLMEngine, requests: list[Request]) -> tuple[float, int]:
    """(seconds, tokens) of one turn."""
    start = time.perf_counter()
    tokens = way(engine, requests)
    return time.perf_counter() - start, tokens


def main(argv: list[str] | None = None) -> int:
    """Measure, check that both wrote as much, print the table."""
    args = build_parser().parse_args(argv)
    if args.quick:
        args.problems, args.max_tokens, args.repeats = min(args.problems, 4), 8, 1
    from hbd3lm.plans.engines.registry import load_engine

    requests = make_requests(args)
    engine = load_engine(
        "vllm",
        model=args.model,
        dtype=args.dtype,
        max_model_len=args.max_model_len,
        constrained=args.constrained,
        max_in_flight=len(requests),
    )
    ways = {"LLM.chat": direct, "submit and poll": ours}
    for way in ways.values():  # warm up: prompts are cached, memory is taken
        way(engine, requests)
    turns: dict[str, list[tuple[float, int]]] = {name: [] for name in ways}
    for turn in range(args.repeats):
        order = list(ways) if turn % 2 == 0 else list(ways)[::-1]
        for name in order:
            turns[name].append(timed(ways[name], engine, requests))
    engine.close()
    print(f"{len(requests)} problems, {args.repeats} turns each, {args.model}")
    print(f"{'':<20}{'tokens':>8}{'seconds':>9}{'tokens/s':>10}")
    speed = {}
    for name, results in turns.items():
        seconds = statistics.median(seconds for seconds, _ in results)
        tokens = statistics.median(tokens for _, tokens in results)
        speed[name] = [tokens / seconds for seconds, tokens in results]
        print(f"{name:<20}{tokens:>8.0f}{seconds:>9.2f}{statistics.median(speed[name]):>10.1f}")
    ratio = statistics.median(
        chat / own for chat, own in zip(speed["LLM.chat"], speed["submit and poll"])
    )
    print(f"time per token, submit and poll over LLM.chat: {ratio:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
