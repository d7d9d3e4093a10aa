"""Oracle: the code: no import of a higher package, circular or private; no number of MNIST outside its rooms."""

import ast
import re
from graphlib import TopologicalSorter

from conftest import ROOT

SRC = ROOT / "src"
# Every package ("room") and the packages it may import, all below it.
ROOMS = {
    "text": set[str](),
    "errors": {"text"},
    "console": {"text"},
    "hydra_version": set[str](),
    "resolvers": {"hydra_version", "errors"},
    "config": {"resolvers", "errors"},
    "identity": {"config", "errors"},
    "checks": {"resolvers", "errors"},
    "process": {"errors", "console"},
    "nn": set[str](),
    "runs": {"config", "identity", "errors", "text"},
    "training": {"nn", "runs", "process", "config", "hydra_version", "resolvers", "console", "errors", "text"},
    "inspection": {"training", "nn", "runs", "process", "config", "identity", "errors", "text"},
    "comparison": {"runs", "config", "resolvers", "identity", "console", "errors", "text"},
    "sweep": {"comparison", "runs", "config", "checks", "identity", "errors", "text"},
    "job": {"training", "sweep", "runs", "process", "config", "checks", "console", "errors", "text"},
    "api": {"job", "inspection", "training", "nn", "runs", "process", "hydra_version", "errors"},
}
HEAVY = {
    "nn": {"hydra", "omegaconf", "lightning", "pydantic"},
    "runs": {"lightning"},
    "comparison": {"torch", "lightning"},
}


def imports() -> dict[str, set[str]]:
    """Return the names that every module of `src/handgrad` imports, at module level or in functions."""
    found: dict[str, set[str]] = {}
    for path in (SRC / "handgrad").rglob("*.py"):
        module = ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")
        names = found.setdefault(module, set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module}: a relative import"
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
    return found


def room_of(name: str) -> str | None:
    """Return the room of a dotted name, None if it has none."""
    parts = name.split(".")
    return parts[1] if parts[0] == "handgrad" and len(parts) > 1 else None


def test_no_room_imports_one_above_it() -> None:
    for module, names in imports().items():
        room = room_of(module)
        if room is not None:
            others = {other for other in map(room_of, names) if other not in (None, room)}
            assert others <= ROOMS[room], f"{module} imports {others - ROOMS[room]}"
            heavy = {name.split(".")[0] for name in names} & HEAVY.get(room, set())
            assert not heavy, f"{module} imports {heavy}"


def test_no_imports_are_circular() -> None:
    found = imports()
    arrows = {
        module: {other for other in found for name in names if name == other or name.rpartition(".")[0] == other}
        for module, names in found.items()
    }
    order = list(TopologicalSorter({module: to - {module} for module, to in arrows.items()}).static_order())
    assert len(order) == len(found)


def test_no_private_name_is_imported() -> None:
    for module, names in imports().items():
        private = {name for name in names if name.startswith("handgrad.") and name.split(".")[-1].startswith("_")}
        assert not private, f"{module} imports {private}"


# Where MNIST's numbers may occur: its files, its preparation of digits, the notebook's network, runs before `classes`.
OF_MNIST = {
    "training/mnist.py",
    "training/idx_files.py",
    "inspection/digits.py",
    "inspection/page/draw.js",
    "nn/mlp.py",
    "runs/record.py",
    "comparison/own.py",
}
NUMBERS = re.compile(r"\b78[34]\b|(?<!\()\b28\b|\b10 x 10\b|\bten (?:classes|outputs)\b|\bclasses\b.*\b10\b|\(B, 10\)")


def test_mnists_numbers_stand_nowhere_else() -> None:
    files = [path for path in SRC.rglob("*") if path.suffix in (".py", ".js", ".jinja", ".css")]
    for path in files:
        if path.relative_to(SRC).as_posix().removeprefix("handgrad/") not in OF_MNIST:
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                assert not NUMBERS.search(line), f"{path}:{number}: {line.strip()}"
