"""Fuzzing with untrusted files: python benchmarks/strangers.py [COMMAND ...] [--share 0.05] [--seed N].

Every command opens a run, checkpoint, sweep or picture in which one field is replaced by one of some sixty payloads:
classes that create a mark file when instantiated, interpolations, YAML tags, pickles, paths that lead outside, HTML,
terminal escapes, numbers and texts out of range. A case fails if anything is executed, read from the environment, or
written or deleted outside the case's folder, if a control character reaches the terminal or a tag the page, or if the
command ends in a traceback. Results of the last full pass: docs/reliability.md. Needs Linux.
"""

import argparse
import copy
import io
import itertools
import json
import os
import pickle
import random
import shutil
import sys
import tempfile
import time
import unicodedata
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from faults import TINY, not_in_a_sentence
from forking import Child, written_path
from hydra.core.plugins import Plugins
from PIL import Image
from rich.console import Console
from rich.table import Table

from forks import ROOT, Ended, Harm, make_data
from handgrad.inspection import explain, export, predict, reopen  # noqa: F401 - imported once, here
from handgrad.runs.checkpoint import read_checkpoint
from handgrad.runs.folder import METRICS

SECRET = "a-secret-of-the-environment"
EVENTS = {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "pty.spawn", "pickle.find_class"}
EVENTS |= {"socket.connect", "socket.getaddrinfo", "urllib.Request", "code.__new__", "webbrowser.open", "shutil.rmtree"}
SMALL = ["network.hidden_sizes=[16]", "trainer.max_epochs=2", *TINY[1:]]
RUN, SWEEP, CHECKPOINT = Path("run"), Path("sweep"), Path("run", "checkpoints", "last.ckpt")
Position = tuple[str | int, ...]


def targets(files: Path) -> dict[str, dict[str, Any]]:
    """Return nodes that create the file `mark` in the working directory if they are instantiated.

    Args:
        files: folder, created here, of the files that some nodes read.
    """
    files.mkdir()
    (files / "evil.pkl").write_bytes(pickle.dumps(Harm()))
    (files / "evil.py").write_text("open('mark', 'w')\n")
    (files / "hubconf.py").write_text("open('mark', 'w')\n")
    statement = "open('mark', 'w')"
    nodes: dict[str, dict[str, Any]] = {
        "numpy.testing.runstring": {"astr": statement, "dict": {}},
        "pandas.read_pickle": {"filepath_or_buffer": str(files / "evil.pkl")},
        "joblib.load": {"filename": str(files / "evil.pkl")},
        "torch.load": {"f": str(files / "evil.pkl"), "weights_only": False},
        "torch.hub.load": {"repo_or_dir": str(files), "model": "x", "source": "local"},
        "torch.save": {"obj": 1, "f": "mark"},
        "pip._internal.cli.main.main": {"args": ["--log", "mark", "list"]},
        "os.system": {"command": "touch mark"},
        "os.mkdir": {"path": "mark"},
        "subprocess.run": {"args": ["touch", "mark"]},
        "builtins.exec": {"_args_": [statement]},
        "builtins.eval": {"_args_": [statement]},
        "builtins.open": {"file": "mark", "mode": "w"},
        "runpy.run_path": {"path_name": str(files / "evil.py")},
        "timeit.timeit": {"stmt": statement, "number": 1},
        "cProfile.run": {"statement": statement},
        "trace.Trace.run": {"self": {"_target_": "trace.Trace"}, "cmd": statement},
        "code.InteractiveInterpreter.runsource": {
            "self": {"_target_": "code.InteractiveInterpreter"},
            "source": statement,
        },
        "yaml.unsafe_load": {"stream": "!!python/object/apply:os.system ['touch mark']"},
        "pathlib.Path.touch": {"self": {"_target_": "pathlib.Path", "_args_": ["mark"]}},
        "logging.FileHandler": {"filename": "mark"},
        "shutil.copy": {"src": str(files / "evil.py"), "dst": "mark"},
        "tempfile.mkdtemp": {"prefix": "mark", "dir": "."},
        "urllib.request.urlopen": {"url": "http://127.0.0.1:9/mark"},
        "hydra.utils.instantiate": {"config": {"_target_": "builtins.open", "file": "mark", "mode": "w"}},
        "handgrad.runs.folder.write_text": {"path": {"_target_": "pathlib.Path", "_args_": ["mark"]}, "text": ""},
        "handgrad.nn.activations.torch.save": {"obj": 1, "f": "mark"},
        "torch.utils.tensorboard.SummaryWriter": {"log_dir": "mark"},
        "numpy.save": {"file": "mark", "arr": [1]},
        "os.symlink": {"src": "/etc/passwd", "dst": "mark"},
        "os.makedirs": {"name": "mark/mark"},
        "sqlite3.connect": {"database": "mark"},
        "zipfile.ZipFile": {"file": "mark", "mode": "w"},
        "gzip.open": {"filename": "mark", "mode": "wb"},
        "shelve.open": {"filename": "mark"},
    }
    return {name: {"_target_": name} | arguments for name, arguments in nodes.items()}


def values() -> dict[str, Any]:
    """Return payloads that are no classes but may be interpreted: expressions, markup, paths, extreme values."""
    escapes = "\x1b]0;mark\x07\x1b[2J\r\b\x9b31m\u202e\u2066\u200b"
    return {
        "environment": f"${{oc.env:{SECRET.upper().replace('-', '_')}}}",
        "escaped environment": f"\\${{oc.env:{SECRET.upper().replace('-', '_')}}}",
        "hydra's resolver": "${hydra:runtime.cwd}",
        "create": "${oc.create:{_target_: builtins.open, file: mark, mode: w}}",
        "decode": "${oc.decode:'{_target_: builtins.open}'}",
        "missing": "???",
        "tag": "!!python/object/apply:os.system ['touch mark']",
        "template": "{{ cycler.__init__.__globals__.os.popen('touch mark') }}{% include '/etc/passwd' %}",
        "format": "{0.__class__.__init__.__globals__} %(x)s %n %s",
        "html": "\"'></script><script>mark()</script><img src=x onerror=mark()>",
        "escapes": escapes,
        "formula": '=HYPERLINK("http://127.0.0.1:9/mark";"x")',
        "latex": "\\input{/etc/passwd}$\\immediate\\write18{touch mark}$",
        "markdown": "[x](javascript:mark())`|",
        "up": "../../../../../../mark",
        "absolute": "/mark-of-a-stranger",
        "null byte": "a\0b",
        "surrogate": "\ud800",
        "long": "x" * 100_000,
        "empty": "",
        "no": None,
        "true": True,
        "negative": -1,
        "huge": 10**40,
        "fraction": 0.5,
        "not a number": float("nan"),
        "infinite": float("-inf"),
        "list": [[], {}, None],
        "object": {},
        "deep": json.loads('{"a":' * 200 + "1" + "}" * 200),
    }


class Case(NamedTuple):
    """One command on one file with one field replaced."""

    command: str
    file: str
    what: str
    words: list[str]
    mutate: Callable[[Path], None]


class Running(NamedTuple):
    """A case in its process."""

    case: Case
    home: Path
    child: Child


def positions(value: Any, here: Position = ()) -> Iterator[Position]:
    """Yield the position of every entry of a nested value, inner ones too; of lists, the first twelve entries."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in list(entries)[:12] if isinstance(value, list) else entries:
        yield (*here, key)
        yield from positions(each, (*here, key))


def replaced(value: Any, where: Position, payload: Any, merged: bool) -> Any:
    """Return a copy of a nested value with one entry replaced, or merged if both are objects."""
    changed = copy.deepcopy(value)
    *above, last = where
    holder = changed
    for key in above:
        holder = holder[key]
    both = merged and isinstance(holder[last], dict) and isinstance(payload, dict)
    holder[last] = holder[last] | payload if both else payload
    return changed


class Lab:
    """Environment of the cases.

    Args:
        folder: for all files that they write.
        seed: seed of the random choice of payloads.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.payloads: list[tuple[str, Any]] = [*targets(folder / "files").items(), *values().items()]
        make_data(folder / "data")
        self.template = folder / "template"
        self.template.mkdir()
        self.count = itertools.count()
        Image.new("L", (28, 28), 255).save(self.template / "blank.png")
        digit = Image.new("L", (60, 60), 255)
        digit.paste(0, (27, 10, 33, 50))
        digit.save(self.template / "digit.png")
        common = [*SMALL, f"data.root={folder / 'data'}"]
        self.commands = {
            "evaluate": ["run=run"],
            "check": ["run=run", "batch=8", "fd_entries=1"],
            "export": ["run=run"],
            "predict": ["run=run", "images=digit.png"],
            "explain": ["run=run"],
            "compare": ["sweep=sweep"],
            "resume": [*common, "trainer.max_epochs=2", "hydra.run.dir=run"],
            "sweep": ["-m", *common, "seed=0,1", "hydra.sweep.dir=sweep", "report=true"],
            "dry_run": ["-m", *common, "seed=0,1,2", "hydra.sweep.dir=sweep", "dry_run=true"],
        }
        for words in (
            [*common, "hydra.run.dir=run", "callbacks=best_checkpoint", "data.val_size=100"],
            ["-m", *common, "seed=0,1", "hydra.sweep.dir=sweep", "report=false"],
        ):
            ended = Child(words, self.template).end()
            assert not ended.status, ended.err
        self.record = json.loads((self.template / RUN / METRICS).read_text())
        self.commands["resume"] += ["callbacks=best_checkpoint", "data.val_size=100"]

    def start(self, case: Case) -> Running:
        """Start a case in its own folder."""
        home = self.folder / f"case{next(self.count)}" / "home"
        shutil.copytree(self.template, home, symlinks=True)
        (home / "tmp").mkdir()
        case.mutate(home)
        script = "train" if case.command in ("resume", "sweep", "dry_run") else case.command

        def watch() -> None:
            os.environ |= {SECRET.upper().replace("-", "_"): SECRET, "TMPDIR": str(home / "tmp"), "COLUMNS": "200"}
            tempfile.tempdir = None
            told = os.open(home / "events", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

            def hook(event: str, details: tuple[Any, ...]) -> None:
                path = written_path(event, details)
                outside = path is not None and not Path(path).is_relative_to(home) and not path.startswith("/dev/")
                if outside or (event in EVENTS and not harmless(event, details)):
                    os.write(told, f"{event} {path or details}"[:300].replace("\n", " ").encode() + b"\n")

            sys.addaudithook(hook)

        return Running(case, home, Child(case.words, home, watch, str(ROOT / "src" / f"{script}.py")))

    def end(self, running: Running) -> str | None:
        """Wait for a case and return what is wrong, None if nothing is."""
        ended = running.child.end()
        wrong = marks(running.home) or not_shown(ended, running.home)
        if "Traceback" in ended.out + ended.err or ended.status < 0 or (ended.status and not ended.err.strip()):
            wrong = wrong or not_in_a_sentence(ended)
        shutil.rmtree(running.home.parent)
        return wrong

    def some(self, many: int) -> list[tuple[str, Any]]:
        """Return `many` random payloads, or all of them if there are no more."""
        return self.payloads if many >= len(self.payloads) else self.random.sample(self.payloads, many)


def harmless(event: str, details: tuple[Any, ...]) -> bool:
    """Check whether an event is our own: reading git's commit, removing temporary folders."""
    git = event == "subprocess.Popen" and details[1][:3] == ["git", "rev-parse", "HEAD"]
    return git or event == "shutil.rmtree"


def marks(home: Path) -> str | None:
    """Return what was executed, or touched outside the case's folder; None if nothing."""
    told = home / "events"
    events = told.read_text(errors="replace").splitlines() if told.exists() else []
    left = [*home.rglob("mark*"), *home.parent.glob("mark*"), *Path("/").glob("mark*")]
    return f"left a mark: {[*events, *map(str, left)][:3]}" if events or left else None


def not_shown(ended: Ended, home: Path) -> str | None:
    """Return what should not have been shown: a secret, a control character, a tag; None if nothing."""
    said = ended.out + ended.err
    if control := {sign for sign in said if unicodedata.category(sign) in ("Cc", "Cf", "Cs") and sign not in "\n\t"}:
        return f"control characters {control} in {said[:300]!r}"
    written = [path for path in home.rglob("*") if path.is_file() and path.suffix not in (".ckpt", ".png", ".pt")]
    for path in written:
        content = path.read_bytes()
        if SECRET.encode() in content or SECRET in said:
            return f"the environment's secret was read: {path}"
        if path.suffix in (".html", ".svg") and any(tag in content for tag in (b"<script>mark", b"<img src=x onerror")):
            return f"a tag stands in {path}"
    return None


def rewrite(file: Path, content: Any) -> Callable[[Path], None]:
    """Return a mutation that replaces a JSON, YAML or text file."""

    def mutate(home: Path) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        (home / file).write_text(text, encoding="utf-8", errors="surrogatepass")

    return mutate


def resave(change_config: Callable[[Any], Any], change_content: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Return a mutation that rewrites a checkpoint with changed configuration or content."""

    def mutate(home: Path) -> None:
        content, config = read_checkpoint(home / CHECKPOINT)
        torch.save(change_content(content) | {"hyper_parameters": change_config(config)}, home / CHECKPOINT)

    return mutate


def in_structure(
    lab: Lab, command: str, file: str, value: Any, write: Callable[[Any], Any], many: int
) -> Iterator[Case]:
    """Yield a case per position of a nested value and payload, which replaces the entry or is merged with it."""
    for where in positions(value):
        for name, payload in lab.some(many):
            for merged in (False, True) if isinstance(payload, dict) and payload else (False,):
                what = f"{'.'.join(map(str, where))} {'with' if merged else '='} {name}"
                yield Case(command, file, what, lab.commands[command], write(replaced(value, where, payload, merged)))


def opening(lab: Lab, command: str) -> Iterator[Case]:
    """Yield the cases of a command that opens a network: changed record, changed checkpoint, fake checkpoint."""
    many = 8 if command == "evaluate" else 2
    yield from in_structure(lab, command, "metrics.json", lab.record, lambda v: rewrite(RUN / METRICS, v), many)
    config = lab.record["config"]
    words = [word.replace("run=run", f"checkpoint={CHECKPOINT}") for word in lab.commands[command]]
    kept = in_structure(lab, command, "hyper_parameters", config, lambda v: resave(lambda _: v, lambda c: c), many)
    yield from (case._replace(words=words) for case in kept)
    for name, content in archives(lab).items():
        for given in (words, lab.commands[command]):
            yield Case(command, "checkpoint", f"{name} ({given[0]})", given, lambda home, c=content: put(home, c))


def put(home: Path, content: bytes) -> None:
    """Overwrite the checkpoint."""
    (home / CHECKPOINT).write_bytes(content)


def archives(lab: Lab) -> dict[str, bytes]:
    """Return fake checkpoints, most of which would run code or write outside if trusted."""
    whole = (lab.template / CHECKPOINT).read_bytes()

    def zipped(change: Callable[[str, bytes], bytes], more: dict[str, bytes]) -> bytes:
        packed = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(packed, "w") as new:
            for name in old.namelist():
                new.writestr(name, change(name, old.read(name)))
            for name, content in more.items():
                new.writestr(name, content)
        return packed.getvalue()

    evil = pickle.dumps(Harm())
    legacy, network = io.BytesIO(), io.BytesIO()
    torch.save({"w1": Harm()}, legacy, _use_new_zipfile_serialization=False)
    torch.save({"state_dict": {"0.weight": Harm(), "0.bias": torch.zeros(10)}}, network)
    return {
        "a pickle": evil,
        "a pickle in protocol 0": pickle.dumps(Harm(), protocol=0),
        "a pickle in the archive": zipped(lambda n, c: evil if n.endswith("data.pkl") else c, {}),
        "an object among the weights": network.getvalue(),
        "torch's older format": legacy.getvalue(),
        "entries that lead outside": zipped(lambda n, c: c, {"../../mark": b"x", "/mark-of-a-stranger": b"x"}),
        "TorchScript": zipped(lambda n, c: c, {"archive/constants.pkl": evil, "archive/code/__torch__.py": b"mark"}),
        "nothing": b"",
        "a program": b"#!/bin/sh\ntouch mark\n",
    }


def resuming(lab: Lab, command: str = "resume") -> Iterator[Case]:
    """Yield the cases of a run resumed from a changed record or checkpoint."""
    running = lab.record | {"status": "running", "reason": None, "metrics": {}}
    content, _ = read_checkpoint(lab.template / CHECKPOINT)
    content["loops"]["fit_loop"]["epoch_progress"]["current"] = dict.fromkeys(
        ("ready", "completed", "started", "processed"), 1
    )

    def interrupted(then: Callable[[Path], None]) -> Callable[[Path], None]:
        def mutate(home: Path) -> None:
            rewrite(RUN / METRICS, running)(home)
            then(home)

        return mutate

    yield from in_structure(lab, command, "metrics.json", running, lambda v: rewrite(RUN / METRICS, v), 6)
    config = lab.record["config"]
    write_config = lambda v: interrupted(resave(lambda _: v, lambda c: c))  # noqa: E731
    yield from in_structure(lab, command, "hyper_parameters", config, write_config, 3)
    write_content = lambda v: interrupted(resave(lambda s: s, lambda _: v))  # noqa: E731
    plain = {key: value for key, value in content.items() if key not in ("state_dict", "hyper_parameters")}
    whole = lambda v: write_content({"state_dict": content["state_dict"]} | v)  # noqa: E731
    yield from in_structure(lab, command, "checkpoint", plain, whole, 6)
    for name, packed in archives(lab).items():
        yield Case(command, "checkpoint", name, lab.commands[command], interrupted(lambda home, c=packed: put(home, c)))


def sweeping(lab: Lab, command: str) -> Iterator[Case]:
    """Yield the cases of a sweep compared, resumed or dry-run: changed records, tables and Hydra files."""
    first = next((lab.template / SWEEP).glob("0_*")).name
    inside = SWEEP / first
    record = json.loads((lab.template / inside / METRICS).read_text())
    many, some = (3, lab.payloads) if command == "compare" else (1, lab.some(6))
    yield from in_structure(lab, command, "metrics.json", record, lambda v: rewrite(inside / METRICS, v), many)
    for file in ("history.csv", "predictions.csv", "confusion_test.csv"):
        lines = (lab.template / inside / file).read_text().splitlines()
        for name, payload in some:
            cells = [str(payload), *lines[0].split(",")[1:]]
            for line, text in ((0, ",".join(cells)), (1, ",".join([str(payload), *lines[1].split(",")[1:]]))):
                changed = "\n".join([*lines[:line], text, *lines[line + 1 :]]) + "\n"
                what = f"line {line + 1} {name}"
                yield Case(command, file, what, lab.commands[command], rewrite(inside / file, changed))
    account = {
        "hydra": {
            "overrides": {"hydra": ["hydra.mode=MULTIRUN"], "task": ["seed=0,1"]},
            "job": {"config_name": "train"},
            "runtime": {
                "choices": {"hydra/launcher": "basic", "hydra/sweeper": "basic"},
                "config_sources": [{"provider": "command-line", "path": "/x"}],
            },
        }
    }
    for path in (SWEEP / "multirun.yaml", inside / ".hydra" / "config.yaml", inside / ".hydra" / "hydra.yaml"):
        yield from in_structure(lab, command, path.name, account, lambda v, f=path: rewrite(f, v), many)
        for name, payload in some:
            words = [f"+x={payload}", f"activation={payload}", str(payload)]
            changed = replaced(account, ("hydra", "overrides", "task"), words, False)
            yield Case(command, path.name, f"overrides {name}", lab.commands[command], rewrite(path, changed))
            yield Case(
                command, path.name, f"a tag: {name}", lab.commands[command], rewrite(path, f"hydra: {payload}\n")
            )
    for name, payload in file_names().items():
        renamed = lambda home, p=payload: (home / inside).rename(home / SWEEP / p)  # noqa: E731
        yield Case(command, "a folder's name", name, lab.commands[command], renamed)


def file_names() -> dict[str, str]:
    """Return the payloads that can name a file."""
    texts = {name: value for name, value in values().items() if isinstance(value, str) and 0 < len(value) < 200}
    return {name: text for name, text in texts.items() if not set("/\0\ud800") & set(text)}


def predicting(lab: Lab) -> Iterator[Case]:
    """Yield the cases of `predict`: files that are no pictures, and hostile file names."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(mark) (w) file closefile\n"
    pictures = {"EPS": eps, "a pickle": pickle.dumps(Harm()), "SVG": b"<svg><script>mark()</script></svg>", "none": b""}
    pictures |= {"PDF": b"%PDF-1.4 /JS (mark)", "a huge PNG": huge_png()}
    for name, content in pictures.items():
        overwritten = lambda home, c=content: (home / "digit.png").write_bytes(c)  # noqa: E731
        yield Case("predict", "picture", name, lab.commands["predict"], overwritten)
    for name, payload in file_names().items():

        def mutate(home: Path, payload: str = payload) -> None:
            (home / "pictures").mkdir()
            (home / "digit.png").rename(home / "pictures" / f"{payload}.png")

        yield Case("predict", "a picture's name", name, ["run=run", "images=pictures"], mutate)


def huge_png() -> bytes:
    """Return a PNG whose header claims 60,000 by 60,000 pixels."""
    packed = io.BytesIO()
    Image.new("L", (1, 1)).save(packed, "PNG")
    content = bytearray(packed.getvalue())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    return bytes(content)


def cases(lab: Lab, command: str) -> Iterator[Case]:
    """Yield all cases of a command."""
    if command == "resume":
        yield from resuming(lab)
    elif command in ("compare", "sweep", "dry_run"):
        yield from sweeping(lab, command)
    else:
        yield from opening(lab, command)
        if command == "predict":
            yield from predicting(lab)


def main() -> None:
    """Try every case, two at a time, print the table, exit with status 1 if one failed."""
    folder = Path(tempfile.mkdtemp(prefix="strangers-"))
    torch.set_num_threads(1)
    Plugins.instance()  # discovers plugins once, not in every process
    parser = argparse.ArgumentParser(description="Open a stranger's files with every command.")
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help="evaluate, check, ..., resume, sweep; or all")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the cases, drawn at random; all of them take hours"
    )
    parser.add_argument("--seed", type=int, default=0, help="draws which payloads are tried where not all are")
    chosen = parser.parse_args()
    lab = Lab(folder, chosen.seed)
    console, started = Console(markup=False, highlight=False, soft_wrap=True), time.perf_counter()
    tried: Counter[tuple[str, str]] = Counter()
    fields: dict[tuple[str, str], set[str]] = {}
    failed: Counter[tuple[str, str]] = Counter()
    running: deque[Running] = deque()

    def finish() -> None:
        each = running.popleft()
        if wrong := lab.end(each):
            failed[each.case.command, each.case.file] += 1
            console.print(f"{each.case.command}, {each.case.file}: {each.case.what}: {wrong}")

    for command in chosen.commands or lab.commands:
        for case in cases(lab, command):
            if lab.random.random() > chosen.share:
                continue
            tried[case.command, case.file] += 1
            fields.setdefault((case.command, case.file), set()).add(case.what.split(" ")[0])
            running.append(lab.start(case))
            if len(running) == 2:
                finish()
    while running:
        finish()
    table = Table("command", "file", "fields", "tried", "failed", title="Files from a stranger", title_justify="left")
    for key, count in tried.items():
        table.add_row(*key, str(len(fields[key])), str(count), str(failed[key]))
    table.add_row("all", "", "", str(tried.total()), str(failed.total()), style="bold")
    console.print(table)
    console.print(f"{len(lab.payloads)} payloads, {time.perf_counter() - started:.0f} s")
    shutil.rmtree(folder)
    sys.exit(bool(failed.total()))


if __name__ == "__main__":
    main()
