"""When a run reports that its codebook is badly used: once dead-code restarts had their time, and at the end."""

from __future__ import annotations

import math

from imtok.analysis.diagnostics import usage_findings
from imtok.analysis.statistics import Finding
from imtok.config import TrainConfig
from imtok.quantizers.record import enough_for_restart
from imtok.usage import CodebookUsage

_FROM = 0.2  # share of the run before which few codes are in use anyway


class CodebookDiagnosis:
    """Findings about the use of the codebook, reported at the right time."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.reported = False

    def findings(self, usage: CodebookUsage, seen: int, steps: int) -> tuple[Finding, ...]:
        """Return what to report after a validation: a collapse once in the run, and at the end all that is wasted."""
        young = steps < enough_for_restart(steps_before_restart(self.config))
        last = seen >= self.config.images
        if not last and (young or seen < _FROM * self.config.images or self.reported):
            return ()
        instead = self._longer_run(steps) if young else ""
        found = usage_findings(usage, self.config.tokenizer.quantizer, instead=instead)
        severities = ("problem", "warning") if last else ("problem",)
        reported = tuple(each for each in found if each.grade in severities)
        self.reported = self.reported or bool(reported)
        return reported

    def _longer_run(self, steps: int) -> str:
        """Suggest a longer run where this one was over before dead-code restarts could show what they do."""
        first = steps_before_restart(self.config)
        least = enough_for_restart(first) * self.config.batch_size
        return (
            f"dead codes restart from step {first} on and this run had {steps} steps; train longer, in a new run with "
            f"--images {least} or more"
        )


def steps_before_restart(config: TrainConfig) -> int:
    """Compute the step at which the first dead code can restart.

    It is 0 where none restarts, or where the run goes on from a tokenizer's counts.
    """
    quantizer = config.tokenizer.quantizer
    if config.start_from:
        return 0
    latents = config.batch_size // config.accumulate * (config.data.crop // config.tokenizer.network.downsample) ** 2
    updates_a_step = config.accumulate * quantizer.codebook_ids.count(quantizer.codebook_ids[0])
    updates = quantizer.base.updates_before_restart(latents / quantizer.num_codes)
    return math.ceil(updates / updates_a_step)
