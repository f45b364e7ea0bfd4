"""Errors a caller can act on. All derive from `VcmError`, itself a `ValueError`."""


class VcmError(ValueError):
    """Base of every error that vcmjax raises about its input."""


class DataError(VcmError):
    """A data set, file or label is missing, damaged or not of the stated form."""


class UsageError(VcmError):
    """A command-line option or configuration value that cannot be honoured."""


class CorruptStream(VcmError):
    """Coded bytes that no encoder of this format can have written."""
