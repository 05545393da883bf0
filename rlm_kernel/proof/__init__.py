"""What a finished trace proves: which passages of which files its calls and its answer stand on, and whether
the trace is as it was.
"""
