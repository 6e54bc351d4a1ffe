"""What the client is told when the relay does not take something."""


class Refusal(Exception):
    """One SMTP reply.

    ``code`` is RFC 5321's (4xx: try again, 5xx: do not), ``status`` the enhanced one
    of RFC 3463, ``words`` one line that says what is wrong and what helps.
    """

    def __init__(self, code: int, status: str, words: str) -> None:
        super().__init__(f"{code} {status} {words}")
        self.code = code
        self.status = status
        self.words = words
