"""Values that no setting can have are refused by its name."""

from __future__ import annotations

import pytest

from hbd3lm.commands.problems import load_examples
from hbd3lm.errors import UserError
from tests.commands.runs import compose, main

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["training.max_steps=abc"], "training.max_steps: Value 'abc'"),
        (["training.max_steps=0"], "training.max_steps must be at least 1, got 0"),
        (["training.learning_rate=fast"], "training.learning_rate: Value 'fast'"),
        (["training.learning_rate=nan"], "training.learning_rate=nan: a finite number"),
        (["training.weight_decay=inf"], "training.weight_decay=inf: a finite number"),
        (["mode=ppl_eval", "eval.precision=nan"], "eval.precision=nan: a finite number"),
        (["mode=trian"], "mode=trian: choose one of train, ppl_eval, sample_eval, sample"),
        (["seed=abc"], "seed=abc: a whole number from 0 up is needed"),
        ([f"seed={2**63}"], "from 0 up is needed (below 2**63)"),
        (["seed=-1"], "seed=-1: a whole number from 0 up is needed"),
        (["hierarchical.plan_len=100"], "hierarchical.plan_len=100 is no positive multiple"),
        (["block_size=24"], "set hierarchical.plan_len=120 or 144"),
        (["block_size=big"], "hierarchical.plan_block_size: Value 'big'"),
        (["hierarchical.enabled=perhaps"], "hierarchical.enabled: Value 'perhaps'"),
        (["hierarchical.total_len=20"], "hierarchical.total_len=20 leaves no whole block"),
        (["algo=ar", "block_size=4"], "algo=ar predicts token by token: block_size must be 1"),
        (["algo=flat", "hierarchical.modules=separate"], "modules=separate needs a plan"),
        (["model.dim=30"], "model.dim=30 is no multiple of model.n_heads=8"),
        (["algo.t_min=1"], "algo.t_min=1"),
        (["algo.schedule=cubic"], "algo.schedule=cubic: choose loglinear or searched"),
        (
            ["algo=ar", "algo.schedule=searched"],
            "algo.schedule=searched: next-token prediction has",
        ),
        (["training.optimizer=sgd"], "training.optimizer=sgd: choose one of adamw, muon"),
        (["hierarchical.match=size"], "hierarchical.match=size: choose one of operations, param"),
        (["hierarchical.match=parameters"], "hierarchical.match=parameters is for"),
        (["training.freeze=all"], "training.freeze=all: choose one of null, plan, execution"),
        (["training.freeze=plan"], "training.freeze=plan: with hierarchical.modules=shared"),
        (["training.freeze=plan", "algo=flat"], "without a plan there is one module only"),
        (["training.freeze=plan", "algo=ar"], "training.freeze=plan: algo=ar has one causal"),
        (
            ["training.freeze=execution", "hierarchical.modules=separate"],
            "give training.init_from=RUN",
        ),
        (["trainer.num_workers=-1"], "trainer.num_workers must not be negative, got -1"),
        (["trainer.num_nodes=0"], "trainer.num_nodes must be at least 1, got 0"),
        (["trainer.devices=0"], "trainer.devices=0: give a number from 1 up, auto, or a list"),
        (["trainer.devices=abc"], "trainer.devices=abc: give a number from 1 up"),
        (["algo.t_min=abc"], "algo.t_min: Value 'abc'"),
        (["algo.t_max=null"], "algo.t_max: "),
        (["algo.objective=5"], "algo.objective=5: choose diffusion or autoregressive"),
        (["seed=true"], "seed=True: a whole number from 0 up is needed (below"),
        ([f"seed={10**20}"], f"seed={10**20}: a whole number"),
        ([f"training.batch_size={10**20}"], f"training.batch_size={10**20} is too large"),
        (["mode=sample_eval", f"sampling.steps={10**20}"], "is too large"),
        (["run_name=null"], "run_name=None: text is needed"),
        (["checkpoint=[1]", "mode=ppl_eval"], "checkpoint=[1]: text is needed"),
        (["model.name=[1]"], "model.name=[1]: text is needed"),
        (["trainer.precision=16-mixed"], "trainer.precision=16-mixed: choose one of auto"),
        (["data.valid_size=0"], "data.valid_size must be at least 1, got 0"),
        (["data=laboratory", "data.max_steps=0"], "data.max_steps must be at least 1, got 0"),
        (["data.num_train=few"], "data.num_train: Value 'few'"),
        (["tokenizer.name=./nowhere"], "tokenizer: no such folder: nowhere"),
        (["mode=sample"], "mode=sample needs sampling.question='...'"),
        (["mode=sample_eval", "sampling.method=guess"], "sampling.method=guess: choose one of"),
        (["mode=ppl_eval", "eval.split=train"], "eval.split=train: choose test or valid"),
        (["mode=ppl_eval", "eval.samples=0"], "eval.samples must be at least 1"),
        (["mode=ppl_eval", "eval.precision=2"], "eval.precision must lie between 0 and 1"),
        (
            ["mode=ppl_eval", "eval.precision=0.1", "eval.max_samples=20"],
            "eval.max_samples must be at least 32, got 20",
        ),
        (["mode=ppl_eval", "eval.num_examples=none"], "eval.num_examples: Value 'none'"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_values_that_do_not_fit_are_refused_by_name(overrides, message, tmp_path, capsys):
    assert main(*overrides, f"run_dir={tmp_path}/run") == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ") and error.count("\n") == 1


def test_an_empty_override_of_a_typed_group_names_the_group():
    with pytest.raises(UserError, match=r"data\.valid_size: Value 'x'"):
        load_examples(compose("data.valid_size=x"), "train")
