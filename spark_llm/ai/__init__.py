"""AI functions with the names and results of Databricks: `ai_classify`, `ai_query` and the others.

No wire formats, and no UDFs of one's own prompts.
Begin with `catalog`, and `sql`, which registers them.
"""
