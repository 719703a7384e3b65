"""The one exception that stands for a mistake its reader can mend."""

__all__ = ["UserError"]


class UserError(Exception):
    """Bad input, a missing file, a full disk: something the user can put right.

    The message is one line that names the thing and the fix. The command line prints it after ``error:`` and exits
    with status 2, without a traceback (``--debug`` shows it).
    """
