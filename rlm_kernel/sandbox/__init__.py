"""Containers, the stream to them, the files that they see, and the kernel image."""
