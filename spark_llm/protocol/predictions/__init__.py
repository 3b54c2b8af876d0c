"""Predictions of custom models and feature serving: the request, and its answer as values of a column.

Knows no column and no socket. Begin with `task`.
"""
