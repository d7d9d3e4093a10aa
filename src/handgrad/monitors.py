"""Monitored metrics: what callbacks, schedule and search may choose by, and in which direction."""

from typing import Any

from handgrad.errors import UserError
from handgrad.resolvers import best_is


def check_direction(key: str, value: Any, metric: object) -> None:
    """Check that min(imize) or max(imize) is the metric's direction; else UserError."""
    if isinstance(value, str) and value[:3] in ("min", "max") and value[:3] != best_is(metric):
        raise UserError(f"{key}={value} would choose the worst: {metric} is best at its {best_is(metric)}imum")


def check_monitored(config: dict[str, Any]) -> None:
    """Check that callbacks and schedule choose by a set that is scored, not by the test set, and in its direction."""
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
                f"{key}.monitor={monitor} would choose by the test set, whose accuracy then is no estimate "
                f"any more: monitor {monitor.replace('test/', 'val/')} and hold images out with data.val_size=6000"
            )
        if monitor.startswith("val/") and not config["data"]["val_size"]:
            raise UserError(f"{key}.monitor={monitor} needs images held out: data.val_size=6000")
