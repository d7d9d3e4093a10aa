"""Artifacts of a finished run: final scores, confusion matrices, predictions, figures, hyperparameters."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger
from matplotlib.figure import Figure
from tensorboard.plugins.hparams.summary_v2 import hparams_pb

from handgrad.runs.folder import PREDICTIONS, write_figure, write_rows
from handgrad.text import format_value
from handgrad.training import figures
from handgrad.training.data import ClassificationData, DeformedExamples
from handgrad.training.modules import Classifier


def write_scores(
    trainer: Trainer,
    module: Classifier,
    data: ClassificationData,
    folder: Path,
    history: Sequence[Mapping[str, float]],
    settings: Mapping[str, Any],
) -> dict[str, float]:
    """Write the results of `Trainer.test` to the run's folder and to the loggers.

    `history` has a row per epoch; `settings` are the run's choices and every configuration value, by dotted key.
    Returns `NAME/accuracy` and `NAME/loss` of every scored set NAME.
    """
    metrics = module.metrics_of(module.test_sets)
    if not trainer.is_global_zero:  # only needed for the collectives above
        return metrics
    final = "test" if "test" in module.test_sets else "val"
    for name in module.test_sets:
        write_confusion_of(trainer, module, folder, name, data.class_names, drawn=name == final)
    drawn = {"curves": figures.curves(history)}
    if data.image_shape:
        drawn["predictions"] = first_ten(module, data, final)
    if data.deform:
        pictures = data.train_dataloader().dataset
        if isinstance(pictures, DeformedExamples):  # not with overfit_batches
            drawn["deformed"] = first_twenty(pictures)
    for name, figure in drawn.items():
        log_figure(trainer, name, figure)
        write_figure(folder, name, figure)
    if module.test_logits:
        probability, predicted = torch.softmax(torch.cat(module.test_logits), dim=1).max(dim=1)
        true = data.sets["test"].targets[: len(predicted)].argmax(dim=1)
        rows = zip(true.tolist(), predicted.tolist(), [f"{each:.6g}" for each in probability.tolist()], strict=True)
        write_rows(folder / PREDICTIONS, [("true", "predicted", "probability"), *rows])
    log_hyperparameters(trainer, settings, metrics, [name for name in max(history, key=len) if name.endswith("/loss")])
    return metrics


def write_confusion_of(
    trainer: Trainer, module: Classifier, folder: Path, name: str, class_names: Sequence[str], drawn: bool
) -> None:
    """Write the confusion matrix of a set as CSV, log its figure, and if `drawn` save the figure in the folder."""
    counts = module.scores_of(name).confusion_matrix().cpu()
    write_rows(folder / f"confusion_{name}.csv", counts.tolist())
    accuracy = module.scores_of(name).compute()["accuracy"]
    figure = figures.confusion(counts, class_names, f"{name}: {accuracy:.2%} of {counts.sum():,} right")
    log_figure(trainer, f"confusion/{name}", figure)
    if drawn:
        write_figure(folder, f"confusion_{name}", figure)


def log_hyperparameters(
    trainer: Trainer, settings: Mapping[str, Any], metrics: Mapping[str, float], losses: Sequence[str]
) -> None:
    """Log settings by dotted key and final accuracies, all losses in one chart, and close the loggers."""
    # Sorted: TensorBoard's table shows the first by default, the test set's.
    accuracies = sorted(name for name in metrics if name.endswith("accuracy"))
    final_scores = {f"final/{name.replace('/', '_')}": metrics[name] for name in accuracies}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_custom_scalars({"loss": {" and ".join(losses): ["Multiline", losses]}})
            # Not log_hyperparams: without torch's "experiment", TensorBoard lists first what differs between runs.
            run = Path(logger.log_dir).parent
            start = hparams_pb(hyperparameters(settings), trial_id=f"{run.parent.name}/{run.name}")
            logger.experiment.file_writer.add_summary(start)
        else:
            logger.log_hyperparams(hyperparameters(settings))
        logger.log_metrics(final_scores, trainer.global_step)
        logger.finalize("success")


def log_figure(trainer: Trainer, name: str, figure: Figure) -> None:
    """Log a figure to TensorBoard and MLflow; other loggers take none."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(name, figure, trainer.global_step, close=False)
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_figure(logger.run_id, figure, f"{name}.png")


def hyperparameters(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Convert settings to TensorBoard's types (it would turn true into 1), without name, `_target_`, empty groups."""
    ends = ("_target_", "_partial_")
    told = {key: value for key, value in settings.items() if key != "name" and not key.endswith(ends) and value != {}}
    return {key: value if type(value) in (int, float) else format_value(value) for key, value in told.items()}


def first_ten(module: Classifier, data: ClassificationData, name: str) -> Figure:
    """Draw the first ten images of a set with actual and predicted classes."""
    x, y = data.sets[name].first(10)
    with torch.no_grad():
        guesses = module(x.to(next(module.parameters()))).argmax(dim=1)
    actual, predicted = ([data.class_names[i] for i in labels] for labels in (y.argmax(dim=1), guesses))
    return figures.predictions(x.view(-1, *(data.image_shape or ())), actual, predicted)


def first_twenty(pictures: DeformedExamples) -> Figure:
    """Draw the first twenty training images as they are and as they were deformed in the first epoch."""
    numbers = torch.arange(min(20, len(pictures)))
    images, deformed = (x.view(-1, *pictures.shape) for x in (pictures.first(20)[0], pictures[numbers][0]))
    return figures.deformations(images, deformed)
