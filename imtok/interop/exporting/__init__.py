"""Tokenizers out: encoder and decoder as files that other programs run, each format read back before it is given."""
