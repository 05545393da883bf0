"""Functions of the host that code in the kernel may call: the user's own, and those of MCP servers."""
