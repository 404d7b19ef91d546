"""Suggestions for a new run as sentences; the quantizer's record has the settings, and the general ones without it."""

from __future__ import annotations

from imtok.quantizers.record import Problem, QuantizerRecord

_SEVERAL = 3  # suggestions named at once: the others are for when these have been tried
_UNKNOWN = QuantizerRecord()


def against(problem: Problem, config: QuantizerRecord | None) -> str:
    """Return an instruction; it asks for a new run because no setting mends a codebook afterwards."""
    config = config or _UNKNOWN
    suggestions = config.base.suggestions(problem, config.base_key)
    return f"start a new run with {'; or with '.join(suggestions[:_SEVERAL])}"


def against_unused_stage(config: QuantizerRecord | None) -> str:
    """Return the same for unused codes of one of several codebooks, which may be one too many."""
    fewer = f"; or with {config.fewer_parts}" if config and config.fewer_parts else ""
    return against("unused codes", config) + fewer


def fewer_codes(config: QuantizerRecord | None) -> str:
    """Return the suggestion of a smaller codebook."""
    config = config or _UNKNOWN
    return config.base.fewer_codes(config.base_key)


def fewer_channels(config: QuantizerRecord | None, channels: int) -> str:
    """Return the suggestion of codes of `channels` channels."""
    config = config or _UNKNOWN
    return config.base.fewer_channels(config.base_key, channels)
