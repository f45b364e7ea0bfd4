"""JAX set strictly for every test: a silent change of type is an error."""

import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
