"""Where requests go: an endpoint as the user names it, and its address, model and headers.

No requests.
Begin with `endpoint`.
"""

from spark_llm.endpoint.endpoint import Endpoint as Endpoint
