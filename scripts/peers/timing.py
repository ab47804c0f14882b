"""How long a call takes, for the scripts of peers, which run in environments of their own."""

import time


def seconds(call, spend_s, least=5):
    """The lower quartile of several calls, at least so many, after one or two that warm up."""
    for _ in range(2 if least > 3 else 1):
        call()
    spent = []
    while sum(spent) < spend_s or len(spent) < least:
        began = time.perf_counter()
        call()
        spent.append(time.perf_counter() - began)
    return sorted(spent)[len(spent) // 4]
