"""The decoding job: a token folder to images."""

from imtok.decoding.job import DecodeProgress, DecodeReport, decode

__all__ = ["DecodeProgress", "DecodeReport", "decode"]
