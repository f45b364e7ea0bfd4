"""Integers to bytes and back: probability tables, range coder, container. Imports no JAX."""
