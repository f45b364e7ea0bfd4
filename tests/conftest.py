"""Settings for every test."""

import hypothesis
import jax

# The models here are tiny: compiling them takes most of the time, and this a fifth of it.
jax.config.update("jax_disable_most_optimizations", True)
# The first example of a property compiles, which takes longer than any deadline that would help.
hypothesis.settings.register_profile("vcmjax", deadline=None)
hypothesis.settings.load_profile("vcmjax")
