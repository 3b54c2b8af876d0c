"""Limits that several processes share: the workers of a host, and the hosts of a job.

No request is sent here, and no answer passes: only numbers do.
Begin with `group`, the workers of a host, or `allotment`, the share of a host in the limits of a job.
"""
