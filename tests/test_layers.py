"""The plan of the house: fifteen rooms, imports only downwards, no circles (docs/architecture.md)."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import wsigen

ROOT = Path(wsigen.__file__).parent
ROOMS = ["base", "storage", "slide", "layout", "sampling", "models", "grids", "run"]
ROOMS += ["editing", "viewing", "dataset", "training", "evaluation", "cohort", "cli"]
FRONT_DOOR = {"__init__", "__main__"}  # the only modules outside a room


@cache
def modules():
    """Dotted name of every module below ``wsigen`` -> its syntax tree."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text())
        for path in sorted(ROOT.rglob("*.py"))
    }


def room(name):
    return name.split(".")[0]


def imports(tree, top_level_only=False):
    """Dotted names that a module imports; of ``from a import b`` both ``a`` and ``a.b``."""
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(name):
    """Modules below ``wsigen`` that the module imports, also inside functions."""
    targets = {target.removeprefix("wsigen.") for target in imports(modules()[name]) if target.startswith("wsigen.")}
    return targets & set(modules())


def test_every_module_is_in_a_room():
    assert {room(name) for name in modules()} == {*ROOMS, *FRONT_DOOR}


def test_imports_run_downwards():
    row = {name: number for number, name in enumerate(ROOMS)}
    for name in set(modules()) - FRONT_DOOR:
        for target in own_imports(name):
            assert row[room(target)] <= row[room(name)], f"{name} imports {target}"


def test_nothing_but_the_front_door_imports_it():
    for name in set(modules()) - FRONT_DOOR:
        assert "wsigen" not in set(imports(modules()[name])), name


def test_no_circle_of_modules():
    finished, path = set(), []

    def visit(name):
        if name in finished:
            return
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        path.append(name)
        for target in sorted(own_imports(name)):
            visit(target)
        finished.add(path.pop())

    for name in modules():
        visit(name)


def test_dask_is_known_to_three_modules():
    users = {name for name in modules() if uses(name, {"dask", "distributed"})}
    assert users == {"run.engine.cluster", "run.engine.local", "run.engine.workers"}


def test_no_torch_in_the_engine_nor_at_import_time_elsewhere():
    for name in modules():
        if name.startswith("run.engine."):
            assert not uses(name, {"torch", "diffusers"}), name
        networks = name in {"evaluation.downstream.networks", "evaluation.downstream.fitting"}
        if room(name) not in {"models", "training"} and not networks:
            assert not uses(name, {"torch", "diffusers"}, top_level_only=True), name


def uses(name, packages, top_level_only=False):
    return any(target.split(".")[0] in packages for target in imports(modules()[name], top_level_only))


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
