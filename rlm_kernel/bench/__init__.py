"""Long-context tasks with known answers: made, asked by strategies, scored."""
