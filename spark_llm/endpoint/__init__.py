"""Endpoints as the user names them, and their resolved address, model and headers.

It sends no requests.
Begin with `endpoint`.
"""

from spark_llm.endpoint.endpoint import Endpoint as Endpoint
