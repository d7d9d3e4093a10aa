"""Break the program once in every way that matters; each change must make a test fail.

Run by `make mutants` (an hour on two cores). Each mutant replaces one piece of text in one module of a copy of the
project and runs the tests of that module and its neighbours there; the first that fails is named. Exits with the number
of mutants that no test noticed. `python tests/mutants.py compare/ training/data` tries those of some modules alone.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).parents[1]
MATHEMATICS = ["activation", "loss", "regularizer", "network", "backprop", "modules"]
REPORT = ["compare_decides", "compare", "sweep"]
TESTS = {  # of a module, the likeliest first; of those that are not listed, the mathematics'
    "config": ["config", "options", "train"],
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

MUTANTS = [
    # module, text, replacement, what it breaks
    ("nn/activations", "addcmul(a, a, a, value=-1)", "addcmul(a, a, a, value=1)", "sigmoid': sign"),
    ("nn/activations", "return torch.addcmul(a, a, a, value=-1)", "return torch.ones_like(a)", "sigmoid': missing"),
    ("nn/activations", "return 1 - a * a", "return 1 + a * a", "tanh': sign"),
    ("nn/activations", "return 1 - a * a", "return 1 - a", "tanh': not squared"),
    ("nn/activations", "torch.gt(z, 0, out", "torch.ge(z, 0, out", "relu': value at 0"),
    ("nn/activations", "return torch.gt(z, 0, out=torch.empty_like(z))", "return torch.ones_like(z)", "relu': missing"),
    ("nn/activations", "return s + a * (1 - s)", "return s + z * (1 - s)", "silu': z for a"),
    ("nn/activations", "+ z * density", "+ density", "gelu': missing factor"),
    ("nn/activations", "-0.5 * z * z", "-z * z", "gelu': density's exponent"),
    ("nn/activations", "z.clamp(min=0) + torch", "torch", "softplus: missing term"),
    ("nn/activations", "torch.ones_like(z), self.negative_slope", "torch.ones_like(z), 0.0", "leaky relu': slope"),
    ("nn/losses", ".sub_(y).div_(examples", ".sub_(y).div_(-examples", "BP1: sign"),
    ("nn/losses", ".sub_(y).div_(examples or y.shape[-2])", ".sub_(y)", "BP1: sum for mean"),
    ("nn/losses", " / -(examples or y.shape[-2])", " / (examples or y.shape[-2])", "loss: sign"),
    ("nn/losses", " / -(examples or y.shape[-2])", " / -y.numel()", "loss: mean over classes too"),
    ("nn/losses", "at_least_float32(logits), dim=-1)", "at_least_float32(logits), dim=-2)", "softmax: wrong axis"),
    ("nn/losses", "return 2 * self.strength", "return self.strength", "penalty': factor 2"),
    ("nn/losses", "return 2 * self.strength", "return -2 * self.strength", "penalty': sign"),
    ("nn/losses", "weight.square().sum()", "weight.abs().sum()", "penalty: L1 for L2"),
    ("nn/backprop", "weight, a.mT)", "-weight, a.mT)", "forward: sign"),
    ("nn/backprop", "delta_next.mT).mT.mul_(derivative)", "delta_next.mT).mT", "BP2: missing derivative"),
    ("nn/backprop", "(weight_next.mT @ delta_next.mT)", "-(weight_next.mT @ delta_next.mT)", "BP2: sign"),
    (
        "nn/backprop",
        "weights[layer + 1], passed.slopes[layer]",
        "weights[layer + 1].flip(0), passed.slopes[layer]",
        "BP2: rows of W",
    ),
    ("nn/backprop", "return self.delta.mT @ self.input", "return (self.input.mT @ self.delta)", "BP4: transpose"),
    ("nn/backprop", "return self.delta.mT @ self.input", "return self.delta.mT @ self.input / 2", "BP4: factor"),
    ("nn/backprop", "return self.delta.sum(dim=-2)", "return self.delta.mean(dim=-2)", "BP3: mean for sum"),
    ("nn/backprop", "return self.delta.sum(dim=-2)", "return -self.delta.sum(dim=-2)", "BP3: sign"),
    ("nn/backprop", "passed.inputs[layer]))", "passed.inputs[layer] * 2))", "BP4: wrong input"),
    ("nn/optimizers", "alpha=-rate)", "alpha=rate)", "update: sign of weights"),
    ("nn/optimizers", "beta=1 - rate * decay", "beta=1.0", "update: missing penalty"),
    ("nn/optimizers", "beta=1 - rate * decay", "beta=1 + rate * decay", "update: sign of the penalty"),
    ("nn/optimizers", "alpha=of_biases)", "alpha=64 * of_biases)", "update: sum for mean of biases"),
    ("nn/optimizers", "share = min(1.0, max_norm", "share = max(1.0, max_norm", "clipping: lengthens"),
    ("nn/optimizers", "squares.sum().sqrt()", "squares.sum()", "clipping: by the square"),
    ("nn/backprop", " * (self.input @ self.input.T)", "", "norm: missing factor"),
    ("nn/backprop", "2 * decay * along", "decay * along", "norm: factor 2 of the penalty"),
    ("nn/backprop", "decay**2 * weight", "decay * weight", "norm: penalty not squared"),
    ("nn/backprop", "return squares + self.bias().square().sum()", "return squares", "norm: missing bias"),
    ("nn/backprop", "]) / divisor, torch", "]), torch", "accumulation: sum for mean"),
    ("nn/optimizers", "(examples if", "(64 if", "update: a short batch counted as a full one"),
    ("training/manual", ".grad = bias", ".grad = bias + 1e-3 * layer.bias", "penalty on biases"),
    ("training/manual", " + decay * layer.weight", "", "penalty missing"),
    (
        "training/manual",
        "self.regularizer.weight_decay * share",
        "self.regularizer.weight_decay",
        "accumulation: penalty of a short step",
    ),
    ("training/distributed", "distributed.all_reduce(numbers)", "pass", "two processes: each its own sum"),
    ("training/distributed", "joined = all_reduce(", "joined = 0.5 * all_reduce(", "two processes: mean of the sums"),
    (
        "training/distributed",
        "torch.cat(gather_all_tensors(rows.contiguous()))",
        "rows",
        "two processes: each its own factors",
    ),
    (
        "training/data",
        ".tensor_split(self.processes)[self.process]",
        ".tensor_split(self.processes)[0]",
        "both the same share",
    ),
    ("nn/mlp", "xavier_uniform_(layer.weight)", "xavier_normal_(layer.weight)", "Xavier: normal for uniform"),
    ("nn/activations", "return torch.tanh(z)", "return z.tanh_()", "tanh destroys its argument"),
    ("nn/activations", "return z.clamp(min=0)\n", "return z.clamp_(min=0)\n", "relu destroys its argument"),
    ("nn/activations", "out=torch.empty_like(z))", "out=z)", "relu' destroys its argument"),
    ("nn/activations", "torch.erfc(z * -math.sqrt(0.5))", "(1 + torch.erf(z * math.sqrt(0.5)))", "Phi cancels"),
    (
        "nn/activations",
        "torch.log1p(torch.exp(-z.abs()))",
        "torch.log(1 + torch.exp(-z.abs()))",
        "log(1 + x) for log1p",
    ),
    ("nn/backprop", ".mT.mul_(derivative)", ".mT.mul_(derivative.neg_()).neg_()", "BP2 destroys its argument"),
    ("nn/losses", "log_p.exp().sub_(y)", "log_p.exp_().sub_(y)", "BP1 destroys its argument"),
    ("nn/losses", ".exp().sub_(y)", ".exp().sub_(torch.eye(10).to(y)[y.argmax(1)])", "BP1: soft targets as hard"),
    ("nn/losses", "(y * log_p).sum(dim=(-2, -1))", "log_p[range(len(y)), y.argmax(1)].sum()", "soft as hard"),
    ("nn/mlp", "nn.init.zeros_(layer.bias)", "pass", "Xavier: biases not zero"),
    (
        "nn/optimizers",
        'optimizer.param_groups[-1]["lr"]',
        'optimizer.param_groups[0]["lr"]',
        "biases take the weights' rate",
    ),
    ("nn/optimizers", "            closure()\n", "            pass\n", "closure is not called"),
    ("nn/optimizers", '"lr": lr * weight_factor}', '"lr": lr}', "grouped SGD: weights take the biases' rate"),
    ("training/schedules", "(optimizer, total_steps - warmup_steps)", "(optimizer, total_steps)", "cosine never ends"),
    ("training/schedules", "total_iters=warmup_steps)", "total_iters=total_steps)", "warm-up never ends"),
    # metrics
    (
        "training/modules",
        'y.to(logits.dtype), reduction="sum")',
        "y.to(logits.dtype)) * 2000",
        "a short batch weighs like a full",
    ),
    (
        "training/modules",
        "    for name in self.validated:\n            self.scores_of(name).reset()",
        "    pass",
        "never reset",
    ),
    (
        "training/modules",
        "    for name in self.tested:\n            self.scores_of(name).reset()",
        "    pass",
        "counted twice",
    ),
    ("training/modules", "        self.total_loss.reset()\n", "", "loss not reset"),
    (
        "training/modules",
        "return self.confusion.compute()",
        "return self.confusion.compute().T",
        "confusion transposed",
    ),
    ("training/modules", "        self.step_losses.clear()\n", "", "mean over all epochs for the epoch's"),
    (
        "training/modules",
        "torch.stack(self.step_losses).mean()",
        "self.step_losses[-1]",
        "last batch for the epoch's mean",
    ),
    (
        "training/modules",
        "int(counts.trace()) / examples",
        "int(counts.trace()) / (examples + 1)",
        "accuracy of one more image",
    ),
    ("training/manual", " or self.trainer.is_last_batch", "", "last batches of an epoch wait for the next"),
    (
        "training/modules",
        'self.scores_of("val").numbers()["loss"]',
        'self.scores_of("val").numbers()["accuracy"]',
        "plateau of",
    ),
    (
        "training/modules",
        "return mean_loss + self.regularizer.penalty(self.network.weights)",
        "return mean_loss",
        "no penalty",
    ),
    (
        "training/modules",
        "penalty(self.network.weights)",
        "penalty(self.network.parameters())",
        "autograd: penalty on biases",
    ),
    ("training/manual", "            schedule.step()\n", "            pass\n", "by hand: rate never scheduled"),
    ("training/modules", '"interval": "step"}', '"interval": "epoch"}', "autograd: rate scheduled by epoch"),
    (
        "training/modules",
        "mean_loss = cross_entropy(self(x), y)",
        "mean_loss = cross_entropy(self(x), y.argmax(1))",
        "hard targets",
    ),
    (
        "training/modules",
        "self.validated_after = len(self.step_losses)",
        "self.validated_after = 0",
        "scores thought stale",
    ),
    ("training/callbacks", "if pl_module.freshly_validated:", "if True:", "stale scores for fresh"),
    (
        "training/artifacts",
        "zip(true.tolist(), predicted.tolist()",
        "zip(predicted.tolist(), true.tolist()",
        "truth for guess",
    ),
    (
        "training/artifacts",
        "torch.cat(module.test_logits), dim=1).max(dim=1)",
        "torch.cat(module.test_logits), dim=1).min(dim=1)",
        "least likely class for the likeliest",
    ),
    # data
    (
        "training/data",
        "SeedSequence([seed, epoch, ",
        "SeedSequence([0, epoch, ",
        "order repeated across seeds",
    ),
    (
        "training/data",
        "[seed, epoch, *PURPOSES",
        "[seed, min(epoch, 3), *PURPOSES",
        "order repeated from an epoch on",
    ),
    ("training/data", "        self.epoch = epoch\n", "        pass\n", "order the same in every epoch"),
    (
        "training/data",
        "targets.index_select(0, indices)",
        "targets.index_select(0, (indices + 1) % len(self.targets))",
        "labels",
    ),
    ("training/data", "data.view(-1, INPUTS)", "data.transpose(1, 2).reshape(-1, INPUTS)", "images transposed"),
    ("training/data", "random_state=self.seed", "random_state=0", "the same split for every seed"),
    ("training/data", "stratify=labels.numpy()", "stratify=None", "split not in the classes' proportions"),
    ("training/data", "        if self.score_test:\n", "        if True:\n", "score_test=false ignored"),
    (
        "training/data",
        "{name: self._loader(name) for name in self.sets}",
        "{name: self._loader(name, SCORING_BATCH_SIZE, 0) for name in self.sets}",
        "test set shuffled",
    ),
    (
        "training/data",
        "self.images.index_select(0, indices) / 255",
        "self.images.index_select(0, indices) / 256",
        "white below 1",
    ),
    ("training/data", "images, targets = images[kept], targets[kept]", "pass", "validation images are trained on"),
    ("training/data", "*self._read(train=False)", "*self._read(train=True)", "training set for the test set"),
    (
        "training/data",
        'name = "val" if self.val_size else "test"',
        'name = "test"',
        "test set watched beside a validation set",
    ),
    ("training/data", "return -(-self.examples // (", "return (self.examples // (", "short last batch left out"),
    ("training/data", "None if overfit else self.seed", "self.seed", "overfit"),
    (
        "training/idx_files",
        "return trailer is None or trailer ==",
        "return True or trailer ==",
        "damaged file not noticed",
    ),
    # run records
    (
        "training/callbacks",
        'self.rows = [checked_row(row) for row in state_dict["rows"]]',
        "pass",
        "history lost at resume",
    ),
    ("config", "if key not in RETIRED", "", "a key taken away orphans older runs"),
    ("config", "return Training.model_validate(config).model_dump()", "return config", "1 is not 1.0"),
    (
        "training/callbacks",
        "        trainer.save_checkpoint(",
        "        if trainer.should_stop: trainer.save_checkpoint(",
        "checkpoint only at the end",
    ),
    (
        "training/callbacks",
        'param_groups[0]["lr"]',
        'param_groups[0].get("initial_lr", 0.01)',
        "rate before the schedule's",
    ),
    (
        "training/callbacks",
        "        self.started = time.perf_counter()\n",
        "        pass\n",
        "scoring counts as training",
    ),
    (
        "training/callbacks",
        '{"epoch": trainer.current_epoch, ',
        '{"epoch": trainer.current_epoch + 1, ',
        "epochs from 1",
    ),
    ("training/callbacks", "before + step)", "before + step + 1)", "diverged a step later"),
    ("training/callbacks", "finite.int().argmin()", "finite.int().argmax()", "diverged at a finite loss"),
    ("training/callbacks", "if not parameter.isfinite().all():", "if False:", "spoiled weights are saved"),
    ("runs/record", 'FINISHED = ("completed", "diverged")', 'FINISHED = ("completed",)', "a diverged run is run again"),
    (
        "runs/record",
        'if beside and equal_typed(normalize(beside["config"]), config):',
        'if record and record["seed"] == config["seed"]:',
        "a sibling is taken by its seed alone",
    ),
    ("runs/record", "statistics.median(whole)", "max(whole)", "slowest epoch for the median"),
    ("runs/record", 'if row["batches"] == most]', "]", "cut epochs count as whole"),
    ("runs/folder", "            half.unlink(missing_ok=True)", "            pass", "halves of files stay"),
    (
        "runs/record",
        'if record["status"] != "running":',
        "if True:",
        "interrupted run completed",
    ),
    ("runs/record", "if differ and not siblings:", "if False:", "another configuration's folder is taken"),
    ("text", "return canonical(a) == canonical(b)", "return a == b", "1 is true"),
    ("runs/checkpoint", "if damaged := archive.testzip():", "if damaged := None:", "damaged weights are used"),
    (
        "runs/checkpoint",
        "if differ := differences(normalize(belongs_to), normalize(config)):",
        "if differ := [][:0]:",
        "another run's weights",
    ),
    ("runs/checkpoint", "return int(content[", "return 0 * int(content[", "TensorBoard forgets all at resume"),
    ("training/run", "ckpt_path=last if resumed else None", "ckpt_path=None", "a resumed run begins anew"),
    ("training/run", "    trainer.precision_plugin.convert_module(module)\n", "", "float64 rounded at resume"),
    ("training/build", "seed_everything(cfg.seed,", "seed_everything(0,", "the same weights for every seed"),
    ("training/build", "build(cfg.data, seed=cfg.seed)", "build(cfg.data, seed=0)", "the same order for every seed"),
    ("training/build", "    if cfg.threads:\n", "    if False:\n", "threads ignored"),
    ("training/build", "torch.set_flush_denormal(True)", "pass", "numbers below the normal ones are kept"),
    # statistics
    (
        "compare/statistics",
        "a, b = a[shared], b[shared]",
        "a, b = a.iloc[: len(shared)], b.iloc[: len(shared)]",
        "pairs by position",
    ),
    ("compare/statistics", "equal_var=False", "equal_var=True", "pooled variance for Welch"),
    ("compare/statistics", 'usevar="unequal"', 'usevar="pooled"', "pooled variance for equivalence"),
    ("compare/statistics", 'ALPHA, "holm")', 'ALPHA, "bonferroni")', "Bonferroni for Holm"),
    ("compare/statistics", 'ALPHA, "holm")', 'ALPHA, "fdr_bh")', "false discovery rate for Holm"),
    ("compare/statistics", 'verdict[told["p"] < ALPHA]', 'verdict[table["p"] < ALPHA]', "verdict by the uncorrected p"),
    ("compare/statistics", 'told["p_equal"] < ALPHA', 'table["p_equal"] < ALPHA', "equal by the uncorrected p"),
    ("compare/statistics", '{"low": -row["high"], "high": -row["low"], ', "{", "turned without its interval"),
    ("compare/statistics", "swapped |= {one: row[other], other: row[one]}", "pass", "turned without its names"),
    ("compare/statistics", "each.min()", "each.max()", "most for least"),
    ("compare/statistics", "each.idxmin()", "each.idxmax()", "cell of the most for that of the least"),
    ("compare/statistics", 'each if found["a"] == a else -each', "each", "cells' differences not turned"),
    ("compare/statistics", "first.mean(axis=1), second", "first.median(axis=1), second", "median for mean over cells"),
    ("compare/statistics", "family = number_of_pairs(len(done))", "family = 1", "no correction"),
    ("compare/statistics", "family = len(places)", "family = number_of_pairs(len(done))", "against: all pairs counted"),
    ("compare/statistics", "return 2 if averages", "return 1 if averages", "each table with 5 % of its own"),
    ("compare/statistics", "stats.fisher_exact(table)", "stats.chi2_contingency(table)", "chi squared for Fisher"),
    ("compare/statistics", "a[0] / a[1] - b[0] / b[1]", "a[0] - b[0]", "counts for shares"),
    ("compare/statistics", "(a.right & ~b.right)", "(a.right | ~b.right)", "McNemar: agreeing images counted"),
    ("compare/statistics", "exact=True", "exact=False", "McNemar: approximate"),
    ("compare/statistics", "ALPHA / max(comparisons, 1) / 2", "ALPHA / 2", "seeds planned without the correction"),
    ("compare/statistics", "LEVEL = 0.95", "LEVEL = 0.9", "90 % interval"),
    ("compare/statistics", "        low = high = np.nan", "        pass", "interval of a mixed cell"),
    ("compare/statistics", "cells[measure.column] * measure.sign", "cells[measure.column]", "best last where less is"),
    ("compare/statistics", "(a - b).std() if paired", "(a - b).std(ddof=0) if paired", "spread too small"),
    ("compare/statistics", "np.hypot(a.std(), b.std())", "a.std() + b.std()", "spread too large"),
    (
        "compare/statistics",
        "ends_of_margin = (-margin, margin)",
        "ends_of_margin = (-2 * margin, 2 * margin)",
        "margin",
    ),
    (
        "compare/statistics",
        "(first - second).abs().max(axis=None) < SAME",
        'abs(found["difference"]) < SAME',
        "equal where effects cancel",
    ),
    (
        "compare/statistics",
        "first[shared].dropna(), second[shared].dropna()",
        "first[shared], second[shared]",
        "a seed that lacks a cell counts",
    ),
    (
        "compare/statistics",
        "runs.reference.nunique(dropna=False) == 1",
        "True",
        "printed beside others",
    ),
    (
        "compare/reference",
        'for name in table if name != "reference"]',
        'for name in table if name != "reference"][:1]',
        "one setting is enough",
    ),
    ("compare/statistics", '.status.isin(["completed", "diverged"])', '.status.isin(["completed"])', "shares of"),
    ("compare/statistics", "numbers.median(), ", "numbers.mean(), ", "mean for median"),
    # tables
    ("compare/load", 'done[done.outcome == "learned"] if', "done if", "runs at chance are in the mean"),
    ("compare/load", "self.measure.sign * values.groupby", "values.groupby", "worse for better"),
    ("compare/load", 'table["train/accuracy"] - table', 'table[f"{scored}/accuracy"] - table', "gap zero"),
    ("compare/load", "int(highest >= CHANCE)", "int(highest > 2)", "collapse not seen"),
    ("compare/load", "int(number) if number.isdecimal() and len(number) < 19 else 0", "0", "10_ before 2_"),
    ("compare/load", '"seed"], keep="last")', '"seed"], keep="first")', "first of repeated runs"),
    ("compare/load", '.sort_values("done", kind="stable")', "", "an unfinished repeat wins"),
    ("compare/load", 'return "val" if "val/accuracy" in names', 'return "val" if False', "validation not looked for"),
    ("compare/load", "not (0 <= value <= most and value < math.inf)", "False", "an accuracy of 7"),
    ("compare/load", "if len(datasets) > 1:", "if False:", "data sets mixed without a word"),
    ("compare/load", 'self.table.status == "completed"', 'self.table.status != "failed"', "running runs in the mean"),
    ("compare/cells", "settings = choices | {", 'settings = {"used": record.get("threads")} | choices | {', "threads"),
    ("compare/cells", 'NOT_A_CELL = {"seed", "name",', 'NOT_A_CELL = {"seed",', "a run's name makes a cell"),
    ("compare/cells", "TOGETHER = 3", "TOGETHER = 1", "confounds of two keys not named"),
    ("compare/cells", "{name: canonical(value)", "{name: str(value)", "true and True are one value"),
    ("compare/metrics", "higher_is_better: bool = False", "higher_is_better: bool = True", "more loss is better"),
    ("compare/metrics", "margin=0.2)", "margin=2)", "margin of two points"),
    ("compare/metrics", "return 1 if self.higher_is_better", "return -1 if self.higher_is_better", "direction"),
    ("compare/metrics", "1.0 if self.column.endswith", "2.0 if self.column.endswith", "an accuracy of 110 %"),
    ("compare/sentences", "if row.low > 0:", "if row.low > 1:", "lucky interval without its doubt"),
    ("compare/sentences", 'lucky = "" if len(cells) == 2', 'lucky = "" if len(cells)', "best of many without its luck"),
    ("compare/sentences", "number(mean - low)", "number(high - low)", "twice the interval"),
    ("compare/sentences", "beyond = low < measure.bounds[0] or", "beyond = False and", "interval above 100 %"),
    ("compare/sentences", "row.n_a == row.n_b == row.n", "True", "seeds each, where only some are shared"),
    ("compare/sentences", "(planned[seeds] <= wanted).all()", "(planned[seeds] <= wanted).any()", "too few seeds"),
    ("compare/sentences", "n, int(row.among))", "n, 1)", "planned for one comparison of many"),
    ("compare/sentences", "finished = int(row.completed + row.diverged)", "finished = int(row.completed)", "share of"),
    ("compare/sentences", ".proportion_ci(LEVEL)", '.proportion_ci(LEVEL, "wilson")', "another interval of the share"),
    ("compare/sentences", 'verdict = "differ" if row.verdict', 'verdict = "differ" if True or row.verdict', "McNemar"),
    ("compare/figures", "np.mean(counts, axis=0)", "np.sum(counts, axis=0)", "sum of confusion matrices for the mean"),
    ("compare/figures", "measure.scale * runs, np.full", "runs, np.full", "dots not in the unit"),
    ("runs/tables", "classes[:, 0] == classes[:, 1]}", "probability > 0.5}", "sure for right"),
    ("runs/tables", "len(rows) != epochs", "False", "history of other epochs"),
    ("runs/tables", 'if not text.endswith("\\n"):', "if False:", "table cut short"),
    ("compare/page", 'return f"\'{cell}"', "return cell", "formula in a spreadsheet"),
    (
        "compare/page",
        "html.escape(escape_control(str(text)), quote=False)",
        "escape_control(str(text))",
        "HTML in Markdown",
    ),
    ("compare/page", "return quote(", "return str(", "link with a sign in it"),
    (
        "compare/page",
        "for what in (*STATUSES[1:], *NOT_LEARNED) if row[what]",
        "for what in STATUSES[1:] if row[what]",
        "remark on runs at chance",
    ),
    ("compare/progress", "median(seconds) * rest / at_once", "median(seconds) * rest", "time as if one by one"),
    ("compare/progress", 'sum(record["status"] != "running" for', 'sum(record["status"] == "completed" for', "done"),
    (
        "compare/progress",
        "float(wanted[EPOCHS] * per_epoch + around)",
        "float(per_epoch + around)",
        "time of one epoch",
    ),
    ("compare/again", "(seed|report|dry_run)=", "(seed)=", "more seeds without a report"),
    ("compare/again", "range(0,{seeds})", "range(1,{seeds})", "one seed less"),
    ("sweep", '("report", "dry_run")', '("dry_run",)', "report is part of a run"),
    ("sweep", 'record["status"] in FINISHED', 'record["status"]', "interrupted runs count as done"),
    ("sweep", '            log.warning("no report: %s", error)', "            raise", "a report's fault ends a sweep"),
    # what looks inside
    ("nn/gradcheck", '("autograd", "float64"): 1e-9', '("autograd", "float64"): 1e9', "no gradient is wrong"),
    ("nn/gradcheck", "/ (float(theirs.abs().max()) or 1)", "", "difference for share"),
    ("training/layer_stats", "SATURATED = 0.01", "SATURATED = 0.1", "saturated too soon"),
    ("training/layer_stats", "(layer.slope == 0).all(dim=0)", "(layer.slope == 0).any(dim=0)", "dead on one image"),
    ("training/layer_stats", "std(correction=0)", "std()", "activation's deviation"),
    ("training/layer_stats", "math.log10(share)", "math.log(share)", "natural logarithm"),
    (
        "training/layer_stats",
        "layer.gradient.weight() + decay * weight",
        "layer.gradient.weight()",
        "norm without penalty",
    ),
    ("training/layer_stats", '        self.rows = state_dict["rows"]\n', "        pass\n", "rows lost at resume"),
    ("training/layer_stats", "with self.history.paused():", "if True:", "the look counts as training"),
    ("inspection/predict", "torch.softmax(module(x).float(), dim=1)", "module(x).float()", "logits for probabilities"),
    ("inspection/digits", "BOX, CENTRE = 28, 20, 14", "BOX, CENTRE = 28, 20, 12", "digit off the centre"),
    ("inspection/digits", "difference, smooth = -difference, -smooth", "pass", "dark on light not turned"),
    ("inspection/digits", "ImageOps.exif_transpose(file)", "file", "picture on its side"),
    ("inspection/weights", "key=lambda item: int(item[0][1:])", "key=lambda item: item[0]", "w10 before w2"),
    ("inspection/weights", "weight.detach().clone() for number", "weight.detach().clone().T for number", "transposed"),
    ("inspection/export", "TOLERANCE = 1e-5", "TOLERANCE = 1e5", "any file is the network"),
    ("inspection/explain", '.replace("<", "\\\\u003c")', "", "a name ends the page's script"),
    # what a stranger's file may name
    ("inspection/allowlist", "not isinstance(each, str) or each not in classes", "False", "any class is built"),
    ("inspection/allowlist", '"${" in text', "False", "an interpolation is looked up"),
    ("inspection/allowlist", 'classes[part["_target_"]].model_validate(', "dict(", "any argument"),
    ("inspection/allowlist", "if not trust:", "if trust:", "trust turned round"),
    ("runs/checkpoint", 'return "://" in text', "return False", "deletes on another file system"),
    (
        "runs/checkpoint",
        "return not Path(os.path.abspath(text))",
        "return Path(os.path.abspath(text))",
        "deletes outside",
    ),
    ("inspection/reopen", "and not Path(str(root)).is_dir()", "and False", "data fetched to where a file says"),
    ("process", 'word.startswith("--e")', "False", "a rerun's pickle is read"),
    ("training/matmul", " and not rounds", "", "auto rounds with units for bfloat16"),
    ("training/matmul", '"Intel" not in', '"Nobody" not in', "oneDNN on Intel's CPUs"),
    ("training/matmul", 'device.type == "cpu" and ', "", "auto rounds on a GPU"),
    ("training/modules", 'self.log("train/step_loss", loss)', "pass", "no loss of a step"),
    # what is typed
    ("config", 'if monitor.startswith("test/"):', "if False:", "chosen by the test set"),
    ("config", "Positive = Annotated[int, Field(gt=0,", "Positive = Annotated[int, Field(ge=0,", "no epochs"),
    ("config", 'return re.sub(r"[^\\w.,=+-]", "_", str(name))[:100]', "return str(name)", "name leads elsewhere"),
    ("process", "SIGNALLED = 128", "SIGNALLED = 100", "exit status after a signal"),
    ("process", "        sys.exit(1)\n    finally", "        sys.exit(0)\n    finally", "failure is success"),
]


def tests_of(module: str) -> list[str]:
    """The tests of a module and its neighbours, the likeliest to notice first."""
    names = TESTS.get(module, REPORT if "compare/" in module else MATHEMATICS)
    return [f"tests/test_{name}.py" for name in dict.fromkeys(names)]


def noticed_by(tests: Iterable[str], module: str = "", text: str = "", replacement: str = "") -> str:
    """The first test that fails with the change, or, without a module, as things are; "" where none does."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        for name in ("src", "conf", "docs", "tests"):
            shutil.copytree(ROOT / name, copy / name)
        shutil.copy(ROOT / "pyproject.toml", copy)
        (copy / "data").symlink_to(ROOT / "data")
        if module:
            path = copy / "src" / "handgrad" / f"{module}.py"
            path.write_text(path.read_text().replace(text, replacement))
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
    tried = [mutant for mutant in MUTANTS if not modules or mutant[0].startswith(modules)]
    tests = dict.fromkeys(test for module, *_ in tried for test in tests_of(module))
    if failed := noticed_by(["tests/test_docs.py", *tests]):
        sys.exit(f"a test fails without any change, mend that first: {failed}")
    survivors = 0
    with ThreadPoolExecutor(max_workers=2) as pool:
        trials = {pool.submit(noticed_by, tests_of(mutant[0]), *mutant[:3]): mutant for mutant in tried}
        for trial in as_completed(trials):
            module, _, _, what = trials[trial]
            survivors += not trial.result()
            print(f"{trial.result() or 'SURVIVED':70} {module:18} {what}", flush=True)
    print(f"{len(tried) - survivors} of {len(tried)} killed")
    sys.exit(survivors)


if __name__ == "__main__":
    main(*sys.argv[1:])
