"""The documents tell the truth: commands parse, keys and files exist, links lead somewhere."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from hbd3lm import cli
from hbd3lm.commands import run
from hbd3lm.commands.compose import CONFIGS, check_overrides
from hbd3lm.experiments.study import Study

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[1]
GUIDES = ("GSM8K_README.md", "GSM8K_TRAINING_GUIDE.md", "GSM8K_SETUP_SUMMARY.md")
DOCUMENTS = [
    REPOSITORY / name
    for name in ("README.md", "README.vi.md", *GUIDES)
] + sorted(REPOSITORY.glob("docs/*.md")) + sorted(REPOSITORY.glob("benchmarks/*.md"))  # fmt: skip
# Read by us or by a library, whatever the program.
VARIABLES = {"HBD3LM_DATA_DIR", "HF_ENDPOINT", "HF_HUB_OFFLINE", "OMP_NUM_THREADS",
             "CUDA_VISIBLE_DEVICES"}  # fmt: skip
ASSIGNMENT = re.compile(r"(\w+)=(.*)", re.DOTALL)


# --- commands -----------------------------------------------------------------------------------


def fenced(text: str, language: str) -> Iterator[str]:
    """The contents of the fenced blocks of a language."""
    yield from re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)


def commands(path: Path) -> list[str]:
    """Command lines of the bash blocks, one an entry: comments gone, continuations joined."""
    found = []
    for block in fenced(path.read_text(encoding="utf-8"), "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                found.append(" ".join(line.split()))
    return found


def simple_commands(line: str) -> list[list[str]]:
    """A command line cut at ``|`` and ``&&`` into words."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("|&;"):
            found.append([])
        else:
            found[-1].append(word)
    return found


def parser_of(module_name: str):
    return importlib.import_module(module_name).build_parser


def check_flags(build_parser, words: list[str]) -> None:
    try:
        build_parser().parse_intermixed_args(words)
    except SystemExit as stopped:
        assert stopped.code in (0, None), f"argparse refuses {words}"


def check_settings(words: list[str]) -> None:
    """Overrides of main.py compose, and the mode exists."""
    if "--cfg" in words:  # Hydra's own: print the configuration
        start = words.index("--cfg")
        assert words[start + 1] in ("job", "hydra", "all")
        words = words[:start] + words[start + 2 :]
    check_overrides(words)
    modes = [word for word in words if word.startswith("mode=")]
    if modes == ["mode=experiment"]:
        assert sum(word.startswith("experiment=") for word in words) == 1
    else:
        assert all(word.removeprefix("mode=") in run.MODES for word in modes)


def check_python(words: list[str]) -> None:
    if words[:2] == ["-m", "pip"]:
        return check_pip(words[2:])
    if words[:2] == ["-m", "hbd3lm.cli"]:
        return check_verb(words[2:])
    script = REPOSITORY / words[0]
    assert script.is_file(), f"there is no {words[0]}"
    if words[0] == "main.py":
        return check_settings(words[1:])
    source = script.read_text(encoding="utf-8")
    verb = re.search(r"from (hbd3lm\.commands\.\w+) import main", source)
    if verb:
        return check_flags(parser_of(verb[1]), words[1:])
    spec = importlib.util.spec_from_file_location(script.stem, script)
    module = importlib.util.module_from_spec(spec)
    sys.modules[script.stem] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
        check_flags(module.build_parser, words[1:])
    finally:
        del sys.modules[script.stem]


def check_verb(words: list[str]) -> None:
    """``hbd3lm VERB ...``"""
    if words and words[0] in ("--help", "--version"):
        return
    name, rest = cli.find_verb(words)
    module = cli.VERBS[name].module
    if module is None:
        check_settings([f"mode={name}", *rest])
    else:
        check_flags(parser_of(module), rest)
    if name == "experiment":
        experiment, *settings = [word for word in rest if not word.startswith("--")]
        Study.open(experiment, settings, "--smoke" in rest)


def check_script(words: list[str], variables: list[str]) -> None:
    """``bash`` or ``sbatch`` with a script, and settings it reads from the environment."""
    words = [word for word in words if not word.startswith("--")]
    script = REPOSITORY / words[0]
    assert script.is_file(), f"there is no {words[0]}"
    source = script.read_text(encoding="utf-8")
    for name in set(variables) - VARIABLES:
        assert f"${{{name}:-" in source, f"{words[0]} does not read {name}"
    if "main.py" in source:
        check_settings(words[1:])
    else:
        assert words[1:] == [], f"{words[0]} takes no arguments"


def check_make(words: list[str]) -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for word in words:
        variable = ASSIGNMENT.fullmatch(word)
        name = variable[1] if variable else word
        rule = rf"^{name} *\?=" if variable else rf"^{name}:"
        assert re.search(rule, makefile, re.MULTILINE), f"the Makefile has no {name}"


def check_pip(words: list[str]) -> None:
    assert words[0] == "install"
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word in words:
        for extras in re.findall(r"\[([\w,-]+)\]", word):
            for extra in extras.split(","):
                assert extra in project["optional-dependencies"], f"there is no extra {extra}"
    if "-c" in words:
        assert (REPOSITORY / words[words.index("-c") + 1]).is_file()


def check_command(words: list[str]) -> None:
    """Refuse a command that this repository would refuse, or that no reader here can check."""
    variables = []
    while words and (assignment := ASSIGNMENT.fullmatch(words[0])):
        variables.append(assignment[1])
        words = words[1:]
    program, *rest = words
    if program in ("bash", "sbatch"):
        return check_script(rest, variables)
    assert set(variables) <= VARIABLES, f"who reads {variables}?"
    if program in ("python", ".venv/bin/python"):
        return check_python(rest)
    if program == "hbd3lm":
        return check_verb(rest)
    if program == "make":
        return check_make(rest)
    if program == "pip":
        return check_pip(rest)
    if program == "export":
        assert ASSIGNMENT.fullmatch(rest[0])[1] in VARIABLES
        return None
    assert program in ("git", "cd", "source", "head", "tensorboard", "squeue", "apt"), (
        f"no test knows how to check {program!r}"
    )


@pytest.mark.parametrize(
    ("document", "line"),
    [(path.name, line) for path in DOCUMENTS for line in commands(path)],
    ids=lambda value: value.removesuffix(".md") if value.endswith(".md") else value[:70],
)
def test_every_printed_command_is_one_the_program_accepts(document, line):
    for words in simple_commands(line):
        check_command(words)


@pytest.mark.parametrize(
    "wrong",
    [
        "python main.py mode=train training.max_step=1000",
        "python main.py mode=experiment",
        "python gsm8k_dataloader.py --data_path a.json --analyse",
        "python scripts/analysis/none.py",
        "hbd3lm conquer",
        "make world",
        "make quickstart DATA=x",
        "LEARNING=1 bash scripts/train/train_gsm8k_hierarchical.sh",
        "pip install -e '.[nothing]'",
        "frobnicate",
    ],
)
def test_a_wrong_command_would_be_noticed(wrong):
    with pytest.raises(Exception):  # noqa: B017  any refusal will do
        check_command(simple_commands(wrong)[0])


# --- keys, variables and files ------------------------------------------------------------------


def known_keys(*choices: str) -> dict[str, object]:
    """Every key of the configuration and its default."""
    with hydra.initialize_config_dir(CONFIGS, version_base=None):
        tree = OmegaConf.to_container(hydra.compose("config", list(choices)), resolve=True)

    def walk(node: dict, prefix: str) -> Iterator[tuple[str, object]]:
        for name, value in node.items():
            yield prefix + name, value
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{name}.")

    return dict(walk(tree, ""))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_configuration_key_named_in_the_text_exists(path):
    keys = known_keys() | known_keys("model=pretrained", "data=laboratory")
    groups = "|".join(name for name, value in keys.items() if isinstance(value, dict))
    text = path.read_text(encoding="utf-8")
    for key in re.findall(rf"`((?:{groups})\.[a-z_0-9.]+)(?:=[^`]*)?`", text):
        is_file = key.endswith((".py", ".json", ".yaml"))
        assert is_file or key in keys, f"there is no key {key}"


def test_the_table_of_settings_shows_the_defaults():
    keys = known_keys()
    rows = re.findall(
        r"^\| `([a-z_.]+)` \| `([^`]*)` \|", (REPOSITORY / "README.md").read_text("utf-8"), re.M
    )
    assert len(rows) > 10
    for key, shown in rows:
        value = keys[key]
        if isinstance(value, dict):  # a group such as model: its default option
            value = value.get("name", shown)
        assert shown == OmegaConf.to_yaml({"x": value}).removeprefix("x: ").strip(), key


def test_the_table_of_variables_shows_the_defaults_of_the_training_script():
    script = (REPOSITORY / "scripts/train/train_gsm8k_hierarchical.sh").read_text("utf-8")
    defaults = dict(re.findall(r'^(\w+)="\$\{\1:-(.*?)\}"', script, re.M))
    rows = re.findall(
        r"^\| `([A-Z_]+)` \| (?:`([^`]*)`|empty) \|",
        (REPOSITORY / "GSM8K_README.md").read_text("utf-8"),
        re.M,
    )
    assert dict(rows) == defaults


def test_the_tree_in_the_readme_shows_what_is_there():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (tree,) = re.findall(r"<!-- tree -->\n```text\n(.*?)```", text, re.DOTALL)
    folders: list[tuple[int, str]] = []
    for line in tree.splitlines():
        entry = line.split()[0]
        depth = len(line) - len(line.lstrip())
        while folders and folders[-1][0] >= depth:
            folders.pop()
        path = "".join(folder for _, folder in folders) + entry
        assert (REPOSITORY / path).exists(), f"the tree shows {path}"
        if entry.endswith("/"):
            folders.append((depth, entry))


# --- links --------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """Anchors as GitHub makes them of headings."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_inside_the_repository_resolves(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), f"{path.name} links to {name}"
        assert not anchor or anchor in anchors(file), f"{path.name} links to {target}"


# --- the house ----------------------------------------------------------------------------------

ARCHITECTURE = REPOSITORY / "docs/architecture.md"
PACKAGE = REPOSITORY / "hbd3lm"


def rooms() -> dict[str, set[str]]:
    """Every room and those it may import, from the table."""
    rows = re.findall(
        r"^\| `(\w+)/` \| .* \| ([^|]*) \|$", ARCHITECTURE.read_text("utf-8"), re.MULTILINE
    )
    return {room: set(re.findall(r"`(\w+)`", allowed)) for room, allowed in rows}


def test_the_table_of_rooms_names_every_folder_of_the_package():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(rooms()) | {"commands"} == folders


@pytest.mark.parametrize("room", sorted(rooms()))
def test_a_room_imports_only_what_the_table_allows(room):
    ground = {"errors", "files", "json_values", "lock", "progress", "allocator"}
    allowed = rooms()[room] | ground | {room}
    for path in (PACKAGE / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hbd3lm."):
                other = node.module.split(".")[1]
                assert other in allowed, f"{path.relative_to(REPOSITORY)} imports {node.module}"


def test_every_name_in_the_table_of_contracts_is_defined_where_it_says():
    text = ARCHITECTURE.read_text(encoding="utf-8").partition("### Contracts")[2]
    rows = re.findall(r"^\| `([\w/]+\.py)` \| (.*) \|$", text, re.MULTILINE)
    assert len(rows) > 20
    for module, offers in rows:
        tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
        defined = {name.id for name in ast.walk(tree) if isinstance(name, ast.Name)} | {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, (ast.ClassDef, ast.FunctionDef))
        }
        for name in re.findall(r"`(\w+)", offers):
            assert name in defined, f"{module} has no {name}"
