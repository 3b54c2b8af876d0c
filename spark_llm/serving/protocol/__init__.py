"""The wire format of the local endpoints: request bodies, response bodies, errors, server-sent events.

It shares no code with the client's own reading of that format, and knows no HTTP library and no model.
Begin with `requests`.
"""
