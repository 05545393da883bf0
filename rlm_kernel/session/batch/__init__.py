"""Many questions: batches, where they are answered, and what came of each."""
