"""Errors that are the caller's to mend, and how the program ends with them."""


class Problem(Exception):
    """Something is not as expected; the text says what was expected, what was found, where, and what to do."""

    code = 1


class NothingToLearn(Problem):
    """The logs have no people or no robots: the default model stays."""

    code = 3


class LeakFound(Problem):
    """An input tells the label by itself."""

    code = 4
