"""Authentication: credentials on the driver, tokens on the workers.

Addresses are in `endpoint`.
Begin with `credentials`; `tokens` requests and renews tokens on a worker.
"""

from spark_llm.auth.credentials import ClientCredentials as ClientCredentials
