"""The server: its routes, and what each answers.

No models.
Begin with `app`.
"""
