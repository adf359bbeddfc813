"""Experiment 4, third question: where executions look while they are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hbd3lm.evaluate.attention_mass import GROUPS
from hbd3lm.experiments.mechanism import Arm
from hbd3lm.experiments.results import Column, Table
from hbd3lm.experiments.statistics import Estimate, mean_estimate, ratio_estimate

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure


class Look:
    """Attention of one arm: [seeds, documents, layers, steps, groups]."""

    def __init__(self, models: Arm) -> None:
        self.mass = np.array([m.attention["mass"] for m in models])
        self.uniform = np.array([m.attention["uniform"] for m in models])

    def share(self, group: int) -> Estimate:
        """Mass on a group, mean over layers and steps."""
        return mean_estimate(self.mass[..., group].mean((2, 3)))

    def lift(self, group: int) -> Estimate:
        """Mass over that of looking at all visible tokens alike."""
        mass = self.mass[..., group].mean((2, 3))
        return ratio_estimate(mass, self.uniform[..., group].mean(2))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: means over seeds and documents."""
        mean = self.mass.mean((0, 1))
        return {
            "groups": list(GROUPS),
            "layers_steps_groups": mean.round(5).tolist(),
            "uniform_steps_groups": self.uniform.mean((0, 1)).round(5).tolist(),
        }


def attention_table(looks: Mapping[str, Look]) -> Table:
    """A row an arm and group of tokens: attention to it, and its share of what is visible."""
    return Table(
        "attention",
        "What the tokens of an execution look at while they are written",
        [
            Column("model"),
            Column("looked at"),
            Column("attention", "share"),
            Column("of visible tokens", "share"),
            Column("attention / share", 2),
            Column("first step", "share"),
            Column("last step", "share"),
        ],
        [
            [
                arm,
                group,
                look.share(i),
                float(look.uniform[..., i].mean()),
                look.lift(i),
                float(look.mass[..., 0, i].mean()),
                float(look.mass[..., -1, i].mean()),
            ]
            for arm, look in looks.items()
            for i, group in enumerate(GROUPS)
        ],
        "Masked tokens of the model's own executions under its own plans, mean over heads, layers "
        "and steps. A step is how many tokens of the block are decided. Attention shows where "
        "information may come from, not that it is used.",
    )


def attention_findings(arm: str, look: Look) -> list[str]:
    """Whether digits of the question or the plan get more attention, as the interval says."""
    digits, plan, other = (
        look.lift(GROUPS.index(name))
        for name in ("question: digits", "plan", "question: other words")
    )
    gap = [look.mass[..., GROUPS.index(n)].mean((2, 3)) for n in ("question: digits", "plan")]
    compared = mean_estimate(gap[0] - gap[1])
    if compared.low > 0:
        verdict = "more attention goes to the question's digits than to the plan"
    elif compared.high < 0:
        verdict = "more attention goes to the plan than to the question's digits"
    else:
        verdict = "digits of the question and plan get attention alike, as far as can be told"
    parts = ", ".join(
        f"{name} {found.value:.1f} [{found.low:.1f}, {found.high:.1f}]"
        for name, found in (("digits", digits), ("plan", plan), ("other words", other))
    )
    return [f"{arm}: {verdict}; for each visible token, as times the even share: {parts}."]


# --- figure


_SHOWN = ("question: digits", "plan", "question: other words")
_LINES = {
    "question: digits": "#009E73",
    "question: number words": "#56B4E9",
    "question: other words": "#000000",
    "plan": "#0072B2",
    "end tokens and fill": "#999999",
    "earlier execution": "#E69F00",
    "own block": "#D55E00",
}


def draw_attention(figure: SubFigure, arm: str, look: Look) -> None:
    """One arm: attention by layer and step to some groups, and by step to all."""
    from hbd3lm.report.style import DENSITY

    mean = look.mass.mean((0, 1))  # [layers, steps, groups]
    axes = figure.subplots(1, len(_SHOWN) + 1, width_ratios=[1] * len(_SHOWN) + [1.7])
    highest = max(mean[..., GROUPS.index(group)].max() for group in _SHOWN)
    for panel, group in zip(axes, _SHOWN):
        image = panel.imshow(
            mean[..., GROUPS.index(group)],
            cmap=DENSITY,
            vmin=0,
            vmax=highest,
            aspect="auto",
            origin="lower",
        )
        panel.grid(False)
        panel.set_title(group, fontsize=10)
        panel.set_xlabel("tokens decided")
        panel.set_yticks(range(len(mean)), range(1, len(mean) + 1))
        panel.set_xticks(range(0, mean.shape[1], max(1, mean.shape[1] // 4)))
    axes[0].set_ylabel(f"{arm}\nlayer")
    figure.colorbar(image, ax=list(axes[:-1]), label="attention", shrink=0.9)
    steps = np.arange(mean.shape[1])
    for i, group in enumerate(GROUPS):
        axes[-1].plot(steps, mean[..., i].mean(0), marker="o", ms=3, label=group, c=_LINES[group])
    axes[-1].set_xlabel("tokens of the block decided")
    axes[-1].set_ylabel("attention, mean of layers")
    axes[-1].set_ylim(0, None)
    axes[-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
