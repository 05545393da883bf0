"""`rlm mcp`: an MCP server. A model elsewhere asks an RLM about what is too large for its window."""
