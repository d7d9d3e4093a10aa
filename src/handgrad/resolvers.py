"""Resolvers: functions that `conf/` may call, as in ${file_name:${name}}."""

import hashlib
import re
from pathlib import Path

from handgrad.errors import UserError, describe_os_error
from handgrad.hydra_version import register_resolver, study_storage

MLP = "handgrad.nn.mlp.MLP"
NO_FILE = {  # message if no file was named
    "mine": "engine=mine needs mine=my_backprop.py: python src/check.py mine=new writes one to fill in",
    "table": "data=table needs data.path=my.csv and data.target=column",
    "arrays": "data=arrays needs data.path=my.npz",
}


def file_name(name: object) -> str:
    """Return a run's name for use in a folder name: no path separators, at most 100 characters."""
    return re.sub(r"[^\w.,=+-]", "_", str(name))[:100]


def best_is(metric: object) -> str:
    """Return "max" for an accuracy, "min" for everything else that is logged: losses, seconds, memory."""
    return "max" if str(metric).endswith("accuracy") else "min"


def content_hash(path: str | None, kind: str = "mine") -> str:
    """Return the hash of a user's file: an edited file makes another run. UserError if it cannot be read."""
    if not path:
        raise UserError(NO_FILE[kind])
    try:
        return hashlib.sha256(Path(str(path)).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(describe_os_error(error, path)) from None


def hidden_layers(activation: str, network: object) -> str:
    """Return the name of a run's hidden layers: an MLP's activation, or another network's class."""
    return activation if network == MLP else str(network).rpartition(".")[2]


for resolver in (file_name, best_is, content_hash, hidden_layers, study_storage):
    register_resolver(resolver.__name__, resolver, replace=True)
