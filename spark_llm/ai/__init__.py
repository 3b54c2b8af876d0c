"""AI functions with the names and results of Databricks: `ai_classify`, `ai_query` and the others.

Contains no wire formats, and no UDFs for users' own prompts.
Begin with `catalog`, and with `sql`, which registers the functions.
"""
