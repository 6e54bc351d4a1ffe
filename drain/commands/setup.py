"""``drain setup``: the mail server on this machine, set up for drain and proven."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping

from drain.commands.ask import ask
from drain.setup import changes, plan as planning, prove
from drain.setup.apply import apply, finished, left
from drain.setup.plan import Plan
from drain.setup.wanted import Wanted
from drain.text import clean

# Configuration that a server's own user reads; what is secret has a mode of its own.
_UMASK = 0o022


def postfix(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Postfix in /etc/postfix, or where MAIL_CONFIG says."""
    from drain.setup.postfix import wanted  # noqa: PLC0415 (of no use to who has Maddy)

    return _set_up("Postfix", arguments, environ, lambda plan: wanted(plan, environ))


def maddy(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Maddy, here or in a distribution of Termux' proot-distro."""
    from drain.setup.maddy import wanted  # noqa: PLC0415 (of no use to who has Postfix)

    return _set_up(
        "Maddy", arguments, environ, lambda plan: wanted(plan, environ, arguments.proot, ask=not arguments.yes)
    )


def _set_up(
    name: str, arguments: argparse.Namespace, environ: Mapping[str, str], make: Callable[[Plan], Wanted]
) -> int:
    plan = planning.make(environ, arguments.mailbox, arguments.outbound)
    wanted = make(plan)
    work = left(plan, wanted)
    if work:
        work.show(plan, sys.stdout)
        for sentence in wanted.opening:
            print(clean(sentence, 1000))
    else:
        print(f"{name} is set up as it should be.")
    if arguments.dry_run:
        return os.EX_OK
    if changes.overwritten(work.files):
        words = f"{name}'s configuration was left as it is"
        question = f"Change it like this? What is there is kept as *{changes.BEFORE} (.2, .3 where that is taken)."
        if (refused := ask(arguments, question, words)) is not None:
            return refused
    sys.stdout.flush()
    os.umask(_UMASK)
    if said := apply(plan, wanted, work) if work else wanted.start(False):
        print(clean(said), flush=True)
    finished(plan)
    # From now on as drain itself will find it.
    found = {**environ, "DRAIN_ENV_FILE": str(plan.env_file)}
    prove.prove(found, plan.port, sys.stdout, mailboxes=plan.mailboxes, listeners=wanted.listeners)
    for sentence in wanted.closing:
        print(clean(sentence, 1000))
    return os.EX_OK
