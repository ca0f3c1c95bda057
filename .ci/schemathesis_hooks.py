"""What .ci/schemathesis asks of every answer that an API partner gets: nothing in it is another partner's.

Paths that are made up name nothing that exists, so for a partner they name what the sample story has of all partners.
"""

import os
import re

import schemathesis

OWN = os.environ.get("BILLING_PARTNER", "")
STATEFUL = os.environ.get("BILLING_STATEFUL", "")
OF_PARTNERS = {
    "prefix": ["dp_pk_harbor", "dp_pk_meridian"],
    "id": os.environ.get("BILLING_PARTNER_INVOICES", "").split(),
}
PREFIX = re.compile(r"dp_pk_[A-Za-z0-9]+")


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Which one, decided by what was made up, so that a seed repeats it."""
    if not OWN or not path_parameters:
        return path_parameters
    changed = dict(path_parameters)
    for name, made_up in path_parameters.items():
        if existing := OF_PARTNERS.get(name):
            changed[name] = existing[sum(str(made_up).encode()) % len(existing)]
    return changed


@schemathesis.hook
def map_query(context, query):
    """Mostly none while the stateful phase runs: filters that are made up find nothing that it could go on with."""
    if not STATEFUL or not query or sum(str(query).encode()) % 4 == 0:
        return query
    return {}


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
