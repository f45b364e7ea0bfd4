"""Errors a caller can act on. All derive from `VcmError`, itself a `ValueError`."""


class VcmError(ValueError):
    """Base of every error that vcmjax raises about its input."""


class DataError(VcmError):
    """A data set, file or label is missing, damaged or not of the stated form."""


class UsageError(VcmError):
    """A command-line option or configuration value that cannot be honoured."""


class CorruptStream(VcmError):
    """Coded bytes that no encoder of this format can have written."""


class TruncatedStream(VcmError):
    """Coded bytes that end before what they announce."""


class WrongModel(VcmError):
    """Coded bytes that belong to another model than the one at hand."""


class UnsupportedVersion(VcmError):
    """Coded bytes of a format version that this release cannot read."""
