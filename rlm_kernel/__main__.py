"""`python -m rlm_kernel` is `rlm`."""

from rlm_kernel.cli import main

if __name__ == "__main__":
    main()
