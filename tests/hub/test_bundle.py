"""The shipped code is the package's own, and the same every time."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from hbd3lm.hub.bundle import BUNDLE_FILE, MODELING_FILE, bundle, remote_code


def test_the_code_is_the_same_every_time_and_never_imports_the_package_at_its_top():
    code = remote_code()
    assert code == remote_code()
    tree = ast.parse(code[BUNDLE_FILE])
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0 and not node.module.startswith("hbd3lm")
    assert all(isinstance(node, (ast.Expr, ast.Try, ast.Assign))
               for node in ast.parse(code[MODELING_FILE]).body)  # fmt: skip


def test_every_definition_of_the_network_is_in_it_word_for_word():
    from hbd3lm.model import attention, batch, config, layout, mask, transformer

    text = remote_code()[BUNDLE_FILE]
    for module in (attention, batch, config, layout, mask, transformer):
        source = Path(module.__file__).read_text(encoding="utf-8")
        for node in ast.parse(source).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                assert ast.get_source_segment(source, node) in text


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes a package of some modules; returns the bundle of its module ``top``."""

    def write(**modules: str) -> str:
        name = f"bundled_{tmp_path.name.replace('-', '_')}"
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
        for module, source in modules.items():
            (tmp_path / name / f"{module}.py").write_text(source.replace("PACKAGE", name))
        monkeypatch.syspath_prepend(str(tmp_path))
        try:
            return bundle(f"{name}.top", name)
        finally:
            for loaded in [key for key in sys.modules if key.split(".")[0] == name]:
                del sys.modules[loaded]

    return write


def test_what_is_imported_comes_first_and_once(package):
    text = package(
        low='"""Low."""\nimport math\n\nTWO = 2\n',
        middle="from PACKAGE.low import TWO\n\ndef four():\n    return TWO * TWO\n",
        top="from PACKAGE.middle import (\n    four,\n)\nfrom PACKAGE.low import TWO\n\n"
        "SIX = four() + TWO\n",
    )
    names: dict = {}
    exec(compile(text, "bundle", "exec"), names)
    assert names["SIX"] == 6
    assert text.count("TWO = 2") == 1 and '"""Low."""' not in text


@pytest.mark.parametrize(
    ("top", "message"),
    [
        ("from PACKAGE.low import TWO\nTWO = 3\n", "TWO is defined by both"),
        ("from PACKAGE.low import TWO as TOO\n", "import by name, at the top"),
        ("def f():\n    from PACKAGE.low import TWO\n", "import by name, at the top"),
        ("import PACKAGE.low\n", "write 'from"),
    ],
)
def test_what_cannot_be_merged_is_refused(package, top, message):
    with pytest.raises(ValueError, match=message):
        package(low="TWO = 2\n", top=top)
