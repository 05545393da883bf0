"""`python -m rlm_runtime`: what a container runs."""

from __future__ import annotations

import gc

from rlm_runtime import bundle

if __name__ == "__main__":
    gc.disable()  # nothing of what is imported is garbage
    with bundle.installed(bundle.FIRST):
        from rlm_runtime import first
    gc.enable()
    first.main()
