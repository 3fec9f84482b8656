"""Imports point only downwards (docs/architecture.md)."""

import ast
import subprocess
import sys
from pathlib import Path

import wsigen

ROOT = Path(wsigen.__file__).parent
ROWS = [
    {"allocation", "errors", "geometry", "classes", "noise", "config", "files", "folder", "yaml_file", "cgroup"},
    {"sampling", "models", "layout", "slide"},
    {"overwriting", "store", "runstore", "manifest", "cohort"},
    {"tasks"},
    {"engine"},
    {
        "projection",
        "outputs",
        "layouts",
        "preparation",
        "rundir",
        "inspection",
        "fleet",
        "generation",
        "estimate",
        "counting",
        "mending",
        "speed",
        "rehearsal",
        "training",
        "metrics",
        "workers",
    },
    {"cli"},
]
ROW = {name: k for k, names in enumerate(ROWS) for name in names}


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        if path.parent != ROOT or path.stem not in {"__init__", "__main__"}:
            yield path, path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(tree, top_level_only=False):
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_every_module_is_in_a_row():
    assert {name for _, name in modules()} <= set(ROW)


def test_imports_point_downwards():
    for path, name in modules():
        for target in imports(ast.parse(path.read_text())):
            parts = target.split(".")
            if parts[0] == "wsigen" and len(parts) > 1:
                assert ROW[parts[1]] <= ROW[name], f"{path.relative_to(ROOT)} imports {target}"


def test_dask_is_known_to_three_modules():
    users = {p.relative_to(ROOT).as_posix() for p, _ in modules() if uses(p, {"dask", "distributed"})}
    assert users == {"engine/calls.py", "engine/cluster.py", "engine/opening.py"}


def test_no_torch_in_the_engine_nor_at_import_time_elsewhere():
    for path, name in modules():
        if name == "engine":
            assert not uses(path, {"torch", "diffusers"})
        networks = name == "metrics" and (path.stem.startswith("extractors") or path.stem in {"networks", "fitting"})
        if name not in {"models", "training"} and not networks:
            assert not uses(path, {"torch", "diffusers"}, top_level_only=True), path


def uses(path, packages, top_level_only=False):
    return any(t.split(".")[0] in packages for t in imports(ast.parse(path.read_text()), top_level_only))


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['wsigen', '--help']\n"
        "from wsigen.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'diffusers', 'zarr', 'dask', 'distributed', 'pyvips', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
