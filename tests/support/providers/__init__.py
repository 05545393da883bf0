"""Servers of the providers' APIs."""
