"""Break every term of the mathematics once; each change must make a test fail.

Run by `make mutants` (about six minutes). Each mutant replaces one piece of text in one module of a copy of `src/`
and runs the tests of the mathematics against the copy. Exits with the number of mutants that no test noticed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ["activation", "loss", "regularizer", "network", "backprop", "modules"]
OWN_TESTS = {"optim": "modules", "data": "processes"}  # of a module whose tests have another name

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
    ("loss", ".sub_(y).div_(examples or len(y))", ".sub_(y)", "BP1: sum for mean"),
    ("loss", " / -(examples or len(y))", " / (examples or len(y))", "loss: sign"),
    ("loss", " / -(examples or len(y))", " / -y.numel()", "loss: mean over classes too"),
    ("loss", "log_softmax(logits, dim=1)", "log_softmax(logits, dim=0)", "softmax: wrong axis"),
    ("regularizer", "return 2 * self.strength", "return self.strength", "penalty': factor 2"),
    ("regularizer", "return 2 * self.strength", "return -2 * self.strength", "penalty': sign"),
    ("regularizer", "weight.square().sum()", "weight.abs().sum()", "penalty: L1 for L2"),
    ("backprop", "weight, a.T).T", "-weight, a.T).T", "forward: sign"),
    ("backprop", "delta_next.T).T.mul_(derivative)", "delta_next.T).T", "BP2: missing derivative"),
    ("backprop", "(weight_next.T @ delta_next.T)", "-(weight_next.T @ delta_next.T)", "BP2: sign"),
    ("backprop", "weights[layer + 1], phi.derivative", "weights[layer + 1].flip(0), phi.derivative", "BP2: rows of W"),
    ("backprop", "return self.delta.T @ self.input", "return (self.input.T @ self.delta)", "BP4: transpose"),
    ("backprop", "return self.delta.T @ self.input", "return self.delta.T @ self.input / 2", "BP4: factor"),
    ("backprop", "return self.delta.sum(dim=0)", "return self.delta.mean(dim=0)", "BP3: mean for sum"),
    ("backprop", "return self.delta.sum(dim=0)", "return -self.delta.sum(dim=0)", "BP3: sign"),
    ("backprop", "passed.activations[layer]))", "passed.activations[layer] * 2))", "BP4: wrong input"),
    ("optim", "alpha=-rate)", "alpha=rate)", "update: sign of weights"),
    ("optim", "beta=1 - rate * decay", "beta=1.0", "update: missing penalty"),
    ("optim", "beta=1 - rate * decay", "beta=1 + rate * decay", "update: sign of the penalty"),
    ("optim", 'alpha=share * biases["lr"])', 'alpha=64 * share * biases["lr"])', "update: sum for mean of biases"),
    ("optim", "share = min(1.0, max_norm", "share = max(1.0, max_norm", "clipping: lengthens"),
    ("optim", "squares.sum().sqrt()", "squares.sum()", "clipping: by the square"),
    ("backprop", " * (self.input @ self.input.T)", "", "norm: missing factor"),
    ("backprop", "2 * decay * along", "decay * along", "norm: factor 2 of the penalty"),
    ("backprop", "decay**2 * weight", "decay * weight", "norm: penalty not squared"),
    ("backprop", "return squares + self.bias().square().sum()", "return squares", "norm: missing bias"),
    ("backprop", "]) / divisor, torch", "]), torch", "accumulation: sum for mean"),
    ("optim", "(len(gradient.delta) if", "(64 if", "update: a short batch counted as a full one"),
    ("modules", ".grad = bias", ".grad = bias + 1e-3 * layer.bias", "penalty on biases"),
    ("modules", " + decay * layer.weight", "", "penalty missing"),
    ("modules", "self.regularizer.decay * share", "self.regularizer.decay", "accumulation: penalty of a short step"),
    ("processes", "distributed.all_reduce(numbers)", "pass", "two processes: each its own sum"),
    ("processes", "joined = summed(", "joined = 0.5 * summed(", "two processes: mean of the sums"),
    ("processes", "torch.cat(gather_all_tensors(rows.contiguous()))", "rows", "two processes: each its own factors"),
    ("data", ".tensor_split(self.processes)[self.process]", ".tensor_split(self.processes)[0]", "both the same share"),
    ("network", "xavier_uniform_(layer.weight)", "xavier_normal_(layer.weight)", "Xavier: normal for uniform"),
]


def survives(module: str, text: str, replacement: str) -> bool:
    """Tell whether every test passes with the change."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "src")
        shutil.copytree(ROOT / "src", source)
        path = source / "handgrad" / f"{module}.py"
        assert path.read_text().count(text) == 1, f"{module}.py must hold {text!r} once"
        path.write_text(path.read_text().replace(text, replacement))
        likely_first = dict.fromkeys([OWN_TESTS.get(module, module), *TESTS])
        tests = [str(ROOT / "tests" / f"test_{name}.py") for name in likely_first]
        return not subprocess.call(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def main() -> None:
    """Try every mutant, two at a time, and list what became of it."""
    survivors = 0
    with ThreadPoolExecutor(max_workers=2) as pool:
        for mutant, survived in zip(MUTANTS, pool.map(lambda mutant: survives(*mutant[:3]), MUTANTS), strict=True):
            survivors += survived
            print(f"{'SURVIVED' if survived else 'killed':9} {mutant[0]:12} {mutant[3]}", flush=True)
    print(f"{len(MUTANTS) - survivors} of {len(MUTANTS)} killed")
    sys.exit(survivors)


if __name__ == "__main__":
    main()
