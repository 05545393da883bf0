"""What a finished trace is shown as: documents, lists and comparisons, made of what `trace.reader` reads."""
