"""The kernel in Jupyter: the provisioner that its programs find by an entry point, and the notebook that a
kernel is started for.
"""

from __future__ import annotations

from rlm_kernel.session.jupyter.provisioner import NotebookProvisioner as NotebookProvisioner
