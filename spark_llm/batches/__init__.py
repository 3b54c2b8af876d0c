"""Requests that a provider answers later, in files: the Batch API of OpenAI and of servers like it.

No Spark. Begin with `settings`, then `client`.
"""
