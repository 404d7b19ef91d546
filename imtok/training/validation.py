"""Validation of a run: the EMA model measured on held-out images, its previews, and the best tokenizer so far."""

# Axes: B batch, S side.

from __future__ import annotations

import copy
import pickle
from typing import Any

import torch

from imtok.analysis.statistics import Finding
from imtok.counted import counted
from imtok.data.collection import ImageCollection
from imtok.data.images import fit_image
from imtok.data.overlap import shared_images
from imtok.errors import ImageError, LatentsError, SourceError, TrainingError
from imtok.evaluation import METRICS, Quality, build_metrics, measurement_of
from imtok.processes import Processes
from imtok.tokenizer import Tokenizer
from imtok.training.best import Best, is_better
from imtok.training.codebook_diagnosis import CodebookDiagnosis
from imtok.training.image_notes import shared_note
from imtok.training.preview import write_preview
from imtok.training.report import Reporter
from imtok.training.run import RunFolder
from imtok.training.skipped_steps import suggestions
from imtok.training.state import TrainState
from imtok.training.tensorboard import TensorBoardWriter

_PREVIEWED = 8
_FEW_HELD_OUT = 8


class Validation:
    """The held-out images, and what was found on them."""

    def __init__(
        self,
        folder: RunFolder,
        state: TrainState,
        held_out: ImageCollection,
        processes: Processes,
        reporter: Reporter,
    ) -> None:
        self.folder, self.state, self.processes, self.reporter = folder, state, processes, reporter
        self.images = self._readable(held_out.subsample(state.config.data.val_images))
        self.last: Quality | None = None
        self._shared = 0  # validation images that are trained on too
        self.best = Best(folder.best)
        self.findings: tuple[Finding, ...] = ()  # of the last validation
        self._diagnosis = CodebookDiagnosis(state.config)
        size = state.config.tokenizer.size
        previewed = self.images.subsample(_PREVIEWED) if processes.first else self.images.only(())
        fitted = [fit_image(previewed.picture(index), size).pixels for index in range(len(previewed))]
        self._previewed = torch.stack(fitted) if fitted else None  # (B, 3, S, S) uint8

    def compare_with(self, training: ImageCollection) -> None:
        """Report validation images that are trained on too; every validation records their number from now on."""
        if not self.processes.first:
            return
        shared = shared_images(training, self.images)
        self._shared = len(shared)
        if note := shared_note(shared, len(self.images)):
            self.reporter.notice(note)

    def warn_of_few_images(self) -> None:
        """Report that a metric of a handful of images says little, and that few tokens cannot use many codes."""
        count = len(self.images)
        if 0 < count < _FEW_HELD_OUT:
            images = counted(count, "image is", "images are")
            more = "--val SOURCE or --set data.val_fraction=0.2 gives more"
            self.reporter.notice(f"{images} held out for validation, too few for a reliable measure; {more}")

    def run(self, tensorboard: TensorBoardWriter) -> None:
        """Measure the EMA model where images are held out; log, preview and report, and keep the best.

        Each process measures a block of the images, and all come to the same metrics.
        """
        if not len(self.images):
            return
        state, reporter = self.state, self.reporter
        try:
            quality = measure_together(state, self.images, self.processes)
        except LatentsError as error:
            raise self.given_up("validation met latents that are not finite") from error
        self.last, self.findings = quality, self._diagnosis.findings(quality.usage, state.seen)
        self.best.metrics = self.processes.by_first(lambda: self._keep(quality, tensorboard))
        reporter.report(validation=quality, best=dict(self.best.metrics), findings=self.findings)

    def _keep(self, quality: Quality, tensorboard: TensorBoardWriter) -> dict[str, Any]:
        """Log and preview a validation, take the EMA model where it is the best, and return the best's metrics."""
        state, model, reporter, line = self.state, self.state.ema.model, self.reporter, self._log_line(quality)
        with reporter.surviving("the log"):
            self.folder.metrics.add({"images": state.seen, **line})
        tensorboard.add(line, state.seen)
        if self._previewed is not None:
            with reporter.surviving("a preview"):
                write_preview(self.folder.preview_path(state.seen), model, self._previewed)
        if is_better(line, self.best.metrics):
            self.best.take({"images": state.seen, **line}, model)
        self.write_best()
        return self.best.metrics

    def write_best(self, *, last: bool = False) -> None:
        """Write the best tokenizer where that is still to do; a full disk is survived."""
        with self.reporter.surviving("the best tokenizer", last=last):
            self.best.write()

    def restore_best(self) -> None:
        """Go on with the best tokenizer of the folder, or with the best in the log where that is better."""
        self.best.restore(self.folder.best_validation(), self._ema_model_after)

    def metrics(self) -> dict[str, Any]:
        """Return the metrics of the last validation, of this call or in the log; empty where there is none."""
        return self._log_line(self.last) if self.last else self.folder.last_validation()

    def given_up(self, problem: str) -> TrainingError:
        """Make the error that ends a run: the problem, the settings that help, and what to resume from; all call."""
        self.write_best(last=True)
        best = f", which --start-from {self.best.folder} may begin where this one was best" if self.best.exists else ""
        place = f"{self.folder.path}: training image {self.state.seen}"
        error = TrainingError(f"{place}: {problem}; {suggestions(self.state.config)}{best}")
        error.reported = not self.processes.first
        return error

    def _ema_model_after(self, seen: int) -> Tokenizer | None:
        """Return the EMA model as it was after `seen` training images, None where no checkpoint has it."""
        weights = self.folder.ema_weights(seen)
        if weights is None:
            return None
        tokenizer = copy.deepcopy(self.state.ema.model)
        tokenizer.load_state_dict(weights)
        return tokenizer

    def _readable(self, held_out: ImageCollection) -> ImageCollection:
        """Return the held-out images that can be read; report what is wrong with the others now."""
        keys, problems = held_out.keys, dict[str, str]()  # by index, as JSON has it
        own = self.processes.block(len(held_out))
        for index in own:
            try:
                held_out.picture(index)
            except (ImageError, SourceError) as error:
                problems[str(index)] = str(error)
        unreadable = {int(index): text for part in self.processes.gather(problems) for index, text in part.items()}
        for index, text in unreadable.items():
            self.reporter.notice(f"{keys[index]}: left out of validation ({text})")
        return held_out.only([index for index in range(len(held_out)) if index not in unreadable])

    def _log_line(self, quality: Quality) -> dict[str, Any]:
        """Name the metrics of a validation for the log, and the number of images that are trained on too."""
        return _metrics(quality) | ({"val/also_trained_on": self._shared} if self._shared else {})


def measure_together(state: TrainState, images: ImageCollection, processes: Processes) -> Quality:
    """Measure the EMA model on a block of the images in each process, and return what all have found, on all.

    Raises LatentsError on all processes where one meets it.
    """
    size, problem = state.config.tokenizer.size, ""
    metrics = build_metrics({term.name: term.network for term in state.losses if term.network is not None})
    own = images.only(processes.block(len(images)))
    try:
        measurement, _ = measurement_of(state.ema.model, own, size=size, metrics=metrics)
    except LatentsError as error:
        problem = str(error)
    if found := next(filter(None, processes.gather(problem)), ""):
        raise LatentsError(found)
    if processes.several:
        measurement, *others = map(pickle.loads, processes.gather_bytes(pickle.dumps(measurement)))
        for other in others:
            measurement.merge(other)
    return measurement.quality(skipped=len(images) - measurement.images, size=size)


def _metrics(quality: Quality) -> dict[str, Any]:
    """Name the metrics of a validation; those with a network, which only some runs have, come last."""
    use = {"val/usage": quality.usage.usage, "val/perplexity": quality.usage.perplexity}
    values = {f"val/{name}": value for name, value in quality.values.items() if not METRICS[name].needs}
    return values | use | {f"val/{name}": value for name, value in quality.values.items()}
