"""`rlm serve`: an OpenAI-compatible endpoint, through which chat programs use an RLM."""
