"""Files and batches of OpenAI's Batch API: their state, their documents, and the work in the background.

Knows no HTTP: `http` has the routes, and answers the lines of a batch as it answers requests.
"""
