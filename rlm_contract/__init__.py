"""What host and container have in common. `rlm_kernel` and `rlm_runtime` both import it; it imports nothing but Python's own."""

EXIT_OOM = 97
"""The container's status when its kernel was killed for memory."""
EXIT_LEASE = 98
"""The same when its owner has ended, or when the first process fails."""
