"""`python -m rlm_kernel` is `rlm`."""

import os
import sys

if __name__ == "__main__":
    # Python looks for modules in the current folder first, which may have a json.py or docker.py of
    # somebody's.
    if not sys.flags.safe_path and os.path.dirname(os.path.dirname(os.path.abspath(__file__))) != sys.path[0]:
        del sys.path[0]
    from rlm_kernel.cli import main

    main()
