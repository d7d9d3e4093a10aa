"""Oracle: the code itself: everything that the docs and the mutants name must exist."""

import importlib
import re
from operator import attrgetter

import epoch
import pandas as pd

import mutants
from conftest import ROOT

ROW = re.compile(r"^\| ([\d, ]+) \| `(\w+)\.([\w.]+)` \| `(test_\w+)` \|$", re.MULTILINE)


def test_every_equation_names_its_function_and_its_test() -> None:
    text = (ROOT / "docs" / "derivation.md").read_text()
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    numbers = []
    for equations, module, function, test in ROW.findall(text):
        (path,) = (ROOT / "src" / "handgrad").glob(f"*/{module}.py")
        described_in = importlib.import_module(f"handgrad.{path.parent.name}.{module}")
        described = attrgetter(function)(described_in)
        assert f"def {test}(" in tests
        for number in map(int, equations.split(",")):
            numbers.append(number)
            source = f"{described.__doc__} {described_in.__doc__}"
            assert re.search(rf"\((BP\d, )?(\d+, )?{number}(, \d+)*\)", source), f"{function} does not cite ({number})"
    assert sorted(set(numbers)) == list(range(1, 37))


def test_every_mutant_changes_code_that_occurs_once_and_has_tests() -> None:
    for mutant in mutants.MUTANTS:
        mutants.mutated(mutant)
        assert mutant.code != mutant.changed
        assert all((ROOT / name).exists() for name in mutants.tests_of(mutant.module))


def test_scaling_page_has_the_table_of_its_csv_file() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text()
    assert epoch.document(page.replace("| products |", "| other |"), pd.read_csv(epoch.DOCUMENTED)) == page
