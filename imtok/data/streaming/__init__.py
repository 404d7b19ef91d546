"""Streams of shards: training from tars that are read in order, wherever they lie."""
