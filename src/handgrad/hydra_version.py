"""Compatibility with Hydra 1.3 and 1.4: what one requires and the other deprecates. Remove when 1.4 is required."""

from typing import Any

import hydra
from omegaconf import OmegaConf

OLD = hydra.__version__.startswith("1.3.")
BASE: dict[str, Any] = {"version_base": "1.3"} if OLD else {}  # 1.4 has only these rules
register_resolver: Any = OmegaConf.register_new_resolver if OLD else OmegaConf.register_resolver

# 1.4 asks which classes may be built. Those typed are trusted, those named by files were already checked against
# inspection/allowlist.py. A list cannot say that: it also has to name the class of every function's result.
UNCHECKED = getattr(hydra.utils, "UNSAFE_DISABLE_EXECUTION_CHECKS", None)
TRUSTED: dict[str, Any] = {} if OLD else {"execution_whitelist": UNCHECKED}  # for Hydra's own callbacks
TRUSTED_NODE: dict[str, Any] = {} if OLD else {"_execution_whitelist_": UNCHECKED}


def study_storage(url: str) -> Any:
    """Return Optuna's storage at a URL; that of Hydra 1.3 expects the engine to commit, which SQLAlchemy 2 does not."""
    engine = {"isolation_level": "AUTOCOMMIT"}
    storage = {"_target_": "optuna.storages.RDBStorage", "url": url, "engine_kwargs": engine}
    return OmegaConf.create(storage) if OLD else url
