"""The code of an exported directory, made from the package's own modules.

``AutoModel`` runs ``modeling_hbd3lm.py``. Where this package is installed that file takes its
classes; elsewhere it takes them from ``hbd3lm_bundle.py``, which is nothing but the sources of
:mod:`hbd3lm.hub.modeling` and of every module it imports, one after the other, with the imports of
one another left out. So there is one network, and no second copy that could drift from it.
"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

ENTRY = "hbd3lm.hub.modeling"
MODELING_FILE, BUNDLE_FILE = "modeling_hbd3lm.py", "hbd3lm_bundle.py"
AUTO_MAP = {
    "AutoConfig": f"{Path(MODELING_FILE).stem}.HBD3LMConfig",
    "AutoModel": f"{Path(MODELING_FILE).stem}.HBD3LMModel",
}

_MODELING = '''"""The classes of the installed hbd3lm, or, without one, those bundled beside it."""

try:
    from hbd3lm.hub.modeling import HBD3LMConfig, HBD3LMModel
except ModuleNotFoundError as error:
    if not (error.name or "").startswith("hbd3lm"):
        raise
    from .hbd3lm_bundle import HBD3LMConfig, HBD3LMModel

__all__ = ["HBD3LMConfig", "HBD3LMModel"]
'''


def remote_code() -> dict[str, str]:
    """The Python files of an exported directory: name to content, the same every time."""
    return {MODELING_FILE: _MODELING, BUNDLE_FILE: bundle(ENTRY)}


def bundle(entry: str, package: str = "hbd3lm") -> str:
    """One module with the code of ``entry`` and of all modules of ``package`` that it imports.

    Raises:
        ValueError: a module that cannot be merged so: it imports a module of the package other
            than by ``from ... import name`` at its top, or two give one name two meanings.
    """
    parts = [
        '"""Bundled from the package hbd3lm, module by module; made by ``hbd3lm export``."""',
        "from __future__ import annotations",
    ]
    owner: dict[str, str] = {}
    for module, source in _in_order(entry, package, {}).items():
        tree = ast.parse(source)
        for name in _names(tree):
            if owner.setdefault(name, module) != module:
                raise ValueError(f"{name} is defined by both {owner[name]} and {module}")
        parts.append(f"# --- {module} ---\n\n{_without_inner_imports(source, tree, package)}")
    return "\n\n".join(parts) + "\n"


def _in_order(module: str, package: str, seen: dict[str, str]) -> dict[str, str]:
    """Sources by module name, every module behind those it imports."""
    origin = importlib.util.find_spec(module).origin
    source = Path(origin).read_text(encoding="utf-8")
    tree = ast.parse(source)
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(
            alias.name.split(".")[0] == package for alias in node.names
        ):
            raise ValueError(f"{module}: write 'from {package}... import ...'")
        if _is_inner(node, package):
            if id(node) not in top or any(alias.asname for alias in node.names):
                raise ValueError(f"{module}, line {node.lineno}: import by name, at the top")
            if node.module not in seen:
                _in_order(node.module, package, seen)
    seen[module] = source
    return seen


def _is_inner(node: ast.AST, package: str) -> bool:
    return isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package


def _names(tree: ast.Module) -> list[str]:
    """What a module defines at its top level."""
    found = []
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            found.append(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
    return found


def _without_inner_imports(source: str, tree: ast.Module, package: str) -> str:
    """The source, less its docstring, ``__future__`` and the imports of ``package``."""
    lines = source.splitlines()
    for index, node in enumerate(tree.body):
        is_docstring = index == 0 and ast.get_docstring(tree) is not None
        is_future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        if is_docstring or is_future or _is_inner(node, package):
            for number in range(node.lineno - 1, node.end_lineno):
                lines[number] = None
    return "\n".join(line for line in lines if line is not None).strip()
