"""What .ci/schemathesis asks of every answer that an API partner gets: nothing in it is another partner's.

The paths it makes up seldom name anything that exists, so half of them are put to what the sample story has: the
partners' prefixes and numbers, and small ids.
"""

import os
import re

import schemathesis

OWN = os.environ.get("BILLING_PARTNER", "")
PREFIX = re.compile(r"dp_pk_[A-Za-z0-9]+")
PREFIXES = ["dp_pk_harbor", "dp_pk_meridian"]


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Every other one, decided by what was made up so that a seed repeats it."""
    if not path_parameters:
        return path_parameters
    changed = dict(path_parameters)
    for name, made_up in path_parameters.items():
        choice = sum(str(made_up).encode())
        if choice % 2:
            continue
        if name == "prefix":
            changed[name] = PREFIXES[choice // 2 % len(PREFIXES)]
        elif name == "id":
            changed[name] = str(choice // 2 % 40 + 1)
    return changed


@schemathesis.check
def partners_see_their_own(ctx, response, case):
    """An answer to a partner that is no refusal names no other partner."""
    if not OWN or response.status_code >= 400:
        return
    text = response.content.decode("utf-8", "replace") + response.headers.get("location", [""])[0]
    others = {prefix for prefix in PREFIX.findall(text) if prefix != OWN}
    if others:
        raise AssertionError(f"{OWN} is shown what is of {', '.join(sorted(others))}")
    if case.path_parameters and str(case.path_parameters.get("prefix", OWN)) != OWN:
        raise AssertionError(f"{OWN} may read what is of {case.path_parameters['prefix']}")
