"""Student's file of functions: read it, execute it, and name the line of an error."""

import ast
import json
import linecache
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NoReturn

from handgrad.errors import UserError, describe_os_error
from handgrad.text import escape_control, shortened

FUNCTIONS = ("phi", "derivative", "output_delta", "hidden_delta", "bias_gradient", "weight_gradient", "update")
CODE = "<hand-in>"  # the file's name in tracebacks
LIMIT = 10.0  # seconds for the file's execution, and for each function
LONGEST = 10_000_000  # bytes


def read(path: Path) -> bytes:
    """Read a student's file; UserError if there is none, or it is far too long for a program."""
    try:
        if path.is_file() and path.stat().st_size > LONGEST:
            raise UserError(f"{path} has more than {LONGEST // 10**6} MB: is it a program?")
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: python src/check.py mine=new writes one to fill in") from None
    except OSError as error:
        raise UserError(describe_os_error(error, path)) from None


def as_code(content: bytes, path: Path) -> bytes:
    """Return the program of a student's file; of a notebook, its imports and functions. UserError if damaged."""
    if path.suffix != ".ipynb":
        return content
    try:
        cells = ["".join(cell["source"]) for cell in json.loads(content)["cells"] if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not a notebook") from None
    kept = ["import torch", "from torch import Tensor"]
    for cell in cells:
        try:
            nodes = ast.parse(cell).body
        except SyntaxError:  # a cell of commands, or a student's mistake
            kept += [cell] if any(f"def {name}(" in cell for name in FUNCTIONS) else []
            continue
        parts = [each for each in nodes if isinstance(each, ast.Import | ast.ImportFrom | ast.FunctionDef)]
        kept += [ast.get_source_segment(cell, each) or "" for each in parts]
    return "\n\n".join(kept).encode()


def execute(source: bytes, known: Mapping[str, Any] | None = None) -> ModuleType:
    """Execute a student's file as a module, with names known before; its errors are the caller's to report."""
    lines = lines_of(source)
    linecache.cache[CODE] = (len(source), None, [f"{line}\n" for line in lines], CODE)  # for tracebacks and pdb
    module = ModuleType("my_backprop")
    module.__dict__.update(known or {})
    exec(compile(source, CODE, "exec"), module.__dict__)
    return module


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` in code that takes longer; no limit where there are no timers, or in threads."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise TimeoutError(f"still running after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def lines_of(source: bytes) -> list[str]:
    """Return the lines of a file that may not be valid text."""
    return source.decode("utf-8", "replace").splitlines()


def find(module: ModuleType, name: str) -> Callable[..., Any]:
    """Return a function of a student's file; UserError if it is missing."""
    function: Callable[..., Any] | None = getattr(module, name, None)
    if function is None or not callable(function):
        raise UserError(f"def {name}(...) is missing from the file")
    return function


def is_blank(source: bytes, name: str) -> bool:
    """Tell whether a function has nothing but its docstring, `...`, `pass` or `raise NotImplementedError`."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return all(
                isinstance(each, ast.Pass)
                or (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
                or (isinstance(each, ast.Raise) and "NotImplementedError" in ast.unparse(each))
                for each in node.body
            )
    return False


def line_of(error: BaseException, function: Callable[..., Any] | None = None) -> int | None:
    """Return the number of the student's innermost line that an error passed; else that of the function's `def`."""
    if isinstance(error, SyntaxError) and error.filename == CODE:
        return error.lineno
    numbers = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == CODE]
    code = getattr(function, "__code__", None)
    return numbers[-1] if numbers else getattr(code, "co_firstlineno", None)


def quoted(source: bytes, number: int | None) -> str:
    """Quote a line of a student's file: "line 12, `return delta`"."""
    lines = lines_of(source)
    if number is None or not 0 < number <= len(lines):
        return "the file"
    return f"line {number}, `{shortened(escape_control(lines[number - 1].strip()))}`"


def describe(error: BaseException, source: bytes, function: Callable[..., Any] | None = None) -> str:
    """Say which error the student's code ended with, and in which line."""
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    name = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return f"{quoted(source, line_of(error, function))}: {shortened(escape_control(name), 400)}"


def describe_briefly(error: BaseException, function: Callable[..., Any] | None = None) -> str:
    """Name the error and the line: "IndexError, line 12"."""
    line = line_of(error, function)
    return type(error).__name__ + (f", line {line}" if line else "")
