"""Checks of a configuration beyond its schema: one option per group, monitored metrics and their directions."""

import re
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from handgrad.errors import UserError
from handgrad.resolvers import best_is


def check_options(config: dict[str, Any]) -> None:
    """Check that each group has one option, and that the option none sets nothing; else UserError names the option.

    Hydra merges the files of several options, so that the last one's zeros win. Callbacks and loggers have names, and
    can be combined. `HydraConfig` must be the command's.
    """
    job = HydraConfig.get()
    overrides = cast(list[str], OmegaConf.to_container(job.overrides.task))
    several = [word.partition("=")[0].lstrip("+") for word in overrides if re.match(r"\+[\w/]+=\w|[\w/]+=\[", word)]
    for group in several:
        chosen = config.get(group)
        if group == "data/deform" or (isinstance(chosen, dict) and "_target_" in chosen):
            hint = ", and add the other's key: regularizer=dropout regularizer.strength=1e-5"
            raise UserError(f"{group}=[...]: choose one option{hint if group == 'regularizer' else ''}")
    options = {"regularizer": config.get("regularizer"), "data/deform": (config.get("data") or {}).get("deform")}
    for group, values in options.items():
        left = [key for key, value in (values or {}).items() if key != "_target_" and value]
        if job.runtime.choices.get(group) == "none" and left:
            key = f"{group.replace('/', '.')}.{left[0]}"
            raise UserError(f"{group}=none, but an experiment or a + sets {key}: add {key}=0, or choose another option")


def check_direction(key: str, value: Any, metric: object) -> None:
    """Check that min(imize) or max(imize) is the metric's direction; else UserError."""
    if isinstance(value, str) and value[:3] in ("min", "max") and value[:3] != best_is(metric):
        raise UserError(f"{key}={value} would select the worst: {metric} is best at its {best_is(metric)}imum")


def check_monitored(config: dict[str, Any]) -> None:
    """Check that callbacks and schedule monitor a scored set, not the test set, in the metric's direction."""
    if str(config["schedule"].get("_target_")).endswith("ReduceLROnPlateau"):
        check_direction("schedule.mode", config["schedule"].get("mode"), "its loss")
    theirs = config["trainer"].get("callbacks") or []
    used = [(f"callbacks.{name}", node) for name, node in (config.get("callbacks") or {}).items()]
    used += [("trainer.callbacks", node) for node in (theirs if isinstance(theirs, list) else [theirs])]
    for key, callback in used:
        if not isinstance(callback, dict) or not callback.get("monitor"):
            continue
        monitor = str(callback["monitor"])
        check_direction(f"{key}.mode", callback.get("mode"), monitor)
        for name in ("stopping_threshold", "divergence_threshold"):
            if best_is(monitor) == "max" and not 0 <= (callback.get(name) or 0) <= 1:
                raise UserError(f"invalid value {key}.{name}={callback[name]}: an accuracy is between 0 and 1")
        if monitor.startswith("test/"):
            raise UserError(
                f"{key}.monitor={monitor} would choose by the test set, whose accuracy would then be "
                f"biased: monitor {monitor.replace('test/', 'val/')} and hold images out with data.val_size=6000"
            )
        if monitor.startswith("val/") and not config["data"]["val_size"]:
            raise UserError(f"{key}.monitor={monitor} needs a validation set: data.val_size=6000")
