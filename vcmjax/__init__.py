"""Learned compression of visual features for machines, in JAX.

The module path is the API: ``from vcmjax.codecs import feature``. Nothing heavy is imported here.
"""

__version__ = "0.1.0"
