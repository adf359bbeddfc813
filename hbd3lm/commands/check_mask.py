"""``test_hierarchical_mask.py``: is the attention mask right, in the rule and in the network?"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hbd3lm.commands.arguments import positive
from hbd3lm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from hbd3lm.model.batch import Batch, Tokens
    from hbd3lm.model.transformer import Transformer

LAYOUTS = tuple(
    (question, plan, execution, plan_block, exec_block)
    for question, plan, execution in ((128, 128, 256), (64, 64, 128))
    for plan_block, exec_block in ((1, 1), (4, 4), (16, 16), (16, 4), (4, 16))
)
"""Question, plan and execution length, plan and execution block size, in tokens."""

MOST_TOKENS = 4096
"""Of a picture, noisy copies included; more are finer than its points, and take gigabytes."""

_QUESTION, _PLAN, _EXECUTION = range(3)
_VOCABULARY, _FILL, _MASK = 12, 7, 11  # ids below _FILL are text


def build_parser(prog: str = "hbd3lm mask") -> argparse.ArgumentParser:
    """The command line, described once."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Check the attention mask: the rule against its definition, the network "
        "against the rule. Then draw it. Exit status 1 if a check fails.",
    )
    parser.add_argument(
        "--output_plot",
        default="hierarchical_mask.png",
        metavar="FILE",
        help="the picture: .png, .pdf or .svg (default: %(default)s)",
    )
    for flag, value, what in (
        ("question_len", 128, "tokens of the question in the picture"),
        ("plan_len", 128, "tokens of the plan"),
        ("exec_len", 256, "tokens of the execution"),
        ("plan_block_size", 16, "plan tokens denoised together"),
        ("exec_block_size", 16, "execution tokens denoised together"),
    ):
        parser.add_argument(
            f"--{flag}",
            type=positive,
            default=value,
            metavar="N",
            help=f"{what} (default: {value})",
        )
    return parser


def main(argv: list[str] | None = None, prog: str = "hbd3lm mask") -> int:
    """Print PASS or FAIL for every check and draw the picture; 0 if all pass, else 1.

    Raises:
        UserError: a length that is no multiple of its block size, more tokens than can be drawn,
            or a picture that cannot be written.
    """
    args = build_parser(prog).parse_args(argv)
    for segment in ("plan", "exec"):
        length = getattr(args, f"{segment}_len")
        block = getattr(args, f"{segment}_block_size")
        if length % block:
            raise UserError(
                f"--{segment}_len {length} is no multiple of --{segment}_block_size {block}"
            )
    tokens = args.question_len + 2 * (args.plan_len + args.exec_len)
    if tokens > MOST_TOKENS:
        raise UserError(
            f"the picture would have {tokens} tokens (--question_len and twice --plan_len and "
            f"--exec_len), at most {MOST_TOKENS} can be drawn; give smaller lengths"
        )
    from hbd3lm.files import check_output
    from hbd3lm.report.mask_figure import draw_mask
    from hbd3lm.report.style import figure_format

    figure_format(args.output_plot)
    check_output(args.output_plot, "--output_plot")
    failed = 0
    for check in CHECKS:
        result = check()
        failed += not result.passed
        print(f"{'PASS' if result.passed else 'FAIL'}  {result.promise} ({result.detail})")
    draw_mask(
        args.output_plot,
        args.question_len,
        args.plan_len,
        args.exec_len,
        args.plan_block_size,
        args.exec_block_size,
    )
    print(f"mask drawn: {args.output_plot}")
    passed = len(CHECKS) - failed
    print(f"{passed} of {len(CHECKS)} checks passed")
    return 1 if failed else 0


# --- the rule ---------------------------------------------------------------------------------


def brute_force(
    question: int, plan: int, execution: int, plan_block: int, exec_block: int
) -> np.ndarray:
    """The hierarchy in words, one pair of tokens at a time: bool [L, L], query by key.

    Written without the model's rule, in the order of its picture:
    [Question | Plan_xt | Plan_x0 | Exec_xt | Exec_x0]. Lengths are in tokens.
    """
    tokens = [(_QUESTION, False, 0)] * question
    for segment, length, block in ((_PLAN, plan, plan_block), (_EXECUTION, execution, exec_block)):
        for noisy in (True, False):
            tokens += [(segment, noisy, i // block) for i in range(length)]

    def sees(query: tuple[int, bool, int], key: tuple[int, bool, int]) -> bool:
        q_segment, q_noisy, q_block = query
        k_segment, k_noisy, k_block = key
        if q_segment == _QUESTION:
            return k_segment == _QUESTION
        if k_segment < q_segment:  # question or (for the execution) plan: the clean copy only
            return not k_noisy
        if k_segment > q_segment:  # the plan never sees the execution
            return False
        if k_noisy:  # x_t is seen by its own block only
            return q_noisy and q_block == k_block
        if q_noisy:  # M_OBC
            return k_block < q_block
        return k_block <= q_block  # M_BC

    return np.array([[sees(q, k) for k in tokens] for q in tokens])


@dataclass(frozen=True)
class CheckResult:
    """What was promised, whether it holds, and what was looked at."""

    promise: str
    passed: bool
    detail: str


def check_rule() -> CheckResult:
    """The model's mask, entry by entry, on every documented layout."""
    from hbd3lm.model.mask import dense_mask
    from hbd3lm.report.mask_figure import picture_tags

    wrong = pairs = 0
    for layout in LAYOUTS:
        tags = picture_tags(*layout)
        expected = brute_force(*layout)
        wrong += int((dense_mask(tags, tags).numpy() != expected).sum())
        pairs += expected.size
    return CheckResult(
        "the mask is its definition written out by brute force",
        not wrong,
        f"{len(LAYOUTS)} layouts, {wrong:,} of {pairs:,} pairs of tokens differ",
    )


# --- the network ------------------------------------------------------------------------------


def random_network(modules: str = "shared") -> Transformer:
    """A small float64 network with random weights: float64, so that equal means equal."""
    import torch

    from hbd3lm.model.config import ModelConfig
    from hbd3lm.model.transformer import Transformer

    net = Transformer(ModelConfig(_VOCABULARY, dim=16, n_layers=2, n_heads=2, modules=modules))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() > 1:  # fresh networks start with branches of zero; these must not
                parameter.normal_(std=0.5, generator=generator)
    return net.double().eval()


def _batches(modules: str) -> tuple[Batch, Batch]:
    """One batch twice: in the second all execution tokens, noisy and clean, are others."""
    from hbd3lm.diffusion.objective import BlockDiffusion
    from hbd3lm.model.layout import build_document, plan_execution_layout

    layout = plan_execution_layout(8, 8, 12, 4, 2)
    objective = BlockDiffusion(layout, _MASK, modules)
    rng = np.random.default_rng(0)
    documents = [
        build_document(
            rng.integers(0, _FILL, rng.integers(1, 9)),
            {s.name: rng.integers(0, _FILL, rng.integers(1, s.max_len + 1))
             for s in layout.segments},
            layout,
            _FILL,
        )
        for _ in range(6)
    ]  # fmt: skip
    noises = objective.training_noise(documents, rng)
    others = [
        replace(d, targets=np.where(d.segment == 1, (d.targets + 3) % (_FILL + 1), d.targets))
        for d in documents
    ]
    return objective.assemble(documents, noises), objective.assemble(others, noises)


def _predict(net: Transformer, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits of the noisy plan tokens and of the noisy execution tokens, each [tokens, V - 1]."""
    import torch

    past, segments, logits = None, [], []
    for part in batch.parts:
        _, past = net(part.clean, past, part.module, keys_only=True)
        hidden, _ = net(part.noisy, past, part.module)
        token = ~part.noisy.is_padding
        segments.append(part.prediction.segment[token])
        logits.append(net.logits(hidden[token], part.module))
    segment, found = torch.cat(segments), torch.cat(logits)
    return found[segment == 0], found[segment == 1]


def _check_plan_is_closed(modules: str) -> CheckResult:
    import torch

    net = random_network(modules)
    with torch.no_grad():
        (plan, execution), (plan_after, execution_after) = (
            _predict(net, batch) for batch in _batches(modules)
        )
    same = torch.equal(plan, plan_after)
    # Executions that did not move either would mean that nothing was tested.
    tested = not torch.equal(execution, execution_after)
    return CheckResult(
        f"plan logits are the same to the bit for another execution, {modules} modules",
        same and tested,
        f"{plan.numel():,} plan logits, largest change {(plan - plan_after).abs().max():.3g}; "
        f"execution logits moved by up to {(execution - execution_after).abs().max():.3g}",
    )


def check_plan_is_closed_with_shared_modules() -> CheckResult:
    """Plan never sees execution, though the same weights run both."""
    return _check_plan_is_closed("shared")


def check_plan_is_closed_with_separate_modules() -> CheckResult:
    """Plan never sees execution, with weights of its own."""
    return _check_plan_is_closed("separate")


def _side_by_side(batch: Batch) -> tuple[Tokens, int]:
    """Clean and noisy tokens of a batch with shared modules as one stretch; number of clean."""
    import torch

    from hbd3lm.model.batch import Tokens
    from hbd3lm.model.mask import cat_tags

    clean, noisy = batch.parts[0].clean, batch.parts[0].noisy
    tokens = Tokens(
        torch.cat([clean.ids, noisy.ids], 1),
        torch.cat([clean.position, noisy.position], 1),
        cat_tags(clean.tags, noisy.tags),
    )
    return tokens, clean.ids.shape[1]


def check_nothing_clean_sees_anything_noisy() -> CheckResult:
    """In the mask of every documented layout, and in the network's hidden states."""
    import torch

    from hbd3lm.model.mask import dense_mask
    from hbd3lm.report.mask_figure import picture_tags

    seen = 0
    for layout in LAYOUTS:
        tags = picture_tags(*layout)
        seen += int(dense_mask(tags, tags)[~tags.noisy][:, tags.noisy].sum())
    net = random_network()
    tokens, n_clean = _side_by_side(_batches("shared")[0])
    ids = tokens.ids.clone()
    ids[:, n_clean:] = (ids[:, n_clean:] + 1) % _VOCABULARY
    with torch.no_grad():
        before, _ = net(tokens)
        after, _ = net(replace(tokens, ids=ids))
    noisy = tokens.tags.noisy
    clean = ~noisy & ~tokens.is_padding  # padding sees padding, wherever it stands
    clean_same = torch.equal(before[clean], after[clean])
    tested = not torch.equal(before[noisy], after[noisy])
    return CheckResult(
        "nothing clean sees anything noisy",
        not seen and clean_same and tested,
        f"{seen:,} such pairs in {len(LAYOUTS)} layouts; hidden states of clean tokens "
        f"{'the same to the bit' if clean_same else 'CHANGED'} for other noisy tokens",
    )


def check_clean_then_noisy_equals_one_pass() -> CheckResult:
    """Keys and values kept from a clean pass serve the noisy pass as if both ran together."""
    import torch

    net = random_network()
    batch = _batches("shared")[0]
    part = batch.parts[0]
    tokens, n_clean = _side_by_side(batch)
    with torch.no_grad():
        _, past = net(part.clean, keys_only=True)
        cached, _ = net(part.noisy, past)
        together, _ = net(tokens)
    token = ~part.noisy.is_padding
    difference = float((cached - together[:, n_clean:])[token].abs().max())
    return CheckResult(
        "a clean pass and a pass over its cache equal one pass over all",
        difference < 1e-9,
        f"{int(token.sum())} noisy tokens, largest difference {difference:.1e}",
    )


CHECKS: tuple[Callable[[], CheckResult], ...] = (
    check_rule,
    check_nothing_clean_sees_anything_noisy,
    check_plan_is_closed_with_shared_modules,
    check_plan_is_closed_with_separate_modules,
    check_clean_then_noisy_equals_one_pass,
)
