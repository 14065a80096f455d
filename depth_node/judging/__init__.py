"""Models judged by recordings: errors, proxies, intervals, the gate and the report; no torch."""
