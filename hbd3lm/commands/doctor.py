"""``hbd3lm doctor``: everything a training run depends on, checked in minutes before it is queued.

Takes the settings of ``hbd3lm train``. Every check says what it looked at, and what to change:
those that read (data, settings, machine) are in ``doctor_checks.py``, those that take real steps in
``doctor_trial.py``.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from omegaconf import DictConfig

from hbd3lm.commands.build import build_documents
from hbd3lm.commands.doctor_checks import (
    FAIL,
    OK,
    WARN,
    Finding,
    check_compilation,
    check_disk,
    check_examples,
    check_leakage,
    check_lengths,
    check_mask,
    check_memory,
    check_tokenizer,
    read_test_problems,
    steps_did_not_fit,
)
from hbd3lm.commands.doctor_trial import Trial


def examine(cfg: DictConfig) -> int:
    """Print the table of findings; 1 if one of them is a failure, else 0.

    Raises:
        UserError: settings or files that no run could start with.
    """
    from rich.table import Table

    from hbd3lm.commands.console import make_console

    findings = find(cfg)
    table = Table("check", "", "found", title="hbd3lm doctor", show_lines=True)
    for finding in findings:
        color = {OK: "green", WARN: "yellow", FAIL: "red"}[finding.status]
        detail = finding.detail + (f"\n-> {finding.remedy}" if finding.remedy else "")
        table.add_row(finding.check, f"[{color}]{finding.status}", detail.replace("[", r"\["))
    make_console().print(table)
    counts = Counter(finding.status for finding in findings)
    print(", ".join(f"{counts[status]} {status}" for status in (OK, WARN, FAIL)))
    return 1 if counts[FAIL] else 0


def find(cfg: DictConfig) -> list[Finding]:
    """All checks, the cheap ones first."""
    from hbd3lm.commands.memory_advice import (
        count_processes,
        is_out_of_memory,
        resolve_device,
        training_needs,
    )
    from hbd3lm.commands.problems import load_training_examples
    from hbd3lm.commands.train import set_up

    setup = set_up(cfg)
    where, tokenizer, card = setup.where, setup.tokenizer, setup.card
    device = resolve_device(where.accelerator)
    config = setup.config.for_processes(count_processes(where, device))
    findings = [*check_mask(card.layout), *check_compilation(config, where, device)]
    train, valid = load_training_examples(cfg)
    findings += [
        check_examples(train, valid),
        check_leakage(train + valid, read_test_problems(cfg)),
        check_lengths(train, tokenizer, card.layout),
        check_tokenizer(train, tokenizer, Path(cfg.run_dir)),
    ]
    documents = build_documents(train, tokenizer, card.layout, report=lambda text: None)
    needs = training_needs(cfg, card.model, card.layout, documents, device)
    findings += [check_memory(needs), check_disk(cfg, card)]
    if findings[-2].status == FAIL:
        return findings  # the steps below would only prove it
    try:
        trial = Trial(cfg, card, setup.objective, documents, config, setup.seed, device, setup.fill)
        findings += [
            trial.check_time(len(valid)),
            trial.check_precision(),
            trial.check_gradients(),
        ]
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        findings.append(steps_did_not_fit(needs, error))
    return findings
