"""Learned compression of visual features for machines, in JAX.

The module path is the API: ``from vcmjax.codecs import feature``. Nothing heavy is imported here.
"""

__version__ = "0.1.0"


def load(directory):
    """The trained codec saved in `directory`; see `vcmjax.codecs.frozen`."""
    from vcmjax.codecs import frozen  # JAX is imported here, not by `import vcmjax`

    return frozen.load(directory)
