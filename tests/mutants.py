"""Break the program once in every way that matters; each change must make a test fail.

Run by `make mutants` (an hour on two cores). Each mutant replaces one piece of text in one module of a copy of the
project and runs the tests of that module and its neighbours there; the first that fails is named. Exits with the number
of mutants that no test noticed. `python tests/mutants.py report/ data` tries those of some modules alone.
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
    "allowlist": ["allowlist"],
    "artifacts": ["train"],
    "assembly": ["assembly", "modules", "train"],
    "callbacks": ["callbacks", "train"],
    "checkpoint": ["checkpoint", "train", "inside_layers", "allowlist"],
    "command": ["command", "options", "allowlist"],
    "config": ["config", "options", "train"],
    "data": ["data", "options", "train", "processes"],
    "inside/checking": ["inside_checking"],
    "inside/exported": ["inside_opened"],
    "inside/layers": ["inside_layers"],
    "inside/lesson": ["inside_lesson"],
    "inside/pictures": ["inside_pictures"],
    "inside/predictions": ["inside_pictures"],
    "inside/opened": ["allowlist", "inside_opened"],
    "inside/weights": ["inside_opened"],
    "modules": ["modules", "callbacks", "train", "option_pairs"],
    "optim": ["modules", "train"],
    "processes": ["processes"],
    "products": ["products"],
    "report/progress": ["sweep", *REPORT],
    "results": ["results", "train", "sweep", "options"],
    "settings": ["settings", "results", "compare"],
    "sweep": ["sweep"],
    "training": ["train", "inside_layers"],
}

MUTANTS = [
    # module, text, replacement, what it breaks
    ("activation", "addcmul(a, a, a, value=-1)", "addcmul(a, a, a, value=1)", "sigmoid': sign"),
    ("activation", "return torch.addcmul(a, a, a, value=-1)", "return torch.ones_like(a)", "sigmoid': missing"),
    ("activation", "return 1 - a * a", "return 1 + a * a", "tanh': sign"),
    ("activation", "return 1 - a * a", "return 1 - a", "tanh': not squared"),
    ("activation", "torch.gt(z, 0, out", "torch.ge(z, 0, out", "relu': value at 0"),
    ("activation", "return torch.gt(z, 0, out=torch.empty_like(z))", "return torch.ones_like(z)", "relu': missing"),
    ("activation", "return s + a * (1 - s)", "return s + z * (1 - s)", "silu': z for a"),
    ("activation", "+ z * density", "+ density", "gelu': missing factor"),
    ("activation", "-0.5 * z * z", "-z * z", "gelu': density's exponent"),
    ("activation", "z.clamp(min=0) + torch", "torch", "softplus: missing term"),
    ("activation", "torch.ones_like(z), self.negative_slope", "torch.ones_like(z), 0.0", "leaky relu': slope"),
    ("loss", ".sub_(y).div_(examples", ".sub_(y).div_(-examples", "BP1: sign"),
    ("loss", ".sub_(y).div_(examples or y.shape[-2])", ".sub_(y)", "BP1: sum for mean"),
    ("loss", " / -(examples or y.shape[-2])", " / (examples or y.shape[-2])", "loss: sign"),
    ("loss", " / -(examples or y.shape[-2])", " / -y.numel()", "loss: mean over classes too"),
    ("loss", "at_least_float32(logits), dim=-1)", "at_least_float32(logits), dim=-2)", "softmax: wrong axis"),
    ("regularizer", "return 2 * self.strength", "return self.strength", "penalty': factor 2"),
    ("regularizer", "return 2 * self.strength", "return -2 * self.strength", "penalty': sign"),
    ("regularizer", "weight.square().sum()", "weight.abs().sum()", "penalty: L1 for L2"),
    ("backprop", "weight, a.mT)", "-weight, a.mT)", "forward: sign"),
    ("backprop", "delta_next.mT).mT.mul_(derivative)", "delta_next.mT).mT", "BP2: missing derivative"),
    ("backprop", "(weight_next.mT @ delta_next.mT)", "-(weight_next.mT @ delta_next.mT)", "BP2: sign"),
    (
        "backprop",
        "weights[layer + 1], passed.slopes[layer]",
        "weights[layer + 1].flip(0), passed.slopes[layer]",
        "BP2: rows of W",
    ),
    ("backprop", "return self.delta.mT @ self.input", "return (self.input.mT @ self.delta)", "BP4: transpose"),
    ("backprop", "return self.delta.mT @ self.input", "return self.delta.mT @ self.input / 2", "BP4: factor"),
    ("backprop", "return self.delta.sum(dim=-2)", "return self.delta.mean(dim=-2)", "BP3: mean for sum"),
    ("backprop", "return self.delta.sum(dim=-2)", "return -self.delta.sum(dim=-2)", "BP3: sign"),
    ("backprop", "passed.inputs[layer]))", "passed.inputs[layer] * 2))", "BP4: wrong input"),
    ("optim", "alpha=-rate)", "alpha=rate)", "update: sign of weights"),
    ("optim", "beta=1 - rate * decay", "beta=1.0", "update: missing penalty"),
    ("optim", "beta=1 - rate * decay", "beta=1 + rate * decay", "update: sign of the penalty"),
    ("optim", "alpha=of_biases)", "alpha=64 * of_biases)", "update: sum for mean of biases"),
    ("optim", "share = min(1.0, max_norm", "share = max(1.0, max_norm", "clipping: lengthens"),
    ("optim", "squares.sum().sqrt()", "squares.sum()", "clipping: by the square"),
    ("backprop", " * (self.input @ self.input.T)", "", "norm: missing factor"),
    ("backprop", "2 * decay * along", "decay * along", "norm: factor 2 of the penalty"),
    ("backprop", "decay**2 * weight", "decay * weight", "norm: penalty not squared"),
    ("backprop", "return squares + self.bias().square().sum()", "return squares", "norm: missing bias"),
    ("backprop", "]) / divisor, torch", "]), torch", "accumulation: sum for mean"),
    ("optim", "(examples if", "(64 if", "update: a short batch counted as a full one"),
    ("modules", ".grad = bias", ".grad = bias + 1e-3 * layer.bias", "penalty on biases"),
    ("modules", " + decay * layer.weight", "", "penalty missing"),
    ("modules", "self.regularizer.decay * share", "self.regularizer.decay", "accumulation: penalty of a short step"),
    ("processes", "distributed.all_reduce(numbers)", "pass", "two processes: each its own sum"),
    ("processes", "joined = summed(", "joined = 0.5 * summed(", "two processes: mean of the sums"),
    ("processes", "torch.cat(gather_all_tensors(rows.contiguous()))", "rows", "two processes: each its own factors"),
    ("products", "if not taken:", "if False:", "inexact products are taken"),
    ("products", '"Intel" in', '"Nobody" in', "oneDNN on Intel's CPUs"),
    ("products", "in (weight.shape for weight in weights)", "in [weights[-1].shape]", "one layer's products tried"),
    (
        "products",
        "(DEFAULT)\n    if matmul",
        "(torch.get_float32_matmul_precision())\n    if matmul",
        "the next run inherits",
    ),
    ("data", ".tensor_split(self.processes)[self.process]", ".tensor_split(self.processes)[0]", "both the same share"),
    ("network", "xavier_uniform_(layer.weight)", "xavier_normal_(layer.weight)", "Xavier: normal for uniform"),
    ("activation", "return torch.tanh(z)", "return z.tanh_()", "tanh destroys its argument"),
    ("activation", "return z.clamp(min=0)\n", "return z.clamp_(min=0)\n", "relu destroys its argument"),
    ("activation", "out=torch.empty_like(z))", "out=z)", "relu' destroys its argument"),
    ("activation", "torch.erfc(z * -math.sqrt(0.5))", "(1 + torch.erf(z * math.sqrt(0.5)))", "Phi cancels"),
    ("activation", "torch.log1p(torch.exp(-z.abs()))", "torch.log(1 + torch.exp(-z.abs()))", "log(1 + x) for log1p"),
    ("backprop", ".mT.mul_(derivative)", ".mT.mul_(derivative.neg_()).neg_()", "BP2 destroys its argument"),
    ("loss", "log_p.exp().sub_(y)", "log_p.exp_().sub_(y)", "BP1 destroys its argument"),
    ("loss", ".exp().sub_(y)", ".exp().sub_(torch.eye(10).to(y)[y.argmax(1)])", "BP1: soft targets as hard"),
    ("loss", "(y * log_p).sum(dim=(-2, -1))", "log_p[range(len(y)), y.argmax(1)].sum()", "soft as hard"),
    ("network", "nn.init.zeros_(layer.bias)", "pass", "Xavier: biases not zero"),
    ("optim", 'optimizer.param_groups[-1]["lr"]', 'optimizer.param_groups[0]["lr"]', "biases take the weights' rate"),
    ("optim", "            closure()\n", "            pass\n", "closure is not called"),
    ("optim", '"lr": lr * weight_factor}', '"lr": lr}', "grouped SGD: weights take the biases' rate"),
    ("optim", "(optimizer, total_steps - warmup_steps)", "(optimizer, total_steps)", "cosine never ends"),
    ("optim", "total_iters=warmup_steps)", "total_iters=total_steps)", "warm-up never ends"),
    # metrics
    (
        "modules",
        'y.to(logits.dtype), reduction="sum")',
        "y.to(logits.dtype)) * 2000",
        "a short batch weighs like a full",
    ),
    ("modules", "    for name in self.validated:\n            self.scores_of(name).reset()", "    pass", "never reset"),
    ("modules", "    for name in self.tested:\n            self.scores_of(name).reset()", "    pass", "counted twice"),
    ("modules", "        self.total_loss.reset()\n", "", "loss not reset"),
    ("modules", "return self.confusion.compute()", "return self.confusion.compute().T", "confusion transposed"),
    ("modules", "        self.step_losses.clear()\n", "", "mean over all epochs for the epoch's"),
    ("modules", "torch.stack(self.step_losses).mean()", "self.step_losses[-1]", "last batch for the epoch's mean"),
    ("modules", "int(counts.trace()) / examples", "int(counts.trace()) / (examples + 1)", "accuracy of one more image"),
    ("modules", " or self.trainer.is_last_batch", "", "last batches of an epoch wait for the next"),
    ("modules", 'self.scores_of("val").numbers()["loss"]', 'self.scores_of("val").numbers()["accuracy"]', "plateau of"),
    ("modules", "return mean_loss + self.regularizer.penalty(self.network.weights)", "return mean_loss", "no penalty"),
    ("modules", "penalty(self.network.weights)", "penalty(self.network.parameters())", "autograd: penalty on biases"),
    ("modules", "            schedule.step()\n", "            pass\n", "by hand: rate never scheduled"),
    ("modules", '"interval": "step"}', '"interval": "epoch"}', "autograd: rate scheduled by epoch"),
    (
        "modules",
        "mean_loss = cross_entropy(self(x), y)",
        "mean_loss = cross_entropy(self(x), y.argmax(1))",
        "hard targets",
    ),
    ("modules", "self.validated_after = len(self.step_losses)", "self.validated_after = 0", "scores thought stale"),
    ("callbacks", "if pl_module.freshly_validated:", "if True:", "stale scores for fresh"),
    ("artifacts", "zip(true.tolist(), predicted.tolist()", "zip(predicted.tolist(), true.tolist()", "truth for guess"),
    (
        "artifacts",
        "torch.cat(module.test_logits), dim=1).max(dim=1)",
        "torch.cat(module.test_logits), dim=1).min(dim=1)",
        "least likely class for the likeliest",
    ),
    # data
    ("data", "SeedSequence([self.seed, self.epoch])", "SeedSequence([0, self.epoch])", "order repeated across seeds"),
    ("data", "[self.seed, self.epoch])", "[self.seed, min(self.epoch, 3)])", "order repeated from an epoch on"),
    ("data", "        self.epoch = epoch\n", "        pass\n", "order the same in every epoch"),
    (
        "data",
        "targets.index_select(0, indices)",
        "targets.index_select(0, (indices + 1) % len(self.targets))",
        "labels",
    ),
    ("data", "data.view(-1, INPUTS)", "data.transpose(1, 2).reshape(-1, INPUTS)", "images transposed"),
    ("data", "random_state=self.seed", "random_state=0", "the same split for every seed"),
    ("data", "stratify=labels.numpy()", "stratify=None", "split not in the classes' proportions"),
    ("data", "        if self.score_test:\n", "        if True:\n", "score_test=false ignored"),
    (
        "data",
        "(*self._read(train=False), SCORING_BATCH_SIZE)",
        "(*self._read(train=False), SCORING_BATCH_SIZE, 0)",
        "test set shuffled",
    ),
    (
        "data",
        "self.images.index_select(0, indices) / 255",
        "self.images.index_select(0, indices) / 256",
        "white below 1",
    ),
    ("data", "images, targets = images[kept], targets[kept]", "pass", "validation images are trained on"),
    ("data", "*self._read(train=False)", "*self._read(train=True)", "training set for the test set"),
    ("data", 'name = "val" if self.val_size else "test"', 'name = "test"', "test set watched beside a validation set"),
    ("data", "return -(-len(self.images) // (", "return (len(self.images) // (", "short last batch left out"),
    ("data", "self.batch_size)\n        return", "self.batch_size, 0)\n        return", "overfit"),
    ("data", "return trailer is None or trailer ==", "return True or trailer ==", "damaged file not noticed"),
    # run records
    ("callbacks", 'self.rows = [dict(row) for row in state_dict["rows"]]', "pass", "history lost at resume"),
    ("config", "if key not in RETIRED", "", "a key taken away orphans older runs"),
    ("config", "return Training.model_validate(config).model_dump()", "return config", "1 is not 1.0"),
    (
        "callbacks",
        "        trainer.save_checkpoint(",
        "        if trainer.should_stop: trainer.save_checkpoint(",
        "checkpoint only at the end",
    ),
    ("callbacks", 'param_groups[0]["lr"]', 'param_groups[0].get("initial_lr", 0.01)', "rate before the schedule's"),
    ("callbacks", "        self.started = time.perf_counter()\n", "        pass\n", "scoring counts as training"),
    ("callbacks", '{"epoch": trainer.current_epoch, ', '{"epoch": trainer.current_epoch + 1, ', "epochs from 1"),
    ("callbacks", "before + step)", "before + step + 1)", "diverged a step later"),
    ("callbacks", "finite.int().argmin()", "finite.int().argmax()", "diverged at a finite loss"),
    ("callbacks", "if not parameter.isfinite().all():", "if False:", "spoiled weights are saved"),
    ("results", 'FINISHED = ("completed", "diverged")', 'FINISHED = ("completed",)', "a diverged run is run again"),
    (
        "results",
        'if record and same(normalize(record["config"]), config):',
        'if record and record["seed"] == config["seed"]:',
        "a sibling is taken by its seed alone",
    ),
    ("results", "statistics.median(whole)", "max(whole)", "slowest epoch for the median"),
    ("results", 'if row["batches"] == most]', "]", "cut epochs count as whole"),
    ("results", "            half.unlink(missing_ok=True)", "            pass", "halves of files stay"),
    (
        "results",
        'record |= {"status": "failed", "reason": INTERRUPTED}',
        'record |= {"status": "completed"}',
        "interrupted run completed",
    ),
    ("results", "if record and (differ :=", "if False and (differ :=", "another configuration's folder is taken"),
    ("settings", "return canonical(a) == canonical(b)", "return a == b", "1 is true"),
    ("checkpoint", 'if seal["sha256"] != checksum(archive):', "if False:", "damaged weights are used"),
    (
        "checkpoint",
        "if differ := differences(normalize(belongs_to), normalize(config)):",
        "if differ := [][:0]:",
        "another run's weights",
    ),
    ("checkpoint", "return int(content[", "return 0 * int(content[", "TensorBoard forgets all at resume"),
    ("training", "ckpt_path=last if resumed else None", "ckpt_path=None", "a resumed run begins anew"),
    ("training", "    trainer.precision_plugin.convert_module(module)\n", "", "float64 rounded at resume"),
    ("assembly", "seed_everything(cfg.seed,", "seed_everything(0,", "the same weights for every seed"),
    ("assembly", "build(cfg.data, seed=cfg.seed)", "build(cfg.data, seed=0)", "the same order for every seed"),
    ("assembly", "    if cfg.threads:\n", "    if False:\n", "threads ignored"),
    ("assembly", "torch.set_flush_denormal(True)", "pass", "numbers below the normal ones are kept"),
    # statistics
    (
        "report/statistics",
        "a, b = a[shared], b[shared]",
        "a, b = a.iloc[: len(shared)], b.iloc[: len(shared)]",
        "pairs by position",
    ),
    ("report/statistics", "equal_var=False", "equal_var=True", "pooled variance for Welch"),
    ("report/statistics", 'usevar="unequal"', 'usevar="pooled"', "pooled variance for equivalence"),
    ("report/statistics", 'ALPHA, "holm")', 'ALPHA, "bonferroni")', "Bonferroni for Holm"),
    ("report/statistics", 'ALPHA, "holm")', 'ALPHA, "fdr_bh")', "false discovery rate for Holm"),
    ("report/statistics", 'verdict[told["p"] < ALPHA]', 'verdict[table["p"] < ALPHA]', "verdict by the uncorrected p"),
    ("report/statistics", 'told["p_equal"] < ALPHA', 'table["p_equal"] < ALPHA', "equal by the uncorrected p"),
    ("report/statistics", '{"low": -row["high"], "high": -row["low"], ', "{", "turned without its interval"),
    ("report/statistics", "swapped |= {one: row[other], other: row[one]}", "pass", "turned without its names"),
    ("report/statistics", "each.min()", "each.max()", "most for least"),
    ("report/statistics", "each.idxmin()", "each.idxmax()", "cell of the most for that of the least"),
    ("report/statistics", 'each if found["a"] == a else -each', "each", "cells' differences not turned"),
    ("report/statistics", "first.mean(axis=1), second", "first.median(axis=1), second", "median for mean over cells"),
    ("report/statistics", "family = number_of_pairs(len(done))", "family = 1", "no correction"),
    ("report/statistics", "family = len(places)", "family = number_of_pairs(len(done))", "against: all pairs counted"),
    ("report/statistics", "return 2 if averages", "return 1 if averages", "each table with 5 % of its own"),
    ("report/statistics", "stats.fisher_exact(table)", "stats.chi2_contingency(table)", "chi squared for Fisher"),
    ("report/statistics", "a[0] / a[1] - b[0] / b[1]", "a[0] - b[0]", "counts for shares"),
    ("report/statistics", "(a.right & ~b.right)", "(a.right | ~b.right)", "McNemar: agreeing images counted"),
    ("report/statistics", "exact=True", "exact=False", "McNemar: approximate"),
    ("report/statistics", "ALPHA / max(comparisons, 1) / 2", "ALPHA / 2", "seeds planned without the correction"),
    ("report/statistics", "LEVEL = 0.95", "LEVEL = 0.9", "90 % interval"),
    ("report/statistics", "        low = high = np.nan", "        pass", "interval of a mixed cell"),
    ("report/statistics", "cells[measure.column] * measure.sign", "cells[measure.column]", "best last where less is"),
    ("report/statistics", "(a - b).std() if paired", "(a - b).std(ddof=0) if paired", "spread too small"),
    ("report/statistics", "np.hypot(a.std(), b.std())", "a.std() + b.std()", "spread too large"),
    ("report/statistics", "ends_of_margin = (-margin, margin)", "ends_of_margin = (-2 * margin, 2 * margin)", "margin"),
    (
        "report/statistics",
        "(first - second).abs().max(axis=None) < SAME",
        'abs(found["difference"]) < SAME',
        "equal where effects cancel",
    ),
    (
        "report/statistics",
        "first[shared].dropna(), second[shared].dropna()",
        "first[shared], second[shared]",
        "a seed that lacks a cell counts",
    ),
    ("report/statistics", 'cells.dataset != "mnist"', 'cells.dataset == "none"', "notebook's beside another data set"),
    ("report/statistics", '.status.isin(["completed", "diverged"])', '.status.isin(["completed"])', "shares of"),
    ("report/statistics", "numbers.median(), ", "numbers.mean(), ", "mean for median"),
    # tables
    ("report/runs", 'done[done.outcome == "learned"] if', "done if", "runs at chance are in the mean"),
    ("report/runs", "self.measure.sign * values.groupby", "values.groupby", "worse for better"),
    ("report/runs", 'table["train/accuracy"] - table', 'table[f"{scored}/accuracy"] - table', "gap zero"),
    ("report/runs", "int(highest >= CHANCE)", "int(highest > 2)", "collapse not seen"),
    ("report/runs", "int(number) if number.isdecimal() and len(number) < 19 else 0", "0", "10_ before 2_"),
    ("report/runs", '"seed"], keep="last")', '"seed"], keep="first")', "first of repeated runs"),
    ("report/runs", '.sort_values("done", kind="stable")', "", "an unfinished repeat wins"),
    ("report/runs", 'return "val" if "val/accuracy" in names', 'return "val" if False', "validation not looked for"),
    ("report/runs", "not (0 <= value <= most and value < math.inf)", "False", "an accuracy of 7"),
    ("report/runs", "if len(datasets) > 1:", "if False:", "data sets mixed without a word"),
    ("report/runs", 'self.table.status == "completed"', 'self.table.status != "failed"', "running runs in the mean"),
    ("report/keys", "settings = choices | {", 'settings = {"used": record.get("threads")} | choices | {', "threads"),
    ("report/keys", 'NOT_A_CELL = {"seed", "name",', 'NOT_A_CELL = {"seed",', "a run's name makes a cell"),
    ("report/keys", "TOGETHER = 3", "TOGETHER = 1", "confounds of two keys not named"),
    ("report/keys", "{name: canonical(value)", "{name: str(value)", "true and True are one value"),
    ("report/measures", "higher_is_better: bool = False", "higher_is_better: bool = True", "more loss is better"),
    ("report/measures", "margin=0.2)", "margin=2)", "margin of two points"),
    ("report/measures", "return 1 if self.higher_is_better", "return -1 if self.higher_is_better", "direction"),
    ("report/measures", "1.0 if self.column.endswith", "2.0 if self.column.endswith", "an accuracy of 110 %"),
    ("report/sentences", "if row.low > 0:", "if row.low > 1:", "lucky interval without its doubt"),
    ("report/sentences", 'lucky = "" if len(cells) == 2', 'lucky = "" if len(cells)', "best of many without its luck"),
    ("report/sentences", "number(mean - low)", "number(high - low)", "twice the interval"),
    ("report/sentences", "beyond = low < measure.bounds[0] or", "beyond = False and", "interval above 100 %"),
    ("report/sentences", "row.n_a == row.n_b == row.n", "True", "seeds each, where only some are shared"),
    ("report/sentences", "(planned[seeds] <= wanted).all()", "(planned[seeds] <= wanted).any()", "too few seeds"),
    ("report/sentences", "n, int(row.among))", "n, 1)", "planned for one comparison of many"),
    ("report/sentences", "finished = int(row.completed + row.diverged)", "finished = int(row.completed)", "share of"),
    ("report/sentences", ".proportion_ci(LEVEL)", '.proportion_ci(LEVEL, "wilson")', "another interval of the share"),
    ("report/sentences", 'verdict = "differ" if row.verdict', 'verdict = "differ" if True or row.verdict', "McNemar"),
    ("report/figures", "np.mean(counts, axis=0)", "np.sum(counts, axis=0)", "sum of confusion matrices for the mean"),
    ("report/figures", "measure.scale * runs, np.full", "runs, np.full", "dots not in the unit"),
    ("report/files", "classes[:, 0] == classes[:, 1]}", "probability > 0.5}", "sure for right"),
    ("report/files", "len(rows) != epochs", "False", "history of other epochs"),
    ("report/files", 'if not text.endswith("\\n"):', "if False:", "table cut short"),
    ("report/page", 'return f"\'{cell}"', "return cell", "formula in a spreadsheet"),
    ("report/page", "html.escape(plain(str(text)), quote=False)", "plain(str(text))", "HTML in Markdown"),
    ("report/page", "return quote(", "return str(", "link with a sign in it"),
    (
        "report/page",
        "for what in (*STATUSES[1:], *NOT_LEARNED) if row[what]",
        "for what in STATUSES[1:] if row[what]",
        "remark on runs at chance",
    ),
    ("report/progress", "median(seconds) * rest / at_once", "median(seconds) * rest", "time as if one by one"),
    ("report/progress", 'sum(record["status"] != "running" for', 'sum(record["status"] == "completed" for', "done"),
    ("report/progress", "float(wanted[EPOCHS] * per_epoch + around)", "float(per_epoch + around)", "time of one epoch"),
    ("report/again", "(seed|report|dry_run)=", "(seed)=", "more seeds without a report"),
    ("report/again", "range(0,{seeds})", "range(1,{seeds})", "one seed less"),
    ("sweep", '("report", "dry_run")', '("dry_run",)', "report is part of a run"),
    ("sweep", 'record["status"] in FINISHED', 'record["status"]', "interrupted runs count as done"),
    ("sweep", '            log.warning("no report: %s", error)', "            raise", "a report's fault ends a sweep"),
    # what looks inside
    ("inside/checking", '("autograd", "float64"): 1e-9', '("autograd", "float64"): 1e9', "no gradient is wrong"),
    ("inside/checking", "/ (float(theirs.abs().max()) or 1)", "", "difference for share"),
    ("inside/layers", "SATURATED = 0.01", "SATURATED = 0.1", "saturated too soon"),
    ("inside/layers", "(layer.slope == 0).all(dim=0)", "(layer.slope == 0).any(dim=0)", "dead on one image"),
    ("inside/layers", "std(correction=0)", "std()", "activation's deviation"),
    ("inside/layers", "math.log10(share)", "math.log(share)", "natural logarithm"),
    ("inside/layers", "layer.gradient.weight() + decay * weight", "layer.gradient.weight()", "norm without penalty"),
    ("inside/layers", '        self.rows = state_dict["rows"]\n', "        pass\n", "rows lost at resume"),
    ("inside/layers", "with self.history.paused():", "if True:", "the look counts as training"),
    ("inside/predictions", "torch.softmax(module(x).float(), dim=1)", "module(x).float()", "logits for probabilities"),
    ("inside/pictures", "BOX, CENTRE = 28, 20, 14", "BOX, CENTRE = 28, 20, 12", "digit off the centre"),
    ("inside/pictures", "difference, smooth = -difference, -smooth", "pass", "dark on light not turned"),
    ("inside/pictures", "ImageOps.exif_transpose(file)", "file", "picture on its side"),
    ("inside/weights", "key=lambda item: int(item[0][1:])", "key=lambda item: item[0]", "w10 before w2"),
    ("inside/weights", "weight.detach().clone() for number", "weight.detach().clone().T for number", "transposed"),
    ("inside/exported", "TOLERANCE = 1e-5", "TOLERANCE = 1e5", "any file is the network"),
    ("inside/lesson", '.replace("<", "\\\\u003c")', "", "a name ends the page's script"),
    # what a stranger's file may name
    ("allowlist", "not isinstance(each, str) or each not in classes", "False", "any class is built"),
    ("allowlist", '"${" in text', "False", "an interpolation is looked up"),
    ("allowlist", "classes[target].model_validate(arguments)", "pass", "any argument"),
    ("allowlist", "if trust:", "if not trust:", "trust turned round"),
    ("checkpoint", 'return "://" in text', "return False", "deletes on another file system"),
    ("checkpoint", "return not Path(os.path.abspath(text))", "return Path(os.path.abspath(text))", "deletes outside"),
    ("inside/opened", "and not Path(str(root)).is_dir()", "and False", "data fetched to where a file says"),
    ("command", 'word.startswith("--e")', "False", "a rerun's pickle is read"),
    # what is typed
    ("config", 'if monitor.startswith("test/"):', "if False:", "chosen by the test set"),
    ("config", "Positive = Annotated[int, Field(gt=0,", "Positive = Annotated[int, Field(ge=0,", "no epochs"),
    ("config", 'return re.sub(r"[^\\w.,=+-]", "_", str(name))[:100]', "return str(name)", "name leads elsewhere"),
    ("command", "SIGNALLED = 128", "SIGNALLED = 100", "exit status after a signal"),
    ("command", "        sys.exit(1)\n    finally", "        sys.exit(0)\n    finally", "failure is success"),
]


def tests_of(module: str) -> list[str]:
    """The tests of a module and its neighbours, the likeliest to notice first."""
    own = [module] if module in MATHEMATICS else []
    names = TESTS.get(module, REPORT if "report/" in module else [*own, *MATHEMATICS])
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
