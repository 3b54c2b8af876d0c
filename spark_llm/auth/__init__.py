"""Authentication: credentials, tokens and logins.

No addresses, which are in `endpoint`.
Begin with `credentials`; `tokens` signs in on a worker.
"""

from spark_llm.auth.credentials import ClientCredentials as ClientCredentials
