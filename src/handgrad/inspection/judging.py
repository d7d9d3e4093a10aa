"""Judging of hand-ins in processes of their own: a student's file may loop, crash, print and exit without harm.

`python -m handgrad.inspection.judging FILE CASES REPORT STUCK LIMIT FUNCTION ...` judges some functions of one file. It
reports every verdict at once, as a line of JSON: those before a crash count, and those after it get another process.
"""

import faulthandler
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import torch

import handgrad
from handgrad.errors import UserError
from handgrad.inspection.exercise import Case, Verdict, judge
from handgrad.nn.activations import Activation
from handgrad.text import escape_control
from handgrad.training import handin

GRACE = 20.0  # seconds more for the process as a whole, until it is killed
STUCK = re.compile(rf'File "{re.escape(handin.CODE)}", line (\d+)')


def found(path: Path) -> dict[str, Path]:
    """Find the file, or a folder's hand-ins: who -> file, for `who.py`, `who.ipynb` and `who/my_backprop.py`."""
    if not path.is_dir():
        handin.read(path)
        return {path.name: path}
    files = {file.stem: file for file in programs(path)}
    for folder in sorted(path.glob("*/")):
        inside = programs(folder)
        files |= {folder.name + (f"/{file.stem}" if len(inside) > 1 else ""): file for file in inside}
    if not files:
        raise UserError(f"{path} holds no hand-ins: name them WHO.py or WHO/my_backprop.py")
    return {escape_control(who): file for who, file in files.items()}


def programs(folder: Path) -> list[Path]:
    """List the programs and notebooks of a folder."""
    return sorted(path for path in folder.iterdir() if path.suffix in (".py", ".ipynb"))


def judge_files(
    files: Mapping[str, Path], phi: Activation, cases: Sequence[Case], quiet: bool
) -> list[tuple[str, list[Verdict]]]:
    """Judge students' files, who -> file, one per processor at a time; quiet: discard their output.

    Returns:
        who, and a verdict per function.
    """
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(os.cpu_count()) as pool:
        saved = Path(scratch, "cases.pt")
        torch.save((phi, list(cases)), saved)
        return list(zip(files, pool.map(lambda file: judge_file(file, saved, quiet), files.values()), strict=True))


def judge_file(path: Path, cases: Path, quiet: bool, limit: float = handin.LIMIT) -> list[Verdict]:
    """Judge every function of a student's file in processes of their own.

    Args:
        path: the file.
        cases: file of the activation and the cases.
        quiet: discard the file's output.
        limit: seconds for the import and for each function.
    """
    verdicts: dict[str, Verdict] = {}
    try:
        source = handin.as_code(handin.read(path), path)
    except UserError as error:
        return [Verdict(name, False, "no file", str(error)) for name in handin.FUNCTIONS]
    while missing := [name for name in handin.FUNCTIONS if name not in verdicts]:
        with tempfile.TemporaryDirectory() as scratch:
            report, stuck = Path(scratch, "report"), Path(scratch, "stuck")
            words = [path, cases, report, stuck, limit, *missing]
            brief, full = run_apart(words, quiet, limit * (len(missing) + 1) + GRACE)
            loaded, told = read_report(report)
            if line := STUCK.search(text_of(stuck)):
                brief = f"endless, line {line[1]}"
                full = f"still running after {limit:g} s, in {handin.quoted(source, int(line[1]))}"
        verdicts |= {verdict.function: verdict for verdict in told}
        left = [name for name in missing if name not in verdicts]
        for name in left[:1] if loaded else left:
            verdicts[name] = Verdict(name, False, brief, f"{full}.")
    return [verdicts[name] for name in handin.FUNCTIONS]


def run_apart(words: Sequence[object], quiet: bool, seconds: float) -> tuple[str, str]:
    """Run this module in a process group of its own, then kill the group; say how it ended, briefly and fully."""
    home = str(Path(str(handgrad.__file__)).parents[1])
    paths = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    printed = subprocess.DEVNULL if quiet else None
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "handgrad.inspection.judging", *map(str, words)],  # -P: not a student's torch.py
        env=os.environ | {"PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
        stdout=printed,
        stderr=printed,
        start_new_session=os.name == "posix",
    )
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return "did not end", f"did not end within {seconds:g} s"
    finally:
        with suppress(OSError):  # nothing is left
            os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
        process.wait()
    ended = f"signal {-status}" if status < 0 else f"status {status}"
    return "ended the process", f"ended the process ({ended})"


def read_report(path: Path) -> tuple[bool, list[Verdict]]:
    """Read a report: whether the file could be executed, and the verdicts up to the process's end."""
    loaded, verdicts = False, []
    for line in text_of(path).splitlines():
        with suppress(ValueError, TypeError):  # cut off
            told = json.loads(line)
            loaded = True
            verdicts += [Verdict(**told)] if told else []
    return loaded, verdicts


def text_of(path: Path) -> str:
    """Read a text file that may be missing; "" then."""
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def judge_here(path: str, cases: str, report: str, stuck: str, limit: str, *names: str) -> None:
    """Judge some functions of one file in this process, which a watchdog ends when one takes too long."""
    torch.set_num_threads(1)  # several hand-ins are judged at once
    phi, loaded = torch.load(cases, weights_only=False)  # our own file
    source = handin.as_code(handin.read(Path(path)), Path(path))
    with open(report, "w", encoding="utf-8") as told, open(stuck, "w", encoding="utf-8") as where:  # noqa: PTH123

        def tell(content: dict[str, object]) -> None:
            print(json.dumps(content), file=told, flush=True)

        faulthandler.dump_traceback_later(float(limit), exit=True, file=where)  # names the line, even inside torch
        try:
            module = handin.execute(source)
        except BaseException as error:
            for name in names:
                full = f"{handin.describe(error, source)}."
                tell(Verdict(name, False, handin.describe_briefly(error), full)._asdict())
            return
        tell({})
        for name in names:
            faulthandler.dump_traceback_later(float(limit), exit=True, file=where)  # starts anew
            tell(judge(name, module, source, phi, loaded)._asdict())


def rows(judged: Iterable[tuple[str, Sequence[Verdict]]]) -> list[list[str]]:
    """Return the class table: who, a verdict per function, points."""
    table = [["who", *handin.FUNCTIONS, "points"]]
    for who, verdicts in judged:
        table.append([who, *(verdict.brief for verdict in verdicts), str(sum(verdict.right for verdict in verdicts))])
    return table


if __name__ == "__main__":
    judge_here(*sys.argv[1:])
    os._exit(0)  # without waiting for a student's threads
