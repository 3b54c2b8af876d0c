"""The HTTP server of the local endpoints: its routes, and the responses of each.

It computes no answers: those come from the models.
Begin with `app`.
"""
