"""Data sets, their features, and batches of them."""

SPLITS = ("train", "val", "test")
"""Names of the splits of every data set, in order."""
