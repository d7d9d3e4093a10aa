"""Optuna's sweeper with a study that stays in the sweep's folder.

Hydra takes a sweeper from the package `hydra_plugins` alone and imports all of it at every start: what is heavy is
imported where it is used.
"""

import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from optuna import Study

log = logging.getLogger(__name__)

STUDY = "study.db"

with suppress(ImportError):  # without the extra `search` there is no option that asks for this
    from hydra_plugins.hydra_optuna_sweeper import optuna_sweeper

    class Search(optuna_sweeper.OptunaSweeper):
        """A search that goes on, when it is started again, with the study in its folder.

        A trial that has ended counts towards `n_trials`. One that was running when the search was stopped is taken up
        with the values it had, so its run goes on from its checkpoint. A job has its trial's number.
        """

        def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
            super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
            self.folder = Path(config.hydra.sweep.dir).absolute()

        def sweep(self, arguments: list[str]) -> None:
            """Try values until the study has `n_trials` trials.

            Raises:
                UserError: another process searches in the folder, it holds another search, its study cannot be used, or
                    no trial was completed.
            """
            from handgrad.errors import UserError
            from handgrad.runs.folder import run_lock

            search = self.sweeper
            directions = search._get_directions()
            with run_lock(self.folder), explained(self.folder):
                search.storage = search.storage or made_ready(self.folder / STUDY)
                study = opened(search.storage, search.study_name, directions, self.folder, arguments)
                search.job_idx = ended = take_up(study)
                if ended:
                    done = f"{ended} of {search.n_trials} trials have ended"
                    log.info("goes on with the study in %s: %s", self.folder, done)
                search.n_trials = max(0, search.n_trials - ended)
                if ended and hasattr(search.sampler, "reseed_rng"):
                    search.sampler.reseed_rng()  # by its own seed it would draw the first trials' values again
                try:
                    super().sweep(arguments)
                except ValueError:  # there is no best
                    if not nothing_completed(study):
                        raise
                    raise UserError(f"no trial of the search in {self.folder} was completed: see above why") from None


def made_ready(file: Path) -> str:
    """The URL of a study's file, in which every sign of a path may stand.

    Optuna 2 leaves it to SQLAlchemy to commit a new file's first entries, and SQLAlchemy 2 does not.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)  # by which Optuna keeps its tables
    from optuna.storages import RDBStorage

    url = f"sqlite:///{file.as_uri()}?uri=true"
    RDBStorage(url, {"isolation_level": "AUTOCOMMIT"}).engine.dispose()
    return url


def opened(url: str, name: str | None, directions: list[str], folder: Path, arguments: list[str]) -> "Study":
    """Open a study, or begin it.

    Raises:
        UserError: it is the study of another search; says which.
    """
    import optuna

    from handgrad.errors import UserError
    from handgrad.sweep import SWEEP_ONLY_KEYS

    optuna.logging.set_verbosity(logging.WARNING)  # what else it says, the sweeper says again
    study = optuna.create_study(storage=url, study_name=name, directions=directions, load_if_exists=True)
    own = [word for word in sorted(arguments) if word.lstrip("+").split("=")[0] not in SWEEP_ONLY_KEYS]
    search = [*own, f"hydra.sweeper.direction={','.join(directions)}"]
    earlier = study.user_attrs.get("search", search)
    if earlier != search:
        raise UserError(
            f"{folder} holds another search, {shlex.join(earlier)}: go on with that or choose another folder"
        )
    study.set_user_attr("search", search)
    return study


def take_up(study: "Study") -> int:
    """Have the trials that were running when a search was stopped run next; return how many have ended."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            study._storage.set_trial_state(trial._trial_id, TrialState.WAITING)
    return sum(trial.state.is_finished() for trial in trials)


def nothing_completed(study: "Study") -> bool:
    """Tell whether all trials of a study have ended, and none well."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    return bool(trials) and all(trial.state == TrialState.FAIL for trial in trials)


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn a study's failure into one sentence.

    Raises:
        UserError: it cannot be read or written; says why.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    from handgrad.errors import UserError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        reason = getattr(error.__cause__ or error, "orig", error)
        raise UserError(
            f"the study in {folder} cannot be used ({reason}): make room or mend it, or choose another folder"
        ) from error
