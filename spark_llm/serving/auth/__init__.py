"""Tokens of the local endpoints: issued by an OAuth token endpoint, and checked at each request.

No profiles and no environment variables: those belong to the client.
Begin with `tokens`.
"""
