"""The study's errors: each message is one line that names what is wrong, where, and what to do about it."""


class StudyError(Exception):
    """An error that its reader can mend; notebooks show it as one line instead of a traceback."""

    def _render_traceback_(self) -> list[str]:
        """What IPython prints for this error (its documented hook for an exception's own rendering)."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(StudyError):
    """A profile, a key or a value that the study does not know."""


class DataError(StudyError):
    """A data file that is missing, damaged or inconsistent."""


class DataUnavailable(DataError):
    """Data that this machine neither has nor can fetch; what needs them is *not attempted*, the rest still runs."""


class StoreError(StudyError):
    """A result that could not be written or read back."""
