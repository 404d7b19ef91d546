"""Protocols of evaluation: how each family of published tokenizers brings pictures to squares, rounds and measures."""

from imtok.evaluation.protocols.contract import Form, Protocol
from imtok.evaluation.protocols.published import DEFAULT_PROTOCOL, PROTOCOLS, find_protocol

__all__ = ["DEFAULT_PROTOCOL", "PROTOCOLS", "Form", "Protocol", "find_protocol"]
