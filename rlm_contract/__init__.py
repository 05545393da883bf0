"""What host and container have in common. `rlm_kernel` and `rlm_runtime` both import it; it imports nothing but Python's own."""
