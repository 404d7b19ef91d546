"""When a run reports that its codebook is badly used, and a warning before a run that is too short for its codebook."""

from __future__ import annotations

from imtok.analysis.diagnostics import usage_findings
from imtok.analysis.statistics import Finding
from imtok.config import TrainConfig
from imtok.counted import counted
from imtok.usage import CodebookUsage

_FROM = 0.2  # share of the run before which few codes are in use anyway


class CodebookDiagnosis:
    """Findings about the use of the codebook, reported at the right time."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.reported = False

    def findings(self, usage: CodebookUsage, seen: int) -> tuple[Finding, ...]:
        """Return what to report after a validation: a collapse once in the run, and at the end all that is wasted."""
        last = seen >= self.config.images
        if not last and (seen < _FROM * self.config.images or self.reported):
            return ()
        found = usage_findings(usage, self.config.tokenizer.quantizer)
        severities = ("problem", "warning") if last else ("problem",)
        reported = tuple(each for each in found if each.grade in severities)
        self.reported = self.reported or bool(reported)
        return reported


def too_short_for_codebook(config: TrainConfig) -> str:
    """Return a warning where the run is over before its codebook can have learned; empty where it is long enough.

    A run that starts from a tokenizer begins with codes that have learned already.
    """
    quantizer = config.tokenizer.quantizer
    if config.start_from:
        return ""
    height, width = config.tokenizer.network.grid(config.data.crop, config.data.crop)
    tokens = height * width  # of an image, for each codebook
    shared = quantizer.codebook_ids.count(quantizer.codebook_ids[0])
    least = quantizer.base.latents_to_learn
    if config.images * tokens * shared >= least:
        return ""
    return (
        f"{counted(config.images, 'image has', 'images have')} {counted(config.images * tokens * shared, 'latent')} "
        f"for the {quantizer.num_codes} codes of a codebook, too few to learn it; train on "
        f"{counted(-(-least // (tokens * shared)), 'image')} or more (--images), or "
        f"with {quantizer.base.fewer_codes(quantizer.base_key)}"
    )


def usage_metrics(usage: CodebookUsage) -> dict[str, float]:
    """Return the statistics of `imtok stats` that counts alone give, by their names in the log."""
    use = usage.as_use().model_dump(exclude_none=True)
    metrics = {f"codebook/{name}": value for name, value in use.items()}
    if usage.by_codebook is not None:
        for number, each in enumerate(usage.codebooks, 1):
            metrics |= {f"codebook/{number}/usage": each.usage, f"codebook/{number}/perplexity": each.perplexity}
    return metrics
