import subprocess
import sys

MEASURE = """
import tracemalloc
from drain.filters.decision import request_body
from drain.filters.inbound import Inbound
from drain.mail import Mail
raw = b"Subject: x\\r\\n\\r\\n" + "😀".encode() + b"a line of seventy-six letters\\r\\n" * 845_626
inbound = Inbound(Mail(raw, "a", "b"))
request_body(Inbound(Mail(b"", "a", "b")), "full")
inbound.header, inbound.mail.identity
tracemalloc.start()
body = request_body(inbound, "full")
print(len(raw), len(body), tracemalloc.get_traced_memory()[1])
"""


def test_a_mail_of_25_mib_costs_little_more_memory_than_the_request_is_long() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, timeout=60)
    raw, body, peak = map(int, done.stdout.split())
    assert raw > 25 * 1024 * 1024
    assert peak < body + 12 * 1024 * 1024, f"{body} bytes of request took {peak} bytes"
