"""What code in the kernel sees: the only project code inside the container.

`python -m rlm_runtime -f CONNECTION_FILE` runs an IPython kernel with this package loaded as an extension.
The extension puts the names of `api.NAMES` into the user's namespace. Everything here runs beside hostile
code and is trusted with nothing: limits hold because the host and the container enforce them; the caps and
checks here only make messages clear.
"""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` comes from the bundle, which is not there yet
if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Called by IPython when the kernel starts, after its sockets are bound and before its first cell."""
    from rlm_runtime import api, display
    from rlm_runtime.cells import Cells

    cells = Cells(shell)
    display.install(shell, cells)
    api.install(shell, cells)
