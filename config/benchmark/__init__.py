"""Measures the whole consumer against bare consume-and-decode of the same topic."""
