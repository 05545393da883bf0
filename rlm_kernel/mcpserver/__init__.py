"""`rlm mcp`: an MCP server, so that a model elsewhere can ask an RLM about what is too large for its window."""
