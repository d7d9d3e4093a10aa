"""Mutation testing: break the program once in every way that matters; each mutant must make a test fail.

Run by `make mutants` (70 minutes). Each mutant of `mutants.csv` replaces one expression or statement in one
function of a copy of the project; it is matched by syntax tree, not by text. The tests of the module and its neighbours
run on that copy, and the first failure is named. The exit status is the number of surviving mutants.
`python tests/mutants.py comparison/ training/data` tries only the mutants of these modules.
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
MATHEMATICS = ["nn/activations", "nn/losses", "nn/regularizers", "nn/mlp", "nn/backprop", "training/modules"]
REPORT = ["comparison/model", "comparison/sentences", "comparison/compare", "comparison/anybody", "cli/sweep"]
TESTS = {  # by module, likeliest to fail first; unlisted modules: see tests_of
    "config": ["config", "cli/options", "cli/train", "comparison/compare", "inspection/reopen"],
    "checks": ["config", "cli/options", "cli/train"],
    "resolvers": ["config", "cli/options", "cli/train", "training/mine"],
    "identity": ["cli/train", "runs/record", "training/mine"],
    "comparison/axes": ["comparison/figures"],
    "comparison/figures": ["comparison/figures"],
    "comparison/load": ["comparison/foreign", *REPORT],
    "comparison/look": ["comparison/figures"],
    "comparison/outcomes": ["comparison/figures", *REPORT],
    "comparison/planning": REPORT,
    "comparison/foreign": ["comparison/foreign", "comparison/anybody"],
    "comparison/foreign_table": ["comparison/foreign", "comparison/anybody"],
    "comparison/progress": ["cli/sweep", *REPORT],
    "console": ["cli/command"],
    "errors": ["cli/command", "cli/options", "config", "comparison/compare"],
    "inspection/allowlist": ["inspection/allowlist"],
    "inspection/digits": ["inspection/digits", "inspection/predict"],
    "inspection/ink": ["inspection/digits", "inspection/predict"],
    "inspection/pictures": ["inspection/predict", "inspection/digits"],
    "inspection/explain": ["inspection/explain"],
    "inspection/exercise": ["inspection/exercise"],
    "inspection/judging": ["inspection/exercise"],
    "inspection/mistakes": ["inspection/exercise"],
    "inspection/secret": ["nn/gradcheck"],
    "inspection/export": ["inspection/reopen"],
    "inspection/reopen": ["inspection/allowlist", "inspection/reopen", "training/table"],
    "inspection/predict": ["inspection/predict", "inspection/digits", "training/arrays"],
    "inspection/weights": ["inspection/reopen"],
    "job": ["cli/options", "cli/train", "cli/sweep"],
    "nn/activations": ["nn/activations", *MATHEMATICS],
    "nn/gradcheck": ["nn/gradcheck"],
    "nn/losses": ["nn/losses", *MATHEMATICS],
    "nn/mlp": ["nn/mlp", *MATHEMATICS],
    "nn/optimizers": ["training/modules", "cli/train"],
    "nn/regularizers": ["nn/regularizers", *MATHEMATICS],
    "process": ["cli/command", "cli/options", "inspection/allowlist"],
    "runs/checkpoint": ["runs/checkpoint", "cli/train", "training/layer_stats", "inspection/allowlist"],
    "runs/folder": ["runs/record", "cli/train", "cli/options"],
    "runs/record": ["runs/record", "cli/train", "cli/sweep", "cli/options"],
    "runs/tables": REPORT,
    "sweep": ["cli/sweep", "training/mine"],
    "text": ["text", "runs/record", "comparison/compare"],
    "training/arrays": ["training/arrays"],
    "training/artifacts": ["cli/train"],
    "training/build": ["training/build", "training/modules", "cli/train", "cli/options"],
    "training/callbacks": ["training/callbacks", "inspection/allowlist", "cli/train", "cli/options"],
    "training/checkpoint_io": ["runs/checkpoint", "cli/train"],
    "training/data": ["training/data", "training/deform", "cli/options", "cli/train", "cli/processes"],
    "training/deform": ["training/deform"],
    "training/distributed": ["cli/processes"],
    "training/file_data": ["training/table", "training/arrays"],
    "training/figures": ["cli/train", "training/layer_stats"],
    "training/idx_files": ["training/data", "cli/options"],
    "training/handin": ["training/mine", "inspection/exercise"],
    "training/mine": ["training/mine"],
    "training/layer_stats": ["training/layer_stats"],
    "training/manual": ["training/modules", "training/callbacks", "cli/train", "cli/option_pairs"],
    "training/mnist": ["training/mnist", "training/data", "cli/options"],
    "training/matmul": ["training/matmul"],
    "training/modules": ["training/modules", "training/callbacks", "cli/train", "cli/option_pairs", "cli/processes"],
    "training/table": ["training/table"],
    "training/network": ["training/network"],
    "training/run": ["cli/train", "training/layer_stats"],
    "training/schedules": ["training/modules", "cli/train"],
}


class Mutant(NamedTuple):
    """One fault.

    place: a module of `src/handgrad`, optionally followed by a colon and a function or class.
    code: an expression or statement that occurs there once, in any formatting.
    changed: its replacement.
    what: the fault in words.
    """

    place: str
    code: str
    changed: str
    what: str

    @property
    def module(self) -> str:
        return self.place.partition(":")[0]


class Swap(ast.NodeTransformer):
    """Transformer that replaces a mutant's code; `count` is the number of occurrences."""

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
    """Return a module's source with the mutant applied.

    Raises:
        ValueError: the place does not exist, or the code does not occur there exactly once.
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
    """Return the test files of a module and its neighbours, likeliest to fail first."""
    names = TESTS.get(module, REPORT if "comparison/" in module else MATHEMATICS)
    return [str(Path("tests", name).with_name(f"test_{Path(name).name}.py")) for name in dict.fromkeys(names)]


def noticed_by(tests: Iterable[str], mutant: Mutant | None = None) -> str:
    """Return the first test that fails with a mutant, or on the unchanged code if None; "" if none fails."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        for name in ("src", "conf", "docs", "studies", "tests", "benchmarks"):
            shutil.copytree(ROOT / name, copy / name)
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, copy)
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
    failed = re.search(r"^(?:FAILED|ERROR) tests/(.*?)(?: - .*)?$", done.stdout, re.MULTILINE)
    return failed[1] if failed else "pytest itself" if done.returncode else ""


def main(*modules: str) -> None:
    """Try every mutant, two at a time, and print the test that kills it."""
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
