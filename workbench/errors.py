"""The one error type that users see: what happened, and how to mend it."""


class WorkbenchError(Exception):
    """An error with its remedy.

    >>> str(WorkbenchError("The lake is empty.", fix="Run `workbench demo`."))
    'The lake is empty. Run `workbench demo`.'
    """

    def __init__(self, what: str, *, fix: str = ""):
        super().__init__(f"{what} {fix}".strip())
        self.what, self.fix = what, fix

    def _render_traceback_(self) -> list[str]:
        """What JupyterLab shows: the sentence alone."""
        return [f"WorkbenchError: {self}"]
