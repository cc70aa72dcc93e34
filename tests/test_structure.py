from __future__ import annotations

import ast
import re
import resource
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "risbench"
# Who may import whom: a room may import the rooms of lower layers only, and stages never each other.
LAYERS = [
    {"cli", "api", "__main__"},
    {"ingest", "refine", "adapt", "review", "export", "inspect", "benchmark"},
    {"sam", "scenes", "formats", "learn"},
    {"core"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


def imports_of(path: Path) -> set[str]:
    """Return the rooms of risbench that a module imports, anywhere in it."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""] if node.module != "risbench" else [f"risbench.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("risbench.")}
    return rooms


def wrong_imports(room: str, imported: set[str]) -> set[str]:
    """Return the imports that do not run downwards."""
    return {
        other for other in imported if other != room and (LEVEL[other] < LEVEL[room] or (LEVEL[other] == LEVEL[room] and LEVEL[room] != 0))
    }


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downwards_and_stages_never_import_each_other(path: Path) -> None:
    parts = path.relative_to(PACKAGE).parts
    if parts == ("__init__.py",):
        return
    room = parts[0].removesuffix(".py")
    assert room in LEVEL, f"{room} is not a room of the house; add it to docs/architecture.md and here"
    assert wrong_imports(room, imports_of(path)) == set()


def test_the_rule_itself_catches_what_it_forbids() -> None:
    assert wrong_imports("ingest", {"export"}) == {"export"}
    assert wrong_imports("core", {"formats"}) == {"formats"}
    assert wrong_imports("formats", {"refine"}) == {"refine"}
    assert wrong_imports("refine", {"sam", "core", "refine"}) == set()


def module_of(path: Path) -> str:
    """Return a module's dotted name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_graph(package: Path) -> dict[str, set[str]]:
    """Return which modules of risbench each one imports, anywhere in it."""
    files = {module_of(path): path for path in package.rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for name, path in files.items():
        targets: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                targets |= {
                    f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in files else node.module for alias in node.names
                }
            elif isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
        graph[name] = targets & files.keys() - {name}
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other in a circle."""
    sorter = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except CycleError as error:
        first: list[str] = error.args[1]
        rest = {name: targets - {first[0]} for name, targets in graph.items() if name != first[0]}
        return [first, *circles(rest)]
    return []


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circles(import_graph(PACKAGE)) == []


def test_a_circle_is_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) != []
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_help_takes_less_than_half_a_second() -> None:
    assert min(help_seconds(sys.executable) for _ in range(5)) < 0.5


def help_seconds(python: str | Path) -> float:
    """Return the processor time of `risbench --help`: unlike wall time it does not depend on what runs beside this test."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([str(python), "-m", "risbench", "--help"], stdout=subprocess.DEVNULL, check=True, cwd="/")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_imports_nothing_heavy() -> None:
    code = "import sys\nfrom risbench.cli.app import app\ntry: app(['--help'])\nexcept SystemExit: pass\nprint(sorted(set(sys.modules) & {'torch', 'cv2', 'numpy', 'pydantic', 'rasterio', 'pandas', 'matplotlib'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_no_module_outgrows_its_room() -> None:
    long = {str(path.relative_to(ROOT)): lines for path in PACKAGE.rglob("*.py") if (lines := len(path.read_text().splitlines())) > 400}
    assert long == {}


# Distributions whose module has another name.
MODULES = {"opencv-python-headless": "cv2", "pillow": "PIL", "markdown-it-py": "markdown_it", "segment-anything": "segment_anything",
           "huggingface-hub": "huggingface_hub"}  # fmt: skip


def imported_packages(package: Path) -> set[str]:
    """Return the packages of others that risbench imports, anywhere in it."""
    tops = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                tops |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                tops.add((node.module or "").split(".")[0])
    return tops - sys.stdlib_module_names - {"risbench"}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [
        *project["dependencies"],
        *(line for extra, group in project["optional-dependencies"].items() if extra not in ("dev", "docs") for line in group),
    ]
    names = {re.split(r"[<>=\[ ]", line)[0] for line in lines} - {"risbench"}
    # TensorBoard is imported by PyTorch's own writer for it, torchvision by segment-anything and the preprocessors of transformers
    by_others = {"tensorboard", "torchvision"}
    declared = {MODULES.get(name, name) for name in names - by_others}
    assert imported_packages(PACKAGE) == declared
