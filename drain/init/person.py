"""A question asked at the terminal, again and again until the answer is one."""

import getpass
import textwrap

from drain import config as configuration
from drain.errors import ConfigError
from drain.init.questions import Empty, Question
from drain.settings import SETTINGS

WIDTH = 78


def ask(question: Question, default: str) -> str:
    """The answer, or "" if there is none; what a secret setting gets is not shown while it is typed.

    Raises:
        EOFError: the input ended.
        KeyboardInterrupt: Ctrl-C.
    """
    print("\n" + textwrap.fill(question.words, WIDTH, break_long_words=False, break_on_hyphens=False), flush=True)
    prompt = f"{question.name} [{default}]: " if default else f"{question.name}: "
    # Not echoed; at a terminal, and not from standard input where the two differ.
    read = getpass.getpass if SETTINGS[question.name].secret else input
    while True:
        try:
            answer = question.tidy(read(prompt)) or default
            if not answer and question.empty is Empty.AGAIN:
                print("This one is needed.")
            elif not answer.isprintable():
                print("That has letters in it which nobody sees, as arrow keys leave them.")
            else:
                judge(question.name, answer)
                return answer
        except ConfigError as error:
            print(error)
        except UnicodeDecodeError:
            print("That is not UTF-8.")


def judge(name: str, text: str) -> None:
    """Whether a text is a value of that setting.

    Raises:
        ConfigError: it is none, or cannot stand in a drain.env.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{name} is not right: it is not UTF-8.") from None
    if len(f"{text}.".splitlines()) > 1:
        raise ConfigError(f"{name} is not right: it has more than one line.")
    if text:
        configuration.parsed(name, text)
