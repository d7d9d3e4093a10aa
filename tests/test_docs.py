"""Oracle: the code itself: what the documents name must exist."""

import importlib
import re
from operator import attrgetter

from conftest import ROOT

ROW = re.compile(r"^\| ([\d, ]+) \| `(\w+)\.([\w.]+)` \| `(test_\w+)` \|$", re.MULTILINE)


def test_every_equation_names_its_function_and_its_test() -> None:
    text = (ROOT / "docs" / "derivation.md").read_text()
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    numbers = []
    for equations, module, function, test in ROW.findall(text):
        described = attrgetter(function)(importlib.import_module(f"handgrad.{module}"))
        assert f"def {test}(" in tests
        for number in map(int, equations.split(",")):
            numbers.append(number)
            source = f"{described.__doc__} {importlib.import_module(f'handgrad.{module}').__doc__}"
            assert re.search(rf"\((BP\d, )?(\d+, )?{number}(, \d+)*\)", source), f"{function} does not cite ({number})"
    assert sorted(set(numbers)) == list(range(1, 26))
