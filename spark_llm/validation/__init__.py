"""Checks of arguments: each returns the value, or raises `ConfigError` with its name, its range and a hint.

No checks of tables, endpoints or types of Spark: those belong to their packages.
Begin with `numbers`; `arguments` is about their names.
"""
