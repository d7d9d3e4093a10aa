"""Break the program once in every way that matters; each change must make a test fail.

Run by `make mutants` (an hour on two cores). Each mutant of `mutants.csv` replaces one expression or statement, known
by its syntax tree and not by its text, in one function of a copy of the project and runs the tests of that module and
its neighbours there; the first that fails is named. Exits with the number of mutants that no test noticed.
`python tests/mutants.py compare/ training/data` tries those of some modules alone.
"""

import ast
import csv
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
MATHEMATICS = ["activation", "loss", "regularizer", "network", "backprop", "modules"]
REPORT = ["compare_decides", "compare", "sweep"]
TESTS = {  # of a module, the likeliest first; of those that are not listed, the mathematics'
    "config": ["config", "options", "train"],
    "identity": ["train", "results"],
    "compare/progress": ["sweep", *REPORT],
    "console": ["command"],
    "errors": ["command", "options", "config"],
    "inspection/allowlist": ["allowlist"],
    "inspection/digits": ["inside_pictures"],
    "inspection/explain": ["inside_lesson"],
    "inspection/export": ["inside_opened"],
    "inspection/reopen": ["allowlist", "inside_opened"],
    "inspection/predict": ["inside_pictures"],
    "inspection/weights": ["inside_opened"],
    "nn/activations": ["activation", *MATHEMATICS],
    "nn/gradcheck": ["inside_checking"],
    "nn/losses": ["loss", "regularizer", *MATHEMATICS],
    "nn/mlp": ["network", *MATHEMATICS],
    "nn/optimizers": ["modules", "train"],
    "process": ["command", "options", "allowlist"],
    "runs/checkpoint": ["checkpoint", "train", "inside_layers", "allowlist"],
    "runs/folder": ["results", "train", "options"],
    "runs/record": ["results", "train", "sweep", "options"],
    "runs/tables": REPORT,
    "sweep": ["sweep"],
    "text": ["settings", "results", "compare"],
    "training/artifacts": ["train"],
    "training/build": ["assembly", "modules", "train"],
    "training/callbacks": ["callbacks", "train"],
    "training/checkpoint_io": ["checkpoint", "train"],
    "training/data": ["data", "options", "train", "processes"],
    "training/distributed": ["processes"],
    "training/figures": ["train", "inside_layers"],
    "training/idx_files": ["data", "options"],
    "training/layer_stats": ["inside_layers"],
    "training/manual": ["modules", "callbacks", "train", "option_pairs"],
    "training/matmul": ["products"],
    "training/modules": ["modules", "callbacks", "train", "option_pairs"],
    "training/run": ["train", "inside_layers"],
    "training/schedules": ["modules", "train"],
}


class Mutant(NamedTuple):
    """One change.

    place: a module of `src/handgrad`, and a function or class of it after a colon.
    code: an expression or statement that stands there once, however it is formatted.
    changed: what takes its place.
    what: what that does.
    """

    place: str
    code: str
    changed: str
    what: str

    @property
    def module(self) -> str:
        return self.place.partition(":")[0]


class Swap(ast.NodeTransformer):
    """Replaces what is equal to a mutant's code; `count` is how often it stood there."""

    def __init__(self, mutant: Mutant) -> None:
        (self.wanted,) = ast.parse(mutant.code).body
        self.code, self.changed, self.count = ast.dump(self.wanted), mutant.changed, 0
        self.expression = ast.dump(self.wanted.value) if isinstance(self.wanted, ast.Expr) else ""

    def visit(self, node: ast.AST) -> Any:
        found = ast.dump(node)
        if found not in (self.code, self.expression):
            return self.generic_visit(node)
        self.count += 1
        (statement,) = ast.parse(self.changed).body
        return statement.value if found == self.expression and isinstance(statement, ast.Expr) else statement


def mutated(mutant: Mutant) -> str:
    """A module's source with the change.

    Raises:
        ValueError: the place is not there, or the code does not stand there once.
    """
    module, _, name = mutant.place.partition(":")
    tree = ast.parse((ROOT / "src" / "handgrad" / f"{module}.py").read_text(encoding="utf-8"))
    scope: Any = tree
    for part in name.split(".") if name else ():
        scope = next((node for node in scope.body if getattr(node, "name", None) == part), ast.Module([], []))
    swap = Swap(mutant)
    swap.generic_visit(scope)
    if swap.count != 1:
        raise ValueError(f"{mutant.place}: {mutant.code!r} stands there {swap.count} times")
    return ast.unparse(ast.fix_missing_locations(tree))


TABLE = (ROOT / "tests" / "mutants.csv").read_text(encoding="utf-8")
MUTANTS = [Mutant(*row) for row in list(csv.reader(TABLE.splitlines(keepends=True)))[1:]]


def tests_of(module: str) -> list[str]:
    """The tests of a module and its neighbours, the likeliest to notice first."""
    names = TESTS.get(module, REPORT if "compare/" in module else MATHEMATICS)
    return [f"tests/test_{name}.py" for name in dict.fromkeys(names)]


def noticed_by(tests: Iterable[str], mutant: Mutant | None = None) -> str:
    """The first test that fails with the change, or, without one, as things are; "" where none does."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        for name in ("src", "conf", "docs", "studies", "tests"):
            shutil.copytree(ROOT / name, copy / name)
        shutil.copy(ROOT / "pyproject.toml", copy)
        (copy / "data").symlink_to(ROOT / "data")
        if mutant:
            (copy / "src" / "handgrad" / f"{mutant.module}.py").write_text(mutated(mutant))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "--tb=no", "-p", "no:cacheprovider", *tests],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    failed = re.search(r"^(?:FAILED|ERROR) tests/test_(.*?)(?: - .*)?$", done.stdout, re.MULTILINE)
    return failed[1] if failed else "pytest itself" if done.returncode else ""


def main(*modules: str) -> None:
    """Try every mutant, two at a time, and list what became of it."""
    tried = [mutant for mutant in MUTANTS if not modules or mutant.place.startswith(modules)]
    tests = dict.fromkeys(test for mutant in tried for test in tests_of(mutant.module))
    if failed := noticed_by(["tests/test_docs.py", *tests]):
        sys.exit(f"a test fails without any change, mend that first: {failed}")
    survivors = 0
    with ThreadPoolExecutor(max_workers=2) as pool:
        trials = {pool.submit(noticed_by, tests_of(mutant.module), mutant): mutant for mutant in tried}
        for trial in as_completed(trials):
            survivors += not trial.result()
            place, what = trials[trial].place, trials[trial].what
            print(f"{trial.result() or 'SURVIVED':70} {place:40} {what}", flush=True)
    print(f"{len(tried) - survivors} of {len(tried)} killed")
    sys.exit(survivors)


if __name__ == "__main__":
    main(*sys.argv[1:])
